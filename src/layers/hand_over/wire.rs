//! Lines, and the descriptors that come along with them.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;

use crate::Channel;

/// The most bytes of a line.
const LINE: usize = 4096;

/// What has come and was not used.
#[derive(Debug, Default)]
pub(super) struct Wire {
    bytes: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
}

impl Wire {
    /// Read what is there.
    pub(super) fn read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        let (mut buffer, mut new) = ([0; 4 * LINE], Vec::new());
        let read = ch.recv_descriptors(&mut buffer, &mut new)?;
        self.bytes.extend_from_slice(&buffer[..read]);
        self.descriptors.extend(new);
        Ok(())
    }

    /// The next line, without its end.
    pub(super) fn line(&mut self) -> io::Result<Option<String>> {
        let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') else {
            return match self.bytes.len() < LINE {
                true => Ok(None),
                false => Err(io::Error::new(ErrorKind::InvalidData, "a line without an end")),
            };
        };
        let rest = self.bytes.split_off(end + 1);
        let line = std::mem::replace(&mut self.bytes, rest);
        match String::from_utf8(line) {
            Ok(line) => Ok(Some(line.trim_end_matches('\n').to_owned())),
            Err(_) => Err(io::Error::new(ErrorKind::InvalidData, "a line that is no text")),
        }
    }

    /// So many bytes, once they are all there.
    pub(super) fn bytes(&mut self, len: usize) -> Option<Vec<u8>> {
        let rest = (self.bytes.len() >= len).then(|| self.bytes.split_off(len))?;
        Some(std::mem::replace(&mut self.bytes, rest))
    }

    /// The descriptor that came with a line.
    pub(super) fn descriptor(&mut self) -> io::Result<OwnedFd> {
        let missing = || io::Error::new(ErrorKind::InvalidData, "a descriptor is missing");
        self.descriptors.pop_front().ok_or_else(missing)
    }
}
