//! Handing a channel over: to another dispatcher, to another source, out of the map.

use std::io;

use crate::core::channel::Channel;
use crate::core::dispatcher::Dispatcher;
use crate::core::map::ChannelMap;
use crate::error::LookupError;
use crate::event_loop::{hooks, upgrade};
use crate::guard::drop_guarded;
use crate::link::held::Held;
use crate::link::source::{MakeSource, Source};
use crate::net::address::Address;
use crate::net::socket::{Detached, Socket};
use crate::net::unix::SocketFile;
use crate::reason::Reason;
use crate::token::{Handle, Token};

impl Channel<'_> {
    /// Replace the dispatcher: a protocol upgrade. The old one's `handle_close` does not run; it is
    /// dropped, after its hook if one is running. `handle_open` does not run again. A message that had begun is
    /// the old one's, and is over ([`end_message`](Channel::end_message)).
    ///
    /// # Errors
    /// The channel has ended: also inside `handle_close`.
    pub fn replace_dispatcher<D: Dispatcher>(&mut self, dispatcher: D) -> io::Result<Handle<D>> {
        self.touch();
        let token = self.token();
        let Some(seat) = self.map_mut().slots.get_mut(token) else {
            return self.named(Err(LookupError::Gone(token).into()));
        };
        if seat.link.is_told() {
            return self.named(Err(LookupError::Gone(token).into()));
        }
        seat.link.set_asks(true);
        seat.link.was_changed();
        seat.link.end_message();
        let old = seat.dispatcher.replace(Box::new(dispatcher));
        if old.is_none() {
            hooks::note_replaced(token);
        }
        drop_guarded(&mut self.map_mut().throttle, "a replaced dispatcher", old);
        Ok(token.typed())
    }

    /// Put another source around the channel's, as STARTTLS does; `f` makes it of the old one.
    ///
    /// On an open channel it takes effect when the running hook has returned and what was pushed before is
    /// sent through the old source; what is pushed afterwards goes through the new one, and
    /// [`handle_wrapped`](Dispatcher::handle_wrapped) runs when that is in place and its handshake done.
    /// Until then nothing is read. Input that the dispatcher has read and not used must not be taken for
    /// encrypted: [`unread`](Channel::unread) hands it to the new source, as its first bytes; a protocol
    /// that allows none ends the channel if there is any.
    ///
    /// On a channel that is not open yet (right after [`add`](ChannelMap::add), or in `handle_connect`) it
    /// takes effect at once, while connecting as soon as the connection is made: nothing passes in the clear, not
    /// even what was pushed while connecting, and `handle_open` waits for the handshake, for which there are
    /// [10 s](Channel::set_handshake_timeout).
    ///
    /// ```
    /// use dispatch_loop::{Channel, Dispatcher, Source};
    /// use std::io;
    ///
    /// # struct Tls(Box<dyn Source>);
    /// # impl Tls {
    /// #     fn server(plain: Box<dyn Source>) -> io::Result<Tls> {
    /// #         Ok(Tls(plain))
    /// #     }
    /// # }
    /// # impl Source for Tls {
    /// #     fn descriptor(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
    /// #         self.0.descriptor()
    /// #     }
    /// #     fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
    /// #         self.0.recv(buffer)
    /// #     }
    /// #     fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
    /// #         self.0.send(bytes)
    /// #     }
    /// #     fn shutdown_write(&mut self) -> io::Result<()> {
    /// #         self.0.shutdown_write()
    /// #     }
    /// # }
    /// struct Mail {
    ///     secure: bool,
    /// }
    ///
    /// impl Dispatcher for Mail {
    ///     fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
    ///         ch.read_with(|ch, data| match data.strip_prefix(b"STARTTLS\r\n") {
    ///             Some(rest) => {
    ///                 ch.push(b"220 go ahead\r\n")?;             // leaves in the clear
    ///                 ch.unread(rest);                           // must be the client's handshake
    ///                 ch.wrap_source(|plain| Ok(Box::new(Tls::server(plain)?)))
    ///             }
    ///             None => ch.push(b"500 what?\r\n"),
    ///         })
    ///     }
    ///     fn handle_wrapped(&mut self, _: &mut Channel<'_>) -> io::Result<()> {
    ///         self.secure = true;
    ///         Ok(())
    ///     }
    /// }
    /// ```
    ///
    /// If `f` or the handshake fails, the channel ends as after a failed connect: `handle_error` is told
    /// the cause, then `handle_close`.
    ///
    /// # Errors
    /// `NotConnected` if the channel has no open stream, or the peer's end was told and input was put back;
    /// `ResourceBusy` if another change of the source is under way.
    pub fn wrap_source<F>(&mut self, f: F) -> io::Result<()>
    where
        F: FnOnce(Box<dyn Source>) -> io::Result<Box<dyn Source>> + 'static,
    {
        self.touch();
        let token = self.token();
        let result = self.map_mut().wrap_source(token, Box::new(f));
        self.named(result)
    }

    /// Remove the file of this listener's Unix-domain address when the channel ends, as is done for one that
    /// [`listen`](ChannelMap::listen) has made: for a listener that was taken over from another process, which leaves
    /// the file. No effect on other channels, or if there is no such file.
    pub fn adopt_socket_file(&mut self) {
        let Ok(Address::Unix(path)) = self.local_addr() else { return };
        self.change(|link| {
            if link.is_listening() && link.rare().file.is_none() {
                link.rare().file = SocketFile::adopt(&path).ok().map(Box::new);
            }
        });
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
    /// the socket has a source around it, or is about to have one, or a producer or a datagram is queued.
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
        #[cfg(feature = "proxy-protocol")]
        link.drop_preface();
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
        if let Some(permit) = link.take_permit() {
            socket.named.get_or_insert_default().permit = Some(permit);
        }
        let unread = link.take_unread().map_or(Vec::new(), |unread| unread.into_bytes());
        link.end(Reason::Detached);
        Ok(Detached { socket, unread, unsent })
    }

    fn wrap_source(&mut self, token: Token, make: MakeSource) -> io::Result<()> {
        self.send_gathered(token);
        let seat = self.slots.get_mut(token).ok_or(LookupError::Gone(token))?;
        if let Some(make) = seat.link.begin_upgrade(make)? {
            upgrade::change_source(self, token, make);
        }
        Ok(())
    }
}
