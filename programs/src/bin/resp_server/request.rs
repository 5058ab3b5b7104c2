//! Requests, cut out of a stream: arrays of byte strings, or lines that a person types. No socket is in here.

use std::io;
use std::mem;
use std::ops::Range;

use dispatch_loop::framing::{Decode, Decoded};

/// The limits of a request: its bytes, its words, and its bytes if it is a line.
pub const LONGEST: usize = 8 * 1024 * 1024;
const WORDS: i64 = 65_536;
const LINE: usize = 64 * 1024;
/// The most bytes of a number, with its sign and the end of its line.
const NUMBER: usize = 24;

/// How far the request that is coming was looked at: when more of it has come, it is seen from its start again, and
/// need not be gone through again.
#[derive(Default)]
pub struct Requests {
    at: usize,
    /// How many words are still to come, once that is known.
    left: Option<i64>,
    words: Vec<Range<usize>>,
}

impl Decode for Requests {
    /// A command and its arguments; or nothing, which asks for nothing.
    type Message = Vec<Vec<u8>>;

    fn decode(&mut self, input: &[u8]) -> io::Result<Decoded<Vec<Vec<u8>>>> {
        if input[0] != b'*' {
            return self.line(input);
        }
        if self.left.is_none() {
            let Some((count, end)) = number(input, 0, b'*')? else { return Ok(Decoded::MORE) };
            if count > WORDS {
                return Err(invalid("invalid multibulk length"));
            }
            (self.left, self.at) = (Some(count), end);
        }
        while let Some(left @ 1..) = self.left {
            let Some((length, start)) = number(input, self.at, b'$')? else { return Ok(Decoded::MORE) };
            let length = usize::try_from(length).ok().filter(|length| *length <= LONGEST);
            let end = start + length.ok_or_else(|| invalid("invalid bulk length"))?;
            match input.get(end..end + 2) {
                Some(b"\r\n") => self.words.push(start..end),
                Some(_) => return Err(invalid("a string is longer than announced")),
                None => return Ok(Decoded::Incomplete { at_least: end + 2 }),
            }
            (self.left, self.at) = (Some(left - 1), end + 2);
        }
        let Requests { at: used, words, .. } = mem::take(self);
        Ok(Decoded::Message { message: words.into_iter().map(|word| input[word].to_vec()).collect(), used })
    }
}

impl Requests {
    /// Words with spaces between.
    fn line(&mut self, input: &[u8]) -> io::Result<Decoded<Vec<Vec<u8>>>> {
        let end = input[self.at..].iter().position(|byte| *byte == b'\n').map(|end| self.at + end);
        if end.unwrap_or(input.len()) > LINE {
            return Err(invalid("too big inline request"));
        }
        self.at = if end.is_some() { 0 } else { input.len() };
        let Some(end) = end else { return Ok(Decoded::MORE) };
        let words = input[..end].split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        Ok(Decoded::Message { message: words.map(<[u8]>::to_vec).collect(), used: end + 1 })
    }
}

/// The number behind this sign, and where its line ends; `None` if that has not come.
fn number(input: &[u8], at: usize, sign: u8) -> io::Result<Option<(i64, usize)>> {
    let line = &input[at..input.len().min(at + NUMBER)];
    if let Some(first) = line.first().filter(|first| **first != sign) {
        return Err(invalid(format!("expected '{}', got '{}'", char::from(sign), first.escape_ascii())));
    }
    let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
        return if line.len() < NUMBER { Ok(None) } else { Err(invalid("invalid length")) };
    };
    let digits = line[1..end].strip_suffix(b"\r").and_then(|digits| std::str::from_utf8(digits).ok());
    let number = digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| invalid("invalid length"))?;
    Ok(Some((number, at + end + 1)))
}

fn invalid(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}
