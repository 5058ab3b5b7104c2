//! Datagram channels: making them on UDP and Unix-domain sockets, sending, multicast groups.

use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::sync::Arc;

use crate::core::channel::Channel;
use crate::core::dispatcher::Dispatcher;
use crate::core::map::ChannelMap;
use crate::link::held::Held;
use crate::link::source::Plain;
use crate::link::state::Link;
use crate::net::address::{Address, ToAddress, about, literal};
use crate::net::options::DatagramOptions;
use crate::sys::{self, Kind};
use crate::token::Handle;

impl ChannelMap {
    /// A channel for datagrams, on a UDP or Unix-domain address: asyncio's
    /// `create_datagram_endpoint`. What arrives is given to
    /// [`handle_datagram`](Dispatcher::handle_datagram); [`push_to`](Channel::push_to) sends. To send only,
    /// bind to `"0.0.0.0:0"`, or to [`Address::Unnamed`] for Unix-domain sockets.
    ///
    /// # Errors
    /// As [`listen`](ChannelMap::listen).
    pub fn bind<D: Dispatcher>(&mut self, address: impl ToAddress, dispatcher: D) -> io::Result<Handle<D>> {
        self.bind_with(address, &DatagramOptions::default(), dispatcher)
    }

    /// As [`bind`](ChannelMap::bind), with options.
    ///
    /// # Errors
    /// As [`bind`](ChannelMap::bind); and if the system rejects an option.
    pub fn bind_with<D: Dispatcher>(
        &mut self,
        address: impl ToAddress,
        options: &DatagramOptions,
        dispatcher: D,
    ) -> io::Result<Handle<D>> {
        self.insert(bound(&address, options), dispatcher)
    }
}

fn bound(address: &impl ToAddress, options: &DatagramOptions) -> io::Result<Link> {
    let address = literal(address, "names are not looked up here")?;
    let (fd, file) =
        sys::datagram::bind(&address, options).map_err(|error| about("bind to", &address, &error))?;
    let mut link = Link::of_socket(Held::Plain(Plain(fd)), Kind::Datagram);
    link.set_local(link.fd().and_then(|fd| sys::local_addr(fd).ok()).map(Arc::new));
    link.set_peer(options.peer.clone());
    if let Some(file) = file {
        link.rare().file = Some(Box::new(file));
    }
    Ok(link)
}

impl Channel<'_> {
    /// Send a datagram, at once if nothing is queued before it: Python's `sendto`.
    /// [`push`](Channel::push) does the same to the one peer of a connected socket.
    ///
    /// If it is too long, or the network reports that it cannot be delivered,
    /// [`handle_network_error`](Dispatcher::handle_network_error) is called.
    ///
    /// # Errors
    /// `BrokenPipe` after `close` or `abort`; `QuotaExceeded` over the hard limit; `InvalidInput` if
    /// this is not a datagram channel, or has one peer
    /// ([`DatagramOptions::peer`](crate::DatagramOptions::peer)) and `to` is another address.
    #[doc(alias = "sendto")]
    pub fn push_to(&mut self, bytes: &[u8], to: &Address) -> io::Result<()> {
        self.put_datagram(bytes, to)
    }

    /// Join a multicast group: `IP_ADD_MEMBERSHIP`. `interface` is an interface index; 0 leaves the
    /// choice to the system. (NetBSD and OpenBSD leave no other choice for an IPv4 group: `Unsupported`.)
    ///
    /// # Errors
    /// This is not a UDP socket of the group's family (`InvalidInput`), or the system refuses.
    pub fn join_multicast(&mut self, group: IpAddr, interface: u32) -> io::Result<()> {
        self.multicast(group, interface, true)
    }

    /// Leave a multicast group: `IP_DROP_MEMBERSHIP`.
    ///
    /// # Errors
    /// As [`join_multicast`](Channel::join_multicast).
    pub fn leave_multicast(&mut self, group: IpAddr, interface: u32) -> io::Result<()> {
        self.multicast(group, interface, false)
    }

    fn multicast(&self, group: IpAddr, interface: u32, join: bool) -> io::Result<()> {
        let fd = self.socket().ok_or(ErrorKind::NotConnected)?;
        let about = |error: io::Error| {
            io::Error::new(error.kind(), format!("multicast group {group} on interface {interface}: {error}"))
        };
        let local = self.local_addr()?.ip();
        let of_the_family = local.is_some_and(|local| local.is_ipv4() == group.is_ipv4());
        let result = match of_the_family {
            true => sys::datagram::multicast(fd, group, interface, join),
            // Linux joins an IPv4 group on an IPv6 socket, which then receives nothing of it.
            false => Err(io::Error::new(ErrorKind::InvalidInput, "not a UDP socket of the group's family")),
        };
        self.named(result.map_err(about))
    }
}
