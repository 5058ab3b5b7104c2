//! Whether bytes still leave the system's own buffer for the peer. A peer that reads slowly but steadily
//! may cause no event for minutes: there is room only when a good part of the buffer is free.

use crate::clock::Time;
use crate::link::rare::Leaving;
use crate::link::state::Link;
use crate::sys;

impl Link {
    /// Bytes that were sent, and that the system holds. 0 if it does not tell.
    pub(crate) fn held(&self) -> usize {
        self.fd().and_then(|fd| sys::unsent::unsent(fd).ok()).unwrap_or(0)
    }

    /// Bytes that were pushed and have not left: queued, or held by the system. At least 1 while more is to
    /// come out of the source or a producer.
    #[allow(dead_code)]
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
}
