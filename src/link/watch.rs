//! What the poller watches for a channel, and when that is less than the channel wants.

use std::os::fd::{AsRawFd, RawFd};

use crate::clock::Turn;
use crate::link::held::Held;
use crate::link::rare::Rest;
use crate::link::source::Source;
use crate::link::state::{Connecting, Life, Link};
use crate::sys::poll::Interest;

impl Link {
    pub(crate) fn rest(&self) -> Rest {
        self.rare.as_ref().map_or(Rest::No, |rare| rare.rest)
    }

    pub(crate) fn set_rest(&mut self, rest: Rest) {
        if rest != self.rest() {
            self.rare().rest = rest;
        }
    }

    /// Whether `handle_read` may be called, apart from what `readable` says.
    #[inline]
    fn may_read(&self) -> bool {
        self.is_open() && !self.is_at_end() && !self.is_paused() && !self.is_upgrading()
    }

    /// Whether `handle_read` may be called, now or when there is bandwidth for it.
    #[inline]
    pub(crate) fn wants_input(&self) -> bool {
        self.may_read() && self.input.wanted
    }

    /// Whether `handle_read` may be called.
    #[inline]
    pub(crate) fn reads(&self) -> bool {
        self.wants_input() && !self.waits_for_its_turn_to_read()
    }

    pub(crate) fn accepts(&self) -> bool {
        self.is_listening() && self.input.wanted && !self.input.paused
    }

    /// Whether `handle_write` may be called.
    pub(crate) fn writes(&self) -> bool {
        self.is_open()
            && self.output.wanted
            && !matches!(self.rest(), Rest::Output(_) | Rest::All(_))
            && self.output.is_empty()
            && self.output.is_open()
            && self.is_established()
            && !self.output_is_held_back()
    }

    /// What the poller should watch; `None` for nothing, not even hang-ups.
    pub(crate) fn interest(&self) -> Option<Interest> {
        let flushing = self.output.blocked && !self.output.is_empty() && !self.output_is_held_back();
        match self.rest() {
            Rest::No | Rest::Output(_) => {}
            Rest::HungUp | Rest::Input(_) => {
                return flushing.then_some(Interest { read: false, write: true });
            }
            Rest::All(_) => return None,
        }
        let wanted = match &self.life {
            Life::Open => Interest { read: self.reads(), write: flushing || self.writes() },
            Life::Listening => return Some(Interest { read: self.accepts(), write: false }),
            Life::Connecting(Connecting::InProgress) => return Some(Interest { read: false, write: true }),
            Life::Connecting(_) => return None,
            Life::Opening => Interest::NONE,
            Life::Ending(_) if self.is_flushing() => Interest { read: false, write: flushing },
            Life::Ending(_) if self.is_lingering() => Interest { read: true, write: false },
            Life::Ending(_) => return None,
        };
        match &self.socket {
            Some(Held::Own(source)) => Some(source.interest(wanted)),
            _ => Some(wanted),
        }
    }

    /// The same for an open stream over a plain socket, with nothing queued, due, to be asked or rare about
    /// it: the common case of the settle.
    #[inline]
    pub(crate) fn interest_if_usual(&self) -> Option<Interest> {
        let usual = self.is_open()
            && self.is_plain_and_idle_stream()
            && self.rare.is_none()
            && self.due.is_at_most_a_look();
        if !usual {
            return None;
        }
        let wanted = Interest { read: self.reads(), write: self.output.wanted };
        debug_assert_eq!(self.interest(), Some(wanted));
        Some(wanted)
    }

    /// What the poller was last told.
    #[inline]
    pub(crate) fn registered(&self) -> Option<Interest> {
        self.watch.told
    }

    #[inline]
    pub(crate) fn set_registered(&mut self, told: Option<Interest>) {
        self.watch.told = told;
        if let Some(Held::Own(own)) = &mut self.socket {
            own.watched = told.and_then(|_| Some(own.descriptor()?.as_raw_fd()));
        }
    }

    /// Its source is said to be ready.
    pub(crate) fn announced(&mut self) {
        if let Some(Held::Own(own)) = &mut self.socket {
            own.announced = true;
        }
    }

    /// Whether its source may show another descriptor than the one that is registered.
    pub(crate) fn may_have_exchanged(&mut self) -> bool {
        let announced = match &mut self.socket {
            Some(Held::Own(own)) => std::mem::take(&mut own.announced),
            _ => false,
        };
        announced || self.exchanged().is_some()
    }

    /// The number under which a source is registered that now shows another descriptor, or none.
    pub(crate) fn exchanged(&self) -> Option<RawFd> {
        match &self.socket {
            Some(Held::Own(own)) => {
                own.watched.filter(|watched| own.descriptor().map(|fd| fd.as_raw_fd()) != Some(*watched))
            }
            _ => None,
        }
    }

    /// Progress: a byte was received or sent, or a connection accepted.
    pub(crate) fn moved(&mut self, turn: Turn) {
        self.watch.progress = true;
        self.active = Some(turn.time);
    }

    /// Progress: this many bytes were received.
    pub(crate) fn has_received(&mut self, turn: Turn, bytes: usize) {
        self.received += bytes as u64;
        self.moved(turn);
    }

    pub(crate) fn has_moved(&self) -> bool {
        self.watch.progress
    }

    /// An event is about to be served.
    pub(crate) fn begin_event(&mut self) {
        // There was progress since the last event, for example in the settle.
        if std::mem::replace(&mut self.watch.progress, false) {
            self.watch.idle_turns = 0;
        }
    }

    /// Whether a hook on the short way has read something, as the budgets of this turn show, and caused
    /// nothing else.
    #[inline(always)]
    pub(crate) fn has_read_quickly(&self, turn: u32) -> bool {
        self.due.is_quiet_and_asks_nothing() && self.turn == turn
    }

    /// The same, but `readable` and `writable` must be asked.
    pub(crate) fn has_read_and_asks(&self, turn: u32) -> bool {
        self.is_quiet() && self.turn == turn
    }

    #[inline(always)]
    pub(crate) fn forget_idle_turns(&mut self) {
        self.watch.idle_turns = 0;
        self.watch.rests = 0;
    }

    /// A hook on the short way has caused more than that, or read nothing.
    pub(crate) fn end_quick_read(&mut self, turn: Turn) {
        // If the budgets are of this turn, something was read or sent.
        match self.turn == turn.number {
            true => self.moved(turn),
            false => self.begin_event(),
        }
    }

    /// The user changed the channel, for example its dispatcher: it is resumed if it was suspended.
    pub(crate) fn was_changed(&mut self) {
        self.watch.progress = true;
        self.watch.rests = 0;
    }

    /// There was progress in the event.
    pub(crate) fn was_busy(&mut self) {
        self.watch.idle_turns = 0;
        if !self.is_listening() {
            self.watch.rests = 0;
        }
    }

    /// There was none; `true` after `most` such turns in a row.
    pub(crate) fn was_idle(&mut self, most: u8) -> bool {
        self.watch.idle_turns += 1;
        if self.watch.idle_turns < most {
            return false;
        }
        // After the rest, one more turn without progress is enough.
        self.watch.idle_turns = most - 1;
        true
    }

    /// One turn without progress is enough to suspend it again: a `writable` that is always true is so again
    /// after each message.
    pub(crate) fn tries_once(&mut self, most: u8) {
        self.watch.progress = false;
        self.watch.idle_turns = most - 1;
    }

    /// Count one more rest; returns how many there were in a row before it.
    pub(crate) fn count_rest(&mut self) -> u8 {
        let before = self.watch.rests;
        self.watch.rests = before.saturating_add(1);
        before
    }

    /// How many there were in a row.
    pub(crate) fn rests(&self) -> u8 {
        self.watch.rests
    }

    /// Whether the channel is suspended for the first time, to log that once.
    pub(crate) fn is_first_rest(&mut self) -> bool {
        !std::mem::replace(&mut self.rare().has_rested, true)
    }

    pub(crate) fn forget_rests(&mut self) {
        self.watch.rests = 0;
    }
}
