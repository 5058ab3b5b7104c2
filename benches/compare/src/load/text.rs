//! What is sent and must come back: an endless sequence of messages of pseudo-random bytes. The last byte of
//! each is a newline, and no other is, so that every message is a line to servers that read lines.

use crate::random::Random;

/// It repeats after at least this many bytes and messages.
const PERIOD_BYTES: usize = 64 * 1024;
const PERIOD_MESSAGES: usize = 67;

/// The longest slice that can be asked for.
pub(super) const LONGEST: usize = 256 * 1024;

pub(super) struct Text {
    bytes: Vec<u8>,
    messages: usize,
    size: usize,
}

impl Text {
    pub(super) fn new(size: usize) -> Text {
        // Odd, so that the period is not a multiple of a buffer size or a number of connections.
        let messages = PERIOD_MESSAGES.max(PERIOD_BYTES / size) | 1;
        let mut random = Random::new(size as u64);
        let mut bytes = Vec::with_capacity(messages * size + LONGEST);
        for at in 1..=messages * size {
            bytes.push(match random.next() as u8 {
                _ if at % size == 0 => b'\n',
                b'\n' => b'\r',
                byte => byte,
            });
        }
        // A slice that crosses the end is contiguous as well.
        for at in 0..LONGEST {
            bytes.push(bytes[at]);
        }
        Text { bytes, messages, size }
    }

    /// Where a connection begins; neighbours begin at different messages.
    pub(super) fn origin(&self, connection: usize) -> u64 {
        (connection * 31 % self.messages * self.size) as u64
    }

    /// The bytes at that place.
    pub(super) fn at(&self, place: u64, len: usize) -> &[u8] {
        let place = (place % (self.messages * self.size) as u64) as usize;
        &self.bytes[place..][..len]
    }
}
