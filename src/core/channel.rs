//! What a hook may do: the view of one channel, which is its map and its token.

use std::any::TypeId;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::core::action::Action;
use crate::core::map::ChannelMap;
use crate::error::{ChannelError, LookupError};
use crate::guard::drop_each;
use crate::link::due::Step;
use crate::link::source::Source;
use crate::link::state::{Link, Note};
use crate::net::address::Address;
use crate::net::unix::{self, Credentials};
use crate::reason::Reason;
use crate::sys;
use crate::token::Token;

/// The view of one channel that a hook is given: what `self` was to an `asyncore.dispatcher`.
///
/// No method runs a hook before it returns; what it causes happens afterwards. Errors of a view
/// from [`ChannelMap::channel`] carry the token of the channel that they are about.
///
/// ```
/// use dispatch_loop::{Channel, Dispatcher};
/// use std::io;
/// use std::time::Duration;
///
/// /// Answers one line, within a minute.
/// struct Hello;
///
/// impl Dispatcher for Hello {
///     fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
///         ch.set_timeout(Some(Duration::from_secs(60)));
///         ch.push(b"your name? ")
///     }
///     fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
///         ch.read_with(|ch, name| {
///             ch.push(b"hello, ")?;
///             ch.push(name)?;
///             ch.close();                     // after all of it is sent
///             Ok(())
///         })
///     }
/// }
/// ```
pub struct Channel<'a> {
    pub(super) map: &'a mut ChannelMap,
    pub(super) token: Token,
    /// Reached through the map, not given to one of its own hooks: its errors carry the token.
    foreign: bool,
}

impl<'a> Channel<'a> {
    pub(crate) fn own(map: &'a mut ChannelMap, token: Token) -> Channel<'a> {
        Channel { map, token, foreign: false }
    }

    pub(crate) fn foreign(map: &'a mut ChannelMap, token: Token) -> Channel<'a> {
        Channel { map, token, foreign: true }
    }

    /// The name of the channel.
    pub fn token(&self) -> Token {
        self.token
    }

    /// The map that the channel is in.
    pub fn map(&self) -> &ChannelMap {
        self.map
    }

    /// The map that the channel is in, mutably, and through it every other channel.
    pub fn map_mut(&mut self) -> &mut ChannelMap {
        self.map
    }

    /// The same view with a shorter lifetime, to pass it by value and keep it.
    pub fn reborrow(&mut self) -> Channel<'_> {
        Channel { map: &mut *self.map, token: self.token, foreign: self.foreign }
    }

    // The end.

    /// Stop reading, send what is queued, then close: asynchat's `close_when_done`. On a listener
    /// and while connecting: end at once.
    ///
    /// If no byte leaves for 30 s ([`set_close_timeout`](Channel::set_close_timeout)), the
    /// connection is reset. Then the peer gets FIN, unless its own end was read, and what it sends is
    /// dropped until it ends or for a while ([`set_linger`](Channel::set_linger)): closing at once would let
    /// its next byte reset the connection and destroy what has not reached it. Only after that
    /// `handle_close` runs.
    pub fn close(&mut self) {
        self.map.begin_close(self.token, Reason::Closed);
    }

    /// Drop what is queued and reset the connection.
    pub fn abort(&mut self) {
        // What is dropped may be the reason, and what the running hook has pushed is.
        self.map.queue_gathered(self.token);
        self.change(|link| link.end_by_reset(Reason::Aborted));
    }

    /// Send what is queued, then FIN, and go on reading: C's `shutdown(SHUT_WR)`, asyncio's
    /// `write_eof`. The channel ends once the peer's end of stream was read, too; if nothing more can be
    /// sent, at once.
    pub fn shutdown_write(&mut self) {
        self.change(Link::shutdown_write);
    }

    /// How long a closing channel may go without a byte leaving for the peer (default 30 s); then the
    /// connection is reset. A byte has left when the system's own buffer no longer holds it, so that a peer
    /// that reads slowly but steadily is not cut off; OpenBSD does not tell, and there it has left when the
    /// system takes it. Of a channel that is closing already: from now on. Also how long nothing may come on
    /// a channel that can send nothing more, and whose peer has not ended.
    pub fn set_close_timeout(&mut self, timeout: Duration) {
        self.change(|link| link.rare().close_timeout = timeout);
        let Some(link) = self.map.link_mut(self.token) else { return };
        if let Some(timer) = link.rare().close_timer.take() {
            // The settle begins another, if it is still needed.
            link.set_due(Step::Flush);
            self.map.timers.cancel(timer);
        }
        let Some(link) = self.map.link_mut(self.token) else { return };
        if let Some(timer) = link.rare().end_timer.take() {
            self.map.timers.cancel(timer);
        }
    }

    /// How long a closing channel that has sent everything may wait for the peer's end: until 2 s pass
    /// without any input, and at most `longest` (default 30 s) in all; both from when the peer's system has
    /// everything, for which the [close timeout](Channel::set_close_timeout) is the limit. Zero: close at
    /// once, and risk that what the peer sends meanwhile destroys what it has not got. Also for a channel
    /// that lingers already. nginx's `lingering_time`; C's `SO_LINGER` is something else.
    ///
    /// On a Unix-domain socket nothing can be destroyed, and only input that is there already is dropped
    /// this way. How many channels linger at once has a limit:
    /// [`ChannelMap::set_linger_limit`](ChannelMap::set_linger_limit).
    pub fn set_linger(&mut self, longest: Duration) {
        self.change(|link| {
            link.rare().linger = longest;
            if longest.is_zero() && link.is_lingering() {
                link.end_of_ending();
            }
        });
        if self.link().is_some_and(Link::is_lingering) {
            // It has no other timers. This one finds out how much time is left.
            drop_each(&mut self.map.throttle, "a timer", self.map.timers.cancel_owned(self.token.slot));
            self.map.set_timer(Some(self.token), Duration::ZERO, Action::Linger(self.token));
        }
    }

    /// Whether the channel is closing or has ended: nothing more can be pushed.
    pub fn is_closing(&self) -> bool {
        self.link().is_none_or(Link::is_closing)
    }

    // Identity.

    /// The address of this end: Python's `getsockname()`. It is kept for listeners and most accepted
    /// connections; otherwise each call asks the system.
    ///
    /// # Errors
    /// `NotConnected` if there is no socket yet.
    pub fn local_addr(&self) -> io::Result<Address> {
        let link = self.link();
        let asked = match link.and_then(Link::local) {
            Some(known) => Ok(Address::clone(known)),
            None => match link.and_then(Link::fd) {
                Some(fd) => sys::local_addr(fd),
                None => Err(io::ErrorKind::NotConnected.into()),
            },
        };
        self.named(asked)
    }

    /// The address of the other end, as `accept` or `connect` had it, or as a balancer has told it: Python's
    /// `getpeername()`.
    ///
    /// # Errors
    /// `NotConnected` if there is none, as on a listener.
    pub fn peer_addr(&self) -> io::Result<Address> {
        match self.link().and_then(Link::peer) {
            Some(known) => Ok(known),
            None => self.named(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// The process at the other end of a Unix-domain socket: `SO_PEERCRED`. Linux and Android only.
    ///
    /// # Errors
    /// The socket or the system does not have it.
    pub fn peer_credentials(&self) -> io::Result<Credentials> {
        let fd = self.link().and_then(Link::fd).ok_or(io::ErrorKind::NotConnected)?;
        self.named(unix::credentials(fd))
    }

    /// `TCP_NODELAY`: whether the system sends small pieces at once, or delays them while others are
    /// unacknowledged.
    ///
    /// # Errors
    /// The channel has no TCP socket, or no longer has one.
    pub fn set_no_delay(&mut self, on: bool) -> io::Result<()> {
        let fd = self.link().and_then(Link::fd).ok_or(io::ErrorKind::NotConnected)?;
        self.named(sys::stream::set_no_delay(fd, on))
    }

    /// `SO_KEEPALIVE`: probe the peer after this much silence; `None`, the default: never. Messages of
    /// the program's own protocol notice a dead peer sooner.
    ///
    /// # Errors
    /// The channel has no TCP socket, or no longer has one; or the system rejects the time.
    pub fn set_keep_alive(&mut self, silence: Option<Duration>) -> io::Result<()> {
        let fd = self.link().and_then(Link::fd).ok_or(io::ErrorKind::NotConnected)?;
        self.named(sys::stream::set_keep_alive(fd, silence))
    }

    /// Bytes received on this channel so far; of what a source of your own has read, what it has given.
    pub fn bytes_in(&self) -> u64 {
        self.link().map_or(0, |link| link.traffic().0)
    }

    /// Bytes of this channel that the system, or a source of your own, has taken so far.
    pub fn bytes_out(&self) -> u64 {
        self.link().map_or(0, |link| link.traffic().1)
    }

    /// Whether this is a listener: Python's `accepting`.
    pub fn is_listening(&self) -> bool {
        self.link().is_some_and(Link::is_listening)
    }

    /// Whether a `connect` is in progress: Python's `connecting`.
    pub fn is_connecting(&self) -> bool {
        self.link().is_some_and(Link::is_connecting)
    }

    /// Whether data can pass: Python's `connected`. `false` during a handshake of its source.
    pub fn is_connected(&self) -> bool {
        let can_pass =
            |link: &Link| (link.is_opening() || link.is_open()) && link.is_established() && !link.is_broken();
        self.link().is_some_and(can_pass)
    }

    /// Whether input is delivered: the channel is open and not paused. asyncio's `is_reading`. Also
    /// `true` after a failed write, while there may still be something to read.
    pub fn is_reading(&self) -> bool {
        self.link().is_some_and(Link::is_open) && !self.is_paused()
    }

    /// Whether reading is paused, by [`pause_reading`](Channel::pause_reading) or automatically.
    pub fn is_paused(&self) -> bool {
        let gathered = self.map.gather.bytes_of(self.token).len();
        self.link().is_some_and(|link| link.is_paused_with(gathered))
    }

    /// Announce that the source may be ready to read or to write. Needed for a source without a
    /// descriptor, and for one that has exchanged its descriptor for another of the same number. The
    /// channel is served in the next turn as if its socket were ready.
    pub fn source_ready(&mut self) {
        self.touch();
        let token = self.token;
        let Some(link) = self.map.link_mut(token) else { return };
        link.announced();
        if !link.is_pending() {
            link.set_pending(true);
            self.map.pending.push(token);
        }
    }

    /// The source of this channel, if it is of this type: what was given to
    /// [`add_source`](ChannelMap::add_source), or made for [`wrap_source`](Channel::wrap_source) and is in place.
    pub fn source<T: Source>(&self) -> Option<&T> {
        self.link()?.source()?.as_type()
    }

    /// The socket, for options that have no method here; `None` in `handle_close`. Do not read, write
    /// or close it directly.
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.link()?.fd()
    }

    /// Put the channel in the background: [`run`](crate::run) returns when only such channels are
    /// left, as a program ends when only daemon threads are left. Off by default, and off again once the
    /// channel is closing: what is queued is sent first.
    pub fn set_background(&mut self, on: bool) {
        self.map.set_background(self.token, on);
    }

    /// Say that work for the peer is under way, which a [drain](ChannelMap::drain) is to let finish, until
    /// this is taken back: half a message has come; another thread, another channel or a timer is to answer; an
    /// answer is awaited. Output that is queued or not acknowledged, and input that waits, count without it. Off at
    /// first.
    pub fn set_busy(&mut self, on: bool) {
        if let Some(link) = self.map.link_mut(self.token) {
            link.set_busy(on);
        }
    }

    // For this crate.

    /// The default `readable` ran for a dispatcher of this type, so the type does not override it.
    pub(crate) fn note_default_readable(&self, of: TypeId) {
        self.map.default_readable.set(Some(of));
    }

    pub(crate) fn note_default_writable(&self, of: TypeId) {
        self.map.default_writable.set(Some(of));
    }

    /// Log, once for this channel, that a hook was left at its default.
    pub(crate) fn log_default(&mut self, what: &str) {
        let token = self.token;
        let Ok(link) = self.link_mut() else { return };
        if !link.noted.set(Note::Default) && self.map.throttle.admits() {
            log::warn!("channel {token}: the default {what}; implement the hook");
        }
    }

    pub(crate) fn put_datagram(&mut self, bytes: &[u8], to: &Address) -> io::Result<()> {
        let turn = self.map.turn;
        self.touch();
        let result = self.link_mut().and_then(|link| link.push_datagram(turn, bytes, Some(to), true));
        self.map.count_queue(self.token);
        self.named(result)
    }

    pub(crate) fn link(&self) -> Option<&Link> {
        self.map.link(self.token)
    }

    pub(crate) fn link_mut(&mut self) -> io::Result<&mut Link> {
        let token = self.token;
        self.map.link_mut(token).ok_or_else(|| LookupError::Gone(token).into())
    }

    #[inline]
    pub(crate) fn change(&mut self, f: impl FnOnce(&mut Link)) {
        if let Some(link) = self.map.touch_link(self.token) {
            f(link);
        }
    }

    /// The channel is about to change: mark it dirty, and let the next push take the long way.
    pub(crate) fn touch(&mut self) {
        self.map.touch(self.token);
    }

    /// Add the token to an error, unless the channel is the hook's own.
    #[inline]
    pub(crate) fn named<T>(&self, result: io::Result<T>) -> io::Result<T> {
        match result {
            Err(error) if self.foreign => Err(self.named_error(error)),
            result => result,
        }
    }

    #[cold]
    fn named_error(&self, error: io::Error) -> io::Error {
        match ChannelError::token_of(&error) {
            None => ChannelError::wrap(self.token, error),
            Some(_) => error,
        }
    }
}
