//! The system calls of datagram sockets. What a failed `send` or `recv` means to the channel is
//! decided in `link/datagram.rs` and `event_loop/datagram.rs`.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{RecvAncillaryBuffer, RecvFlags, ReturnFlags};
#[cfg(not(any(target_os = "netbsd", target_os = "openbsd")))]
use socket2::InterfaceIndexOrAddress;
use socket2::{Domain, SockRef, Socket, Type};

use crate::net::address::Address;
use crate::net::options::DatagramOptions;
use crate::net::unix::SocketFile;
use crate::sys::faults::{self, Call};
use crate::sys::{SEND_FLAGS, address_of_any, set_common, sock_addr_of, uninterrupted};

/// A bound, non-blocking socket, and its file if it has one.
pub(crate) fn bind(on: &Address, options: &DatagramOptions) -> io::Result<(OwnedFd, Option<SocketFile>)> {
    let domain = match on {
        Address::Ip(ip) => Domain::for_address(*ip),
        _ => Domain::UNIX,
    };
    faults::pass(Call::Socket)?;
    let socket = Socket::new(domain, Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    set_common(&socket, options.recv_buffer, options.send_buffer, options.interface.as_deref())?;
    let mut file = None;
    if let Address::Ip(ip) = on {
        socket.set_broadcast(options.broadcast)?;
        socket.set_reuse_address(options.reuse_address)?;
        socket.set_reuse_port(options.reuse_port)?;
        if ip.is_ipv6() {
            socket.set_only_v6(!options.dual_stack)?;
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

/// One datagram: how many of its bytes fitted, who sent it, and whether it was cut.
pub(crate) fn recv(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Option<Address>, bool)> {
    uninterrupted(|| {
        let most = faults::pass_bytes(Call::Recv, buffer.len())?;
        let mut slices = [IoSliceMut::new(&mut buffer[..most])];
        let mut control = RecvAncillaryBuffer::default();
        let got = rustix::net::recvmsg(fd, &mut slices, &mut control, RecvFlags::empty())?;
        let from = got.address.and_then(address_of_any);
        Ok((got.bytes.min(most), from, got.flags.contains(ReturnFlags::TRUNC)))
    })
}

/// One datagram, whole or not at all; without an address, to the connected peer.
pub(crate) fn send(fd: BorrowedFd<'_>, bytes: &[u8], to: Option<&Address>) -> io::Result<()> {
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

#[cfg(not(any(target_os = "netbsd", target_os = "openbsd")))]
fn multicast_v4(socket: &Socket, group: Ipv4Addr, interface: u32, join: bool) -> io::Result<()> {
    let interface = InterfaceIndexOrAddress::Index(interface);
    match join {
        true => socket.join_multicast_v4_n(&group, &interface),
        false => socket.leave_multicast_v4_n(&group, &interface),
    }
}

/// The system names an interface for IPv4 groups by its address, not by its number.
#[cfg(any(target_os = "netbsd", target_os = "openbsd"))]
fn multicast_v4(socket: &Socket, group: Ipv4Addr, interface: u32, join: bool) -> io::Result<()> {
    match (interface, join) {
        (0, true) => socket.join_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED),
        (0, false) => socket.leave_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED),
        _ => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this system cannot join an IPv4 group on an interface that is given by its number",
        )),
    }
}

/// Join a multicast group, or leave it.
pub(crate) fn multicast(fd: BorrowedFd<'_>, group: IpAddr, interface: u32, join: bool) -> io::Result<()> {
    faults::pass(Call::Option)?;
    let socket = SockRef::from(&fd);
    match (group, join) {
        (IpAddr::V4(group), join) => multicast_v4(&socket, group, interface, join),
        (IpAddr::V6(group), true) => socket.join_multicast_v6(&group, interface),
        (IpAddr::V6(group), false) => socket.leave_multicast_v6(&group, interface),
    }
}
