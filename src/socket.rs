//! A connected or listening socket on its way into a map.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use crate::{Address, sys};

/// A socket that is in no map: what [`handle_accept`](crate::Dispatcher::handle_accept) is given
/// and [`ChannelMap::add`](crate::ChannelMap::add) takes.
///
/// Made from the types of `std` with `into()`, and back through [`OwnedFd`]. Dropping it closes it.
///
/// ```
/// use dispatch_loop::{ChannelMap, Dispatcher, Socket};
/// use std::os::unix::net::UnixStream;
///
/// struct Quiet;
/// impl Dispatcher for Quiet {}
///
/// let (ours, theirs) = UnixStream::pair()?;
/// let socket = Socket::from(ours);
/// let mut map = ChannelMap::new()?;
/// map.add(socket, Quiet)?;
/// # drop(theirs);
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct Socket {
    pub(crate) fd: OwnedFd,
    pub(crate) listening: bool,
    pub(crate) nonblocking: bool,
    /// Shared by all connections of a listener that is bound to one address.
    pub(crate) local: Option<Arc<Address>>,
    pub(crate) peer: Option<Address>,
}

impl Socket {
    fn stream(fd: OwnedFd) -> Socket {
        Socket { fd, listening: false, nonblocking: false, local: None, peer: None }
    }

    /// Our end: Python's `getsockname()`.
    pub fn local_address(&self) -> io::Result<Address> {
        match &self.local {
            Some(address) => Ok(Address::clone(address)),
            None => sys::local_address(self.as_fd()),
        }
    }

    /// The other end: Python's `getpeername()`. Fails with `NotConnected` where there is none.
    pub fn peer_address(&self) -> io::Result<Address> {
        match &self.peer {
            Some(address) => Ok(address.clone()),
            None => sys::peer_address(self.as_fd()),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Socket::stream(stream.into())
    }
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        Socket::stream(stream.into())
    }
}

impl From<TcpListener> for Socket {
    fn from(listener: TcpListener) -> Self {
        Socket { listening: true, ..Socket::stream(listener.into()) }
    }
}

impl From<UnixListener> for Socket {
    fn from(listener: UnixListener) -> Self {
        Socket { listening: true, ..Socket::stream(listener.into()) }
    }
}

impl From<Socket> for OwnedFd {
    fn from(socket: Socket) -> Self {
        socket.fd
    }
}
