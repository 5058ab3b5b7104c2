//! Every system call that the library makes itself, each behind the door of `faults`. What the
//! calls mean to a channel is decided elsewhere; here they are only made.

#[cfg(feature = "faults")]
pub mod faults;
#[cfg(not(feature = "faults"))]
pub(crate) mod faults;
pub(crate) mod poll;

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::net::{IpAddr, Shutdown};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, SockRef, TcpKeepalive, Type};

use self::faults::Call;

use crate::net::address::Address;
use crate::net::options::{ConnectOptions, DatagramOptions, ListenOptions};
use crate::net::unix;
use crate::net::unix::SocketFile;

/// A peer that is gone is an error, never a signal.
#[cfg(not(target_vendor = "apple"))]
const SEND_FLAGS: SendFlags = SendFlags::NOSIGNAL;
#[cfg(target_vendor = "apple")]
const SEND_FLAGS: SendFlags = SendFlags::empty();

/// Make a call again for as long as a signal interrupts it.
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

pub(crate) fn recv(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    uninterrupted(|| {
        let most = faults::pass_bytes(Call::Recv, buffer.len())?;
        let (_, read) = rustix::net::recv(fd, &mut buffer[..most], RecvFlags::empty())?;
        Ok(read)
    })
}

/// As [`recv`], but a signal may interrupt it.
#[inline(always)]
pub(crate) fn recv_once(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    let most = faults::pass_bytes(Call::Recv, buffer.len())?;
    match rustix::net::recv(fd, &mut buffer[..most], RecvFlags::empty()) {
        Ok((_, read)) => Ok(read),
        Err(errno) => Err(error_of(errno)),
    }
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
        let mut control = rustix::net::SendAncillaryBuffer::default();
        Ok(rustix::net::sendmsg(fd, pieces, &mut control, SEND_FLAGS)?)
    })
}

pub(crate) fn shutdown_write(fd: BorrowedFd<'_>) -> io::Result<()> {
    faults::pass(Call::Shutdown)?;
    SockRef::from(&fd).shutdown(Shutdown::Write)
}

/// One connection out of the backlog, non-blocking and close-on-exec.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Address)> {
    uninterrupted(|| {
        faults::pass(Call::Accept)?;
        accept_once(listener)
    })
}

#[cfg(not(target_vendor = "apple"))]
fn accept_once(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Address)> {
    use rustix::net::SocketFlags;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (fd, peer) = rustix::net::acceptfrom_with(listener, flags)?;
    Ok((fd, peer.and_then(address_of_any).unwrap_or(Address::Unnamed)))
}

#[cfg(target_vendor = "apple")]
fn accept_once(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Address)> {
    let (socket, peer) = SockRef::from(&listener).accept()?;
    socket.set_nonblocking(true)?;
    Ok((socket.into(), address(&peer)))
}

/// A bound, listening, non-blocking socket, and its file if it has one.
pub(crate) fn listen(on: &Address, options: &ListenOptions) -> io::Result<(OwnedFd, Option<SocketFile>)> {
    let (socket, sock_addr) = stream_socket(on)?;
    let mut file = None;
    let keep_alive = options.keep_alive.filter(|_| on.ip().is_some());
    set_common(&socket, keep_alive, options.recv_buffer, options.send_buffer, &options.interface)?;
    match on {
        Address::Ip(ip) => {
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(options.reuse_port)?;
            // The listener hands it on to the sockets it accepts, at no further call.
            socket.set_tcp_nodelay(options.no_delay)?;
            if ip.is_ipv6() {
                socket.set_only_v6(true)?;
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

/// A bound, non-blocking socket for datagrams, and its file if it has one.
pub(crate) fn bind_datagram(
    on: &Address,
    options: &DatagramOptions,
) -> io::Result<(OwnedFd, Option<SocketFile>)> {
    let domain = match on {
        Address::Ip(ip) => Domain::for_address(*ip),
        _ => Domain::UNIX,
    };
    faults::pass(Call::Socket)?;
    let socket = socket2::Socket::new(domain, Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    set_common(&socket, None, options.recv_buffer, options.send_buffer, &options.interface)?;
    let mut file = None;
    if let Address::Ip(ip) = on {
        socket.set_broadcast(options.broadcast)?;
        socket.set_reuse_address(options.reuse_address)?;
        socket.set_reuse_port(options.reuse_port)?;
        if ip.is_ipv6() {
            socket.set_only_v6(true)?;
        }
    }
    faults::pass(Call::Bind)?;
    match on {
        Address::Unnamed => {}
        Address::Unix(path) => {
            file = Some(SocketFile::bind(&socket, &sock_addr_of(on)?, path, options.mode)?);
        }
        _ => socket.bind(&sock_addr_of(on)?)?,
    }
    if let Some(peer) = &options.peer {
        faults::pass(Call::Connect)?;
        let named = |error: io::Error| io::Error::new(error.kind(), format!("peer {peer}: {error}"));
        socket.connect(&sock_addr_of(peer)?).map_err(named)?;
    }
    Ok((socket.into(), file))
}

/// One datagram: how much of it fitted, who sent it, and whether there was more.
pub(crate) fn recv_datagram(
    fd: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<(usize, Option<Address>, bool)> {
    use rustix::net::{RecvAncillaryBuffer, ReturnFlags};
    uninterrupted(|| {
        let most = faults::pass_bytes(Call::Recv, buffer.len())?;
        let mut slices = [IoSliceMut::new(&mut buffer[..most])];
        let mut control = RecvAncillaryBuffer::default();
        let got = rustix::net::recvmsg(fd, &mut slices, &mut control, RecvFlags::empty())?;
        let from = got.address.and_then(address_of_any);
        Ok((got.bytes.min(most), from, got.flags.contains(ReturnFlags::TRUNC)))
    })
}

fn address_of_any(any: rustix::net::SocketAddrAny) -> Option<Address> {
    if let Ok(ip) = std::net::SocketAddr::try_from(any.clone()) {
        return Some(Address::Ip(ip));
    }
    let unix = rustix::net::SocketAddrUnix::try_from(any).ok()?;
    #[cfg(target_os = "linux")]
    if let Some(name) = unix.abstract_name() {
        return Some(Address::Abstract(name.into()));
    }
    let path = unix.path_bytes().filter(|path| !path.is_empty())?;
    Some(Address::Unix(std::path::Path::new(std::ffi::OsStr::from_bytes(path)).into()))
}

/// One datagram, whole or not at all; without an address, to the one peer.
pub(crate) fn send_datagram(fd: BorrowedFd<'_>, bytes: &[u8], to: Option<&Address>) -> io::Result<()> {
    let to = to.map(sock_addr_of).transpose()?;
    uninterrupted(|| {
        faults::pass_bytes(Call::Send, bytes.len())?;
        match &to {
            Some(to) => SockRef::from(&fd).send_to_with_flags(bytes, to, SEND_FLAGS.bits() as _)?,
            None => rustix::net::send(fd, bytes, SEND_FLAGS)?,
        };
        Ok(())
    })
}

/// An error that came back from the network for a datagram sent before.
pub(crate) fn is_of_an_earlier_datagram(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable};
    matches!(error.kind(), ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable)
}

/// Join a multicast group, or leave it.
pub(crate) fn multicast(fd: BorrowedFd<'_>, group: IpAddr, interface: u32, join: bool) -> io::Result<()> {
    faults::pass(Call::Option)?;
    let socket = SockRef::from(&fd);
    match (group, join) {
        (IpAddr::V4(group), true) => {
            socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(interface))
        }
        (IpAddr::V4(group), false) => {
            socket.leave_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(interface))
        }
        (IpAddr::V6(group), true) => socket.join_multicast_v6(&group, interface),
        (IpAddr::V6(group), false) => socket.leave_multicast_v6(&group, interface),
    }
}

/// How a connect began.
pub(crate) enum Connect {
    InProgress,
    Done,
    /// The backlog of a Unix-domain listener is full: to be tried again.
    Later,
    Refused(io::Error),
}

/// A socket on its way to `peer`. `Err` only if there can be no such socket.
pub(crate) fn connect(
    peer: &Address,
    options: &ConnectOptions,
) -> io::Result<(OwnedFd, Option<SocketFile>, Connect)> {
    let (socket, sock_addr) = stream_socket(peer)?;
    let keep_alive = options.keep_alive.filter(|_| peer.ip().is_some());
    set_common(&socket, keep_alive, options.recv_buffer, options.send_buffer, &options.interface)?;
    if peer.ip().is_some() {
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

/// What said [`Connect::Later`], once more.
pub(crate) fn connect_again(fd: BorrowedFd<'_>, peer: &Address) -> Connect {
    match sock_addr_of(peer) {
        Ok(sock_addr) => begin_connect(&SockRef::from(&fd), &sock_addr),
        Err(error) => Connect::Refused(error),
    }
}

fn begin_connect(socket: &socket2::Socket, peer: &SockAddr) -> Connect {
    match faults::pass(Call::Connect).and_then(|()| socket.connect(peer)) {
        Ok(()) => Connect::Done,
        // An interrupted non-blocking connect goes on by itself.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
            Connect::InProgress
        }
        Err(error) if error.kind() == ErrorKind::Interrupted => Connect::InProgress,
        Err(error) if error.kind() == ErrorKind::WouldBlock && peer.is_unix() => Connect::Later,
        Err(error) => Connect::Refused(error),
    }
}

fn stream_socket(address: &Address) -> io::Result<(socket2::Socket, SockAddr)> {
    let sock_addr = sock_addr_of(address)?;
    faults::pass(Call::Socket)?;
    let protocol = address.ip().map(|_| Protocol::TCP);
    let socket = socket2::Socket::new(sock_addr.domain(), Type::STREAM, protocol)?;
    socket.set_nonblocking(true)?;
    Ok((socket, sock_addr))
}

fn sock_addr_of(address: &Address) -> io::Result<SockAddr> {
    match address {
        Address::Ip(ip) => Ok(SockAddr::from(*ip)),
        other => unix::sock_addr(other),
    }
}

fn set_common(
    socket: &socket2::Socket,
    keep_alive: Option<Duration>,
    recv_buffer: Option<usize>,
    send_buffer: Option<usize>,
    interface: &Option<String>,
) -> io::Result<()> {
    faults::pass(Call::Option)?;
    if let Some(silence) = keep_alive {
        socket.set_tcp_keepalive(&silence_of(silence))?;
    }
    if let Some(bytes) = recv_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(bytes) = send_buffer {
        socket.set_send_buffer_size(bytes)?;
    }
    match interface {
        Some(name) => bind_to(socket, name),
        None => Ok(()),
    }
}

#[cfg(target_os = "linux")]
fn bind_to(socket: &socket2::Socket, interface: &str) -> io::Result<()> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("interface {interface:?}: {error}"));
    socket.bind_device(Some(interface.as_bytes())).map_err(named)
}

#[cfg(not(target_os = "linux"))]
fn bind_to(_: &socket2::Socket, _: &str) -> io::Result<()> {
    Err(io::Error::new(ErrorKind::Unsupported, "a socket can be bound to an interface on Linux only"))
}

/// The system counts in seconds.
fn silence_of(silence: Duration) -> TcpKeepalive {
    TcpKeepalive::new().with_time(silence.max(Duration::from_secs(1)))
}

/// `TCP_NODELAY`.
pub(crate) fn set_no_delay(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    faults::pass(Call::Option)?;
    SockRef::from(&fd).set_tcp_nodelay(on)
}

/// `SO_KEEPALIVE`, and after how long a silence.
pub(crate) fn set_keep_alive(fd: BorrowedFd<'_>, silence: Option<Duration>) -> io::Result<()> {
    faults::pass(Call::Option)?;
    let socket = SockRef::from(&fd);
    match silence {
        Some(silence) => socket.set_tcp_keepalive(&silence_of(silence)),
        None => socket.set_keepalive(false),
    }
}

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Listener,
    Stream,
    Datagram,
    /// Not a socket.
    File,
}

/// `SO_TYPE` and `SO_ACCEPTCONN`.
pub(crate) fn kind(fd: BorrowedFd<'_>) -> io::Result<Kind> {
    faults::pass(Call::Option)?;
    let socket = SockRef::from(&fd);
    Ok(match socket.r#type()? {
        Type::STREAM if listens(fd)? => Kind::Listener,
        Type::STREAM => Kind::Stream,
        Type::DGRAM => Kind::Datagram,
        _ => {
            let what = "this socket is neither a stream nor one for datagrams";
            return Err(io::Error::new(ErrorKind::Unsupported, what));
        }
    })
}

#[cfg(not(target_vendor = "apple"))]
fn listens(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(rustix::net::sockopt::socket_acceptconn(fd)?)
}

/// There is no way to ask here, but a stream has a peer.
#[cfg(target_vendor = "apple")]
fn listens(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(SockRef::from(&fd).peer_addr().is_err())
}

pub(crate) fn is_no_socket(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::NOTSOCK.raw_os_error())
}

pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    faults::pass(Call::Option)?;
    #[cfg(target_vendor = "apple")]
    SockRef::from(&fd).set_nosigpipe(true)?;
    SockRef::from(&fd).set_nonblocking(true)
}

/// Let the next `close` reset the connection.
pub(crate) fn set_reset_on_close(fd: BorrowedFd<'_>) -> io::Result<()> {
    faults::pass(Call::Option)?;
    SockRef::from(&fd).set_linger(Some(Duration::ZERO))
}

/// `SO_ERROR`: the error that waits on the socket; reading it takes it away.
pub(crate) fn take_error(fd: BorrowedFd<'_>) -> io::Result<Option<io::Error>> {
    faults::pass(Call::TakeError)?;
    SockRef::from(&fd).take_error()
}

pub(crate) fn local_address(fd: BorrowedFd<'_>) -> io::Result<Address> {
    faults::pass(Call::Address)?;
    Ok(address(&SockRef::from(&fd).local_addr()?))
}

pub(crate) fn peer_address(fd: BorrowedFd<'_>) -> io::Result<Address> {
    faults::pass(Call::Address)?;
    Ok(address(&SockRef::from(&fd).peer_addr()?))
}

fn address(address: &SockAddr) -> Address {
    if let Some(ip) = address.as_socket() {
        Address::Ip(ip)
    } else if let Some(path) = address.as_pathname() {
        Address::Unix(path.into())
    } else if let Some(name) = address.as_abstract_namespace() {
        Address::Abstract(name.into())
    } else {
        Address::Unnamed
    }
}

/// What a descriptor that is no socket can do.
pub(crate) struct FileMode {
    pub(crate) reads: bool,
    pub(crate) writes: bool,
    pub(crate) was_nonblocking: bool,
    pub(crate) is_regular: bool,
    pub(crate) is_device: bool,
    inode: (u64, u64),
}

impl FileMode {
    /// The same for all that share one open file.
    pub(crate) fn key(&self) -> (u64, u64, bool, bool) {
        (self.inode.0, self.inode.1, self.reads, self.writes)
    }
}

pub(crate) fn file_mode(fd: BorrowedFd<'_>) -> io::Result<FileMode> {
    use rustix::fs::{FileType, OFlags};
    faults::pass(Call::Option)?;
    let flags = rustix::fs::fcntl_getfl(fd)?;
    let stat = rustix::fs::fstat(fd)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let access = flags & OFlags::RWMODE;
    Ok(FileMode {
        reads: access != OFlags::WRONLY,
        writes: access != OFlags::RDONLY,
        was_nonblocking: flags.contains(OFlags::NONBLOCK),
        is_regular: matches!(kind, FileType::RegularFile | FileType::Directory),
        is_device: kind == FileType::CharacterDevice,
        inode: (stat.st_dev as u64, stat.st_ino as u64),
    })
}

/// Close-on-exec.
pub(crate) fn duplicate(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    faults::pass(Call::Option)?;
    fd.try_clone_to_owned()
}

pub(crate) fn set_file_nonblocking(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    use rustix::fs::OFlags;
    faults::pass(Call::Option)?;
    let mut flags = rustix::fs::fcntl_getfl(fd)?;
    flags.set(OFlags::NONBLOCK, on);
    Ok(rustix::fs::fcntl_setfl(fd, flags)?)
}

/// Whether nobody is at the other end of a pipe.
pub(crate) fn has_hung_up(fd: BorrowedFd<'_>) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::empty())];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    Ok(fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP))
}

pub(crate) fn read_file(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    uninterrupted(|| {
        let most = faults::pass_bytes(Call::Recv, buffer.len())?;
        Ok(rustix::io::read(fd, &mut buffer[..most])?)
    })
}

pub(crate) fn write_file(fd: BorrowedFd<'_>, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    uninterrupted(|| {
        faults::pass_bytes(Call::Send, pieces.iter().map(|piece| piece.len()).sum())?;
        Ok(rustix::io::writev(fd, pieces)?)
    })
}

pub(crate) fn is_input_output(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// No descriptor or no memory left for one more socket: it passes, and the listener is not to blame.
pub(crate) fn out_of_resources(error: &io::Error) -> bool {
    use rustix::io::Errno;
    const SHORTAGES: [Errno; 4] = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    SHORTAGES.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// An address, or a family of them, that this machine does not have.
pub(crate) fn is_not_there(error: &io::Error) -> bool {
    let no_family = Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error());
    error.kind() == ErrorKind::AddrNotAvailable || error.raw_os_error() == no_family
}

/// The listener itself is unusable; any other error of `accept` was one connection's own.
pub(crate) fn listener_is_broken(error: &io::Error) -> bool {
    use rustix::io::Errno;
    const BROKEN: [Errno; 4] = [Errno::BADF, Errno::INVAL, Errno::NOTSOCK, Errno::OPNOTSUPP];
    BROKEN.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// One `epoll_pwait` on the descriptor of `polling`'s own poller. `events` is cleared first.
#[cfg(all(target_os = "linux", not(dispatch_loop_polling_wait)))]
#[inline(always)]
pub(crate) fn epoll_wait(
    epoll: impl std::os::fd::AsFd,
    events: &mut Vec<rustix::event::epoll::Event>,
    timeout: Option<Duration>,
) -> io::Result<()> {
    faults::pass(Call::Wait)?;
    let timeout = match timeout {
        None => None,
        Some(timeout) => Some(whole_millis(timeout)),
    };
    events.clear();
    rustix::event::epoll::wait(epoll, rustix::buffer::spare_capacity(events), timeout.as_ref())?;
    Ok(())
}

/// Rounded up: no timer may be early.
#[cfg(all(target_os = "linux", not(dispatch_loop_polling_wait)))]
fn whole_millis(timeout: Duration) -> rustix::event::Timespec {
    /// Whole milliseconds within an `i32` need the one call that every kernel has.
    const LONGEST: u64 = 24 * 60 * 60 * 1000;
    let whole = timeout.as_secs().saturating_mul(1000);
    let millis = whole.saturating_add(u64::from(timeout.subsec_nanos().div_ceil(1_000_000))).min(LONGEST);
    rustix::event::Timespec { tv_sec: (millis / 1000) as _, tv_nsec: (millis % 1000 * 1_000_000) as _ }
}

/// Only for the portable wait: `polling` makes the call.
#[cfg(not(all(target_os = "linux", not(dispatch_loop_polling_wait))))]
pub(crate) fn polling_wait(
    poller: &polling::Poller,
    events: &mut polling::Events,
    timeout: Option<Duration>,
) -> io::Result<()> {
    faults::pass(Call::Wait)?;
    events.clear();
    poller.wait(events, timeout)?;
    Ok(())
}
