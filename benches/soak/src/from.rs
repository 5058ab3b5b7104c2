//! Where the clients come from: addresses of the loopback network, by which the server can tell them apart.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// Good clients of one address.
const TOGETHER: usize = 2;

/// Addresses of all the hostile clients.
pub const HOSTILE: usize = 20;

pub fn good(client: usize) -> Ipv4Addr {
    let address = client / TOGETHER;
    Ipv4Addr::new(127, 1, (address / 250) as u8, (address % 250 + 1) as u8)
}

pub fn hostile(thread: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, (thread % HOSTILE + 1) as u8)
}

pub fn is_good(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if ip.octets()[1] == 1)
}

pub fn is_hostile(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if ip.octets()[..3] == [127, 0, 1])
}

/// A socket that connects from there.
pub fn socket(from: Ipv4Addr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}
