//! The buffer in which a frame that arrives in pieces is put together, for all framings.

use std::fmt;

/// A buffer of up to this many bytes is kept for the next frame that arrives in pieces.
const SPARE: usize = 4 * 1024;

/// The beginning of a frame that arrives in pieces. Once complete it is returned, and the next call of
/// the framing clears it.
#[derive(Clone)]
pub(super) struct Partial {
    bytes: Vec<u8>,
    returned: bool,
    /// This many more bytes can neither complete the frame nor make it too long.
    pub(super) open: usize,
}

impl Partial {
    pub(super) const fn new() -> Partial {
        Partial { bytes: Vec::new(), returned: false, open: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether it holds the beginning of a frame.
    pub(super) fn has_begun(&self) -> bool {
        !self.returned && !self.bytes.is_empty()
    }

    pub(super) fn forget_returned(&mut self) {
        if self.returned {
            self.clear();
        }
    }

    pub(super) fn clear(&mut self) {
        self.returned = false;
        self.open = 0;
        self.bytes.clear();
        if self.bytes.capacity() > SPARE {
            self.bytes = Vec::new();
        }
    }

    pub(super) fn finish(&mut self) -> &[u8] {
        self.returned = true;
        self.open = 0;
        &self.bytes
    }

    /// Consume `input` if it is one byte that decides nothing. A shortcut for peers that send byte by
    /// byte: everything else that a call examines costs three times as much.
    pub(super) fn take_one(&mut self, input: &mut &[u8]) -> bool {
        match **input {
            [byte] if self.open > 0 && self.bytes.len() < self.bytes.capacity() => {
                self.bytes.push(byte);
                self.open -= 1;
                *input = &[];
                true
            }
            _ => false,
        }
    }

    /// Append a piece of a frame of which at most `most` bytes are buffered.
    pub(super) fn add(&mut self, piece: &[u8], most: usize) {
        let (old, new) = (self.bytes.capacity(), self.bytes.len() + piece.len());
        debug_assert!(new <= most);
        if new > old {
            // Double each time, as a Vec does, but reserve no more than the frame can need.
            let room = new.max(2 * old).max(64).min(most);
            self.bytes.reserve_exact(room - self.bytes.len());
        }
        self.bytes.extend_from_slice(piece);
    }

    /// The next `whole` bytes: borrowed from `input` if they all lie there, otherwise put together here.
    pub(super) fn gather<'a, 'd: 'a>(&'a mut self, input: &mut &'d [u8], whole: usize) -> Option<&'a [u8]> {
        let missing = whole - self.bytes.len();
        let (piece, rest) = input.split_at(missing.min(input.len()));
        *input = rest;
        self.open = 0;
        if piece.len() == whole {
            return Some(piece);
        }
        self.add(piece, whole);
        if piece.len() == missing {
            return Some(self.finish());
        }
        self.open = missing - piece.len() - 1;
        None
    }
}

/// Shows the length, not the content: a frame may contain a secret, and this goes into logs.
impl fmt::Debug for Partial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes.len())
    }
}
