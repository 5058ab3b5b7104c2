//! The system calls of stream sockets, TCP and Unix-domain: listen, accept, connect, recv, send.
//! `Plain` in `link/source.rs` calls what moves bytes, within the budgets of a turn.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer};
use socket2::{Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use crate::net::address::Address;
use crate::net::options::{ConnectOptions, ListenOptions};
use crate::net::peer::Peer;
use crate::net::unix::SocketFile;
use crate::sys::errno::{is_in_progress, would_block};
use crate::sys::faults::{self, Call};
use crate::sys::{SEND_FLAGS, set_common, sock_addr_of, uninterrupted};

pub(crate) fn recv(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    uninterrupted(|| {
        let most = faults::pass_bytes(Call::Recv, buffer.len())?;
        let (_, read) = rustix::net::recv(fd, &mut buffer[..most], RecvFlags::empty())?;
        Ok(read)
    })
}

/// As [`recv`], and leave what it returns where it is.
#[cfg(feature = "proxy-protocol")]
pub(crate) fn peek(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    uninterrupted(|| {
        let most = faults::pass_bytes(Call::Recv, buffer.len())?;
        let (_, read) = rustix::net::recv(fd, &mut buffer[..most], RecvFlags::PEEK)?;
        Ok(read)
    })
}

/// As [`recv`], but a signal may interrupt it.
#[inline(always)]
pub(crate) fn recv_once(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
    let most = faults::pass_bytes(Call::Recv, buffer.len()).map_err(errno_of)?;
    let (_, read) = rustix::net::recv(fd, &mut buffer[..most], RecvFlags::empty())?;
    Ok(read)
}

/// Of a fault that was injected.
#[cold]
fn errno_of(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

/// As [`send`], but a signal may interrupt it.
#[inline(always)]
pub(crate) fn send_once(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let most = faults::pass_bytes(Call::Send, bytes.len())?;
    match rustix::net::send(fd, &bytes[..most], SEND_FLAGS) {
        Ok(sent) => Ok(sent),
        Err(errno) => Err(error_of(errno)),
    }
}

/// Out of the way of the calls that succeed.
#[cold]
#[inline(never)]
fn error_of(errno: rustix::io::Errno) -> io::Error {
    errno.into()
}

/// The one urgent byte that TCP keeps apart.
pub(crate) fn recv_urgent(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    uninterrupted(|| {
        let most = faults::pass_bytes(Call::RecvUrgent, buffer.len())?;
        let (_, read) = rustix::net::recv(fd, &mut buffer[..most], RecvFlags::OOB)?;
        Ok(read)
    })
}

pub(crate) fn send(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    uninterrupted(|| {
        let most = faults::pass_bytes(Call::Send, bytes.len())?;
        Ok(rustix::net::send(fd, &bytes[..most], SEND_FLAGS)?)
    })
}

pub(crate) fn send_vectored(fd: BorrowedFd<'_>, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    uninterrupted(|| {
        let wanted = pieces.iter().map(|piece| piece.len()).sum();
        let most = faults::pass_bytes(Call::Send, wanted)?;
        if most < wanted {
            let first = pieces.first().map_or(&[][..], |piece| piece);
            return Ok(rustix::net::send(fd, &first[..most.min(first.len())], SEND_FLAGS)?);
        }
        let mut control = SendAncillaryBuffer::default();
        Ok(rustix::net::sendmsg(fd, pieces, &mut control, SEND_FLAGS)?)
    })
}

pub(crate) fn shutdown_write(fd: BorrowedFd<'_>) -> io::Result<()> {
    faults::pass(Call::Shutdown)?;
    SockRef::from(&fd).shutdown(Shutdown::Write)
}

/// A connection, non-blocking and close-on-exec, and its peer's address; in a box if that is of a rare kind.
pub(crate) type Accepted = (OwnedFd, Peer, Option<Box<Address>>);

/// One connection out of the backlog.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<Accepted> {
    uninterrupted(|| {
        faults::pass(Call::Accept)?;
        accept_once(listener)
    })
}

/// The same socket under the lowest number that is free: `F_DUPFD_CLOEXEC`.
pub(crate) fn lowest(fd: &OwnedFd) -> io::Result<OwnedFd> {
    faults::pass(Call::Option)?;
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, 0)?)
}

#[cfg(not(target_vendor = "apple"))]
#[inline(always)]
fn accept_once(listener: BorrowedFd<'_>) -> io::Result<Accepted> {
    use rustix::net::{AddressFamily, SocketAddrAny, SocketFlags};
    use std::net::SocketAddrV4;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (fd, peer) = rustix::net::acceptfrom_with(listener, flags)?;
    match peer.as_ref().map(SocketAddrAny::address_family) {
        Some(AddressFamily::INET) => {
            let v4 = peer.and_then(|any| SocketAddrV4::try_from(any).ok());
            Ok((fd, v4.map_or(Peer::Unnamed, Peer::v4), None))
        }
        _ => {
            let (peer, far) = Peer::split(peer.and_then(crate::sys::address_of_any));
            Ok((fd, peer, far))
        }
    }
}

#[cfg(target_vendor = "apple")]
fn accept_once(listener: BorrowedFd<'_>) -> io::Result<Accepted> {
    let (socket, peer) = SockRef::from(&listener).accept()?;
    socket.set_nonblocking(true)?;
    let (peer, far) = Peer::split(Some(crate::sys::address_of(&peer)));
    Ok((socket.into(), peer, far))
}

/// A bound, listening, non-blocking socket, and its file if it has one.
pub(crate) fn listen(on: &Address, options: &ListenOptions) -> io::Result<(OwnedFd, Option<SocketFile>)> {
    let (socket, sock_addr) = new_socket(on)?;
    let mut file = None;
    set_common(&socket, options.recv_buffer, options.send_buffer, options.interface.as_deref())?;
    match on {
        Address::Ip(ip) => {
            if let Some(silence) = options.keep_alive {
                socket.set_tcp_keepalive(&keepalive(silence))?;
            }
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(options.reuse_port)?;
            // Inherited by the accepted sockets, at the cost of no further call.
            socket.set_tcp_nodelay(options.no_delay)?;
            if ip.is_ipv6() {
                socket.set_only_v6(!options.dual_stack)?;
            }
            faults::pass(Call::Bind)?;
            socket.bind(&sock_addr)?;
        }
        Address::Unix(path) => {
            faults::pass(Call::Bind)?;
            file = Some(SocketFile::bind(&socket, &sock_addr, path, options.mode)?);
        }
        _ => {
            faults::pass(Call::Bind)?;
            socket.bind(&sock_addr)?;
        }
    }
    faults::pass(Call::Listen)?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    Ok((socket.into(), file))
}

/// How a connect began.
pub(crate) enum Connect {
    InProgress,
    Done,
    /// The backlog of a Unix-domain listener is full: try again later.
    Later,
    Refused(io::Error),
}

/// A socket on its way to `peer`. `Err` only if no such socket can be made.
pub(crate) fn connect(
    peer: &Address,
    options: &ConnectOptions,
) -> io::Result<(OwnedFd, Option<SocketFile>, Connect)> {
    let (socket, sock_addr) = new_socket(peer)?;
    set_common(&socket, options.recv_buffer, options.send_buffer, options.interface.as_deref())?;
    if peer.ip().is_some() {
        if let Some(silence) = options.keep_alive {
            socket.set_tcp_keepalive(&keepalive(silence))?;
        }
        socket.set_tcp_nodelay(options.no_delay)?;
    }
    let mut file = None;
    if let Some(local) = &options.local {
        faults::pass(Call::Bind)?;
        let local_addr = sock_addr_of(local)?;
        match local {
            Address::Unix(path) => file = Some(SocketFile::bind(&socket, &local_addr, path, None)?),
            _ => socket.bind(&local_addr)?,
        }
    }
    let begun = begin_connect(&socket, &sock_addr);
    Ok((socket.into(), file, begun))
}

/// Try a connect again that returned [`Connect::Later`].
pub(crate) fn connect_again(fd: BorrowedFd<'_>, peer: &Address) -> Connect {
    match sock_addr_of(peer) {
        Ok(sock_addr) => begin_connect(&SockRef::from(&fd), &sock_addr),
        Err(error) => Connect::Refused(error),
    }
}

fn begin_connect(socket: &Socket, peer: &SockAddr) -> Connect {
    let connect = || match faults::pass(Call::Connect) {
        // One that is interrupted, or in progress, has begun.
        Err(error) if is_in_progress(&error) => socket.connect(peer).and(Err(error)),
        passed => passed.and_then(|()| socket.connect(peer)),
    };
    match connect() {
        Ok(()) => Connect::Done,
        Err(error) if is_in_progress(&error) => Connect::InProgress,
        Err(error) if would_block(&error) && peer.is_unix() => Connect::Later,
        Err(error) => Connect::Refused(error),
    }
}

fn new_socket(address: &Address) -> io::Result<(Socket, SockAddr)> {
    let sock_addr = sock_addr_of(address)?;
    faults::pass(Call::Socket)?;
    let protocol = address.ip().map(|_| Protocol::TCP);
    let socket = Socket::new(sock_addr.domain(), Type::STREAM, protocol)?;
    socket.set_nonblocking(true)?;
    Ok((socket, sock_addr))
}

/// `TCP_NODELAY`.
pub(crate) fn set_no_delay(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    faults::pass(Call::Option)?;
    SockRef::from(&fd).set_tcp_nodelay(on)
}

/// `SO_KEEPALIVE`, and the silence before the first probe.
pub(crate) fn set_keep_alive(fd: BorrowedFd<'_>, silence: Option<Duration>) -> io::Result<()> {
    faults::pass(Call::Option)?;
    let socket = SockRef::from(&fd);
    match silence {
        Some(silence) => socket.set_tcp_keepalive(&keepalive(silence)),
        None => socket.set_keepalive(false),
    }
}

/// The system counts whole seconds, and refuses none.
fn keepalive(silence: Duration) -> TcpKeepalive {
    TcpKeepalive::new().with_time(silence.max(Duration::from_secs(1)))
}

/// Make the next `close` reset the connection.
pub(crate) fn set_reset_on_close(fd: BorrowedFd<'_>) -> io::Result<()> {
    faults::pass(Call::Option)?;
    SockRef::from(&fd).set_linger(Some(Duration::ZERO))
}
