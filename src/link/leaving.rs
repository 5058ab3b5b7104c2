//! Whether bytes still leave the system's own buffer for the peer. A peer that reads slowly but steadily
//! may cause no event for minutes: there is room only when a good part of the buffer is free.

use std::time::Duration;

use crate::clock::Time;
use crate::link::held::Held;
use crate::link::rare::{LINGER, Leaving};
use crate::link::source::Source;
use crate::link::state::Link;
use crate::net::address::Address;
use crate::net::peer::Peer;
use crate::sys;

/// How long a channel lingers without any input.
pub(crate) const QUIET: Duration = Duration::from_secs(2);

/// How often at most is looked whether the peer's system has everything.
const GLANCE: Duration = Duration::from_millis(10);

impl Link {
    /// Bytes that were sent, and that the system holds. 0 if it does not tell.
    pub(crate) fn held(&self) -> usize {
        match (self.fd(), self.source()) {
            (Some(fd), _) => sys::unsent::unsent(fd).unwrap_or(0),
            (None, Some(Held::Own(source))) => source.unacknowledged(),
            (None, _) => 0,
        }
    }

    /// Bytes that were pushed and have not left: queued, or held by the system. At least 1 while more is to
    /// come out of the source or a producer.
    pub(crate) fn unsent(&self) -> usize {
        let known = self.queued() + self.held();
        if self.has_unsent() { known.max(1) } else { known }
    }

    /// Ask again.
    pub(crate) fn ask_what_is_held(&mut self, now: Time) -> Leaving {
        let held = self.held();
        // While lingering nothing is sent, and input is no sign that something has left.
        let active = self.active().filter(|_| !self.is_lingering());
        let before = self.rare_if_any().and_then(|rare| rare.leaving);
        // Bytes were sent since: how many have left, nobody knows.
        let before = before.filter(|before| active.is_none_or(|active| before.asked >= active));
        let left = before.map_or(held > 0, |before| held < before.held);
        let last = if left { Some(now) } else { before.map(|before| before.last).max(active) };
        let leaving = Leaving { held, asked: now, last: last.unwrap_or(now) };
        self.rare().leaving = Some(leaving);
        leaving
    }

    // Lingering.

    pub(crate) fn linger_timeout(&self) -> Duration {
        self.rare_if_any().map_or(LINGER, |rare| rare.linger)
    }

    /// Whether input that nobody reads would make the system drop what it still holds for the peer. It does
    /// over TCP; what was sent on a Unix-domain socket is with the peer already.
    pub(crate) fn can_be_reset_by_input(&self) -> bool {
        match self.peer {
            Peer::V4(..) | Peer::V6(..) => true,
            Peer::Elsewhere => matches!(self.peer(), Some(Address::Ip(_))),
            Peer::Unknown | Peer::Unnamed => false,
        }
    }

    /// When to look at a lingering channel again; `None` if its time is over.
    pub(crate) fn lingers_until(&mut self, now: Time) -> Option<Time> {
        let longest = self.linger_timeout();
        let leaving = self.ask_what_is_held(now);
        if leaving.held > 0 && self.can_be_reset_by_input() {
            // The peer's own time begins when its system has everything.
            self.stamp(now);
            self.rare().lingering = Some(now);
            let limit = leaving.last.after(self.rare().close_timeout);
            return (limit > now).then(|| limit.min(now.after(longest.clamp(GLANCE, QUIET))));
        }
        let begun = self.rare().lingering.unwrap_or(now);
        let silent = self.active().unwrap_or(begun);
        let end = begun.after(longest).min(silent.after(QUIET));
        (end > now).then_some(end)
    }

    /// It gives way to another.
    pub(crate) fn stop_lingering(&mut self) {
        self.end_of_ending();
        self.rare().lingering = None;
    }

    /// Whether the channel counts among those that linger.
    pub(crate) fn counts_as_lingering(&self) -> bool {
        self.rare_if_any().is_some_and(|rare| rare.lingering.is_some())
    }
}
