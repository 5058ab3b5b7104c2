//! Frames: how a stream of bytes is cut into messages, whatever pieces it comes in.
//!
//! TCP keeps the order of bytes and nothing else: two messages may come in one read, and one in
//! three. A [`Framing`] puts them together again. It knows nothing of channels or sockets: it is
//! given bytes and lends frames, so it serves in [`handle_read`](crate::Dispatcher::handle_read), in
//! a thread that blocks, and in a test without any socket.
//!
//! | framing | on the wire | good for |
//! |---|---|---|
//! | [`Lines`] | `hello\n` | people, and protocols of text |
//! | [`Netstrings`] | `5:hello,` | any bytes, still readable in a trace |
//! | [`LengthPrefixed`] | `\x00\x00\x00\x05hello` | any bytes, and most binary protocols |
//!
//! # Reading
//!
//! Call [`next`](Framing::next) until it says `None`, with every piece that comes.
//!
//! ```
//! use dispatch_loop::framing::{Framing, Lines};
//!
//! let mut lines = Lines::new();
//! let mut seen = Vec::new();
//! for piece in [&b"one\r\ntw"[..], b"o\nthr", b"ee"] {
//!     let mut input = piece;
//!     while let Some(line) = lines.next(&mut input)? {
//!         seen.push(line.to_vec());
//!     }
//! }
//! assert_eq!(seen, [b"one", b"two"]);
//! assert_eq!(lines.end()?, Some(&b"three"[..]));
//! # Ok::<(), dispatch_loop::framing::FrameError>(())
//! ```
//!
//! # In a hook
//!
//! ```
//! use dispatch_loop::framing::{Framing, Netstrings};
//! use dispatch_loop::{Channel, Dispatcher};
//! use std::io;
//!
//! const FRAMES: Netstrings = Netstrings::new().with_limit(4 * 1024);
//!
//! /// Answers each netstring with the same in capitals.
//! struct Shout {
//!     frames: Netstrings,                     // begins as FRAMES
//! }
//!
//! impl Dispatcher for Shout {
//!     fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
//!         ch.read_with(|ch, mut input| {
//!             let mut answers = Vec::new();
//!             while let Some(frame) = self.frames.next(&mut input)? {
//!                 FRAMES.encode(&frame.to_ascii_uppercase(), &mut answers)?;
//!             }
//!             ch.push_vec(answers)
//!         })
//!     }
//! }
//! ```
//!
//! A frame is borrowed from its framing until the next call, so what encodes answers is another
//! value: here the constant.
//!
//! # What it costs
//!
//! Each byte is looked at once, and a frame that lies whole in the input is not copied. One that
//! comes in pieces is put together in a buffer, which grows with the bytes that came, never with
//! what a peer announces, and never over the limit (and a byte for the `\r` or the comma). One of
//! more than 4 KiB is given back when its frame is done with.

mod kept;
mod length_prefixed;
mod lines;
mod netstrings;

use std::error::Error;
use std::fmt;
use std::io;

pub use length_prefixed::{ByteOrder, LengthPrefixed, Prefix};
pub use lines::Lines;
pub use netstrings::Netstrings;

/// The default limit of the frames that may hold any bytes, in bytes.
const CONTENT: usize = 1024 * 1024;
/// The highest limit, in bytes: no `Vec` is longer, and a byte or two more do not overflow.
const HIGHEST: usize = usize::MAX / 2;

/// How a stream of bytes is cut into frames, whatever pieces it comes in.
///
/// One value is one stream: what it has of an unfinished frame, it keeps. A frame may be empty.
/// The trait can be implemented for a framing of your own, and works as `Box<dyn Framing>`.
///
/// ```
/// use dispatch_loop::framing::{ByteOrder, FrameError, Framing, LengthPrefixed, Lines, Prefix};
///
/// /// The same message, for whatever the peer speaks.
/// fn greeting(framing: &dyn Framing) -> Result<Vec<u8>, FrameError> {
///     let mut bytes = Vec::new();
///     framing.encode(b"hello", &mut bytes)?;
///     Ok(bytes)
/// }
///
/// assert_eq!(greeting(&Lines::crlf())?, b"hello\r\n");
/// assert_eq!(greeting(&LengthPrefixed::new(Prefix::U8, ByteOrder::Big))?, b"\x05hello");
/// # Ok::<(), FrameError>(())
/// ```
pub trait Framing {
    /// The next whole frame, without what frames it. `None`: all of `input` was taken in, and more
    /// must come.
    ///
    /// `input` is advanced past what was taken in. A frame that lies whole in it is lent from
    /// there, one that came in pieces from the framing's own buffer. The frames and errors are the
    /// same whatever the pieces; a piece may be empty.
    ///
    /// # Errors
    /// A frame is over the limit or is none. [`Lines`] goes on with the next line; for the other
    /// two the stream has lost its beat, and every later call fails alike. So do not ask again in
    /// a loop that ignores errors.
    fn next<'a, 'd: 'a>(&'a mut self, input: &mut &'d [u8]) -> Result<Option<&'a [u8]>, FrameError>;

    /// The stream has ended: what was left over, if that is a frame, or `None`. To be called when
    /// [`next`](Framing::next) has said `None`, say in
    /// [`handle_eof`](crate::Dispatcher::handle_eof).
    ///
    /// # Errors
    /// [`FrameError::Cut`] if the stream ended within a frame. A last line without its newline is a
    /// frame for [`Lines`].
    fn end(&mut self) -> Result<Option<&[u8]>, FrameError>;

    /// Append `frame`, framed, to `output`.
    ///
    /// # Errors
    /// It is over the limit, or [`FrameError::Unencodable`]. Nothing is appended then.
    fn encode(&self, frame: &[u8], output: &mut Vec<u8>) -> Result<(), FrameError>;
}

/// What is wrong with a frame.
///
/// Becomes an [`io::Error`] through `?`, of kind `UnexpectedEof` for `Cut`, `InvalidInput` for
/// `Unencodable` and `InvalidData` for the rest; `get_ref` and `downcast_ref` bring it back.
///
/// ```
/// use dispatch_loop::framing::{FrameError, Framing, Netstrings};
/// use std::io;
///
/// let mut frames = Netstrings::new();
/// assert_eq!(frames.next(&mut &b"5:hel"[..])?, None);
/// let error = io::Error::from(frames.end().unwrap_err());
/// assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
/// assert_eq!(error.to_string(), "the stream ended 5 bytes into a frame");
/// let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
/// assert_eq!(inner, Some(&FrameError::Cut { got: 5 }));
/// # Ok::<(), FrameError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FrameError {
    /// A frame, come or to be sent, is longer than it may be.
    TooLong {
        /// The most that its content may have, in bytes.
        limit: usize,
    },
    /// A byte came that no frame can have in its place.
    Malformed {
        /// What could have stood there.
        expected: &'static str,
        /// What came.
        found: u8,
    },
    /// The stream ended within a frame.
    Cut {
        /// How many bytes of that frame came, its length and punctuation among them.
        got: usize,
    },
    /// To be sent, but this framing cannot say it.
    Unencodable {
        /// Why not.
        reason: &'static str,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::TooLong { limit } => write!(f, "a frame over the limit of {limit} bytes"),
            FrameError::Malformed { expected, found } => {
                write!(f, "malformed frame: expected {expected}, found '{}'", found.escape_ascii())
            }
            FrameError::Cut { got } => write!(f, "the stream ended {got} bytes into a frame"),
            FrameError::Unencodable { reason } => write!(f, "not to be sent: {reason}"),
        }
    }
}

impl Error for FrameError {}

impl From<FrameError> for io::Error {
    fn from(error: FrameError) -> Self {
        let kind = match error {
            FrameError::TooLong { .. } | FrameError::Malformed { .. } => io::ErrorKind::InvalidData,
            FrameError::Cut { .. } => io::ErrorKind::UnexpectedEof,
            FrameError::Unencodable { .. } => io::ErrorKind::InvalidInput,
        };
        io::Error::new(kind, error)
    }
}

const fn possible(limit: usize) -> usize {
    if limit < HIGHEST { limit } else { HIGHEST }
}

fn within(limit: usize, frame: &[u8]) -> Result<(), FrameError> {
    if frame.len() > limit { Err(FrameError::TooLong { limit }) } else { Ok(()) }
}

/// An error is final: after it nobody knows where a frame begins.
fn still_good(failed: &Option<FrameError>) -> Result<(), FrameError> {
    match failed {
        Some(error) => Err(error.clone()),
        None => Ok(()),
    }
}
