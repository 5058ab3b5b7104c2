//! Handing a channel over: to another dispatcher, to another source, out of the map.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::core::channel::Channel;
use crate::core::dispatcher::Dispatcher;
use crate::core::map::ChannelMap;
use crate::error::{LookupError, clone_error};
use crate::event_loop::hooks;
use crate::guard::drop_guarded;
use crate::link::held::Held;
use crate::link::source::Source;
use crate::link::unread::Replay;
use crate::net::socket::{Detached, Socket};
use crate::reason::Reason;
use crate::token::{Handle, Token};

impl Channel<'_> {
    /// Replace the dispatcher: a protocol upgrade. The old one's `handle_close` does not run; it is
    /// dropped, after its hook if one is running. `handle_open` does not run again.
    ///
    /// # Errors
    /// The channel has ended.
    pub fn replace_dispatcher<D: Dispatcher>(&mut self, dispatcher: D) -> io::Result<Handle<D>> {
        self.touch();
        let token = self.token();
        let Some(seat) = self.map_mut().slots.get_mut(token) else {
            return self.named(Err(LookupError::Gone(token).into()));
        };
        seat.link.set_asks(true);
        seat.link.was_changed();
        let old = seat.dispatcher.replace(Box::new(dispatcher));
        if old.is_none() {
            hooks::note_replaced(token);
        }
        drop_guarded(&mut self.map_mut().throttle, "a replaced dispatcher", old);
        Ok(token.typed())
    }

    /// Wrap the channel's source in another one, as STARTTLS does; `f` is given the old source. In
    /// `handle_connect` or `handle_open` this encrypts a connection from the start. Input that was put
    /// back is read by the new source, through the one it is given. Queued output is sent through the
    /// new source, so an answer that must go out in the clear must have been sent before
    /// ([`queued`](Channel::queued) is 0).
    ///
    /// # Errors
    /// `NotConnected` if the channel has no open stream. An `Err` of `f` is returned, and as the old
    /// source is gone by then, the channel ends with it.
    pub fn wrap_source<F>(&mut self, f: F) -> io::Result<()>
    where
        F: FnOnce(Box<dyn Source>) -> io::Result<Box<dyn Source>>,
    {
        self.touch();
        let token = self.token();
        let result = self.map_mut().wrap_source(token, f);
        self.named(result)
    }

    /// Take the socket out of the map, with input that was put back ([`unread`](Channel::unread)) and
    /// not read again, and with queued output. The channel ends with [`Reason::Detached`]; the peer
    /// notices nothing. The socket stays non-blocking. A [`shutdown_write`](Channel::shutdown_write)
    /// that is not done yet is forgotten, and so is what is on its way from an
    /// [`Outlet`](crate::Outlet).
    ///
    /// Use it to continue elsewhere: in another map ([`add`](ChannelMap::add), then `unread` and `push`
    /// there), in a thread, in another process.
    ///
    /// ```
    /// use dispatch_loop::{ChannelMap, Dispatcher};
    /// use std::io::{Read, Write};
    /// use std::os::fd::OwnedFd;
    /// use std::os::unix::net::UnixStream;
    ///
    /// struct Quiet;
    /// impl Dispatcher for Quiet {}
    ///
    /// let (near, mut far) = UnixStream::pair()?;
    /// let mut map = ChannelMap::new()?;
    /// let quiet = map.add(near, Quiet)?;
    /// let detached = map.channel(quiet)?.detach()?;
    /// let mut stream = UnixStream::from(OwnedFd::from(detached.socket));
    /// stream.set_nonblocking(false)?;
    /// stream.write_all(b"by hand")?;
    /// # drop(stream);
    /// # let mut got = String::new();
    /// # far.read_to_string(&mut got)?;
    /// # assert_eq!(got, "by hand");
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    /// `NotConnected` while connecting and after the end; `Unsupported`, with the channel unchanged, if
    /// the socket has a source around it, or a producer or a datagram is queued.
    pub fn detach(&mut self) -> io::Result<Detached> {
        self.touch();
        let token = self.token();
        let result = self.map_mut().detach(token);
        self.named(result)
    }
}

impl ChannelMap {
    fn detach(&mut self, token: Token) -> io::Result<Detached> {
        self.send_gathered(token);
        let seat = self.slots.get_mut(token).ok_or(LookupError::Gone(token))?;
        let link = &mut seat.link;
        let detachable = link.is_listening() || link.is_opening() || link.is_open();
        if !detachable || link.is_broken() {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "the channel has no open socket"));
        }
        let unsupported = |what| Err(io::Error::new(io::ErrorKind::Unsupported, what));
        if link.has_own_source() {
            return unsupported("a socket with a source around it cannot be detached");
        }
        let Some(unsent) = link.take_queued() else {
            return unsupported("a producer or a datagram is queued, which cannot be detached");
        };
        let Some(Held::Plain(plain)) = link.take_source() else {
            return Err(LookupError::Gone(token).into());
        };
        // The new owner of the socket may close it.
        if link.registered().is_some() {
            let _ = self.poll.delete(plain.fd());
            link.set_registered(None);
        }
        let mut socket = Socket {
            kind: link.kind(),
            nonblocking: true,
            local: link.local().cloned(),
            ..Socket::stream(plain.0)
        };
        if let Some(peer) = link.peer() {
            socket.set_peer(&peer);
        }
        if let Some(file) = link.rare_mut_if_any().and_then(|rare| rare.file.take()) {
            socket.named.get_or_insert_default().file = Some(file);
        }
        let unread = link.take_unread().map_or(Vec::new(), |unread| unread.into_bytes());
        link.end(Reason::Detached);
        Ok(Detached { socket, unread, unsent })
    }

    fn wrap_source<F>(&mut self, token: Token, f: F) -> io::Result<()>
    where
        F: FnOnce(Box<dyn Source>) -> io::Result<Box<dyn Source>>,
    {
        self.send_gathered(token);
        let seat = self.slots.get_mut(token).ok_or(LookupError::Gone(token))?;
        let link = &mut seat.link;
        if !link.has_open_stream() {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "the channel has no open stream"));
        }
        let Some(old) = link.take_source() else { return Err(LookupError::Gone(token).into()) };
        // The new owner of the old source may close its descriptor.
        if let (Some(fd), Some(_)) = (old.descriptor(), link.registered()) {
            let _ = self.poll.delete(fd);
        }
        link.set_registered(None);
        let old = match link.take_unread() {
            Some(unread) => Box::new(Replay::new(unread, old.into_box())),
            None => old.into_box(),
        };
        match catch_unwind(AssertUnwindSafe(|| f(old))) {
            Ok(Ok(new)) => {
                link.set_source(Some(Held::own(new)));
                Ok(())
            }
            Ok(Err(error)) => {
                let error = link.read_lost(error);
                Err(clone_error(&error))
            }
            Err(payload) => {
                link.end(Reason::from(io::Error::other("making the new source panicked")));
                resume_unwind(payload)
            }
        }
    }
}
