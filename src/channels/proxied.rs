//! Connections that a balancer passes on, and what it tells of them.

use std::io::{self, ErrorKind};

use crate::core::channel::Channel;
use crate::core::dispatcher::Dispatcher;
use crate::core::map::ChannelMap;
use crate::net::address::Address;
use crate::net::places::Permit;
use crate::net::proxy::ProxyHeader;
use crate::net::socket::Socket;
use crate::net::trust::ProxyOptions;
use crate::sys::Kind;
use crate::token::Handle;

impl ChannelMap {
    /// As [`add`](ChannelMap::add), for a connection that a balancer passes on: it begins with a header of the PROXY
    /// protocol, version 1 or 2. `handle_open` waits for that; from then on
    /// [`peer_addr`](Channel::peer_addr) is the address that the header tells, and
    /// [`proxy_header`](Channel::proxy_header) has the rest. The connection is no slower than any other.
    ///
    /// From whom `options` trusts, a header must come, whole and in time; from others none may. If it is missing or
    /// malformed, too long or late, the channel ends as after a failed connect: `handle_error` is told the cause, then
    /// `handle_close`; if one comes of somebody who is not trusted, with an error as the reason. What a
    /// header says of no client (`LOCAL`, `UNKNOWN`: the balancer's own checks) leaves `peer_addr` as it was.
    ///
    /// Where a listener has a [limit per peer](crate::AcceptLimits::with_per_peer), the told address counts, and the
    /// balancer's does not: over the limit the channel ends as above, with
    /// [`AcceptLimitError`](crate::AcceptLimitError), without a last word.
    ///
    /// TLS begins behind the header: `start_tls` on the channel that this has returned.
    ///
    /// ```
    /// use dispatch_loop::{Address, Channel, ChannelMap, Dispatcher, ProxyOptions, Socket};
    /// use std::io;
    ///
    /// struct Greeter;
    ///
    /// impl Dispatcher for Greeter {
    ///     fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
    ///         ch.push(format!("hello, {}\n", ch.peer_addr()?).as_bytes())?;
    ///         ch.close();
    ///         Ok(())
    ///     }
    /// }
    ///
    /// struct Server {
    ///     proxy: ProxyOptions,
    /// }
    ///
    /// impl Dispatcher for Server {
    ///     fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
    ///         ch.map_mut().add_proxied(socket, &self.proxy, Greeter)?;
    ///         ch.close();
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let mut map = ChannelMap::new()?;
    /// let server = map.listen("127.0.0.1:0", Server { proxy: ProxyOptions::default() })?;
    /// # let address = map.channel(server)?.local_addr()?.ip().unwrap();
    /// # let client = std::thread::spawn(move || -> io::Result<String> {
    /// #     let mut stream = std::net::TcpStream::connect(address)?;
    /// #     io::Write::write_all(&mut stream, b"PROXY TCP4 192.0.2.1 192.0.2.2 4000 80\r\n")?;
    /// #     io::read_to_string(stream)
    /// # });
    /// dispatch_loop::run(&mut map)?;
    /// # assert_eq!(client.join().unwrap()?, "hello, 192.0.2.1:4000\n");
    /// # io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    /// As [`add`](ChannelMap::add); `InvalidInput` if the socket is no connection.
    pub fn add_proxied<D: Dispatcher>(
        &mut self,
        socket: impl Into<Socket>,
        options: &ProxyOptions,
        dispatcher: D,
    ) -> io::Result<Handle<D>> {
        let socket = socket.into();
        if socket.kind != Kind::Stream {
            return Err(io::Error::new(ErrorKind::InvalidInput, "only a connection has a PROXY header"));
        }
        let handle = self.add(socket, dispatcher)?;
        if let Some(link) = self.link_mut(handle.token()) {
            match link.peer().is_some_and(|peer| options.trusts(&peer)) {
                true => {
                    link.permit().map(Permit::count_for_nobody);
                    link.expect_header(options.max_len, options.timeout);
                }
                false => link.refuse_header(),
            }
        }
        Ok(handle)
    }
}

impl Channel<'_> {
    /// What a balancer has told of this connection; `None` if it was not added with
    /// [`add_proxied`](ChannelMap::add_proxied), or not by somebody who is trusted.
    pub fn proxy_header(&self) -> Option<&ProxyHeader> {
        Some(&self.link()?.proxied()?.header)
    }

    /// The balancer's own address, which [`peer_addr`](Channel::peer_addr) would be without its header.
    pub fn balancer_addr(&self) -> Option<&Address> {
        self.link()?.proxied()?.balancer.as_ref()
    }
}
