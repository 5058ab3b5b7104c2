//! Frames that begin with their length as a binary number.

use super::partial::Partial;
use super::{CONTENT, FrameError, Framing, possible, still_good, within};

/// Frames that begin with the length of their content as a binary number: Twisted's
/// `Int32StringReceiver` and its relatives, Python's `struct.pack(">I", len(data)) + data`.
///
/// The length counts the content only, not itself. A length over the
/// [limit](LengthPrefixed::with_limit) is [`FrameError::TooLong`], and final.
///
/// ```
/// use dispatch_loop::framing::{ByteOrder, FrameError, Framing, LengthPrefixed, Prefix};
///
/// let mut frames = LengthPrefixed::new(Prefix::U32, ByteOrder::Big).with_limit(1000);
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
    /// How many bytes of the prefix have arrived, and their value.
    counted: u32,
    length: u64,
    partial: Partial,
    failed: Option<FrameError>,
}

impl LengthPrefixed {
    /// Frames of at most 1 MiB, or of the largest length that the prefix can express if that is less.
    /// Network order is [`ByteOrder::Big`].
    pub const fn new(prefix: Prefix, order: ByteOrder) -> LengthPrefixed {
        LengthPrefixed {
            prefix,
            order,
            limit: CONTENT,
            counted: 0,
            length: 0,
            partial: Partial::new(),
            failed: None,
        }
    }

    /// Sets the limit of a frame, in bytes of content. The default is 1 MiB; Twisted's `MAX_LENGTH`.
    pub const fn with_limit(mut self, bytes: usize) -> LengthPrefixed {
        self.limit = possible(bytes);
        self
    }

    /// Consume the prefix; whether it is complete now.
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
        if self.partial.take_one(input) {
            return Ok(None);
        }
        still_good(&self.failed)?;
        self.partial.forget_returned();
        if !self.count(input) {
            return Ok(None);
        }
        let length = match usize::try_from(self.length) {
            Ok(length) if length <= self.limit => length,
            _ => return Err(self.failed.insert(FrameError::TooLong { limit: self.limit }).clone()),
        };
        let Some(content) = self.partial.gather(input, length) else {
            return Ok(None);
        };
        (self.counted, self.length) = (0, 0);
        Ok(Some(content))
    }

    fn has_begun(&self) -> bool {
        self.counted > 0 || self.partial.has_begun()
    }

    fn end(&mut self) -> Result<Option<&[u8]>, FrameError> {
        still_good(&self.failed)?;
        self.partial.forget_returned();
        match self.counted as usize + self.partial.len() {
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

/// The size of the length at the start of a [`LengthPrefixed`] frame.
///
/// ```
/// use dispatch_loop::framing::{ByteOrder, Framing, LengthPrefixed, Prefix};
///
/// let mut output = Vec::new();
/// LengthPrefixed::new(Prefix::U16, ByteOrder::Big).encode(b"hi", &mut output)?;
/// assert_eq!(output, b"\x00\x02hi");
/// # Ok::<(), dispatch_loop::framing::FrameError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Prefix {
    /// One byte: frames of up to 255 bytes. Python's `struct` code `B`.
    U8,
    /// Two bytes: up to 65,535. Code `H`.
    U16,
    /// Four bytes: up to 4 GiB minus one byte. Code `I`.
    U32,
    /// Eight bytes. Code `Q`.
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

    /// The largest length that it can express, at most `usize::MAX`.
    fn highest(self) -> usize {
        usize::try_from(u64::MAX >> (64 - 8 * self.bytes())).unwrap_or(usize::MAX)
    }
}

/// Which byte of the length of a [`LengthPrefixed`] frame comes first.
///
/// ```
/// use dispatch_loop::framing::{ByteOrder, Framing, LengthPrefixed, Prefix};
///
/// let mut output = Vec::new();
/// LengthPrefixed::new(Prefix::U16, ByteOrder::Little).encode(b"hi", &mut output)?;
/// assert_eq!(output, b"\x02\x00hi");
/// # Ok::<(), dispatch_loop::framing::FrameError>(())
/// ```
// Exhaustive on purpose: protocols use no third order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ByteOrder {
    /// The most significant: network order, C's `htonl`, Python's `>` or `!`.
    Big,
    /// The least significant. Python's `<`.
    Little,
}
