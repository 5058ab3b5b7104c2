//! Channels are added: a slot is given to a dispatcher and to what it speaks through.

use std::any::TypeId;
use std::io;

use crate::core::dispatcher::Dispatcher;
use crate::core::map::ChannelMap;
use crate::guard::drop_caught;
use crate::link::held::Held;
use crate::link::source::{Plain, Source};
use crate::link::state::{Link, Note, Role};
use crate::net::socket::{Named, Socket};
use crate::sys::{self, Kind};
use crate::token::{Handle, Token};

impl ChannelMap {
    /// Make a channel of an existing socket: what `handle_accept` was given, a stream or a
    /// listener of `std::net` or `std::os::unix::net`, or [any descriptor](Socket::from_fd). The socket
    /// is made non-blocking.
    ///
    /// # Errors
    /// The socket cannot be made non-blocking, or the map is being dropped. Then the socket is closed
    /// and the dispatcher dropped.
    #[inline]
    pub fn add<D: Dispatcher>(&mut self, socket: impl Into<Socket>, dispatcher: D) -> io::Result<Handle<D>> {
        let token = self.add_boxed(socket.into(), Box::new(dispatcher), TypeId::of::<D>())?;
        Ok(token.typed())
    }

    fn add_boxed(
        &mut self,
        mut socket: Socket,
        dispatcher: Box<dyn Dispatcher>,
        of: TypeId,
    ) -> io::Result<Token> {
        if !socket.is_complete() {
            if let Err(error) = socket.complete() {
                return Err(refused(dispatcher, error));
            }
        }
        #[cfg(feature = "testing")]
        if self.stage.is_some() {
            return Err(refused(dispatcher, no_descriptors()));
        }
        let asks = self.asks(of);
        let load = if socket.named.is_some() { self.load.clone() } else { None };
        let (token, place) = self.seat(dispatcher)?;
        let Socket { fd, kind, local, peer, named, .. } = socket;
        Link::new(Held::Plain(Plain(fd)), kind, peer, local, asks).put_into(place);
        if let Some(named) = named {
            let Named { peer, file, permit, raised } = *named;
            place.set_peer(peer);
            if file.is_some() || permit.is_some() {
                let rare = place.rare();
                (rare.file, rare.permit) = (file, permit);
            }
            if raised.is_some_and(|raised| raised.stays(load.as_ref())) {
                place.noted.set(Note::Counted);
            }
        }
        Ok(token)
    }

    /// Make a channel of your own source, whose socket is non-blocking and connected.
    ///
    /// # Errors
    /// The map is being dropped.
    pub fn add_source<D: Dispatcher>(&mut self, source: impl Source, dispatcher: D) -> io::Result<Handle<D>> {
        let source = Held::own(Box::new(source));
        let peer = source.descriptor().and_then(|fd| sys::peer_addr(fd).ok());
        let mut link = Link::of_socket(source, Kind::Stream);
        link.set_peer(peer);
        self.insert(Ok(link), dispatcher)
    }

    /// Add an internal channel.
    pub(crate) fn insert_internal<D: Dispatcher>(
        &mut self,
        mut link: Link,
        dispatcher: D,
    ) -> io::Result<Token> {
        link.set_role(Role::Internal);
        let handle = self.insert(Ok(link), dispatcher)?;
        self.internal += 1;
        Ok(handle.token())
    }

    /// As `add_source`, for an internal channel.
    pub(crate) fn add_internal_source<D: Dispatcher>(
        &mut self,
        source: impl Source,
        dispatcher: D,
    ) -> io::Result<Handle<D>> {
        let link = Link::of_socket(Held::own(Box::new(source)), Kind::Stream);
        Ok(self.insert_internal(link, dispatcher)?.typed())
    }

    /// Add a channel, if it could be made.
    pub(crate) fn insert<D: Dispatcher>(
        &mut self,
        made: io::Result<Link>,
        dispatcher: D,
    ) -> io::Result<Handle<D>> {
        let mut link = match made {
            Ok(link) => link,
            Err(error) => return Err(refused(Box::new(dispatcher), error)),
        };
        #[cfg(feature = "testing")]
        if self.stage.is_some() && link.fd().is_some() {
            drop_caught("a source", link.take_source());
            return Err(refused(Box::new(dispatcher), no_descriptors()));
        }
        link.set_asks(self.asks(TypeId::of::<D>()));
        match self.seat(Box::new(dispatcher)) {
            Ok((token, place)) => {
                link.put_into(place);
                self.give_waker(token);
                Ok(token.typed())
            }
            Err(error) => {
                drop_caught("a source", link.take_source());
                Err(error)
            }
        }
    }

    /// Put a dispatcher into a vacant slot, to be settled. The caller puts the link into its place.
    #[inline(always)]
    fn seat(&mut self, dispatcher: Box<dyn Dispatcher>) -> io::Result<(Token, &mut Link)> {
        if self.ended {
            let why = "the channel map is being dropped";
            return Err(refused(dispatcher, io::Error::new(io::ErrorKind::BrokenPipe, why)));
        }
        let now = self.birth();
        let Some((token, seat)) = self.slots.occupy() else {
            let why = "the channel map is full";
            return Err(refused(dispatcher, io::Error::new(io::ErrorKind::QuotaExceeded, why)));
        };
        seat.dispatcher = Some(dispatcher);
        self.ages.begins(token, now);
        self.dirty.push(token);
        Ok((token, &mut seat.link))
    }

    /// Whether dispatchers of this type must be asked `readable` and `writable`, as far as is known.
    fn asks(&self, of: TypeId) -> bool {
        self.never_asked != Some(of)
    }
}

/// The dispatcher cannot be added: drop it.
#[cold]
fn refused(dispatcher: Box<dyn Dispatcher>, why: io::Error) -> io::Error {
    drop_caught("a dispatcher", dispatcher);
    why
}

/// A map for testing has a clock that real peers do not go by.
#[cfg(feature = "testing")]
#[cold]
fn no_descriptors() -> io::Error {
    let why =
        "a map for testing has channels without a descriptor only: see `testing::add` and `testing::pair`";
    io::Error::new(io::ErrorKind::Unsupported, why)
}
