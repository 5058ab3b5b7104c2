//! `Socket`, one that is in no map: on its way in, or detached. What a channel does with it is in
//! `core` and `link`.

use std::io;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::sync::Arc;

use crate::net::address::Address;
use crate::net::load::Raised;
use crate::net::peer::Peer;
use crate::net::places::Permit;
use crate::net::unix::SocketFile;
use crate::sys;
use crate::sys::Kind;

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
    pub(crate) kind: Kind,
    pub(crate) nonblocking: bool,
    /// Shared by all connections of a listener that is bound to one address.
    pub(crate) local: Option<Arc<Address>>,
    pub(crate) peer: Peer,
    pub(crate) named: Option<Box<Named>>,
}

/// What few sockets have: names in the file system, a place within limits.
#[derive(Debug, Default)]
pub(crate) struct Named {
    pub(crate) peer: Option<Address>,
    /// The file of a socket that is bound to a path.
    pub(crate) file: Option<Box<SocketFile>>,
    /// Given back after the descriptor is closed.
    pub(crate) permit: Option<Box<Permit>>,
    /// It counts as a connection of a loop of a group.
    pub(crate) raised: Option<Raised>,
}

impl Socket {
    pub(crate) fn stream(fd: OwnedFd) -> Socket {
        Socket { fd, kind: Kind::Stream, nonblocking: false, local: None, peer: Peer::Unknown, named: None }
    }

    /// Adopt a descriptor whose kind only the system knows: one that was inherited, or sent by another
    /// process. asyncore's `dispatcher(sock)`.
    ///
    /// # Errors
    /// `InvalidInput` if it is not a socket, `Unsupported` for one of another kind than streams and
    /// datagrams.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Socket> {
        match sys::kind(fd.as_fd()) {
            Ok(kind) => Ok(Socket { kind, ..Socket::stream(fd) }),
            Err(error) if sys::errno::is_not_a_socket(&error) => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "this descriptor is not a socket; add a pipe or a terminal with `add_file`",
            )),
            Err(error) => Err(error),
        }
    }

    /// The address of this end: Python's `getsockname()`.
    ///
    /// # Errors
    /// Those of the system.
    pub fn local_addr(&self) -> io::Result<Address> {
        match &self.local {
            Some(address) => Ok(Address::clone(address)),
            None => sys::local_addr(self.as_fd()),
        }
    }

    /// The address of the other end: Python's `getpeername()`.
    ///
    /// # Errors
    /// `NotConnected` where there is none; those of the system.
    pub fn peer_addr(&self) -> io::Result<Address> {
        let elsewhere = || self.named.as_ref()?.peer.clone();
        match self.peer.address().or_else(elsewhere) {
            Some(address) => Ok(address),
            None => sys::peer_addr(self.as_fd()),
        }
    }

    pub(crate) fn set_peer(&mut self, address: &Address) {
        self.peer = Peer::new(address);
        if matches!(self.peer, Peer::Elsewhere) {
            self.named.get_or_insert_default().peer = Some(address.clone());
        }
    }

    /// Keep an address that is of a rare kind, and return a copy.
    #[cold]
    pub(crate) fn keep_peer(&mut self, far: Option<Box<Address>>) -> Address {
        let address = far.map_or(Address::Unnamed, |far| *far);
        self.set_peer(&address);
        address
    }

    /// From now on, until it is closed, it counts for a loop.
    pub(crate) fn count_for(&mut self, raised: Raised) {
        self.named.get_or_insert_default().raised = Some(raised);
    }

    /// Ask the system what is not known, and make it non-blocking.
    #[cold]
    pub(crate) fn complete(&mut self) -> io::Result<()> {
        if !self.nonblocking {
            sys::set_nonblocking(self.as_fd())?;
            self.nonblocking = true;
        }
        if self.kind == Kind::Listener {
            // A listener passes its address on to accepted sockets, which saves a call for each.
            if self.local.is_none() {
                self.local = sys::local_addr(self.as_fd()).ok().map(Arc::new);
            }
        } else if matches!(self.peer, Peer::Unknown) {
            if let Ok(peer) = sys::peer_addr(self.as_fd()) {
                self.set_peer(&peer);
            }
        }
        Ok(())
    }

    /// Nothing is left for `complete` to do, as after `accept`. (A listener has no peer.)
    #[inline]
    pub(crate) fn is_complete(&self) -> bool {
        self.nonblocking && !matches!(self.peer, Peer::Unknown)
    }
}

/// What [`Channel::detach`](crate::Channel::detach) takes out of a map.
///
/// ```
/// use dispatch_loop::{ChannelMap, Dispatcher};
///
/// struct Quiet;
/// impl Dispatcher for Quiet {}
///
/// // Move a connection to another map; the peer does not notice.
/// let (near, _far) = std::os::unix::net::UnixStream::pair()?;
/// let (mut one, mut other) = (ChannelMap::new()?, ChannelMap::new()?);
/// let quiet = one.add(near, Quiet)?;
/// let detached = one.channel(quiet)?.detach()?;
/// let quiet = other.add(detached.socket, Quiet)?;
/// let mut ch = other.channel(quiet)?;
/// ch.unread(&detached.unread);
/// ch.push_vec(detached.unsent)?;
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "dropping it closes the socket"]
pub struct Detached {
    /// The socket, non-blocking.
    pub socket: Socket,
    /// Input that was read and put back; it comes before what the socket still has.
    pub unread: Vec<u8>,
    /// Output that was pushed but not sent.
    pub unsent: Vec<u8>,
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
        Socket { kind: Kind::Listener, ..Socket::stream(listener.into()) }
    }
}

impl From<UnixListener> for Socket {
    fn from(listener: UnixListener) -> Self {
        Socket { kind: Kind::Listener, ..Socket::stream(listener.into()) }
    }
}

impl From<UdpSocket> for Socket {
    fn from(socket: UdpSocket) -> Self {
        Socket { kind: Kind::Datagram, ..Socket::stream(socket.into()) }
    }
}

impl From<UnixDatagram> for Socket {
    fn from(socket: UnixDatagram) -> Self {
        Socket { kind: Kind::Datagram, ..Socket::stream(socket.into()) }
    }
}

/// The file of a listener on a Unix-domain address is kept: removing it is up to the new owner. A connection no
/// longer counts for the [limits](crate::AcceptLimits) of its listener.
impl From<Socket> for OwnedFd {
    fn from(socket: Socket) -> Self {
        if let Some(file) = socket.named.and_then(|named| named.file) {
            file.keep();
        }
        socket.fd
    }
}
