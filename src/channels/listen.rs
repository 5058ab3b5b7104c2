//! Listening: on one address, or on all addresses of a name.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::core::channel::Channel;
use crate::core::dispatcher::Dispatcher;
use crate::core::map::ChannelMap;
use crate::error::LookupError;
use crate::event_loop::backoff;
use crate::link::admission::Admission;
use crate::link::held::Held;
use crate::link::source::Plain;
use crate::link::state::Link;
use crate::net::address::{Address, ToAddress, about, literal};
use crate::net::limits::AcceptLimits;
use crate::net::options::ListenOptions;
use crate::net::resolve;
use crate::net::unix::SocketFile;
use crate::sys::{self, Kind};
use crate::token::{Handle, Token};

/// Attempts to find one port that is free on every address.
const TRIES: usize = 16;

impl ChannelMap {
    /// Listen on a TCP address: Python's `create_socket`, `set_reuse_addr`, `bind` and `listen` in
    /// one. Port 0 asks for a free port; [`local_addr`](crate::Channel::local_addr) returns it.
    ///
    /// The address can be used again as soon as the program has ended (`SO_REUSEADDR`); an IPv6 address
    /// accepts IPv6 only; accepted sockets send without delay (`TCP_NODELAY`).
    ///
    /// On a Unix-domain address, a stale file on which no server listens is removed first, and the new
    /// file is removed when the channel ends. (If two servers start on one path at the same moment, the
    /// later one may take the file of the earlier one for a stale one.)
    ///
    /// # Errors
    /// Each names the address: not an address (`InvalidInput`), in use (`AddrInUse`), not an address of
    /// this machine (`AddrNotAvailable`), not allowed (`PermissionDenied`).
    pub fn listen<D: Dispatcher>(&mut self, address: impl ToAddress, dispatcher: D) -> io::Result<Handle<D>> {
        self.listen_with(address, &ListenOptions::default(), dispatcher)
    }

    /// As [`listen`](ChannelMap::listen), with options.
    ///
    /// # Errors
    /// As [`listen`](ChannelMap::listen); and if the system rejects an option.
    pub fn listen_with<D: Dispatcher>(
        &mut self,
        address: impl ToAddress,
        options: &ListenOptions,
        dispatcher: D,
    ) -> io::Result<Handle<D>> {
        let made = literal(&address, "listen_all listens on all its addresses").and_then(|address| {
            let about = |error| about("listen on", &address, &error);
            let (fd, file) = sys::stream::listen(&address, options).map_err(about)?;
            let local = sys::local_addr(fd.as_fd()).map_err(about)?;
            let admission = options.limits.clone().map(|limits| Admission::new(limits, self.waiter()));
            Ok(listener(fd, local, file, admission))
        });
        self.insert(made, dispatcher)
    }

    /// Listen on every address that `address` stands for: `"localhost:80"` is often one IPv4 and one
    /// IPv6 address, `"*:80"` is every address of this machine. asyncio's `create_server`. `make` is
    /// called for each, in the order of the handles. With port 0 all get the same port.
    ///
    /// A name is looked up before this returns, which may block: do it before the loop runs. Families
    /// that the system does not support, such as IPv6, are skipped as long as another address works.
    ///
    /// ```
    /// use dispatch_loop::{ChannelMap, Dispatcher, ListenOptions};
    ///
    /// struct Quiet;
    /// impl Dispatcher for Quiet {}
    ///
    /// let mut map = ChannelMap::new()?;
    /// for listener in map.listen_all("*:0", &ListenOptions::default(), |_| Quiet)? {
    ///     println!("listening on {}", map.channel(listener)?.local_addr()?);
    /// }
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    /// As [`listen`](ChannelMap::listen), for the first address that fails: then there is no listener at
    /// all. Also if the name is not found.
    pub fn listen_all<D: Dispatcher>(
        &mut self,
        address: &str,
        options: &ListenOptions,
        mut make: impl FnMut(&Address) -> D,
    ) -> io::Result<Vec<Handle<D>>> {
        let addresses = self.all_of(address)?;
        let mut listeners = Vec::new();
        for (address, fd, file) in bound(&addresses, options)? {
            let local = sys::local_addr(fd.as_fd()).map_err(|error| about("listen on", &address, &error))?;
            let dispatcher = make(&local);
            let admission = options.limits.clone().map(|limits| Admission::new(limits, self.waiter()));
            listeners.push((listener(fd, local, file, admission), dispatcher));
        }
        // If the map takes none, each is dropped by itself.
        let added: Vec<_> =
            listeners.into_iter().map(|(link, dispatcher)| self.insert(Ok(link), dispatcher)).collect();
        added.into_iter().collect()
    }

    fn all_of(&self, text: &str) -> io::Result<Vec<Address>> {
        if let Some(port) = text.strip_prefix("*:").and_then(|port| port.parse::<u16>().ok()) {
            let any: [SocketAddr; 2] =
                [(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()];
            return Ok(any.map(Address::Ip).into());
        }
        let error = match text.to_address() {
            Ok(address) => return Ok(vec![address]),
            Err(error) => error,
        };
        let Some((host, port)) = text.to_name() else { return Err(error) };
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("cannot look up {text}: {error}"));
        let mut found = resolve::look_up(&self.resolver, &host, port).map_err(named)?;
        found.sort();
        found.dedup();
        Ok(found.into_iter().map(Address::Ip).collect())
    }
}

fn listener(fd: OwnedFd, local: Address, file: Option<SocketFile>, admission: Option<Admission>) -> Link {
    let mut link = Link::of_socket(Held::Plain(Plain(fd)), Kind::Listener);
    link.set_local(Some(Arc::new(local)));
    if let Some(file) = file {
        link.rare().file = Some(Box::new(file));
    }
    if let Some(admission) = admission {
        link.set_admission(admission);
    }
    link
}

impl Channel<'_> {
    /// Give a listener other limits; what waits in the backlog is looked at anew. With
    /// `AcceptLimits::default()` it has none. Connections count where they were counted when they were
    /// accepted: to change one number and keep the counts, change what [`accept_limits`] returns.
    ///
    /// [`accept_limits`]: Channel::accept_limits
    ///
    /// # Errors
    /// `InvalidInput` if this is no listener; it has ended.
    pub fn set_accept_limits(&mut self, limits: AcceptLimits) -> io::Result<()> {
        let token = self.token();
        let result = self.map_mut().limit(token, limits);
        self.named(result)
    }

    /// The limits of a listener, with their counts.
    pub fn accept_limits(&self) -> Option<AcceptLimits> {
        self.map().link(self.token())?.accept_limits().cloned()
    }
}

impl ChannelMap {
    fn limit(&mut self, token: Token, limits: AcceptLimits) -> io::Result<()> {
        let admission = Admission::new(limits, self.waiter());
        let link = self.link_mut(token).ok_or(LookupError::Gone(token))?;
        if !link.is_listening() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "the channel is no listener"));
        }
        link.set_admission(admission);
        backoff::resume(self, token);
        Ok(())
    }
}

type Bound = Vec<(Address, OwnedFd, Option<SocketFile>)>;

/// A socket for each address, all on one port; or an error and no socket.
fn bound(addresses: &[Address], options: &ListenOptions) -> io::Result<Bound> {
    let mut tries = 0;
    loop {
        tries += 1;
        // The system chooses a port that is free for the first. Few may be free for another one.
        let first = tries % addresses.len().max(1);
        match bound_once(addresses, first, options) {
            Err((error, true)) if error.kind() == ErrorKind::AddrInUse && tries < TRIES => {}
            result => return result.map_err(|(error, _)| error),
        }
    }
}

/// As `bound`, with one port, beginning with the `first` address; beside the error, whether another port may work.
fn bound_once(
    addresses: &[Address],
    first: usize,
    options: &ListenOptions,
) -> Result<Bound, (io::Error, bool)> {
    let mut bound = Vec::new();
    let mut passed_over = None;
    let mut port = None;
    for at in (first..addresses.len()).chain(0..first) {
        let mut address = addresses[at].clone();
        if let (Address::Ip(ip), Some(port)) = (&mut address, port) {
            ip.set_port(port);
        }
        match sys::stream::listen(&address, options) {
            Ok((fd, file)) => {
                let asked_for_any = address.port() == Some(0);
                port = port.or_else(|| sys::local_addr(fd.as_fd()).ok()?.port().filter(|_| asked_for_any));
                bound.push((at, (address, fd, file)));
            }
            Err(error) => {
                let missing = sys::errno::is_address_unavailable(&error);
                let error = about("listen on", &address, &error);
                if !missing {
                    return Err((error, port.is_some()));
                }
                passed_over.get_or_insert(error);
            }
        }
    }
    match passed_over {
        Some(error) if bound.is_empty() => Err((error, false)),
        _ => {
            bound.sort_by_key(|(at, _)| *at);
            Ok(bound.into_iter().map(|(_, one)| one).collect())
        }
    }
}
