//! How a channel passes into other hands: to another dispatcher, through another source, out of the map.

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
    /// Let `dispatcher` have the hooks from now on: a protocol upgrade. The old one gets no
    /// `handle_close`; it is dropped, after its hook if one is running. `handle_open` does not run
    /// again.
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

    /// Put another source around the one the channel has, as STARTTLS does; `f` is given that
    /// one. In `handle_connect` or `handle_open` this is how a connection is encrypted from the
    /// start. Input that was put back goes to the new source, which finds it in the one it is given.
    /// What is queued goes through the new source, so an answer that is still to go out in
    /// the clear must have been sent ([`queued`](Channel::queued) is 0).
    ///
    /// # Errors
    /// `NotConnected` if there is no stream (any more). An `Err` of `f` is handed back, and as the
    /// old source is gone by then, the channel ends with it.
    pub fn wrap_source<F>(&mut self, f: F) -> io::Result<()>
    where
        F: FnOnce(Box<dyn Source>) -> io::Result<Box<dyn Source>>,
    {
        self.touch();
        let token = self.token();
        let result = self.map_mut().wrap_source(token, f);
        self.named(result)
    }

    /// Take the socket out of the map, with what was put back ([`unread`](Channel::unread)) and not
    /// read again, and what is queued. The channel ends with [`Reason::Detached`]; the peer notices
    /// nothing. The socket is left non-blocking. A [`shutdown_write`](Channel::shutdown_write) that was
    /// still to come is forgotten, and so is what an [`Outlet`](crate::Outlet) has under way.
    ///
    /// To go on elsewhere: in another map ([`add`](ChannelMap::add), then `unread` and `push` there),
    /// in a thread of its own, in another process.
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
    /// `NotConnected` while connecting and when it has ended; `Unsupported`, with the channel as it
    /// was, if the socket has a source around it or a producer is queued, which cannot go along.
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
        // Whoever has the socket now may close it.
        if link.registered().is_some() {
            let _ = self.poll.delete(plain.fd());
            link.set_registered(None);
        }
        let socket = Socket {
            kind: link.kind(),
            nonblocking: true,
            local: link.local().cloned(),
            peer: link.peer(),
            file: link.rare_mut_if_any().and_then(|rare| rare.file.take()),
            ..Socket::stream(plain.0)
        };
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
        // Whoever gets the old source may close its descriptor.
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
                link.end(Reason::from(io::Error::other("the making of a new source panicked")));
                resume_unwind(payload)
            }
        }
    }
}
