//! What a chat knows of its input: where it is cut, and the message that is not whole yet.

use super::super::terminator::Splitter;
use super::Terminator;

/// What a message may have, in bytes.
const LIMIT: usize = 64 * 1024;

/// Between two messages, a buffer of at most this many bytes is kept for the next one.
const KEPT: usize = 1024;

/// What the dispatcher knows of the input.
pub(super) struct Incoming {
    pub(super) splitter: Splitter,
    /// Was held back by a splitter that was replaced, and is searched anew.
    pub(super) held: Vec<u8>,
    pub(super) collected: Vec<u8>,
    /// Of the message that is not whole yet.
    pub(super) len: usize,
    pub(super) limit: usize,
    /// It is over the limit; the rest of it is dropped.
    pub(super) skipping: bool,
    /// What follows in the input that is being handed on is no longer ours: it went back to the
    /// channel, or was dropped.
    pub(super) rest_is_gone: bool,
    pub(super) change: Change,
}

/// What the hook that is given a part of a message has done to that message.
#[derive(PartialEq)]
pub(super) enum Change {
    None,
    /// Some of it was put back, and is to come again.
    Reopened,
    /// All of it was dropped.
    Dropped,
}

impl Incoming {
    pub(super) fn new(splitter: Splitter) -> Incoming {
        Incoming {
            splitter,
            held: Vec::new(),
            collected: Vec::new(),
            len: 0,
            limit: LIMIT,
            skipping: false,
            rest_is_gone: false,
            change: Change::None,
        }
    }

    /// Give up the match that the splitter is in the midst of.
    pub(super) fn hold_back(&mut self) {
        self.held.extend_from_slice(self.splitter.held());
        self.splitter.let_go();
    }

    /// A new message.
    pub(super) fn begin(&mut self) {
        self.collected.clear();
        if self.collected.capacity() > KEPT {
            self.collected = Vec::new();
        }
        self.len = 0;
        self.skipping = false;
    }

    /// How many of the next `bytes` the message may still have.
    pub(super) fn room(&self, bytes: usize) -> usize {
        match self.splitter.terminator() {
            Terminator::Bytes(_) => bytes.min(self.limit.saturating_sub(self.len)),
            // What is not collected is not held; what is is looked at afterwards.
            Terminator::Count(_) | Terminator::None => bytes,
        }
    }
}
