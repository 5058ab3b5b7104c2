//! Version 2 of the PROXY protocol: binary, 16 bytes, two addresses, and values with their types and lengths.

use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::net::address::Address;
use crate::net::proxy::v1::in_v6;
use crate::net::proxy::{LEAST, Missing, too_long, wrong};

pub(crate) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Up to the length of the rest, which follows the signature, the command and the family.
const FIXED: usize = 16;
/// The bytes of an address of a Unix-domain socket.
const PATH: usize = 108;

const CHECKSUM: u8 = 0x03;
const PADDING: u8 = 0x04;

pub(super) fn missing(start: &[u8], most: usize) -> io::Result<Missing> {
    let Some(fixed) = start.first_chunk::<FIXED>() else {
        // The first bytes may also be the start of a line.
        let wanted = if start.is_empty() { LEAST } else { FIXED };
        return Ok(Missing::Bytes(wanted - start.len()));
    };
    let whole = FIXED + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    match whole - start.len() {
        _ if whole > most => Err(too_long(most)),
        0 => Ok(Missing::Nothing),
        missing => Ok(Missing::Bytes(missing)),
    }
}

pub(super) type Parts = (Option<(Address, Address)>, Vec<(u8, Vec<u8>)>);

/// A whole header. There are no addresses in one for a connection that the sender makes for itself, or if it does
/// not tell their family.
pub(super) fn parse(bytes: &[u8]) -> io::Result<Parts> {
    let (&[command, family], rest) = (&bytes[SIGNATURE.len()..][..2], &bytes[FIXED..]) else {
        return Err(wrong("the PROXY header is cut short"));
    };
    let (addresses, rest) = match (command, family) {
        // LOCAL: the family means nothing, but addresses of it may precede the values.
        (0x20, family) => {
            let len = address_len(family).unwrap_or(0).min(rest.len());
            (None, &rest[len..])
        }
        (0x21, 0x00) => (None, rest),
        (0x21, family) => {
            let len = address_len(family)
                .ok_or_else(|| wrong("the PROXY header is of a family that is not known"))?;
            let Some((both, rest)) = rest.split_at_checked(len) else {
                return Err(wrong("the PROXY header has no room for its addresses"));
            };
            (Some(addresses(family, both)), rest)
        }
        (0x22..=0x2f, _) => return Err(wrong("the PROXY header has a command that is not known")),
        _ => return Err(wrong("the PROXY header is of another version than 1 and 2")),
    };
    let tlvs = match (addresses.is_some(), values(bytes, rest)) {
        (_, Ok(tlvs)) => tlvs,
        (true, Err(error)) => return Err(error),
        // What follows is to be skipped, whatever it is.
        (false, Err(_)) => Vec::new(),
    };
    Ok((addresses, tlvs))
}

/// The bytes of both addresses of a family and protocol.
fn address_len(family: u8) -> Option<usize> {
    match family {
        0x11 | 0x12 => Some(12),
        0x21 | 0x22 => Some(36),
        0x31 | 0x32 => Some(2 * PATH),
        _ => None,
    }
}

/// As many bytes as the family has.
fn addresses(family: u8, both: &[u8]) -> (Address, Address) {
    let port = |at: usize| u16::from_be_bytes([both[at], both[at + 1]]);
    let v4 = |at: usize, port| {
        let ip = <[u8; 4]>::try_from(&both[at..at + 4]).unwrap_or_default();
        Address::Ip(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(ip)), port))
    };
    let v6 = |at: usize, port| {
        let ip = <[u8; 16]>::try_from(&both[at..at + 16]).unwrap_or_default();
        Address::Ip(SocketAddr::new(IpAddr::V6(Ipv6Addr::from(ip)), port))
    };
    match family >> 4 {
        1 => (v4(0, port(8)), v4(4, port(10))),
        2 => (v6(0, port(32)), v6(16, port(34))),
        _ => (unix(&both[..PATH]), unix(&both[PATH..])),
    }
}

/// A path, or a name that is in no file system, filled up with zeros.
fn unix(bytes: &[u8]) -> Address {
    let end = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    match bytes.split_first() {
        Some((0, name)) if end(name) == 0 => Address::Unnamed,
        Some((0, name)) => Address::Abstract(name[..end(name)].into()),
        _ => {
            let path = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
            Address::Unix(Path::new(OsStr::from_bytes(path)).into())
        }
    }
}

/// The values in `rest`, which ends the header `whole`.
fn values(whole: &[u8], mut rest: &[u8]) -> io::Result<Vec<(u8, Vec<u8>)>> {
    let mut found = Vec::new();
    while let Some((&kind, after)) = rest.split_first() {
        let cut = || wrong("a value of the PROXY header is longer than the header");
        let (len, after) = after.split_first_chunk::<2>().ok_or_else(cut)?;
        let (value, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*len))).ok_or_else(cut)?;
        match kind {
            CHECKSUM => check(whole, whole.len() - after.len() - value.len(), value)?,
            PADDING => {}
            kind => found.push((kind, value.to_owned())),
        }
        rest = after;
    }
    Ok(found)
}

/// The checksum is that of the header with zeros in its place.
fn check(whole: &[u8], at: usize, value: &[u8]) -> io::Result<()> {
    let zeros = [0; 4];
    let told = value.try_into().map(u32::from_be_bytes);
    let bytes = whole[..at].iter().chain(&zeros).chain(&whole[at + value.len()..]);
    match told {
        Ok(told) if told == crc32c(bytes) => Ok(()),
        _ => Err(wrong("the checksum of the PROXY header is wrong")),
    }
}

/// CRC-32C (Castagnoli), bit by bit: a header has few bytes.
fn crc32c<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    !bytes.fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1)))
    })
}

pub(super) fn write(addresses: Option<&(Address, Address)>, tlvs: &[(u8, Vec<u8>)]) -> io::Result<Vec<u8>> {
    let (command, family, mut rest) = match addresses {
        None => (0x20, 0x00, Vec::new()),
        Some((Address::Ip(source), Address::Ip(destination))) => {
            let (family, mut both) = match (source.ip(), destination.ip()) {
                (IpAddr::V4(from), IpAddr::V4(to)) => (0x11, [from.octets(), to.octets()].concat()),
                (from, to) => (0x21, [in_v6(from).octets(), in_v6(to).octets()].concat()),
            };
            both.extend(source.port().to_be_bytes());
            both.extend(destination.port().to_be_bytes());
            (0x21, family, both)
        }
        Some((Address::Ip(_), _) | (_, Address::Ip(_))) => (0x21, 0x00, Vec::new()),
        Some((source, destination)) => (0x21, 0x31, [path(source)?, path(destination)?].concat()),
    };
    let too_much = || io::Error::new(ErrorKind::InvalidInput, "a PROXY header has at most 65,535 bytes");
    for (kind, value) in tlvs {
        rest.push(*kind);
        rest.extend(u16::try_from(value.len()).map_err(|_| too_much())?.to_be_bytes());
        rest.extend(value);
    }
    let len = u16::try_from(rest.len()).map_err(|_| too_much())?;
    Ok([SIGNATURE, &[command, family], &len.to_be_bytes(), &rest].concat())
}

fn path(address: &Address) -> io::Result<[u8; PATH]> {
    let bytes = match address {
        Address::Unix(path) => path.as_os_str().as_bytes().to_owned(),
        Address::Abstract(name) => [&[0], &name[..]].concat(),
        _ => Vec::new(),
    };
    let mut field = [0; PATH];
    let room = field.get_mut(..bytes.len()).ok_or_else(|| {
        io::Error::new(ErrorKind::InvalidInput, format!("{address} has more than {PATH} bytes"))
    })?;
    room.copy_from_slice(&bytes);
    Ok(field)
}
