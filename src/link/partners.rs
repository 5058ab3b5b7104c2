//! The partners of a channel: two channels pause each other's reading, each while its own queue is high.

use crate::token::Token;

#[derive(Default)]
pub(crate) struct Partners {
    all: Vec<Token>,
    /// Its own queue is high, and they have been told to pause.
    pauses_them: bool,
    /// How many of them have told it to pause.
    pausing_it: u32,
}

impl Partners {
    pub(crate) fn has(&self, other: Token) -> bool {
        self.all.contains(&other)
    }

    pub(crate) fn all(&self) -> &[Token] {
        &self.all
    }

    pub(crate) fn add(&mut self, other: Token) {
        self.all.push(other);
    }

    pub(crate) fn remove(&mut self, other: Token) {
        self.all.retain(|partner| *partner != other);
    }

    /// Now that its own queue is `high` or not: whether they are to be told so.
    pub(super) fn news(&self, high: bool) -> Option<bool> {
        (!self.all.is_empty() && self.pauses_them != high).then_some(high)
    }

    /// Whom to tell to pause, or that they may read again; nobody if they have been told.
    pub(crate) fn tell(&mut self, pause: bool) -> Vec<Token> {
        match std::mem::replace(&mut self.pauses_them, pause) == pause {
            true => Vec::new(),
            false => self.all.clone(),
        }
    }

    /// A partner has told it to pause, or that it may read again.
    pub(crate) fn told(&mut self, pause: bool) {
        self.pausing_it = match pause {
            true => self.pausing_it + 1,
            false => self.pausing_it.saturating_sub(1),
        };
    }

    pub(super) fn pause_it(&self) -> bool {
        self.pausing_it > 0
    }

    /// The channel ends: whom that concerns.
    pub(crate) fn take(&mut self) -> Vec<Token> {
        std::mem::take(&mut self.all)
    }
}
