//! What a chat knows about its input: where messages end, and the message that is not complete yet.

use super::super::terminator::Splitter;
use super::Terminator;

/// The default limit of a message, in bytes.
const LIMIT: usize = 64 * 1024;

/// A buffer of at most this many bytes is kept between two messages.
const KEPT: usize = 1024;

/// The state of a chat's input.
pub(super) struct Incoming {
    pub(super) splitter: Splitter,
    /// Input that is to be searched again: put back by a hook, or held back by a splitter that was
    /// replaced.
    pub(super) held: Vec<u8>,
    pub(super) collected: Vec<u8>,
    /// The length of the current message so far.
    pub(super) len: usize,
    pub(super) limit: usize,
    /// The current message is over the limit, and its remainder is dropped.
    pub(super) skipping: bool,
    /// What follows the message being handled is no longer ours: it was put back into the channel, or
    /// dropped.
    pub(super) rest_is_gone: bool,
    pub(super) change: Change,
}

/// What a hook has done to the message that it was given a piece of.
#[derive(PartialEq)]
pub(super) enum Change {
    None,
    /// It has put some of it back, which will come again.
    Reopened,
    /// It has dropped all of it.
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

    /// Give up a partial match of the terminator: its bytes are searched again.
    pub(super) fn hold_back(&mut self) {
        self.held.extend_from_slice(self.splitter.held());
        self.splitter.release();
    }

    /// Whether a part of a message has arrived.
    pub(super) fn has_begun(&self) -> bool {
        self.len > 0 || !self.splitter.held().is_empty()
    }

    /// Begin a new message.
    pub(super) fn begin(&mut self) {
        self.collected.clear();
        if self.collected.capacity() > KEPT {
            self.collected = Vec::new();
        }
        self.len = 0;
        self.skipping = false;
    }

    /// How many of the next `bytes` fit into the message.
    pub(super) fn room(&self, bytes: usize) -> usize {
        match self.splitter.terminator() {
            Terminator::Bytes(_) => bytes.min(self.limit.saturating_sub(self.len)),
            // Only what is collected is limited, which is checked afterwards.
            Terminator::Count(_) | Terminator::None => bytes,
        }
    }
}
