//! `Address`, which names one end of a socket, and `ToAddress`, the forms in which callers give one.
//! Looking names up is in `resolve.rs`.

use std::fmt::{self, Write as _};
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
#[cfg(target_os = "android")]
use std::os::android::net::SocketAddrExt;
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt;
use std::os::unix;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The address of one end of a socket: Python's `(host, port)` tuple, C's `sockaddr`.
///
/// ```
/// use dispatch_loop::Address;
///
/// let address: Address = "[::1]:8080".parse()?;
/// assert_eq!(address.to_string(), "[::1]:8080");
/// assert_eq!(address.port(), Some(8080));
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Address {
    /// An IPv4 or IPv6 address with its port.
    Ip(SocketAddr),
    /// A Unix-domain socket bound to a path.
    Unix(Box<Path>),
    /// A Unix-domain socket bound to a name that is in no file system. Linux and Android only.
    Abstract(Box<[u8]>),
    /// A socket without a name, as `socketpair` makes them.
    Unnamed,
}

impl Address {
    /// The IP address and port; `None` for a Unix-domain socket.
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Address::Ip(address) => Some(*address),
            _ => None,
        }
    }

    /// The port; `None` for a Unix-domain socket.
    pub fn port(&self) -> Option<u16> {
        self.ip().map(|address| address.port())
    }
}

/// As [`ToAddress`] takes it; control characters of a path, which a peer may have chosen, are escaped.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(address) => address.fmt(f),
            Address::Unix(path) => {
                // The peer has chosen it, and may have put a line break or an escape sequence into it.
                f.write_str("unix:")?;
                path.display().to_string().chars().try_for_each(|c| match c.is_control() {
                    true => write!(f, "{}", c.escape_default()),
                    false => f.write_char(c),
                })
            }
            Address::Abstract(name) => write!(f, "unix:@{}", name.escape_ascii()),
            Address::Unnamed => f.write_str("unix:(unnamed)"),
        }
    }
}

/// Reads what [`ToAddress`] takes as a `str`, names aside; the error quotes the text.
impl FromStr for Address {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<Self> {
        text.to_address()
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Address::Ip(address)
    }
}

impl From<SocketAddrV4> for Address {
    fn from(address: SocketAddrV4) -> Self {
        Address::Ip(address.into())
    }
}

impl From<SocketAddrV6> for Address {
    fn from(address: SocketAddrV6) -> Self {
        Address::Ip(address.into())
    }
}

/// For any IP address and port, as [`SocketAddr`] has it.
impl<I: Into<IpAddr>> From<(I, u16)> for Address {
    fn from(address: (I, u16)) -> Self {
        Address::Ip(address.into())
    }
}

impl From<unix::net::SocketAddr> for Address {
    fn from(address: unix::net::SocketAddr) -> Self {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Some(name) = address.as_abstract_name() {
            return Address::Abstract(name.into());
        }
        address.as_pathname().map_or(Address::Unnamed, |path| Address::Unix(path.into()))
    }
}

/// What [`listen`](crate::ChannelMap::listen) and [`connect`](crate::ChannelMap::connect) take as
/// an address: `"127.0.0.1:80"`, `"[::1]:80"`, `("127.0.0.1", 80)`, a [`SocketAddr`], an
/// [`Address`]; for Unix-domain sockets `"unix:/run/server.sock"`, a [`Path`], and on Linux
/// `"unix:@name"` for one without a file.
///
/// `connect` also takes a name, `"example.org:80"` or `("example.org", 80)`, and looks it up on another
/// thread. `listen` does not, because it is done when it returns: see
/// [`listen_all`](crate::ChannelMap::listen_all).
///
/// ```
/// use dispatch_loop::ToAddress;
///
/// assert!(("127.0.0.1", 80).to_address().is_ok());
/// assert_eq!("localhost:80".to_name(), Some(("localhost".to_owned(), 80)));
/// let error = "localhost:80".to_address().unwrap_err();
/// assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no address",
    label = "neither an address nor a name",
    note = "an address is a `\"127.0.0.1:80\"`, `\"[::1]:80\"`, `\"example.org:80\"` or `\"unix:/run/server.sock\"`, a `(host, port)`, a `SocketAddr`, a `Path` or an `Address`"
)]
pub trait ToAddress {
    /// The address, or an `InvalidInput` error that quotes what was given.
    fn to_address(&self) -> io::Result<Address>;

    /// The host name and the port, if this is a name instead.
    fn to_name(&self) -> Option<(String, u16)> {
        None
    }
}

impl ToAddress for Address {
    fn to_address(&self) -> io::Result<Address> {
        Ok(self.clone())
    }
}

impl ToAddress for SocketAddr {
    fn to_address(&self) -> io::Result<Address> {
        Ok(Address::Ip(*self))
    }
}

impl ToAddress for SocketAddrV4 {
    fn to_address(&self) -> io::Result<Address> {
        Ok(Address::Ip((*self).into()))
    }
}

impl ToAddress for SocketAddrV6 {
    fn to_address(&self) -> io::Result<Address> {
        Ok(Address::Ip((*self).into()))
    }
}

impl ToAddress for (IpAddr, u16) {
    fn to_address(&self) -> io::Result<Address> {
        Ok(Address::Ip((*self).into()))
    }
}

impl ToAddress for (&str, u16) {
    fn to_address(&self) -> io::Result<Address> {
        match self.0.parse::<IpAddr>() {
            Ok(ip) => (ip, self.1).to_address(),
            Err(_) => Err(not_an_address(self.0, "an IPv4 or IPv6 address, or a host name")),
        }
    }

    fn to_name(&self) -> Option<(String, u16)> {
        (is_name(self.0) && self.0.parse::<IpAddr>().is_err()).then(|| (self.0.to_owned(), self.1))
    }
}

impl ToAddress for str {
    fn to_address(&self) -> io::Result<Address> {
        if let Some(path) = self.strip_prefix("unix:") {
            return unix_address(path);
        }
        match self.parse::<SocketAddr>() {
            Ok(address) => Ok(Address::Ip(address)),
            Err(_) => Err(not_an_address(self, "IPV4:PORT, [IPV6]:PORT, NAME:PORT or unix:PATH")),
        }
    }

    fn to_name(&self) -> Option<(String, u16)> {
        if self.starts_with("unix:") {
            return None;
        }
        let (host, port) = self.rsplit_once(':')?;
        (host, port.parse().ok()?).to_name()
    }
}

impl ToAddress for String {
    fn to_address(&self) -> io::Result<Address> {
        self.as_str().to_address()
    }

    fn to_name(&self) -> Option<(String, u16)> {
        self.as_str().to_name()
    }
}

impl ToAddress for Path {
    fn to_address(&self) -> io::Result<Address> {
        if self.as_os_str().is_empty() {
            return Err(not_an_address("", "the path of a socket"));
        }
        Ok(Address::Unix(self.into()))
    }
}

impl ToAddress for PathBuf {
    fn to_address(&self) -> io::Result<Address> {
        self.as_path().to_address()
    }
}

impl<T: ToAddress + ?Sized> ToAddress for &T {
    fn to_address(&self) -> io::Result<Address> {
        (**self).to_address()
    }

    fn to_name(&self) -> Option<(String, u16)> {
        (**self).to_name()
    }
}

/// Whether a name server can be asked about this.
fn is_name(host: &str) -> bool {
    let fits = |label: &str| (1..=63).contains(&label.len());
    let host = host.strip_suffix('.').unwrap_or(host);
    let plain = |c: char| !(c.is_control() || c.is_whitespace() || ":/[]@*".contains(c));
    host.len() <= 253 && host.split('.').all(fits) && host.chars().all(plain)
}

fn unix_address(path: &str) -> io::Result<Address> {
    match path.strip_prefix('@') {
        None => Path::new(path).to_address(),
        Some("") => Err(not_an_address("unix:@", "unix:@NAME")),
        Some(name) if cfg!(any(target_os = "linux", target_os = "android")) => {
            Ok(Address::Abstract(name.as_bytes().into()))
        }
        Some(_) => Err(not_an_address(
            &format!("unix:{path}"),
            "unix:PATH (abstract names are for Linux and Android)",
        )),
    }
}

fn not_an_address(given: &str, expected: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("unusable address \"{}\": expected {expected}", given.escape_debug()),
    )
}

/// The address, where a name is not accepted: the error names what to do `instead`.
pub(crate) fn literal(address: &impl ToAddress, instead: &str) -> io::Result<Address> {
    match (address.to_address(), address.to_name()) {
        (Err(error), Some((host, port))) => Err(io::Error::new(
            error.kind(),
            format!("unusable address \"{host}:{port}\": it is a name; {instead}"),
        )),
        (result, _) => result,
    }
}

/// Add to the error of a system call what failed, and on which address.
pub(crate) fn about(what: &str, address: &Address, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {what} {address}: {error}"))
}
