//! Finds where messages end in a stream of bytes, however it has been split. Every byte is examined a
//! bounded number of times, for the worst terminator and input too.

use std::io;
use std::sync::Arc;

use memchr::memchr;

/// What ends a message: the argument of asynchat's `set_terminator`.
///
/// ```
/// use dispatch_loop::chat::Terminator;
///
/// assert_eq!(Terminator::from("\r\n"), Terminator::Bytes(b"\r\n"[..].into()));
/// assert_eq!(Terminator::from(512), Terminator::Count(512));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Terminator {
    /// These bytes, at least one. They are not part of the message.
    Bytes(Arc<[u8]>),
    /// The message is this many bytes, at least one. It applies to the following messages too, until
    /// it is changed. (In asynchat a count applies once, and no terminator follows it.)
    Count(usize),
    /// Nothing: input is collected until the stream ends.
    None,
}

impl From<&[u8]> for Terminator {
    fn from(bytes: &[u8]) -> Self {
        Terminator::Bytes(bytes.into())
    }
}

impl<const N: usize> From<&[u8; N]> for Terminator {
    fn from(bytes: &[u8; N]) -> Self {
        bytes[..].into()
    }
}

impl From<&str> for Terminator {
    fn from(text: &str) -> Self {
        text.as_bytes().into()
    }
}

impl From<Vec<u8>> for Terminator {
    fn from(bytes: Vec<u8>) -> Self {
        Terminator::Bytes(bytes.into())
    }
}

impl From<usize> for Terminator {
    fn from(count: usize) -> Self {
        Terminator::Count(count)
    }
}

/// What comes next in the stream.
pub(crate) enum Piece<'d> {
    /// A piece of the message.
    Data(&'d [u8]),
    /// The last piece of a message that a count ends.
    Last(&'d [u8]),
    /// Like `Data`: this many bytes from the start of the terminator, which did not follow in full.
    Prefix(usize),
    /// The message is complete.
    End,
}

/// Cuts the stream into pieces. Bytes at its end that may be the start of a terminator are held back.
/// They equal the terminator's first `matched` bytes, so they need not be stored.
pub(crate) struct Splitter {
    terminator: Terminator,
    /// For each length of a partial match, how much of it still matches when the next byte does not:
    /// Knuth, Morris and Pratt's table. Empty if all zeros.
    fallback: Vec<usize>,
    matched: usize,
    /// How many bytes a count still lacks.
    left: usize,
}

impl Splitter {
    pub(crate) fn new(terminator: Terminator) -> io::Result<Splitter> {
        let refused = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        let (fallback, left) = match &terminator {
            Terminator::Bytes(bytes) if bytes.is_empty() => {
                return refused(
                    "an empty terminator would match for ever; for no terminator use Terminator::None",
                );
            }
            Terminator::Count(0) => {
                return refused(
                    "a count of 0 bytes would match for ever; such a message is already complete",
                );
            }
            Terminator::Bytes(bytes) => (fallback_table(bytes), 0),
            Terminator::Count(count) => (Vec::new(), *count),
            Terminator::None => (Vec::new(), 0),
        };
        Ok(Splitter { terminator, fallback, matched: 0, left })
    }

    pub(crate) fn terminator(&self) -> &Terminator {
        &self.terminator
    }

    /// Give up what is held back; the caller takes care of it.
    pub(crate) fn release(&mut self) {
        self.matched = 0;
    }

    /// Begin the next message, and give up what is held back.
    pub(crate) fn restart(&mut self) {
        self.matched = 0;
        if let Terminator::Count(count) = self.terminator {
            self.left = count;
        }
    }

    /// The bytes that are held back.
    pub(crate) fn held(&self) -> &[u8] {
        match &self.terminator {
            Terminator::Bytes(bytes) => &bytes[..self.matched],
            _ => &[],
        }
    }

    /// The next piece; `input` is advanced past it. `None` when all of `input` has been delivered or
    /// held back.
    #[inline]
    pub(crate) fn next<'d>(&mut self, input: &mut &'d [u8]) -> Option<Piece<'d>> {
        match &self.terminator {
            Terminator::Bytes(_) if input.is_empty() => return None,
            Terminator::Bytes(bytes) if self.matched == 0 => {
                let start = match **input {
                    // For one byte a search costs more than a comparison.
                    [byte] => usize::from(byte != bytes[0]),
                    _ => memchr(bytes[0], input).unwrap_or(input.len()),
                };
                if start > 0 {
                    return Some(Piece::Data(take(input, start)));
                }
            }
            Terminator::Bytes(_) => {}
            Terminator::Count(_) if input.is_empty() => return None,
            Terminator::Count(count) if self.left <= input.len() => {
                return Some(Piece::Last(take(input, std::mem::replace(&mut self.left, *count))));
            }
            Terminator::Count(_) => {
                self.left -= input.len();
                return Some(Piece::Data(take(input, input.len())));
            }
            Terminator::None => return (!input.is_empty()).then(|| Piece::Data(take(input, input.len()))),
        }
        self.go_on_matching(input)
    }

    fn go_on_matching<'d>(&mut self, input: &mut &'d [u8]) -> Option<Piece<'d>> {
        let Terminator::Bytes(bytes) = &self.terminator else { return None };
        loop {
            let (&next, rest) = input.split_first()?;
            if next == bytes[self.matched] {
                *input = rest;
                self.matched += 1;
                if self.matched == bytes.len() {
                    self.matched = 0;
                    return Some(Piece::End);
                }
            } else {
                // At least one byte has matched, as `next` searches for the first.
                let released = self.matched - self.fallback.get(self.matched).copied().unwrap_or(0);
                self.matched -= released;
                // This cannot complete the match, which has just become shorter.
                if self.matched > 0 && next == bytes[self.matched] {
                    *input = rest;
                    self.matched += 1;
                }
                return Some(Piece::Prefix(released));
            }
        }
    }
}

fn take<'d>(input: &mut &'d [u8], len: usize) -> &'d [u8] {
    let (taken, rest) = input.split_at(len);
    *input = rest;
    taken
}

fn fallback_table(pattern: &[u8]) -> Vec<usize> {
    let mut table = vec![0; pattern.len()];
    let mut matched = 0;
    for at in 1..pattern.len().saturating_sub(1) {
        while matched > 0 && pattern[at] != pattern[matched] {
            matched = table[matched];
        }
        if pattern[at] == pattern[matched] {
            matched += 1;
        }
        table[at + 1] = matched;
    }
    if matched == 0 && table.iter().all(|&length| length == 0) { Vec::new() } else { table }
}
