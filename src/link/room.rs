//! Before the hard limit is declared reached, the socket is offered what is queued, so that a peer that
//! takes what it is sent never meets the limit.

use crate::clock::Turn;
use crate::link::due::Step;
use crate::link::sending::Flushed;
use crate::link::state::{Link, WRITE_BUDGET};

/// How often in a turn a socket that takes nothing is offered the queue.
const REFUSALS: u8 = 64;

/// How many times the budget of a turn a queue may send that is crowded with producers.
pub(super) const CROWDED: u32 = 16;

impl Link {
    /// Whether `bytes` more stay within the hard limit, now or after the socket was offered the queue.
    #[inline]
    pub(crate) fn has_room(&mut self, turn: Turn, bytes: usize) -> bool {
        self.takes(bytes) || self.makes_room(turn, bytes)
    }

    /// Offers more than the budget of the turn if need be: no more leaves than was pushed in it.
    #[cold]
    #[inline(never)]
    fn makes_room(&mut self, turn: Turn, bytes: usize) -> bool {
        let left = *self.write_budget(turn);
        while !self.takes(bytes) && self.takes_output() && self.may_be_offered(turn) {
            self.unblock();
            self.write_left = WRITE_BUDGET;
            match self.flush_as_far_as(turn, false) {
                Flushed::Budget => continue,
                Flushed::Blocked => self.rare().refusals += 1,
                // `handle_close` reports that; a push to a peer that is gone is no error.
                Flushed::Lost(error) => self.write_lost(error),
                _ => {}
            }
            break;
        }
        self.write_left = left.min(self.write_left);
        // What comes after what was sent: an upgrade, FIN, the end.
        self.due.set(Step::Flush);
        self.takes(bytes) || self.is_broken()
    }

    /// Producers alone have used up half of the hard limit. A push does not ask them, so that no code of the
    /// user runs inside it: the flush does, beyond the budget of the turn.
    pub(super) fn is_crowded(&self) -> bool {
        let producers = self.output.queue.as_ref().map_or(0, |queue| queue.weight_of_producers());
        producers > self.limits().hard / 2
    }

    fn may_be_offered(&mut self, turn: Turn) -> bool {
        let rare = self.rare();
        if rare.refused_in != turn.number {
            rare.refused_in = turn.number;
            rare.refusals = 0;
        }
        rare.refusals < REFUSALS && !self.queue_is_empty() && !self.output_is_held_back()
    }
}
