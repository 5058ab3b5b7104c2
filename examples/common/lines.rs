//! Bytes into lines, as they come.

use super::shown::whole_characters;

/// A longer line is handled in pieces of this many bytes, or a few less: none splits a character.
const LONGEST: usize = 64 * 1024;

/// The beginning of a line whose end has not come yet.
#[derive(Default)]
pub struct Lines {
    kept: Vec<u8>,
}

impl Lines {
    /// Give each line that is whole now to `f`, without its `\n` or `\r\n`. One of more than 64 KiB
    /// comes in pieces of that size.
    pub fn add(&mut self, data: &[u8], mut f: impl FnMut(&[u8])) {
        for part in data.split_inclusive(|&byte| byte == b'\n') {
            self.kept.extend_from_slice(part);
            match self.kept.strip_suffix(b"\n") {
                Some(line) => {
                    let last = long(line.strip_suffix(b"\r").unwrap_or(line), &mut f);
                    f(last);
                    self.kept.clear();
                }
                None => {
                    // A `\r` at the end may be that of the newline.
                    let carriage_return = usize::from(self.kept.ends_with(b"\r"));
                    let rest = long(&self.kept[..self.kept.len() - carriage_return], &mut f);
                    let rest = rest.len() + carriage_return;
                    self.kept.drain(..self.kept.len() - rest);
                }
            }
        }
    }

    /// Nothing more will come: the last line has no newline.
    pub fn end(&mut self, mut f: impl FnMut(&[u8])) {
        let last = long(&self.kept, &mut f);
        if !last.is_empty() {
            f(last);
        }
        self.kept.clear();
    }
}

/// Give what is too long to `f` in pieces; what is left is not.
fn long<'a>(mut line: &'a [u8], f: &mut impl FnMut(&[u8])) -> &'a [u8] {
    while line.len() > LONGEST {
        let (piece, rest) = line.split_at(whole_characters(&line[..LONGEST]));
        f(piece);
        line = rest;
    }
    line
}
