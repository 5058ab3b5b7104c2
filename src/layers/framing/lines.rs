//! Lines: frames that end in `\n` or `\r\n`.

use memchr::memchr;

use super::partial::Partial;
use super::{FrameError, Framing, possible, within};

/// The default limit of a line, in bytes.
const LINE: usize = 64 * 1024;

/// Lines of text or other bytes that end in `\n` or `\r\n`, returned without their end: Twisted's
/// `LineReceiver`, asynchat's `set_terminator(b"\n")`.
///
/// A line longer than the [limit](Lines::with_limit) is [`FrameError::TooLong`], once; the rest of it is
/// skipped, and the next call continues with the line after it. At the end of the stream, a last line
/// without a newline counts as a line, and a `\r` at its end is dropped. No stream is ever malformed or
/// cut.
///
/// A line to be sent must not contain `\n` nor end in `\r`: it would be read back as another one.
///
/// ```
/// use dispatch_loop::framing::{FrameError, Framing, Lines};
///
/// let mut lines = Lines::new().with_limit(5);
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
    partial: Partial,
    /// Within a line that is too long.
    skipping: bool,
}

impl Lines {
    /// Lines of at most 64 KiB, sent with `\n`.
    pub const fn new() -> Lines {
        Lines { limit: LINE, newline: b"\n", partial: Partial::new(), skipping: false }
    }

    /// The same, sent with `\r\n`, as most Internet protocols require. Lines that are read may end in
    /// either.
    pub const fn crlf() -> Lines {
        let mut lines = Lines::new();
        lines.newline = b"\r\n";
        lines
    }

    /// Sets the limit of a line, in bytes without its end. The default is 64 KiB; Twisted's
    /// `MAX_LENGTH`.
    pub const fn with_limit(mut self, bytes: usize) -> Lines {
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
        if **input != [b'\n'] && self.partial.take_one(input) {
            return Ok(None);
        }
        self.partial.forget_returned();
        // The last call for most pieces: searching nothing costs as much as searching a short line.
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
        // One byte over the limit may be the `\r` of the line's end, as the next byte will show.
        let room = self.limit + 1 - self.partial.len();
        let window = &input[..input.len().min(room + 1)];
        let newline = memchr(b'\n', window);
        let line = &window[..newline.unwrap_or(window.len())];
        if line.len() > room || (line.len() == room && line.last().is_some_and(|&byte| byte != b'\r')) {
            *input = &input[room..];
            self.partial.clear();
            self.skipping = true;
            return Err(FrameError::TooLong { limit: self.limit });
        }
        let Some(newline) = newline else {
            *input = &[];
            self.partial.add(line, self.limit + 1);
            self.partial.open = self.limit.saturating_sub(self.partial.len());
            return Ok(None);
        };
        *input = &input[newline + 1..];
        if self.partial.is_empty() {
            return Ok(Some(without_cr(line)));
        }
        self.partial.add(line, self.limit + 1);
        Ok(Some(without_cr(self.partial.finish())))
    }

    fn has_begun(&self) -> bool {
        self.skipping || self.partial.has_begun()
    }

    fn end(&mut self) -> Result<Option<&[u8]>, FrameError> {
        self.partial.forget_returned();
        self.skipping = false;
        if self.partial.is_empty() {
            return Ok(None);
        }
        Ok(Some(without_cr(self.partial.finish())))
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

fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}
