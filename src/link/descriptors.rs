//! Descriptors that go along with the bytes of a Unix-domain socket.

use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;

use crate::clock::Turn;
use crate::link::held::Held;
use crate::link::output::Admitted;
use crate::link::state::Link;
use crate::sys;

impl Link {
    /// As [`push`](Link::push), with descriptors, which are closed if that fails.
    pub(crate) fn push_descriptors(
        &mut self,
        turn: Turn,
        before: &[u8],
        bytes: &[u8],
        descriptors: Vec<OwnedFd>,
    ) -> io::Result<bool> {
        let wrong = |what| Err(io::Error::new(ErrorKind::InvalidInput, what));
        if bytes.is_empty() || descriptors.is_empty() {
            return wrong("descriptors go along with at least one byte, and are at least one");
        }
        if descriptors.len() > sys::descriptors::MOST {
            return wrong("at most 253 descriptors go in one message");
        }
        if let Admitted::Ignored = self.admit(turn, before.len(), bytes.len(), true)? {
            return Ok(false);
        }
        self.carries_descriptors()?;
        let queue = self.output.queue();
        queue.push(before);
        queue.push_descriptors(bytes, descriptors);
        self.queued_more();
        Ok(true)
    }

    /// As [`recv`](Link::recv); what came along is added to `into`.
    pub(crate) fn recv_descriptors(
        &mut self,
        turn: Turn,
        buffer: &mut [u8],
        into: &mut Vec<OwnedFd>,
    ) -> io::Result<usize> {
        self.carries_descriptors()?;
        self.recv_by(turn, buffer, |source, buffer| match source {
            Held::Plain(plain) => match sys::descriptors::recv(plain.fd(), buffer, into)? {
                (read, false) => Ok(read),
                (_, true) => {
                    let what = "descriptors were sent for which there was no room; all of them are closed";
                    Err(io::Error::new(ErrorKind::QuotaExceeded, what))
                }
            },
            own => own.as_dyn().recv(buffer),
        })
    }

    fn carries_descriptors(&self) -> io::Result<()> {
        let unix = |fd| sys::local_addr(fd).is_ok_and(|local| local.ip().is_none());
        match self.fd().is_none_or(unix) && !self.has_own_source() {
            true => Ok(()),
            false => Err(io::Error::new(
                ErrorKind::Unsupported,
                "only a Unix-domain socket without a source around it carries descriptors",
            )),
        }
    }
}
