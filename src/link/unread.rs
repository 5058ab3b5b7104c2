//! Input that a hook has put back, to be read again before anything that comes after it.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;

use crate::link::source::Source;
use crate::sys::poll::Interest;
use crate::threads::source_waker::SourceWaker;

#[derive(Default)]
pub(crate) struct Unread {
    bytes: Vec<u8>,
    /// How many of `bytes`, from the start, have been read again.
    taken: usize,
}

impl Unread {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.taken
    }

    /// Put `bytes` in front of what is here.
    pub(crate) fn put_back(&mut self, bytes: &[u8]) {
        // The common case: part of what was just taken.
        if let Some(start) = self.taken.checked_sub(bytes.len()) {
            self.bytes[start..self.taken].copy_from_slice(bytes);
            self.taken = start;
        } else {
            self.bytes.splice(..self.taken, bytes.iter().copied());
            self.taken = 0;
        }
    }

    pub(crate) fn into_bytes(mut self) -> Vec<u8> {
        self.bytes.drain(..self.taken);
        self.bytes
    }

    pub(crate) fn take(&mut self, buffer: &mut [u8]) -> usize {
        let taken = self.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&self.bytes[self.taken..][..taken]);
        self.taken += taken;
        taken
    }
}

/// A source whose input begins with what was put back, for a new source to wrap.
pub(crate) struct Replay {
    unread: Unread,
    /// The end was read before: it follows.
    ended: bool,
    source: Box<dyn Source>,
}

impl Replay {
    pub(crate) fn new(unread: Unread, ended: bool, source: Box<dyn Source>) -> Replay {
        Replay { unread, ended, source }
    }
}

impl Source for Replay {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.source.descriptor()
    }

    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.unread.len() > 0 {
            return Ok(self.unread.take(buffer));
        }
        // Free its memory.
        self.unread = Unread::default();
        match self.ended {
            true => Ok(0),
            false => self.source.recv(buffer),
        }
    }

    fn input_pending(&self) -> bool {
        self.unread.len() > 0 || self.ended || self.source.input_pending()
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.source.send(bytes)
    }

    fn send_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.source.send_vectored(pieces)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        self.source.shutdown_write()
    }

    fn is_established(&self) -> bool {
        self.source.is_established()
    }

    fn interest(&self, wanted: Interest) -> Interest {
        self.source.interest(wanted)
    }

    fn drive(&mut self, ready: Interest) -> io::Result<bool> {
        self.source.drive(ready)
    }

    fn output_pending(&self) -> bool {
        self.source.output_pending()
    }

    fn output_held(&self) -> usize {
        self.source.output_held()
    }

    fn unacknowledged(&self) -> usize {
        self.source.unacknowledged()
    }

    fn set_waker(&mut self, waker: &SourceWaker) {
        self.source.set_waker(waker);
    }

    fn reset(&mut self) {
        self.source.reset();
    }
}
