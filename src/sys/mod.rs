//! Every system call that the library makes itself, each behind the door of `faults`: here what all
//! sockets share, and the waits. What a call means to a channel is decided elsewhere.

pub(crate) mod datagram;
pub(crate) mod descriptors;
pub(crate) mod errno;
pub(crate) mod faults;
pub(crate) mod file;
pub(crate) mod inherited;
pub(crate) mod poll;
pub(crate) mod stream;
pub(crate) mod unsent;

use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SendFlags, SocketAddrAny, SocketAddrUnix};
use socket2::{SockAddr, SockRef, Socket, Type};

use crate::net::address::Address;
use crate::net::unix;
use crate::sys::errno::is_interrupted;
use crate::sys::faults::Call;

/// A peer that is gone is an error, never a signal.
#[cfg(not(target_vendor = "apple"))]
const SEND_FLAGS: SendFlags = SendFlags::NOSIGNAL;
#[cfg(target_vendor = "apple")]
const SEND_FLAGS: SendFlags = SendFlags::empty();

/// Repeat a call that a signal interrupted.
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if is_interrupted(&error) => {}
            result => return result,
        }
    }
}

#[inline(never)]
fn address_of_any(any: SocketAddrAny) -> Option<Address> {
    if matches!(any.address_family(), AddressFamily::INET | AddressFamily::INET6) {
        return SocketAddr::try_from(any).ok().map(Address::Ip);
    }
    let unix = SocketAddrUnix::try_from(any).ok()?;
    // A socket without a name has an empty one here.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Some(name) = unix.abstract_name().filter(|name| !name.is_empty()) {
        return Some(Address::Abstract(name.into()));
    }
    let path = unix.path_bytes().filter(|path| !path.is_empty())?;
    Some(Address::Unix(Path::new(OsStr::from_bytes(path)).into()))
}

fn sock_addr_of(address: &Address) -> io::Result<SockAddr> {
    match address {
        Address::Ip(ip) => Ok(SockAddr::from(*ip)),
        other => unix::sock_addr(other),
    }
}

/// The options that every kind of socket has.
fn set_common(
    socket: &Socket,
    recv_buffer: Option<usize>,
    send_buffer: Option<usize>,
    interface: Option<&str>,
) -> io::Result<()> {
    faults::pass(Call::Option)?;
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

#[cfg(any(target_os = "linux", target_os = "android"))]
fn bind_to(socket: &Socket, interface: &str) -> io::Result<()> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("interface {interface:?}: {error}"));
    socket.bind_device(Some(interface.as_bytes())).map_err(named)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn bind_to(_: &Socket, _: &str) -> io::Result<()> {
    Err(io::Error::new(
        ErrorKind::Unsupported,
        "sockets can be bound to an interface on Linux and Android only",
    ))
}

/// What a socket carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Listener,
    Stream,
    Datagram,
    /// Not a socket.
    File,
}

/// How many descriptors the process may have: the soft limit of `RLIMIT_NOFILE`. `None`: any number.
pub(crate) fn descriptor_limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
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
            let what = "this is neither a stream socket nor a datagram socket";
            return Err(io::Error::new(ErrorKind::Unsupported, what));
        }
    })
}

#[cfg(not(target_vendor = "apple"))]
fn listens(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(rustix::net::sockopt::socket_acceptconn(fd)?)
}

/// The system has no such option; but a connected stream has a peer.
#[cfg(target_vendor = "apple")]
fn listens(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(SockRef::from(&fd).peer_addr().is_err())
}

pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    faults::pass(Call::Option)?;
    #[cfg(target_vendor = "apple")]
    SockRef::from(&fd).set_nosigpipe(true)?;
    SockRef::from(&fd).set_nonblocking(true)
}

/// Whether there is input, or its end, or an error: `poll(2)`.
pub(crate) fn is_readable(fd: BorrowedFd<'_>) -> bool {
    if faults::pass(Call::Look).is_err() {
        return false;
    }
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}

/// `FIONREAD`: how many bytes are there to be read; `None` if the system does not tell.
pub(crate) fn bytes_to_read(fd: BorrowedFd<'_>) -> Option<u64> {
    faults::pass(Call::Look).ok()?;
    rustix::io::ioctl_fionread(fd).ok()
}

/// `SO_ERROR`: the socket's pending error, which reading clears.
pub(crate) fn take_error(fd: BorrowedFd<'_>) -> io::Result<Option<io::Error>> {
    faults::pass(Call::TakeError)?;
    SockRef::from(&fd).take_error()
}

pub(crate) fn local_addr(fd: BorrowedFd<'_>) -> io::Result<Address> {
    faults::pass(Call::Address)?;
    Ok(address_of(&SockRef::from(&fd).local_addr()?))
}

pub(crate) fn peer_addr(fd: BorrowedFd<'_>) -> io::Result<Address> {
    faults::pass(Call::Address)?;
    Ok(address_of(&SockRef::from(&fd).peer_addr()?))
}

fn address_of(address: &SockAddr) -> Address {
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

/// One `epoll_pwait` on the descriptor of `polling`'s own poller. `events` is cleared first.
#[cfg(all(any(target_os = "linux", target_os = "android"), not(dispatch_loop_polling_wait)))]
#[inline(always)]
pub(crate) fn epoll_wait(
    epoll: impl std::os::fd::AsFd,
    events: &mut Vec<rustix::event::epoll::Event>,
    timeout: Option<Duration>,
) -> io::Result<()> {
    faults::pass(Call::Wait)?;
    let timeout = timeout.map(whole_millis);
    events.clear();
    rustix::event::epoll::wait(epoll, rustix::buffer::spare_capacity(events), timeout.as_ref())?;
    Ok(())
}

/// Rounded up: a timer must not be early.
#[cfg(all(any(target_os = "linux", target_os = "android"), not(dispatch_loop_polling_wait)))]
fn whole_millis(timeout: Duration) -> rustix::event::Timespec {
    /// Whole milliseconds within an `i32` need only the call that every kernel has.
    const LONGEST: u64 = 24 * 60 * 60 * 1000;
    let whole = timeout.as_secs().saturating_mul(1000);
    let millis = whole.saturating_add(u64::from(timeout.subsec_nanos().div_ceil(1_000_000))).min(LONGEST);
    rustix::event::Timespec { tv_sec: (millis / 1000) as _, tv_nsec: (millis % 1000 * 1_000_000) as _ }
}

/// The portable wait: `polling` makes the call.
#[cfg(not(all(any(target_os = "linux", target_os = "android"), not(dispatch_loop_polling_wait))))]
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
