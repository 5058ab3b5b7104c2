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

/// What the closure of [`ChannelMap::serve`] may return: a dispatcher; or an `io::Result` of one, of which an `Err`
/// refuses the connection.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no `Dispatcher`, nor an `io::Result` of one",
    label = "has none of the hooks that a channel calls",
    note = "a struct becomes one by `impl Dispatcher for`, every hook of which has a default",
    note = "a `Chat` goes into a `ChatDispatcher::new(terminator, chat)`, a `Protocol` into a `ProtocolDispatcher::new(protocol)`"
)]
pub trait IntoDispatcher {
    /// The dispatcher's type.
    type Dispatcher: Dispatcher;

    /// The dispatcher, if there is one.
    ///
    /// # Errors
    /// There is none: the connection is refused.
    fn into_dispatcher(self) -> io::Result<Self::Dispatcher>;
}

impl<D: Dispatcher> IntoDispatcher for D {
    type Dispatcher = D;

    fn into_dispatcher(self) -> io::Result<D> {
        Ok(self)
    }
}

impl<D: Dispatcher> IntoDispatcher for io::Result<D> {
    type Dispatcher = D;

    fn into_dispatcher(self) -> io::Result<D> {
        self
    }
}

/// A listener whose every connection has a dispatcher that the closure makes.
struct Server<F, D> {
    make: F,
    makes: PhantomData<fn() -> D>,
}

impl<F, D> Dispatcher for Server<F, D>
where
    F: FnMut(&mut Channel<'_>, &Address) -> D + 'static,
    D: IntoDispatcher + 'static,
{
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, peer: Address) -> io::Result<()> {
        match (self.make)(ch, &peer).into_dispatcher() {
            Ok(dispatcher) => ch.map_mut().add(socket, dispatcher).map(drop),
            Err(error) => {
                let listener = ch.token();
                ch.map_mut().report(listener, &format!("{peer} is refused"), &error);
                Ok(())
            }
        }
    }
}

impl ChannelMap {
    /// Listen, and give each connection the dispatcher that `make` returns: asyncio's `create_server`. `make` is
    /// given the listener's channel, through which it reaches the map, and the peer's address. If it returns an
    /// `Err`, that is logged, and the connection is closed.
    ///
    /// Whoever wants to do something with a connection's socket first writes a listener with a
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
        D: IntoDispatcher + 'static,
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
        D: IntoDispatcher + 'static,
        F: FnMut(&mut Channel<'_>, &Address) -> D + 'static,
    {
        Ok(self.listen_with(address, options, Server { make, makes: PhantomData })?.token())
    }
}
