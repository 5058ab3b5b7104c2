//! Netstrings: frames that begin with their length in decimal, and end in a comma.

use std::io::Write;

use super::partial::Partial;
use super::{CONTENT, FrameError, Framing, possible, still_good, within};

/// D. J. Bernstein's netstrings: the length in decimal, a colon, that many bytes of anything, and a
/// comma: `5:hello,`. Twisted's `NetstringReceiver`.
///
/// Strict, as their specification demands: no leading zero, no empty length, no space. A wrong byte is
/// [`FrameError::Malformed`]; a length over the [limit](Netstrings::with_limit) is
/// [`FrameError::TooLong`], as soon as the digit that makes it so has arrived. Both are final.
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
    /// How many digits have arrived, and their value.
    digits: usize,
    length: usize,
    /// The colon has arrived: what follows is content.
    counted: bool,
    partial: Partial,
    failed: Option<FrameError>,
}

impl Netstrings {
    /// Netstrings of at most 1 MiB.
    pub const fn new() -> Netstrings {
        Netstrings {
            limit: CONTENT,
            digits: 0,
            length: 0,
            counted: false,
            partial: Partial::new(),
            failed: None,
        }
    }

    /// Sets the limit of a frame, in bytes of content. The default is 1 MiB; Twisted's `MAX_LENGTH`.
    pub const fn with_limit(mut self, bytes: usize) -> Netstrings {
        self.limit = possible(bytes);
        self
    }

    /// Consume the length; whether it is complete now, with its colon.
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
        if self.partial.take_one(input) {
            return Ok(None);
        }
        still_good(&self.failed)?;
        self.partial.forget_returned();
        if !self.counted {
            match self.count(input) {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(error) => return Err(self.failed.insert(error).clone()),
            }
        }
        // The comma is consumed with the content, so that no frame is returned before it has arrived.
        let Some(whole) = self.partial.gather(input, self.length + 1) else {
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

    fn has_begun(&self) -> bool {
        self.digits > 0 || self.partial.has_begun()
    }

    fn end(&mut self) -> Result<Option<&[u8]>, FrameError> {
        still_good(&self.failed)?;
        self.partial.forget_returned();
        match self.digits + usize::from(self.counted) + self.partial.len() {
            0 => Ok(None),
            got => Err(self.failed.insert(FrameError::Cut { got }).clone()),
        }
    }

    fn encode(&self, frame: &[u8], output: &mut Vec<u8>) -> Result<(), FrameError> {
        within(self.limit, frame)?;
        write!(output, "{}:", frame.len()).expect("writing to a Vec cannot fail");
        output.extend_from_slice(frame);
        output.push(b',');
        Ok(())
    }
}
