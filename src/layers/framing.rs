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
//! const FRAMES: Netstrings = Netstrings::new().limit(4 * 1024);
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

use std::error::Error;
use std::fmt;
use std::io::{self, Write};

use memchr::memchr;

/// The default limit of a line, in bytes.
const LINE: usize = 64 * 1024;
/// The default limit of the other frames, in bytes.
const CONTENT: usize = 1024 * 1024;
/// The highest limit, in bytes: no `Vec` is longer, and a byte or two more do not overflow.
const HIGHEST: usize = usize::MAX / 2;
/// A buffer of up to this many bytes is kept for the next frame that comes in pieces.
const SPARE: usize = 4 * 1024;

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

/// Lines of text or other bytes that end in `\n` or `\r\n`, each lent without its end: Twisted's
/// `LineReceiver`, asynchat's `set_terminator(b"\n")`.
///
/// A line of more than [`limit`](Lines::limit) bytes is [`FrameError::TooLong`], once; its rest is
/// skipped, and the next call goes on with the line after it. When the stream ends, a last line
/// without a newline counts as well, and a `\r` at its end as the first half of one. No stream is
/// ever malformed or cut.
///
/// A line to be sent must not hold a `\n`, nor end in `\r`: it would come back as another one.
///
/// ```
/// use dispatch_loop::framing::{FrameError, Framing, Lines};
///
/// let mut lines = Lines::new().limit(5);
/// let mut input = &b"short\nmuch too long\nnext\r\n"[..];
/// assert_eq!(lines.next(&mut input)?, Some(&b"short"[..]));
/// assert_eq!(lines.next(&mut input), Err(FrameError::TooLong { limit: 5 }));
/// assert_eq!(lines.next(&mut input)?, Some(&b"next"[..]));
/// assert_eq!(lines.next(&mut input)?, None);
///
/// let mut output = Vec::new();
/// lines.encode(b"yes", &mut output)?;
/// assert!(lines.encode(b"no\nyes", &mut output).is_err());
/// assert_eq!(output, b"yes\n");
/// # Ok::<(), FrameError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Lines {
    limit: usize,
    newline: &'static [u8],
    kept: Kept,
    /// Within a line that was too long.
    skipping: bool,
}

impl Lines {
    /// Lines of at most 64 KiB, sent with `\n`.
    pub const fn new() -> Lines {
        Lines { limit: LINE, newline: b"\n", kept: Kept::new(), skipping: false }
    }

    /// The same, sent with `\r\n`, as most protocols of the Internet have it. What is read may end
    /// in either.
    pub const fn crlf() -> Lines {
        let mut lines = Lines::new();
        lines.newline = b"\r\n";
        lines
    }

    /// The longest line that passes, in bytes without its end. 64 KiB by default; Twisted's
    /// `MAX_LENGTH`.
    pub const fn limit(mut self, bytes: usize) -> Lines {
        self.limit = possible(bytes);
        self
    }
}

impl Default for Lines {
    fn default() -> Self {
        Lines::new()
    }
}

impl Framing for Lines {
    fn next<'a, 'd: 'a>(&'a mut self, input: &mut &'d [u8]) -> Result<Option<&'a [u8]>, FrameError> {
        if **input != [b'\n'] && self.kept.take_one(input) {
            return Ok(None);
        }
        self.kept.forget_lent();
        // The last call for most pieces; a search of nothing costs as much as one of a short line.
        if input.is_empty() {
            return Ok(None);
        }
        if self.skipping {
            let Some(newline) = memchr(b'\n', input) else {
                *input = &[];
                return Ok(None);
            };
            *input = &input[newline + 1..];
            self.skipping = false;
        }
        // One byte over the limit may be the `\r` of the line's end; the byte after it shows that.
        let room = self.limit + 1 - self.kept.len();
        let window = &input[..input.len().min(room + 1)];
        let newline = memchr(b'\n', window);
        let line = &window[..newline.unwrap_or(window.len())];
        if line.len() > room || (line.len() == room && line.last().is_some_and(|&byte| byte != b'\r')) {
            *input = &input[room..];
            self.kept.clear();
            self.skipping = true;
            return Err(FrameError::TooLong { limit: self.limit });
        }
        let Some(newline) = newline else {
            *input = &[];
            self.kept.add(line, self.limit + 1);
            self.kept.open = self.limit.saturating_sub(self.kept.len());
            return Ok(None);
        };
        *input = &input[newline + 1..];
        if self.kept.is_empty() {
            return Ok(Some(without_cr(line)));
        }
        self.kept.add(line, self.limit + 1);
        Ok(Some(without_cr(self.kept.lend())))
    }

    fn end(&mut self) -> Result<Option<&[u8]>, FrameError> {
        self.kept.forget_lent();
        self.skipping = false;
        if self.kept.is_empty() {
            return Ok(None);
        }
        Ok(Some(without_cr(self.kept.lend())))
    }

    fn encode(&self, frame: &[u8], output: &mut Vec<u8>) -> Result<(), FrameError> {
        within(self.limit, frame)?;
        if memchr(b'\n', frame).is_some() {
            return Err(FrameError::Unencodable { reason: "a line cannot hold '\\n'" });
        }
        if frame.ends_with(b"\r") {
            return Err(FrameError::Unencodable { reason: "a line cannot end in '\\r'" });
        }
        output.extend_from_slice(frame);
        output.extend_from_slice(self.newline);
        Ok(())
    }
}

/// D. J. Bernstein's netstrings: the length in decimal, a colon, that many bytes of anything, and a
/// comma. `5:hello,`. Twisted's `NetstringReceiver`.
///
/// Strict, as their author wants it: no leading zero, no empty length, no space. A wrong byte is
/// [`FrameError::Malformed`], a length over the [`limit`](Netstrings::limit)
/// [`FrameError::TooLong`], as soon as the digit that makes it so has come. Either is final.
///
/// ```
/// use dispatch_loop::framing::{FrameError, Framing, Netstrings};
///
/// let mut frames = Netstrings::new();
/// let mut input = &b"5:hello,0:,3;abc,"[..];
/// assert_eq!(frames.next(&mut input)?, Some(&b"hello"[..]));
/// assert_eq!(frames.next(&mut input)?, Some(&b""[..]));
/// let error = frames.next(&mut input).unwrap_err();
/// assert_eq!(error.to_string(), "malformed frame: expected a digit or ':', found ';'");
///
/// let mut output = Vec::new();
/// frames.encode(b"any\nbytes", &mut output)?;
/// assert_eq!(output, b"9:any\nbytes,");
/// # Ok::<(), FrameError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Netstrings {
    limit: usize,
    /// How many digits came, and what they say.
    digits: usize,
    length: usize,
    /// The colon came: what follows is content.
    counted: bool,
    kept: Kept,
    failed: Option<FrameError>,
}

impl Netstrings {
    /// Netstrings of at most 1 MiB.
    pub const fn new() -> Netstrings {
        Netstrings { limit: CONTENT, digits: 0, length: 0, counted: false, kept: Kept::new(), failed: None }
    }

    /// The longest frame that passes, in bytes of content. 1 MiB by default; Twisted's
    /// `MAX_LENGTH`.
    pub const fn limit(mut self, bytes: usize) -> Netstrings {
        self.limit = possible(bytes);
        self
    }

    /// Take in the length; whether it is whole now, with its colon.
    fn count(&mut self, input: &mut &[u8]) -> Result<bool, FrameError> {
        while let Some((&byte, rest)) = input.split_first() {
            match byte {
                b':' if self.digits > 0 => {
                    *input = rest;
                    self.counted = true;
                    return Ok(true);
                }
                b'0'..=b'9' if self.digits == 0 || self.length > 0 => {
                    self.length = self.length.saturating_mul(10).saturating_add(usize::from(byte - b'0'));
                    if self.length > self.limit {
                        return Err(FrameError::TooLong { limit: self.limit });
                    }
                }
                _ => {
                    let expected = match (self.digits, self.length) {
                        (0, _) => "a digit",
                        (_, 0) => "':'",
                        _ => "a digit or ':'",
                    };
                    return Err(FrameError::Malformed { expected, found: byte });
                }
            }
            self.digits += 1;
            *input = rest;
        }
        Ok(false)
    }
}

impl Default for Netstrings {
    fn default() -> Self {
        Netstrings::new()
    }
}

impl Framing for Netstrings {
    fn next<'a, 'd: 'a>(&'a mut self, input: &mut &'d [u8]) -> Result<Option<&'a [u8]>, FrameError> {
        if self.kept.take_one(input) {
            return Ok(None);
        }
        still_good(&self.failed)?;
        self.kept.forget_lent();
        if !self.counted {
            match self.count(input) {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(error) => return Err(self.failed.insert(error).clone()),
            }
        }
        // The comma is taken in with the content, so that no frame is lent before it has come.
        let Some(whole) = self.kept.gather(input, self.length + 1) else {
            return Ok(None);
        };
        (self.digits, self.length, self.counted) = (0, 0, false);
        match whole.split_last() {
            Some((b',', content)) => Ok(Some(content)),
            other => {
                let found = other.map_or(0, |(&last, _)| last);
                Err(self.failed.insert(FrameError::Malformed { expected: "','", found }).clone())
            }
        }
    }

    fn end(&mut self) -> Result<Option<&[u8]>, FrameError> {
        still_good(&self.failed)?;
        self.kept.forget_lent();
        match self.digits + usize::from(self.counted) + self.kept.len() {
            0 => Ok(None),
            got => Err(self.failed.insert(FrameError::Cut { got }).clone()),
        }
    }

    fn encode(&self, frame: &[u8], output: &mut Vec<u8>) -> Result<(), FrameError> {
        within(self.limit, frame)?;
        write!(output, "{}:", frame.len()).expect("a Vec takes everything");
        output.extend_from_slice(frame);
        output.push(b',');
        Ok(())
    }
}

/// Frames that begin with the length of their content as a binary number: Twisted's
/// `Int32StringReceiver` and its kin, Python's `struct.pack(">I", len(data)) + data`.
///
/// The length counts the content only, not itself. One over the [`limit`](LengthPrefixed::limit)
/// is [`FrameError::TooLong`], and final.
///
/// ```
/// use dispatch_loop::framing::{ByteOrder, FrameError, Framing, LengthPrefixed, Prefix};
///
/// let mut frames = LengthPrefixed::new(Prefix::U32, ByteOrder::Big).limit(1000);
/// let mut output = Vec::new();
/// frames.encode(b"hello", &mut output)?;
/// assert_eq!(output, b"\x00\x00\x00\x05hello");
/// assert_eq!(frames.next(&mut &output[..])?, Some(&b"hello"[..]));
///
/// let error = frames.next(&mut &b"GET / HTTP/1.1\r\n"[..]).unwrap_err();
/// assert_eq!(error, FrameError::TooLong { limit: 1000 });      // "GET " is 1.2 GB
/// # Ok::<(), FrameError>(())
/// ```
#[derive(Clone, Debug)]
pub struct LengthPrefixed {
    prefix: Prefix,
    order: ByteOrder,
    limit: usize,
    /// How many bytes of the prefix came, and what they say.
    counted: u32,
    length: u64,
    kept: Kept,
    failed: Option<FrameError>,
}

impl LengthPrefixed {
    /// Frames of at most 1 MiB, or of what the prefix can say if that is less. Network order is
    /// [`ByteOrder::Big`].
    pub const fn new(prefix: Prefix, order: ByteOrder) -> LengthPrefixed {
        LengthPrefixed {
            prefix,
            order,
            limit: CONTENT,
            counted: 0,
            length: 0,
            kept: Kept::new(),
            failed: None,
        }
    }

    /// The longest frame that passes, in bytes of content. 1 MiB by default; Twisted's
    /// `MAX_LENGTH`.
    pub const fn limit(mut self, bytes: usize) -> LengthPrefixed {
        self.limit = possible(bytes);
        self
    }

    /// Take in the prefix; whether it is whole now.
    fn count(&mut self, input: &mut &[u8]) -> bool {
        while self.counted < self.prefix.bytes() {
            let Some((&byte, rest)) = input.split_first() else {
                return false;
            };
            match self.order {
                ByteOrder::Big => self.length = self.length << 8 | u64::from(byte),
                ByteOrder::Little => self.length |= u64::from(byte) << (8 * self.counted),
            }
            self.counted += 1;
            *input = rest;
        }
        true
    }
}

impl Framing for LengthPrefixed {
    fn next<'a, 'd: 'a>(&'a mut self, input: &mut &'d [u8]) -> Result<Option<&'a [u8]>, FrameError> {
        if self.kept.take_one(input) {
            return Ok(None);
        }
        still_good(&self.failed)?;
        self.kept.forget_lent();
        if !self.count(input) {
            return Ok(None);
        }
        let length = match usize::try_from(self.length) {
            Ok(length) if length <= self.limit => length,
            _ => return Err(self.failed.insert(FrameError::TooLong { limit: self.limit }).clone()),
        };
        let Some(content) = self.kept.gather(input, length) else {
            return Ok(None);
        };
        (self.counted, self.length) = (0, 0);
        Ok(Some(content))
    }

    fn end(&mut self) -> Result<Option<&[u8]>, FrameError> {
        still_good(&self.failed)?;
        self.kept.forget_lent();
        match self.counted as usize + self.kept.len() {
            0 => Ok(None),
            got => Err(self.failed.insert(FrameError::Cut { got }).clone()),
        }
    }

    fn encode(&self, frame: &[u8], output: &mut Vec<u8>) -> Result<(), FrameError> {
        within(self.limit.min(self.prefix.highest()), frame)?;
        let bytes = self.prefix.bytes() as usize;
        let length = frame.len() as u64;
        match self.order {
            ByteOrder::Big => output.extend_from_slice(&length.to_be_bytes()[8 - bytes..]),
            ByteOrder::Little => output.extend_from_slice(&length.to_le_bytes()[..bytes]),
        }
        output.extend_from_slice(frame);
        Ok(())
    }
}

/// The size of the number that a [`LengthPrefixed`] frame begins with.
///
/// ```
/// use dispatch_loop::framing::{ByteOrder, Framing, LengthPrefixed, Prefix};
///
/// let mut output = Vec::new();
/// LengthPrefixed::new(Prefix::U16, ByteOrder::Big).encode(b"hi", &mut output)?;
/// assert_eq!(output, b"\x00\x02hi");
/// # Ok::<(), dispatch_loop::framing::FrameError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// One byte: frames of up to 255 bytes. Python's `struct` calls it `B`.
    U8,
    /// Two bytes: up to 65,535. Python's `H`.
    U16,
    /// Four bytes: up to 4 GiB less one. Python's `I`.
    U32,
    /// Eight bytes. Python's `Q`.
    U64,
}

impl Prefix {
    fn bytes(self) -> u32 {
        match self {
            Prefix::U8 => 1,
            Prefix::U16 => 2,
            Prefix::U32 => 4,
            Prefix::U64 => 8,
        }
    }

    /// The greatest length it can say, as far as this machine can have it.
    fn highest(self) -> usize {
        usize::try_from(u64::MAX >> (64 - 8 * self.bytes())).unwrap_or(usize::MAX)
    }
}

/// Which byte of a [`LengthPrefixed`] frame's length comes first.
///
/// ```
/// use dispatch_loop::framing::{ByteOrder, Framing, LengthPrefixed, Prefix};
///
/// let mut output = Vec::new();
/// LengthPrefixed::new(Prefix::U16, ByteOrder::Little).encode(b"hi", &mut output)?;
/// assert_eq!(output, b"\x02\x00hi");
/// # Ok::<(), dispatch_loop::framing::FrameError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    /// The highest: network order, C's `htonl`, Python's `>` or `!`.
    Big,
    /// The lowest. Python's `<`.
    Little,
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
#[derive(Clone, Debug, PartialEq, Eq)]
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

fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The beginning of a frame that comes in pieces. Once whole it is lent, and the next call of the
/// framing forgets it.
#[derive(Clone)]
struct Kept {
    bytes: Vec<u8>,
    lent: bool,
    /// So many more bytes cannot end the frame, nor make it too long.
    open: usize,
}

impl Kept {
    const fn new() -> Kept {
        Kept { bytes: Vec::new(), lent: false, open: 0 }
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn forget_lent(&mut self) {
        if self.lent {
            self.clear();
        }
    }

    fn clear(&mut self) {
        self.lent = false;
        self.open = 0;
        self.bytes.clear();
        if self.bytes.capacity() > SPARE {
            self.bytes = Vec::new();
        }
    }

    fn lend(&mut self) -> &[u8] {
        self.lent = true;
        self.open = 0;
        &self.bytes
    }

    /// Take in `input` if it is one byte that decides nothing. A shortcut: some peers send byte by
    /// byte, and all else that a call looks at costs three times as much.
    fn take_one(&mut self, input: &mut &[u8]) -> bool {
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
    fn add(&mut self, piece: &[u8], most: usize) {
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
    fn gather<'a, 'd: 'a>(&'a mut self, input: &mut &'d [u8], whole: usize) -> Option<&'a [u8]> {
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
