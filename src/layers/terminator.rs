//! Where messages end in a stream of bytes, whatever pieces it comes in. Every byte is looked at a
//! bounded number of times, however nasty the terminator and the input are to each other.

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
    /// These bytes, at least one; they are not a part of the message.
    Bytes(Arc<[u8]>),
    /// This many bytes, at least one, are the message. Holds for the next one, too, until it is
    /// changed. (In asynchat a count counts once, and there is no terminator after it.)
    Count(usize),
    /// Nothing: what comes is collected until the stream ends.
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
    /// A part of the message.
    Data(&'d [u8]),
    /// Its last part, of a count.
    Last(&'d [u8]),
    /// As `Data`: so many bytes from the start of the terminator, which turned out to be no end.
    Prefix(usize),
    /// The message is whole.
    End,
}

/// Cuts the stream. The bytes at its end that may be the start of a terminator are held back; they
/// are the terminator's own first `matched` bytes, so there is no need to keep them.
pub(crate) struct Splitter {
    terminator: Terminator,
    /// For each length of a match, how much of it still matches when the next byte does not:
    /// Knuth, Morris and Pratt's table. Empty where it is nothing but zeros.
    fallback: Vec<usize>,
    matched: usize,
    /// Of a count.
    left: usize,
}

impl Splitter {
    pub(crate) fn new(terminator: Terminator) -> io::Result<Splitter> {
        let refused = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        let (fallback, left) = match &terminator {
            Terminator::Bytes(bytes) if bytes.is_empty() => {
                return refused("an empty terminator would be found for ever; Terminator::None is none");
            }
            Terminator::Count(0) => {
                return refused(
                    "a terminator of 0 bytes would be found for ever; that message is whole already",
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

    /// What is held back is somebody else's.
    pub(crate) fn let_go(&mut self) {
        self.matched = 0;
    }

    /// The next message begins; what was held back is somebody else's.
    pub(crate) fn start_anew(&mut self) {
        self.matched = 0;
        if let Terminator::Count(count) = self.terminator {
            self.left = count;
        }
    }

    /// What is held back.
    pub(crate) fn held(&self) -> &[u8] {
        match &self.terminator {
            Terminator::Bytes(bytes) => &bytes[..self.matched],
            _ => &[],
        }
    }

    /// The next piece; `input` is advanced past what it is made of. `None`: all of it was, or is
    /// held back.
    #[inline]
    pub(crate) fn next<'d>(&mut self, input: &mut &'d [u8]) -> Option<Piece<'d>> {
        match &self.terminator {
            Terminator::Bytes(_) if input.is_empty() => return None,
            Terminator::Bytes(bytes) if self.matched == 0 => {
                let start = match **input {
                    // For one byte the search itself is dearer than the look.
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
                // At least one byte matched: `next` looks for the first.
                let released = self.matched - self.fallback.get(self.matched).copied().unwrap_or(0);
                self.matched -= released;
                // With what is left of the match it is not whole yet.
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
