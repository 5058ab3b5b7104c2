//! The channel's end of a scripted connection.

use std::cell::RefCell;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use rustix::io::Errno;

use crate::kit::pipe::Pipe;
use crate::link::source::Source;
use crate::sys::poll::Interest;
use crate::threads::source_waker::SourceWaker;

/// The channel's end of a connection with a [`Peer`](crate::testing::Peer): a source without a descriptor, made
/// by [`pair`](crate::testing::pair).
///
/// It must be added to the map for which it was made, by [`add_source`](crate::ChannelMap::add_source), also
/// inside another source.
///
/// ```
/// use dispatch_loop::{Dispatcher, testing};
/// use std::time::Duration;
///
/// struct Quiet;
/// impl Dispatcher for Quiet {}
///
/// let mut map = testing::map()?;
/// let (end, peer) = testing::pair(&mut map);
/// let quiet = map.add_source(end, Quiet)?;
/// map.channel(quiet)?.push(b"hello")?;
/// testing::advance(&mut map, Duration::ZERO)?;
/// assert_eq!(peer.sent(), b"hello");
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct End(pub(super) Rc<RefCell<Pipe>>);

impl Source for End {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.borrow_mut().recv(buffer)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().send(bytes)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        let mut pipe = self.0.borrow_mut();
        match pipe.is_reset_by_peer() {
            true => Err(Errno::NOTCONN.into()),
            false => {
                pipe.fin = true;
                Ok(())
            }
        }
    }

    fn drive(&mut self, _: Interest) -> io::Result<bool> {
        match self.0.borrow().is_lost {
            true => Err(Errno::CONNRESET.into()),
            false => Ok(false),
        }
    }

    fn input_pending(&self) -> bool {
        self.0.borrow().has_input()
    }

    fn unacknowledged(&self) -> usize {
        self.0.borrow().unread
    }

    fn set_waker(&mut self, waker: &SourceWaker) {
        self.0.borrow_mut().token = Some(waker.token());
    }

    fn reset(&mut self) {
        self.0.borrow_mut().reset = true;
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.0.borrow_mut().closed = true;
    }
}
