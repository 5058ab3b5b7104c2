//! Socket options that are set before a socket listens, connects or binds, with their defaults.

use std::time::Duration;

use crate::net::address::Address;
use crate::net::limits::AcceptLimits;

/// How [`listen_with`](crate::ChannelMap::listen_with) listens. Options that the socket's kind does
/// not have (no-delay on a Unix-domain socket, a mode on a TCP one) are ignored.
///
/// ```
/// use dispatch_loop::{ChannelMap, Dispatcher, ListenOptions};
///
/// struct Quiet;
/// impl Dispatcher for Quiet {}
///
/// let mut map = ChannelMap::new()?;
/// map.listen_with("127.0.0.1:0", &ListenOptions::default().with_backlog(16), Quiet)?;
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[must_use = "options have no effect until a listener is made with them"]
pub struct ListenOptions {
    /// How many connections may wait to be accepted (1,024); the system caps it at its own limit.
    pub backlog: u32,
    /// `TCP_NODELAY` of accepted sockets (on): what is written is sent at once. They inherit it from
    /// the listener, so it costs no call for each.
    pub no_delay: bool,
    /// `SO_KEEPALIVE` of accepted sockets: how long a peer may be silent before it is probed (never).
    /// Inherited, too.
    pub keep_alive: Option<Duration>,
    /// `SO_REUSEPORT` (off): several sockets listen on one port and share its connections.
    pub reuse_port: bool,
    /// Accept IPv4, too, on an IPv6 address such as `[::]:80` (off): `IPV6_V6ONLY` is unset. Such peers have addresses
    /// like `[::ffff:192.0.2.1]:5000`; for limits they count as IPv4. OpenBSD has no such sockets;
    /// [`listen_all`](crate::ChannelMap::listen_all) with `"*:80"` makes two listeners everywhere.
    pub dual_stack: bool,
    /// `SO_RCVBUF` of accepted sockets, in bytes (the system's default, which grows as needed; a size
    /// that is set here does not).
    pub recv_buffer: Option<usize>,
    /// `SO_SNDBUF` of accepted sockets, in bytes (likewise).
    pub send_buffer: Option<usize>,
    /// The name of the network interface to accept connections from (any). Linux and Android only: an error
    /// elsewhere.
    pub interface: Option<String>,
    /// The permissions of a Unix-domain socket's file, such as `0o660` (what the umask leaves). They
    /// are set before anyone can connect.
    pub mode: Option<u32>,
    /// How many connections it takes (no limits).
    pub limits: Option<AcceptLimits>,
}

impl Default for ListenOptions {
    fn default() -> Self {
        ListenOptions {
            backlog: 1024,
            no_delay: true,
            keep_alive: None,
            reuse_port: false,
            dual_stack: false,
            recv_buffer: None,
            send_buffer: None,
            interface: None,
            mode: None,
            limits: None,
        }
    }
}

impl ListenOptions {
    /// For a server that strangers reach: the limits of [`AcceptLimits::public`], and
    /// [`keep_alive`](Self::keep_alive) after 60 s, so that peers that vanished without a word give their
    /// places back: sooner than most routers forget a silent connection, and at no cost to one that talks.
    pub fn public() -> Self {
        let silence = Duration::from_secs(60);
        ListenOptions::default().with_limits(AcceptLimits::public()).with_keep_alive(silence)
    }

    /// Set [`limits`](Self::limits): how many connections the listener takes.
    pub fn with_limits(mut self, limits: impl Into<Option<AcceptLimits>>) -> Self {
        self.limits = limits.into();
        self
    }

    /// Set [`backlog`](Self::backlog): how many connections may wait to be accepted.
    pub fn with_backlog(mut self, connections: u32) -> Self {
        self.backlog = connections;
        self
    }

    /// Set [`no_delay`](Self::no_delay): `TCP_NODELAY` of accepted sockets.
    pub fn with_no_delay(mut self, on: bool) -> Self {
        self.no_delay = on;
        self
    }

    /// Set [`keep_alive`](Self::keep_alive): the silence after which accepted sockets probe the peer.
    pub fn with_keep_alive(mut self, silence: impl Into<Option<Duration>>) -> Self {
        self.keep_alive = silence.into();
        self
    }

    /// Set [`reuse_port`](Self::reuse_port): `SO_REUSEPORT`.
    pub fn with_reuse_port(mut self, on: bool) -> Self {
        self.reuse_port = on;
        self
    }

    /// Set [`dual_stack`](Self::dual_stack): an IPv6 address accepts IPv4, too.
    pub fn with_dual_stack(mut self, on: bool) -> Self {
        self.dual_stack = on;
        self
    }

    /// Set [`recv_buffer`](Self::recv_buffer): `SO_RCVBUF` of accepted sockets.
    pub fn with_recv_buffer(mut self, bytes: impl Into<Option<usize>>) -> Self {
        self.recv_buffer = bytes.into();
        self
    }

    /// Set [`send_buffer`](Self::send_buffer): `SO_SNDBUF` of accepted sockets.
    pub fn with_send_buffer(mut self, bytes: impl Into<Option<usize>>) -> Self {
        self.send_buffer = bytes.into();
        self
    }

    /// Set [`interface`](Self::interface): the only one to accept connections from.
    pub fn with_interface(mut self, name: impl Into<String>) -> Self {
        self.interface = Some(name.into());
        self
    }

    /// Set [`mode`](Self::mode): the permissions of a Unix-domain socket's file.
    pub fn with_mode(mut self, mode: impl Into<Option<u32>>) -> Self {
        self.mode = mode.into();
        self
    }
}

/// How [`connect_with`](crate::ChannelMap::connect_with) connects. Options that the socket's kind does
/// not have are ignored.
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
/// let options = ConnectOptions::default()
///     .with_keep_alive(Duration::from_secs(60))
///     .with_local("127.0.0.2:0".to_address()?);
/// map.connect_with(server, &options, Quiet)?;
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[must_use = "options have no effect until a connection is made with them"]
pub struct ConnectOptions {
    /// `TCP_NODELAY` (on): what is written is sent at once.
    pub no_delay: bool,
    /// `SO_KEEPALIVE`: how long the peer may be silent before it is probed (never).
    pub keep_alive: Option<Duration>,
    /// `SO_RCVBUF`, in bytes (the system's default).
    pub recv_buffer: Option<usize>,
    /// `SO_SNDBUF`, in bytes (the system's default).
    pub send_buffer: Option<usize>,
    /// The address of this end (chosen by the system): `bind`, Python's `local_addr` and
    /// `source_address`.
    pub local: Option<Address>,
    /// The name of the network interface to connect through (any). Linux and Android only: an error
    /// elsewhere.
    pub interface: Option<String>,
    /// How long a connect to a name may take, look-up and all addresses together (30 s). For any
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

impl ConnectOptions {
    /// Set [`no_delay`](Self::no_delay): `TCP_NODELAY`.
    pub fn with_no_delay(mut self, on: bool) -> Self {
        self.no_delay = on;
        self
    }

    /// Set [`keep_alive`](Self::keep_alive): the silence after which the peer is probed.
    pub fn with_keep_alive(mut self, silence: impl Into<Option<Duration>>) -> Self {
        self.keep_alive = silence.into();
        self
    }

    /// Set [`recv_buffer`](Self::recv_buffer): `SO_RCVBUF`.
    pub fn with_recv_buffer(mut self, bytes: impl Into<Option<usize>>) -> Self {
        self.recv_buffer = bytes.into();
        self
    }

    /// Set [`send_buffer`](Self::send_buffer): `SO_SNDBUF`.
    pub fn with_send_buffer(mut self, bytes: impl Into<Option<usize>>) -> Self {
        self.send_buffer = bytes.into();
        self
    }

    /// Set [`local`](Self::local): the address of this end.
    pub fn with_local(mut self, address: impl Into<Address>) -> Self {
        self.local = Some(address.into());
        self
    }

    /// Set [`interface`](Self::interface): the only one to connect through.
    pub fn with_interface(mut self, name: impl Into<String>) -> Self {
        self.interface = Some(name.into());
        self
    }

    /// Set [`timeout`](Self::timeout): how long a connect to a name may take; `None` for no limit.
    pub fn with_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.timeout = timeout.into();
        self
    }
}

/// How [`bind_with`](crate::ChannelMap::bind_with) makes a datagram socket. Options that the socket's
/// kind does not have are ignored.
///
/// ```
/// use dispatch_loop::{ChannelMap, DatagramOptions, Dispatcher};
///
/// struct Quiet;
/// impl Dispatcher for Quiet {}
///
/// let mut map = ChannelMap::new()?;
/// map.bind_with("0.0.0.0:0", &DatagramOptions::default().with_broadcast(true), Quiet)?;
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[must_use = "options have no effect until a socket is bound with them"]
pub struct DatagramOptions {
    /// The only peer (none): `connect`. [`push`](crate::Channel::push) sends to it, datagrams from
    /// others are not received, and errors on the way to it are reported.
    pub peer: Option<Address>,
    /// `SO_BROADCAST` (off): may send to broadcast addresses.
    pub broadcast: bool,
    /// `SO_REUSEADDR` (off): several sockets may be bound to one multicast address.
    pub reuse_address: bool,
    /// `SO_REUSEPORT` (off): several sockets share the datagrams of one port.
    pub reuse_port: bool,
    /// Exchange datagrams over IPv4, too, on an IPv6 address such as `[::]:53` (off): `IPV6_V6ONLY` is unset. Such
    /// peers have addresses like `[::ffff:192.0.2.1]:5000`. Not on OpenBSD.
    pub dual_stack: bool,
    /// `SO_RCVBUF`, in bytes (the system's default).
    pub recv_buffer: Option<usize>,
    /// `SO_SNDBUF`, in bytes (the system's default).
    pub send_buffer: Option<usize>,
    /// The name of the network interface to send and receive through (any). Linux and Android only: an error
    /// elsewhere.
    pub interface: Option<String>,
    /// The permissions of a Unix-domain socket's file (what the umask leaves).
    pub mode: Option<u32>,
}

impl DatagramOptions {
    /// Set [`peer`](Self::peer): the only one to exchange datagrams with.
    pub fn with_peer(mut self, address: impl Into<Address>) -> Self {
        self.peer = Some(address.into());
        self
    }

    /// Set [`broadcast`](Self::broadcast): `SO_BROADCAST`.
    pub fn with_broadcast(mut self, on: bool) -> Self {
        self.broadcast = on;
        self
    }

    /// Set [`reuse_address`](Self::reuse_address): `SO_REUSEADDR`.
    pub fn with_reuse_address(mut self, on: bool) -> Self {
        self.reuse_address = on;
        self
    }

    /// Set [`reuse_port`](Self::reuse_port): `SO_REUSEPORT`.
    pub fn with_reuse_port(mut self, on: bool) -> Self {
        self.reuse_port = on;
        self
    }

    /// Set [`dual_stack`](Self::dual_stack): an IPv6 address exchanges datagrams over IPv4, too.
    pub fn with_dual_stack(mut self, on: bool) -> Self {
        self.dual_stack = on;
        self
    }

    /// Set [`recv_buffer`](Self::recv_buffer): `SO_RCVBUF`.
    pub fn with_recv_buffer(mut self, bytes: impl Into<Option<usize>>) -> Self {
        self.recv_buffer = bytes.into();
        self
    }

    /// Set [`send_buffer`](Self::send_buffer): `SO_SNDBUF`.
    pub fn with_send_buffer(mut self, bytes: impl Into<Option<usize>>) -> Self {
        self.send_buffer = bytes.into();
        self
    }

    /// Set [`interface`](Self::interface): the only one to send and receive through.
    pub fn with_interface(mut self, name: impl Into<String>) -> Self {
        self.interface = Some(name.into());
        self
    }

    /// Set [`mode`](Self::mode): the permissions of a Unix-domain socket's file.
    pub fn with_mode(mut self, mode: impl Into<Option<u32>>) -> Self {
        self.mode = mode.into();
        self
    }
}
