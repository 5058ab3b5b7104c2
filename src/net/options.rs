//! What can be asked of a socket before it listens or connects, with the defaults that fit most.

use std::time::Duration;

use crate::net::address::Address;

/// How [`listen_with`](crate::ChannelMap::listen_with) listens. What a kind of socket does not have (no-delay
/// on a Unix-domain socket, a mode on a TCP one) is of no effect there.
///
/// ```
/// use dispatch_loop::{ChannelMap, Dispatcher, ListenOptions};
///
/// struct Quiet;
/// impl Dispatcher for Quiet {}
///
/// let mut map = ChannelMap::new()?;
/// let options = ListenOptions { backlog: 16, ..ListenOptions::default() };
/// map.listen_with("127.0.0.1:0", &options, Quiet)?;
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// Connections that may wait to be accepted (1,024); the system lowers it to its own limit.
    pub backlog: u32,
    /// `TCP_NODELAY` (on): accepted sockets send at once what they are given. They inherit it, so it
    /// costs no call for each.
    pub no_delay: bool,
    /// `SO_KEEPALIVE` of accepted sockets: probe a peer that has been silent for so long (never).
    /// Inherited as well.
    pub keep_alive: Option<Duration>,
    /// `SO_REUSEPORT` (off): several sockets listen on one port and share its connections.
    pub reuse_port: bool,
    /// `SO_RCVBUF` and `SO_SNDBUF` of accepted sockets, in bytes (the system's own, which grow as
    /// needed; a size given here does not).
    pub recv_buffer: Option<usize>,
    /// See `recv_buffer`.
    pub send_buffer: Option<usize>,
    /// The network interface to take connections from, by name (any). Linux only: elsewhere, an error.
    pub interface: Option<String>,
    /// The permissions of the file of a Unix-domain socket, such as `0o660` (what the umask leaves).
    /// They are set before anybody can connect.
    pub mode: Option<u32>,
}

impl Default for ListenOptions {
    fn default() -> Self {
        ListenOptions {
            backlog: 1024,
            no_delay: true,
            keep_alive: None,
            reuse_port: false,
            recv_buffer: None,
            send_buffer: None,
            interface: None,
            mode: None,
        }
    }
}

/// How [`connect_with`](crate::ChannelMap::connect_with) connects. What a kind of socket does not have is of
/// no effect there.
///
/// ```
/// use dispatch_loop::{ChannelMap, ConnectOptions, Dispatcher, ToAddress};
/// use std::time::Duration;
///
/// struct Quiet;
/// impl Dispatcher for Quiet {}
///
/// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// # let server = listener.local_addr()?;
/// let mut map = ChannelMap::new()?;
/// let options = ConnectOptions {
///     keep_alive: Some(Duration::from_secs(60)),
///     local: Some("127.0.0.2:0".to_address()?),
///     ..ConnectOptions::default()
/// };
/// map.connect_with(server, &options, Quiet)?;
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectOptions {
    /// `TCP_NODELAY` (on).
    pub no_delay: bool,
    /// `SO_KEEPALIVE`: probe a peer that has been silent for so long (never).
    pub keep_alive: Option<Duration>,
    /// `SO_RCVBUF` and `SO_SNDBUF`, in bytes (the system's own).
    pub recv_buffer: Option<usize>,
    /// See `recv_buffer`.
    pub send_buffer: Option<usize>,
    /// The address of our end (the system chooses): `bind`, Python's `local_addr` and
    /// `source_address`.
    pub local: Option<Address>,
    /// The network interface to go out by, by name (any). Linux only: elsewhere, an error.
    pub interface: Option<String>,
    /// How long a connect to a name may take, looking it up and trying its addresses (30 s). For any
    /// connect there is [`set_timeout`](crate::Channel::set_timeout).
    pub timeout: Option<Duration>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        ConnectOptions {
            no_delay: true,
            keep_alive: None,
            recv_buffer: None,
            send_buffer: None,
            local: None,
            interface: None,
            timeout: Some(Duration::from_secs(30)),
        }
    }
}

/// How [`bind_with`](ChannelMap::bind_with) makes a datagram socket. What a kind of socket does not have
/// is of no effect there.
///
/// ```
/// use dispatch_loop::{ChannelMap, DatagramOptions, Dispatcher};
///
/// struct Quiet;
/// impl Dispatcher for Quiet {}
///
/// let mut map = ChannelMap::new()?;
/// let options = DatagramOptions { broadcast: true, ..DatagramOptions::default() };
/// map.bind_with("0.0.0.0:0", &options, Quiet)?;
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatagramOptions {
    /// The only peer: `connect`. [`push`](Channel::push) sends to it, datagrams of others are not
    /// received, and errors on the way to it are told. (None.)
    pub peer: Option<Address>,
    /// `SO_BROADCAST` (off): may send to broadcast addresses.
    pub broadcast: bool,
    /// `SO_REUSEADDR` (off): several sockets may be bound to one multicast address.
    pub reuse_address: bool,
    /// `SO_REUSEPORT` (off): several sockets share the datagrams of one port.
    pub reuse_port: bool,
    /// `SO_RCVBUF` and `SO_SNDBUF`, in bytes (the system's own).
    pub recv_buffer: Option<usize>,
    /// See `recv_buffer`.
    pub send_buffer: Option<usize>,
    /// The network interface to send and receive by, by name (any). Linux only: elsewhere, an error.
    pub interface: Option<String>,
    /// The permissions of the file of a Unix-domain socket (what the umask leaves).
    pub mode: Option<u32>,
}
