//! A listener from a closure.

use std::io;
use std::marker::PhantomData;

use crate::core::channel::Channel;
use crate::core::dispatcher::Dispatcher;
use crate::core::map::ChannelMap;
use crate::net::address::{Address, ToAddress};
use crate::net::options::ListenOptions;
use crate::net::socket::Socket;
use crate::token::Token;

/// A listener whose every connection has a dispatcher that the closure makes.
struct Server<F, D> {
    make: F,
    makes: PhantomData<fn() -> D>,
}

impl<F, D> Dispatcher for Server<F, D>
where
    F: FnMut(&mut Channel<'_>, &Address) -> D + 'static,
    D: Dispatcher,
{
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, peer: Address) -> io::Result<()> {
        let dispatcher = (self.make)(ch, &peer);
        ch.map_mut().add(socket, dispatcher).map(drop)
    }
}

impl ChannelMap {
    /// Listen, and give each connection the dispatcher that `make` returns: asyncio's `create_server`. `make` is
    /// given the listener's channel, through which it reaches the map, and the peer's address.
    ///
    /// Whoever wants to refuse a connection, or to do something with its socket first, writes a listener with a
    /// [`handle_accept`](Dispatcher::handle_accept) of its own and calls [`listen`](ChannelMap::listen).
    ///
    /// ```
    /// use dispatch_loop::{Channel, ChannelMap, Dispatcher};
    /// use std::io;
    ///
    /// struct Echo;
    ///
    /// impl Dispatcher for Echo {
    ///     fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
    ///         ch.read_with(|ch, data| ch.push(data))
    ///     }
    /// }
    ///
    /// let mut map = ChannelMap::new()?;
    /// let listener = map.serve("127.0.0.1:0", |_, _| Echo)?;
    /// println!("listening on {}", map.channel(listener)?.local_addr()?);
    /// # map.stop();
    /// dispatch_loop::run(&mut map)?;
    /// # io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    /// As [`listen`](ChannelMap::listen).
    pub fn serve<D, F>(&mut self, address: impl ToAddress, make: F) -> io::Result<Token>
    where
        D: Dispatcher,
        F: FnMut(&mut Channel<'_>, &Address) -> D + 'static,
    {
        self.serve_with(address, &ListenOptions::default(), make)
    }

    /// As [`serve`](ChannelMap::serve), with options.
    ///
    /// # Errors
    /// As [`listen_with`](ChannelMap::listen_with).
    pub fn serve_with<D, F>(
        &mut self,
        address: impl ToAddress,
        options: &ListenOptions,
        make: F,
    ) -> io::Result<Token>
    where
        D: Dispatcher,
        F: FnMut(&mut Channel<'_>, &Address) -> D + 'static,
    {
        Ok(self.listen_with(address, options, Server { make, makes: PhantomData })?.token())
    }
}
