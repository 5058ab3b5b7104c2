//! The header of the PROXY protocol, by which a balancer tells whose connection it passes on. Here are its
//! parts and when it is complete; its two forms are in the files beside this one.

pub(crate) mod v1;
pub(crate) mod v2;

use std::io::{self, ErrorKind};

use crate::net::address::Address;

/// The most bytes that a header may have unless it is said otherwise.
pub(crate) const MAX_LEN: usize = 4096;

/// The least bytes of a header of either version: `PROXY UNKNOWN\r\n`.
const LEAST: usize = 15;

/// A header of the PROXY protocol: what a balancer sends ahead of a connection that it passes on (feature
/// `proxy-protocol`).
///
/// [`add_proxied`](crate::ChannelMap::add_proxied) reads it, and
/// [`Channel::proxy_header`](crate::Channel::proxy_header) lends it. To send one, push its bytes before
/// anything else, in `handle_open`; a client that speaks TLS calls `start_tls_client` after that.
///
/// ```
/// use dispatch_loop::{Address, ProxyHeader, ProxyVersion};
///
/// let client: Address = "192.0.2.1:40000".parse()?;
/// let ours: Address = "198.51.100.7:443".parse()?;
/// let header = ProxyHeader::new(client, ours);
/// assert_eq!(
///     header.to_bytes(ProxyVersion::V1)?,
///     b"PROXY TCP4 192.0.2.1 198.51.100.7 40000 443\r\n"
/// );
///
/// let bytes = header.with_tlv(0x02, b"example.org").to_bytes(ProxyVersion::V2)?;
/// let (header, len) = ProxyHeader::parse(&bytes)?.expect("all of it");
/// assert_eq!(len, bytes.len());
/// assert_eq!(header.tlv(0x02), Some(&b"example.org"[..]));
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProxyHeader {
    addresses: Option<(Address, Address)>,
    tlvs: Vec<(u8, Vec<u8>)>,
}

/// What a balancer has told of a channel.
pub(crate) struct Proxied {
    pub(crate) header: ProxyHeader,
    /// Its own address.
    pub(crate) balancer: Option<Address>,
}

/// A version of the PROXY protocol.
///
/// ```
/// use dispatch_loop::{ProxyHeader, ProxyVersion};
///
/// assert_eq!(ProxyHeader::local().to_bytes(ProxyVersion::V1)?, b"PROXY UNKNOWN\r\n");
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary, with room for more than the addresses.
    V2,
}

/// How many bytes more surely belong to a header of which a part has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// It is complete.
    Nothing,
    /// At least so many.
    Bytes(usize),
    /// All up to the end of the line, which may have so many.
    Line(usize),
}

impl ProxyHeader {
    /// The header of a connection that came from `source` to `destination`: the peer's address and the local one
    /// of the connection that is passed on.
    pub fn new(source: impl Into<Address>, destination: impl Into<Address>) -> ProxyHeader {
        ProxyHeader { addresses: Some((source.into(), destination.into())), tlvs: Vec::new() }
    }

    /// The header of a connection that the sender makes for itself, such as a health check: `LOCAL` in version 2,
    /// `UNKNOWN` in version 1.
    pub fn local() -> ProxyHeader {
        ProxyHeader { addresses: None, tlvs: Vec::new() }
    }

    /// Add a value of this type (`PP2_TYPE_…`): 0x01 ALPN, 0x02 the host name that the client asked for, 0x05 a
    /// unique id of the connection, 0x20 TLS, 0x30 the network namespace, 0xE0 to 0xEF one's own.
    #[must_use]
    pub fn with_tlv(mut self, kind: u8, value: &[u8]) -> ProxyHeader {
        self.tlvs.push((kind, value.to_owned()));
        self
    }

    /// Where the connection came from; `None` if the header does not say: `LOCAL`, `UNKNOWN`, `AF_UNSPEC`.
    pub fn source(&self) -> Option<&Address> {
        self.addresses.as_ref().map(|(source, _)| source)
    }

    /// The address that its client had connected to; `None` as for [`source`](ProxyHeader::source).
    pub fn destination(&self) -> Option<&Address> {
        self.addresses.as_ref().map(|(_, destination)| destination)
    }

    /// Everything else that the header says, in its order: types and values. (Padding and the checksum, which is
    /// verified, are left out.)
    pub fn tlvs(&self) -> impl Iterator<Item = (u8, &[u8])> {
        self.tlvs.iter().map(|(kind, value)| (*kind, &value[..]))
    }

    /// The first value of this type.
    pub fn tlv(&self, kind: u8) -> Option<&[u8]> {
        self.tlvs().find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    /// The bytes to send. Addresses of two families become those of IPv6; version 1 tells none of Unix-domain
    /// sockets (`UNKNOWN`).
    ///
    /// # Errors
    /// `InvalidInput`: version 1 has no room for values, version 2 for more than 65,535 bytes, nor for the path of
    /// a Unix-domain socket that is longer than 108.
    pub fn to_bytes(&self, version: ProxyVersion) -> io::Result<Vec<u8>> {
        match version {
            ProxyVersion::V1 if !self.tlvs.is_empty() => {
                Err(io::Error::new(ErrorKind::InvalidInput, "version 1 of the PROXY protocol has no values"))
            }
            ProxyVersion::V1 => Ok(v1::write(self.addresses.as_ref())),
            ProxyVersion::V2 => v2::write(self.addresses.as_ref(), &self.tlvs),
        }
    }

    /// The header at the start of `bytes`, and how many bytes it has; `None` if it goes on after them. Up to 4,096
    /// bytes are accepted.
    ///
    /// # Errors
    /// `InvalidData` if there is no header, or a wrong one.
    pub fn parse(bytes: &[u8]) -> io::Result<Option<(ProxyHeader, usize)>> {
        let mut have = 0;
        loop {
            let rest = &bytes[have..];
            have += match missing(&bytes[..have], MAX_LEN)? {
                Missing::Nothing => return Ok(Some((parsed(&bytes[..have])?, have))),
                Missing::Bytes(most) => most.min(rest.len()),
                Missing::Line(most) => line_within(&rest[..most.min(rest.len())]),
            };
            // Nothing was left to be taken.
            if rest.is_empty() {
                return Ok(None);
            }
        }
    }
}

/// How many of `bytes` belong to the line.
pub(crate) fn line_within(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1)
}

/// What is missing behind the start of a header; `Err` if it is none, or has more than `most` bytes.
pub(crate) fn missing(start: &[u8], most: usize) -> io::Result<Missing> {
    if begins(start, v2::SIGNATURE) {
        v2::missing(start, most)
    } else if begins(start, v1::SIGNATURE) {
        v1::missing(start, most)
    } else {
        Err(wrong("there is no PROXY header"))
    }
}

/// A header that is complete.
pub(crate) fn parsed(bytes: &[u8]) -> io::Result<ProxyHeader> {
    let (addresses, tlvs) = match bytes.starts_with(v2::SIGNATURE) {
        true => v2::parse(bytes)?,
        false => (v1::parse(bytes)?, Vec::new()),
    };
    Ok(ProxyHeader { addresses, tlvs })
}

/// One of the two is the start of the other.
pub(crate) fn begins(bytes: &[u8], signature: &[u8]) -> bool {
    let len = bytes.len().min(signature.len());
    bytes[..len] == signature[..len]
}

pub(crate) fn wrong(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

fn too_long(most: usize) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("the PROXY header has more than {most} bytes"))
}
