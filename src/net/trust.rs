//! From whom a PROXY header is believed, and how long and how large one may be.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::net::address::Address;
use crate::net::proxy::MAX_LEN;

/// From whom [`add_proxied`](crate::ChannelMap::add_proxied) believes a PROXY header, and what it may be like
/// (feature `proxy-protocol`).
///
/// ```
/// use dispatch_loop::ProxyOptions;
/// use std::time::Duration;
///
/// let options = ProxyOptions::default()
///     .with_trusted(["10.1.0.0/16", "fd00::/8"])?
///     .with_timeout(Duration::from_secs(3));
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[must_use = "options have no effect until a connection is added with them"]
pub struct ProxyOptions {
    trusted: Vec<Network>,
    pub(crate) max_len: usize,
    pub(crate) timeout: Duration,
}

/// Loopback is trusted; a header has 5 s and 4,096 bytes.
impl Default for ProxyOptions {
    fn default() -> Self {
        let trusted = vec![
            Network { ip: Ipv4Addr::LOCALHOST.into(), bits: 8 },
            Network { ip: Ipv6Addr::LOCALHOST.into(), bits: 128 },
        ];
        ProxyOptions { trusted, max_len: MAX_LEN, timeout: Duration::from_secs(5) }
    }
}

impl ProxyOptions {
    /// Believe these alone, networks (`"10.1.0.0/16"`) or addresses: those of the balancers (default `127.0.0.0/8`
    /// and `::1`). An address of IPv4 is the same in IPv6 (`::ffff:10.1.0.1`). Peers on Unix-domain sockets are
    /// always believed: the socket's file says who may connect.
    ///
    /// # Errors
    /// `InvalidInput`: one of them is neither; the error quotes it.
    pub fn with_trusted<'a>(mut self, networks: impl IntoIterator<Item = &'a str>) -> io::Result<Self> {
        self.trusted = networks.into_iter().map(Network::parse).collect::<io::Result<_>>()?;
        Ok(self)
    }

    /// The most bytes of a header (default 4,096). Certificates that a balancer passes on may need more.
    pub fn with_max_len(mut self, bytes: usize) -> Self {
        self.max_len = bytes;
        self
    }

    /// How long a header may take to come (default 5 s); then the connection ends.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    pub(crate) fn trusts(&self, peer: &Address) -> bool {
        match peer.ip() {
            Some(address) => self.trusted.iter().any(|network| network.has(address.ip())),
            None => true,
        }
    }
}

/// The addresses whose first `bits` are those of `ip`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Network {
    ip: IpAddr,
    bits: u32,
}

impl Network {
    fn parse(text: &str) -> io::Result<Network> {
        let parsed = || {
            let (ip, bits) = text.split_once('/').map_or((text, None), |(ip, bits)| (ip, Some(bits)));
            let ip: IpAddr = ip.parse().ok()?;
            let all = if ip.is_ipv4() { 32 } else { 128 };
            let bits = bits.map_or(Some(all), |bits| bits.parse().ok())?;
            (bits <= all).then_some(Network { ip, bits })
        };
        parsed().ok_or_else(|| {
            let why = format!("{text:?} is no network: wanted an IP address, or one with /BITS");
            io::Error::new(ErrorKind::InvalidInput, why)
        })
    }

    fn has(self, ip: IpAddr) -> bool {
        match (self.ip, ip.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(ip)) => (own.to_bits() ^ ip.to_bits()).leading_zeros() >= self.bits,
            (IpAddr::V6(own), IpAddr::V6(ip)) => (own.to_bits() ^ ip.to_bits()).leading_zeros() >= self.bits,
            // The network may have been written as one of IPv6.
            (IpAddr::V6(own), IpAddr::V4(ip)) => {
                let mapped = ip.to_ipv6_mapped().to_bits();
                (own.to_bits() ^ mapped).leading_zeros() >= self.bits
            }
            (IpAddr::V4(_), IpAddr::V6(_)) => false,
        }
    }
}
