//! A source that changes nothing.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;

use dispatch_loop::{Interest, Source};

/// Asks the source inside for everything. The end waits for what that has taken and not sent.
pub struct Through(pub Box<dyn Source>);

impl Source for Through {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.0.descriptor()
    }
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.recv(buffer)
    }
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes)
    }
    fn send_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.send_vectored(pieces)
    }
    fn shutdown_write(&mut self) -> io::Result<()> {
        if self.0.output_pending() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.0.shutdown_write()
    }
    fn is_established(&self) -> bool {
        self.0.is_established()
    }
    fn interest(&self, wanted: Interest) -> Interest {
        self.0.interest(wanted)
    }
    fn drive(&mut self, ready: Interest) -> io::Result<bool> {
        self.0.drive(ready)
    }
    fn input_pending(&self) -> bool {
        self.0.input_pending()
    }
    fn output_pending(&self) -> bool {
        self.0.output_pending()
    }
}
