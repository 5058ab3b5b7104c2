//! Frames: cutting a stream of bytes into messages, however the network has split it.
//!
//! TCP preserves the order of bytes and nothing else: two messages may arrive in one read, or one in
//! three. A [`Framing`] restores them. It does not know about channels or sockets: it takes bytes and
//! returns borrowed frames, so it works in [`handle_read`](crate::Dispatcher::handle_read), in a
//! thread that blocks, and in a test without any socket.
//!
//! | framing | on the wire | good for |
//! |---|---|---|
//! | [`Lines`] | `hello\n` | people, and text protocols |
//! | [`Netstrings`] | `5:hello,` | any bytes, still readable in a trace |
//! | [`LengthPrefixed`] | `\x00\x00\x00\x05hello` | any bytes, and most binary protocols |
//!
//! Where neither a delimiter nor a length cuts them, [`Messages`] calls a parser of yours, which sees each message from
//! its start.
//!
//! # Reading
//!
//! Call [`next`](Framing::next) with each piece of input until it returns `None`.
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
//!     frames: Netstrings,                     // starts as FRAMES
//! }
//!
//! impl Dispatcher for Shout {
//!     fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
//!         ch.read_with(|ch, mut input| {
//!             let mut answers = Vec::new();
//!             while let Some(frame) = self.frames.next(&mut input)? {
//!                 ch.end_message();
//!                 FRAMES.encode(&frame.to_ascii_uppercase(), &mut answers)?;
//!             }
//!             if self.frames.has_begun() {
//!                 ch.begin_message();         // for deadlines, if any are set
//!             }
//!             ch.push_vec(answers)
//!         })
//!     }
//! }
//! ```
//!
//! A frame is borrowed from its framing until the next call, so answers are encoded by another
//! value: here the constant.
//!
//! # What it costs
//!
//! Each byte is examined once, and a frame that lies whole in the input is not copied. A frame that
//! arrives in pieces is put together in a buffer. The buffer grows with the bytes that have arrived, not
//! with the length that a peer announces, and never beyond the limit (plus one byte for the `\r` or the
//! comma). A buffer of more than 4 KiB is freed after its frame.

mod length_prefixed;
mod lines;
mod messages;
mod netstrings;
mod partial;

use std::error::Error;
use std::fmt;
use std::io;

pub use length_prefixed::{ByteOrder, LengthPrefixed, Prefix};
pub use lines::Lines;
pub use messages::{Decode, Decoded, Messages};
pub use netstrings::Netstrings;

/// The default limit of frames that may contain any bytes, in bytes.
const CONTENT: usize = 1024 * 1024;
/// The highest limit, in bytes: no `Vec` is longer, and adding a byte or two does not overflow.
const HIGHEST: usize = usize::MAX / 2;

/// A way to cut a stream of bytes into frames, however the network has split it.
///
/// Each stream needs a value of its own, which keeps the beginning of an unfinished frame. A frame may
/// be empty. Implement the trait for other framings; `Box<dyn Framing>` works.
///
/// ```
/// use dispatch_loop::framing::{ByteOrder, FrameError, Framing, LengthPrefixed, Lines, Prefix};
///
/// /// The same message, for peers with different framings.
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
    /// Returns the next complete frame, without its delimiter or length. `None` means that all of
    /// `input` has been consumed and more is needed.
    ///
    /// `input` is advanced past what was consumed. A frame that lies whole in it is borrowed from
    /// there, one that arrived in pieces from the framing's own buffer. Frames and errors do not depend
    /// on how the stream is split; a piece may be empty.
    ///
    /// # Errors
    /// A frame is over the limit or malformed. [`Lines`] continues with the next line; for the other
    /// two the frame boundaries are lost, and every later call returns the same error. So do not retry in
    /// a loop that ignores errors.
    fn next<'a, 'd: 'a>(&'a mut self, input: &mut &'d [u8]) -> Result<Option<&'a [u8]>, FrameError>;

    /// Whether a part of a frame has arrived, and more of it is awaited. Ask when [`next`](Framing::next) has
    /// returned `None`.
    ///
    /// With it, a hook tells the channel where its messages are, for their
    /// [deadlines](crate::Deadlines::message): each frame calls [`end_message`](crate::Channel::end_message), and
    /// what is left over [`begin_message`](crate::Channel::begin_message).
    fn has_begun(&self) -> bool;

    /// Tells the framing that the stream has ended, and returns what is left over if that counts as a
    /// frame. Call it after [`next`](Framing::next) has returned `None`, for instance in
    /// [`handle_eof`](crate::Dispatcher::handle_eof).
    ///
    /// # Errors
    /// [`FrameError::Cut`] if the stream ended within a frame. For [`Lines`], a last line without a
    /// newline is a frame.
    fn end(&mut self) -> Result<Option<&[u8]>, FrameError>;

    /// Appends `frame`, encoded, to `output`.
    ///
    /// # Errors
    /// The frame is over the limit, or [`FrameError::Unencodable`]. Then nothing is appended.
    fn encode(&self, frame: &[u8], output: &mut Vec<u8>) -> Result<(), FrameError>;
}

/// What is wrong with a frame.
///
/// `?` converts it into an [`io::Error`] of kind `UnexpectedEof` for `Cut`, `InvalidInput` for
/// `Unencodable` and `InvalidData` for the others; `get_ref` and `downcast_ref` give it back.
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
    /// A frame, received or to be sent, is over the limit.
    TooLong {
        /// The limit of its content, in bytes.
        limit: usize,
    },
    /// A byte arrived that cannot stand in its place.
    Malformed {
        /// What was expected there.
        expected: &'static str,
        /// What arrived.
        found: u8,
    },
    /// The stream ended within a frame.
    Cut {
        /// How many bytes of that frame arrived, its length and delimiters included.
        got: usize,
    },
    /// The frame to be sent cannot be expressed in this framing.
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
            FrameError::Unencodable { reason } => write!(f, "cannot be sent: {reason}"),
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

/// An error is final: after it, it is not known where the next frame begins.
fn still_good(failed: &Option<FrameError>) -> Result<(), FrameError> {
    match failed {
        Some(error) => Err(error.clone()),
        None => Ok(()),
    }
}
