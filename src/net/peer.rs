//! The peer's address in as few bytes as possible: each channel has one, and a socket on its way in.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use crate::net::address::Address;

/// An address in place, unless it is of a rare kind.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Peer {
    Unknown,
    V4([u8; 4], [u8; 2]),
    V6([u8; 16], [u8; 2]),
    /// A Unix-domain socket without a name.
    Unnamed,
    /// Kept in `Rare`, or in `Named`.
    Elsewhere,
}

impl Peer {
    #[inline]
    pub(crate) fn v4(address: SocketAddrV4) -> Peer {
        Peer::V4(address.ip().octets(), address.port().to_ne_bytes())
    }

    /// With the address itself, if it is to be kept elsewhere.
    #[inline(never)]
    pub(crate) fn split(address: Option<Address>) -> (Peer, Option<Box<Address>>) {
        let address = address.unwrap_or(Address::Unnamed);
        match Peer::new(&address) {
            Peer::Elsewhere => (Peer::Elsewhere, Some(Box::new(address))),
            peer => (peer, None),
        }
    }

    pub(crate) fn new(address: &Address) -> Peer {
        match address {
            Address::Ip(SocketAddr::V4(v4)) => Peer::v4(*v4),
            Address::Ip(SocketAddr::V6(v6)) if v6.scope_id() == 0 && v6.flowinfo() == 0 => {
                Peer::V6(v6.ip().octets(), v6.port().to_ne_bytes())
            }
            Address::Unnamed => Peer::Unnamed,
            _ => Peer::Elsewhere,
        }
    }

    /// The address, if it is in place.
    #[inline]
    pub(crate) fn address(self) -> Option<Address> {
        match self {
            Peer::V4(ip, port) => Some(Address::Ip((Ipv4Addr::from(ip), u16::from_ne_bytes(port)).into())),
            other => other.other_address(),
        }
    }

    #[inline(never)]
    fn other_address(self) -> Option<Address> {
        match self {
            Peer::Unknown | Peer::Elsewhere | Peer::V4(..) => None,
            Peer::Unnamed => Some(Address::Unnamed),
            Peer::V6(ip, port) => {
                let v6 = SocketAddrV6::new(Ipv6Addr::from(ip), u16::from_ne_bytes(port), 0, 0);
                Some(Address::Ip(v6.into()))
            }
        }
    }
}
