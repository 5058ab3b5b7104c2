//! Version 1 of the PROXY protocol: `PROXY TCP4 192.0.2.1 198.51.100.7 40000 443\r\n`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::net::address::Address;
use crate::net::proxy::{LEAST, Missing, too_long, wrong};

pub(crate) const SIGNATURE: &[u8] = b"PROXY ";

/// The most bytes of a line, as the specification counts them.
const LONGEST: usize = 107;

pub(super) fn missing(start: &[u8], most: usize) -> io::Result<Missing> {
    let most = most.min(LONGEST);
    match start.len() {
        _ if start.contains(&b'\n') => Ok(Missing::Nothing),
        len if len < LEAST => Ok(Missing::Bytes(LEAST - len)),
        len if len < most => Ok(Missing::Line(most - len)),
        _ => Err(too_long(most)),
    }
}

/// A whole line. `None` for `UNKNOWN`, whatever follows that.
pub(super) fn parse(line: &[u8]) -> io::Result<Option<(Address, Address)>> {
    let bad = || wrong("the line of the PROXY header is malformed");
    let line = std::str::from_utf8(line).ok().and_then(|line| line.strip_suffix("\r\n")).ok_or_else(bad)?;
    if line.contains(['\r', '\n']) {
        return Err(bad());
    }
    let parts: Vec<&str> = line.split(' ').collect();
    match parts[..] {
        ["PROXY", "UNKNOWN", ..] => Ok(None),
        ["PROXY", family, source, destination, source_port, destination_port] => {
            let ip = |text| ip_of(family, text).ok_or_else(bad);
            let port = |text| port_of(text).ok_or_else(bad);
            let source = SocketAddr::new(ip(source)?, port(source_port)?);
            let destination = SocketAddr::new(ip(destination)?, port(destination_port)?);
            Ok(Some((Address::Ip(source), Address::Ip(destination))))
        }
        _ => Err(bad()),
    }
}

fn ip_of(family: &str, text: &str) -> Option<IpAddr> {
    match family {
        "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => None,
    }
}

/// Digits, and no zero before others.
fn port_of(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

pub(super) fn write(addresses: Option<&(Address, Address)>) -> Vec<u8> {
    let line = match addresses {
        Some((Address::Ip(source), Address::Ip(destination))) => {
            let (from, to, family) = match (source.ip(), destination.ip()) {
                (from @ IpAddr::V4(_), to @ IpAddr::V4(_)) => (from, to, "TCP4"),
                (from, to) => (in_v6(from).into(), in_v6(to).into(), "TCP6"),
            };
            format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port())
        }
        _ => "PROXY UNKNOWN\r\n".to_owned(),
    };
    line.into_bytes()
}

/// As an address of IPv6, for a header whose two addresses must be of one family.
pub(super) fn in_v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}
