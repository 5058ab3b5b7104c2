//! The channels that linger after a close, the oldest first, so that their number has a limit.

use std::collections::VecDeque;

use crate::token::Token;

/// Each has a descriptor, of which a process usually has 1,024.
const LIMIT: usize = 512;
/// Tokens of channels that have ended may stay in the list, up to this number and that of the others.
const STALE: usize = 64;

pub(crate) struct Lingering {
    order: VecDeque<Token>,
    /// How many of them have not ended.
    count: usize,
    pub(crate) limit: usize,
}

impl Default for Lingering {
    fn default() -> Lingering {
        Lingering { order: VecDeque::new(), count: 0, limit: LIMIT }
    }
}

impl Lingering {
    pub(crate) fn begin(&mut self, token: Token) {
        self.order.push_back(token);
        self.count += 1;
    }

    pub(crate) fn ended(&mut self) {
        self.count -= 1;
        if self.count == 0 {
            self.order = VecDeque::new();
        }
    }

    /// Forget those that have ended, now and then, so that each costs O(1) in the end.
    pub(crate) fn tidy(&mut self, lives: impl Fn(Token) -> bool) {
        if self.order.len() > 2 * self.count + STALE {
            self.order.retain(|token| lives(*token));
        }
    }

    /// If there are too many, take out the oldest, which may have ended.
    pub(crate) fn too_many(&mut self) -> Option<Token> {
        (self.count > self.limit).then(|| self.order.pop_front()).flatten()
    }
}
