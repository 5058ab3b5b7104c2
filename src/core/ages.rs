//! How old channels are, and when they were last active, without a reading of the clock for each.

use std::time::Duration;

use crate::token::Token;

/// Of ages.
pub(crate) const UNIT: Duration = Duration::from_millis(10);

#[derive(Default)]
pub(crate) struct Ages {
    /// When the channel of each slot began, in units since the map was made.
    pub(crate) births: Vec<u32>,
    /// The turn in which one last began, and when that was.
    pub(crate) born_in: u32,
    pub(crate) born: u32,
    /// The first turn from which on the time of each turn has been kept, and the last one.
    timed_from: u32,
    timed_to: u32,
}

impl Ages {
    #[inline]
    pub(crate) fn begins(&mut self, token: Token, now: u32) {
        let slot = token.slot as usize;
        match self.births.get_mut(slot) {
            Some(birth) => *birth = now,
            None => self.births.resize(slot + 1, now),
        }
    }

    /// The time of this turn is known.
    #[inline(always)]
    pub(crate) fn timed(&mut self, turn: u32) {
        self.timed_to = turn;
    }

    /// The first timer is set: from now on the time of each turn is kept.
    pub(crate) fn first_timer(&mut self, turn: u32) {
        if self.timed_to != turn {
            self.timed_from = turn.wrapping_add(1);
        }
    }

    pub(crate) fn knows(&self, turn: u32) -> bool {
        turn.wrapping_sub(self.timed_from) as i32 >= 0
    }
}
