//! The beginning of a frame that comes in pieces, put together for all framings alike.

use std::fmt;

/// A buffer of up to this many bytes is kept for the next frame that comes in pieces.
const SPARE: usize = 4 * 1024;

/// The beginning of a frame that comes in pieces. Once whole it is lent, and the next call of the
/// framing forgets it.
#[derive(Clone)]
pub(super) struct Kept {
    bytes: Vec<u8>,
    lent: bool,
    /// So many more bytes cannot end the frame, nor make it too long.
    pub(super) open: usize,
}

impl Kept {
    pub(super) const fn new() -> Kept {
        Kept { bytes: Vec::new(), lent: false, open: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn forget_lent(&mut self) {
        if self.lent {
            self.clear();
        }
    }

    pub(super) fn clear(&mut self) {
        self.lent = false;
        self.open = 0;
        self.bytes.clear();
        if self.bytes.capacity() > SPARE {
            self.bytes = Vec::new();
        }
    }

    pub(super) fn lend(&mut self) -> &[u8] {
        self.lent = true;
        self.open = 0;
        &self.bytes
    }

    /// Take in `input` if it is one byte that decides nothing. A shortcut: some peers send byte by
    /// byte, and all else that a call looks at costs three times as much.
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

    /// Append a piece of a frame of which at most `most` bytes are kept.
    pub(super) fn add(&mut self, piece: &[u8], most: usize) {
        let (old, new) = (self.bytes.capacity(), self.bytes.len() + piece.len());
        debug_assert!(new <= most);
        if new > old {
            // Twice as much each time, as a Vec does it, but no more than the frame can need.
            let room = new.max(2 * old).max(64).min(most);
            self.bytes.reserve_exact(room - self.bytes.len());
        }
        self.bytes.extend_from_slice(piece);
    }

    /// The next `whole` bytes: from `input` if they all lie there, else put together here.
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
            return Some(self.lend());
        }
        self.open = missing - piece.len() - 1;
        None
    }
}

/// How much, not what: a frame may hold a secret, and this goes into logs.
impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes.len())
    }
}
