//! What a hook may do: the view of one channel, made of its map and its token.

use std::any::TypeId;
use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::core::action::Action;
use crate::core::buffer::Buffer;
use crate::core::map::ChannelMap;
use crate::error::{ChannelError, LookupError};
use crate::link::due::Step;
use crate::link::input::Missed;
use crate::link::marks::{Limits, OnLimit};
use crate::link::producer::Producer;
use crate::link::pushed::Pushed;
use crate::link::state::Link;
use crate::net::address::Address;
use crate::net::unix::{self, Credentials};
use crate::reason::Reason;
use crate::sys::{self, errno};
use crate::timers::{TimerId, TimerKey};
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
    map: &'a mut ChannelMap,
    token: Token,
    /// Reached through the map, not given to a hook of its own: its errors say whose they are.
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

    /// The map that the channel is in, to look something up.
    pub fn map(&self) -> &ChannelMap {
        self.map
    }

    /// The map that the channel is in, and through it every other channel.
    pub fn map_mut(&mut self) -> &mut ChannelMap {
        self.map
    }

    /// The same view with a shorter life, to be given away and had again.
    pub fn reborrow(&mut self) -> Channel<'_> {
        Channel { map: &mut *self.map, token: self.token, foreign: self.foreign }
    }

    // Input.

    /// Read what is there, at most `buffer.len()` bytes: Python's `recv`, with C's answers.
    ///
    /// `Ok(0)` is the end of the stream; `handle_eof` follows after the hook. `WouldBlock`:
    /// nothing is there, or the channel has had its 64 KiB of this turn. Any other error is a
    /// lost connection; handing it back with `?` is no error of the hook. After `close` there is
    /// no input any more.
    #[inline]
    pub fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.recv_quickly(buffer) {
            Ok(read) => Ok(read),
            Err(missed) => self.recv_after(missed, buffer),
        }
    }

    #[inline(always)]
    fn recv_quickly(&mut self, buffer: &mut [u8]) -> Result<usize, Missed> {
        let turn = self.map.turn.number;
        match self.map.link_mut(self.token) {
            Some(link) => link.recv_quickly(turn, buffer),
            None => Err(Missed::NotTried),
        }
    }

    #[cold]
    #[inline(never)]
    fn recv_after(&mut self, missed: Missed, buffer: &mut [u8]) -> io::Result<usize> {
        let turn = self.map.turn;
        let result = self.link_mut().and_then(|link| link.recv_after(missed, turn, buffer));
        self.named(result)
    }

    /// Take the urgent byte, C's `recv` with `MSG_OOB`; `WouldBlock` if there is none.
    pub fn recv_urgent(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let turn = self.map.turn;
        let result = self.link_mut().and_then(|link| link.recv_urgent(turn, buffer));
        self.named(result)
    }

    /// Read once, up to 64 KiB, into the loop's own buffer, and lend that to `f`.
    ///
    /// `f` does not run, and the result is `Ok(())`, when nothing is there or the stream is at
    /// its end. A lost connection is an `Err`, as with [`recv`](Channel::recv).
    #[inline]
    pub fn read_with<F>(&mut self, f: F) -> io::Result<()>
    where
        F: FnOnce(&mut Channel<'_>, &[u8]) -> io::Result<()>,
    {
        let mut lent = LentBuffer { buffer: Some(self.map.buffers.take()), ch: self };
        let Some(buffer) = &mut lent.buffer else { return Ok(()) };
        let read = match lent.ch.recv_quickly(&mut buffer[..]) {
            Ok(read) => read,
            Err(missed) => match lent.ch.recv_after(missed, &mut buffer[..]) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) => return but_not_would_block(error),
            },
        };
        f(lent.ch, &buffer[..read])
    }

    /// Put back input that this hook has no use for: it is read again, before anything else, by the
    /// next `handle_read`, which comes without waiting (unless reading is paused). C's `ungetc` for
    /// any number of bytes; put back in pieces, the last piece comes first.
    ///
    /// For what belongs to somebody else: the dispatcher that takes over
    /// ([`replace_dispatcher`](Channel::replace_dispatcher)), or oneself after
    /// [`resume_reading`](Channel::resume_reading). A message of which more must come is better kept:
    /// put back, it would come again at once, the same. Of no effect on a channel that has ended.
    pub fn unread(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.change(|link| link.unread(bytes));
        }
    }

    /// Drop what was put back.
    pub fn discard_unread(&mut self) {
        self.change(Link::discard_unread);
    }

    /// Call `handle_read` no more, until [`resume_reading`](Channel::resume_reading); on a
    /// listener, `handle_accept`. The peer's end of stream is not noticed meanwhile, a reset is.
    pub fn pause_reading(&mut self) {
        self.change(Link::pause_reading);
    }

    /// The other way round. What came meanwhile is delivered.
    pub fn resume_reading(&mut self) {
        self.change(Link::resume_reading);
    }

    /// Pause reading by itself while more is queued than the high watermark, until the low one.
    /// Off by default. What answers as much as it gets (an echo, a proxy) needs this.
    pub fn set_auto_pause(&mut self, on: bool) {
        self.change(|link| link.set_auto_pause(on));
    }

    // Output.

    /// Send as much as fits now: Python's `send`. 0 when nothing fits, while output is queued,
    /// and while connecting. [`push`](Channel::push) takes the care of the rest off you.
    ///
    /// # Errors
    /// `BrokenPipe` after `close`, `abort` or `shutdown_write`; else the connection is lost.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.touch();
        self.map.send_gathered(self.token);
        let turn = self.map.turn;
        let result = self.link_mut().and_then(|link| link.send(turn, bytes));
        self.named(result)
    }

    /// Send all of `bytes`, in order: at once what fits, the rest when there is room. asynchat's
    /// `push`, asyncio's `write`.
    ///
    /// What a hook pushes to its own channel leaves in one call when the hook returns, however many
    /// pushes it was; a piece of 4 KiB or more leaves at once, with what was pushed before it. What is
    /// pushed to another channel leaves at the end of the turn. `Ok` also when the peer is gone:
    /// `handle_close` tells.
    ///
    /// # Errors
    /// `BrokenPipe` after `close`, `abort` or `shutdown_write`; `QuotaExceeded`, with nothing
    /// taken, over the hard limit (see [`set_limit`](Channel::set_limit)).
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.map.gather.push(self.token, bytes) {
            true => Ok(()),
            false => self.put(Pushed::Bytes(bytes)),
        }
    }

    /// As [`push`](Channel::push); what does not fit now is kept without being copied.
    pub fn push_vec(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        self.put(Pushed::Vec(bytes))
    }

    /// As [`push_vec`](Channel::push_vec), for bytes that go to several channels.
    pub fn push_shared(&mut self, bytes: Arc<[u8]>) -> io::Result<()> {
        self.put(Pushed::Shared(bytes))
    }

    /// As [`push`](Channel::push), for bytes that lie in several places, all or none: asyncio's
    /// `writelines`, C's `writev`.
    pub fn push_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<()> {
        self.put(Pushed::Slices(slices))
    }

    /// Queue something that makes its bytes when there is room for them: asynchat's
    /// `push_with_producer`. What is pushed after it is sent after it. Until it has made its last
    /// bytes it counts for 4 KiB among the watermarks and the hard limit.
    pub fn push_producer(&mut self, producer: impl Producer) -> io::Result<()> {
        self.touch();
        let result = self.map.push_producer(self.token, Box::new(producer));
        self.named(result)
    }

    /// Ask the producer again that said [`More::Later`](crate::More::Later). From another thread:
    /// through a [`Remote`](crate::Remote).
    pub fn wake_producer(&mut self) {
        self.change(Link::wake_producer);
    }

    /// Drop what is queued, also a piece of which a part is sent already, and every producer. What
    /// the system has taken is on its way.
    pub fn discard_queued(&mut self) {
        self.change(Link::discard_queued);
        self.map.gather.sent(self.token);
    }

    /// Bytes that wait to be sent. What a producer will still make is not counted.
    pub fn queued(&self) -> usize {
        self.link().map_or(0, Link::queued) + self.map.gather.bytes_of(self.token).len()
    }

    /// `handle_high` runs when more than `high` bytes (64 KiB) are queued, `handle_low` when it is
    /// down to `low` (32 KiB). asyncio's `set_write_buffer_limits`. A `low` above `high` is
    /// lowered to it.
    pub fn set_watermarks(&mut self, low: usize, high: usize) {
        self.change(|link| link.set_limits(Limits { low: low.min(high), high, ..link.limits() }));
    }

    /// The hard limit of what may be queued, in bytes (16 MiB), and what becomes of a push over
    /// it ([`OnLimit::Refuse`]).
    pub fn set_limit(&mut self, bytes: usize, on_limit: OnLimit) {
        self.change(|link| {
            link.set_limits(Limits { hard: bytes, ..link.limits() });
            link.rare().on_limit = on_limit;
        });
    }

    // The end.

    /// Stop reading, send what is queued, then close: asynchat's `close_when_done`. On a listener
    /// and while connecting: end at once.
    ///
    /// If no byte goes out for 30 s ([`set_close_timeout`](Channel::set_close_timeout)), the
    /// connection is reset. If the peer has sent what was never read, it is given FIN and up to
    /// 2 s to end, because closing at once would reset the connection and could destroy what it
    /// has not read yet.
    pub fn close(&mut self) {
        self.change(|link| link.close(Reason::Closed));
    }

    /// Drop what is queued and reset the connection.
    pub fn abort(&mut self) {
        // What is dropped may be the reason, and what the running hook has pushed is.
        self.map.queue_gathered(self.token);
        self.change(|link| link.end_by_reset(Reason::Aborted));
    }

    /// Send what is queued, then FIN, and go on reading: C's `shutdown(SHUT_WR)`, asyncio's
    /// `write_eof`. The channel ends when the peer's end of stream was read as well.
    pub fn shutdown_write(&mut self) {
        self.change(Link::shutdown_write);
    }

    /// How long a closing channel may go without getting rid of a byte (30 s). Of one that is closing
    /// already: from now on.
    pub fn set_close_timeout(&mut self, timeout: Duration) {
        self.change(|link| link.rare().close_timeout = timeout);
        let Some(link) = self.map.link_mut(self.token) else { return };
        if let Some(timer) = link.rare().close_timer.take() {
            // The settle begins another, if it is still needed.
            link.set_due(Step::Flush);
            self.map.timers.cancel(timer);
        }
    }

    /// Whether the end has begun: nothing can be pushed any more.
    pub fn is_closing(&self) -> bool {
        self.link().is_none_or(Link::is_closing)
    }

    // Time.

    /// Call `handle_timeout` when no byte came or went for `timeout`; while connecting: when that
    /// took `timeout` since [`connect`](ChannelMap::connect). `None`, the default: never.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        let token = self.token;
        self.touch();
        let now = self.map.clock.now();
        let Some(link) = self.map.link_mut(token).filter(|link| !link.is_told()) else { return };
        if !link.is_connecting() {
            link.stamp(now);
        }
        link.rare().timeout = timeout;
        if let Some(timer) = link.rare().idle_timer.take() {
            self.map.timers.cancel(timer);
        }
        if timeout.is_some() {
            self.map.start_idle_timer(token);
        }
    }

    /// What the default of [`handle_timeout`](crate::Dispatcher::handle_timeout) does: end the channel with
    /// [`Reason::TimedOut`]. If something was queued, the connection is reset; what the running hook has
    /// pushed is offered to it before.
    pub fn time_out(&mut self) {
        self.map.send_gathered(self.token);
        self.change(|link| link.end(Reason::TimedOut));
    }

    /// Call `f` after `delay`, unless the channel has ended by then. Any number. An `Err` goes to
    /// `handle_error`; a panic ends the channel.
    pub fn call_later<F>(&mut self, delay: Duration, f: F) -> TimerId
    where
        F: FnOnce(&mut Channel<'_>) -> io::Result<()> + 'static,
    {
        self.set_timer(delay, Action::Channel(self.token, Box::new(f)))
    }

    /// Call `f` every `interval`, for the first time after one; see [`ChannelMap::call_every`].
    pub fn call_every<F>(&mut self, interval: Duration, f: F) -> TimerId
    where
        F: FnMut(&mut Channel<'_>) -> io::Result<()> + 'static,
    {
        self.set_timer(interval, Action::ChannelEvery(self.token, interval, Box::new(f)))
    }

    fn set_timer(&mut self, delay: Duration, action: Action) -> TimerId {
        let key = match self.link() {
            Some(link) if !link.is_told() => self.map.set_timer(Some(self.token), delay, action),
            // The channel is gone, and so is its timer.
            _ => TimerKey::NONE,
        };
        self.map.timer_id(key)
    }

    /// Cancel a timer; `false` if it has run or was cancelled already.
    pub fn cancel(&mut self, timer: TimerId) -> bool {
        self.map.cancel(timer)
    }

    // Who and what it is.

    /// The address of this end: Python's `getsockname()`. A listener and most of the connections it
    /// accepts know it; otherwise each call asks the system.
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

    /// The address of the other end: Python's `getpeername()`, as `accept` or `connect` had it.
    ///
    /// # Errors
    /// `NotConnected` where there is none, as on a listener.
    pub fn peer_addr(&self) -> io::Result<Address> {
        let known = self.link().and_then(Link::peer);
        self.named(known.ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }

    /// Who is at the other end of a Unix-domain socket: `SO_PEERCRED`. Linux only.
    ///
    /// # Errors
    /// There is no such thing on this socket or system.
    pub fn peer_credentials(&self) -> io::Result<Credentials> {
        let fd = self.link().and_then(Link::fd).ok_or(io::ErrorKind::NotConnected)?;
        self.named(unix::credentials(fd))
    }

    /// `TCP_NODELAY`: send at once what is pushed (on), or gather small pieces while some are under
    /// way.
    ///
    /// # Errors
    /// This is no TCP socket (any more).
    pub fn set_no_delay(&mut self, on: bool) -> io::Result<()> {
        let fd = self.link().and_then(Link::fd).ok_or(io::ErrorKind::NotConnected)?;
        self.named(sys::stream::set_no_delay(fd, on))
    }

    /// `SO_KEEPALIVE`: probe the peer when it was silent for so long; `None`, the default: never.
    /// What a program's own messages can find out, they find out sooner.
    ///
    /// # Errors
    /// This is no TCP socket (any more), or the system does not take the time.
    pub fn set_keep_alive(&mut self, silence: Option<Duration>) -> io::Result<()> {
        let fd = self.link().and_then(Link::fd).ok_or(io::ErrorKind::NotConnected)?;
        self.named(sys::stream::set_keep_alive(fd, silence))
    }

    /// Whether this is a listener: Python's `accepting`.
    pub fn is_listening(&self) -> bool {
        self.link().is_some_and(Link::is_listening)
    }

    /// Whether a `connect` is under way: Python's `connecting`.
    pub fn is_connecting(&self) -> bool {
        self.link().is_some_and(Link::is_connecting)
    }

    /// Whether data can pass: Python's `connected`.
    pub fn is_connected(&self) -> bool {
        self.link().is_some_and(|link| (link.is_opening() || link.is_open()) && !link.is_broken())
    }

    /// Whether input is delivered: the channel is open and not paused. asyncio's `is_reading`. Also
    /// after a write that failed, when there is still something to read.
    pub fn is_reading(&self) -> bool {
        self.link().is_some_and(Link::is_open) && !self.is_paused()
    }

    /// Whether reading is paused, by [`pause_reading`](Channel::pause_reading) or by itself.
    pub fn is_paused(&self) -> bool {
        let gathered = self.map.gather.bytes_of(self.token).len();
        self.link().is_some_and(|link| link.is_paused_with(gathered))
    }

    /// The source may be able to read or to write: for a source without a descriptor, which nothing else
    /// says it of. The channel is served in the next turn as if its socket were ready.
    pub fn source_ready(&mut self) {
        self.touch();
        let token = self.token;
        if let Some(link) = self.map.link_mut(token).filter(|link| !link.is_pending()) {
            link.set_pending(true);
            self.map.pending.push(token);
        }
    }

    /// The socket, for options that are not here; `None` in `handle_close`. To read, write or
    /// close it past the channel is asking for trouble.
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.link()?.fd()
    }

    /// In the background, a channel does not keep [`run`](crate::run) going: that returns when only
    /// such channels are left. Off by default. What a daemon thread is among threads.
    pub fn set_background(&mut self, on: bool) {
        self.map.set_background(self.token, on);
    }

    // For this crate.

    /// The default of `readable` ran for a dispatcher of this type: so the type has no other.
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
        if !std::mem::replace(&mut link.default_logged, true) && self.map.throttle.admits() {
            log::warn!("channel {token}: the default {what}; implement the hook");
        }
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn put(&mut self, pushed: Pushed<'_>) -> io::Result<()> {
        let result = self.map.put(self.token, pushed, true);
        self.named(result)
    }

    pub(crate) fn put_datagram(&mut self, bytes: &[u8], to: &Address) -> io::Result<()> {
        let turn = self.map.turn;
        self.touch();
        let result = self.link_mut().and_then(|link| link.push_datagram(turn, bytes, Some(to), true));
        self.named(result)
    }

    fn link(&self) -> Option<&Link> {
        self.map.link(self.token)
    }

    pub(crate) fn link_mut(&mut self) -> io::Result<&mut Link> {
        let token = self.token;
        self.map.link_mut(token).ok_or_else(|| LookupError::Gone(token).into())
    }

    fn change(&mut self, f: impl FnOnce(&mut Link)) {
        self.touch();
        if let Some(link) = self.map.link_mut(self.token) {
            f(link);
        }
    }

    /// The channel is about to change: let the settle look at it, and the next push, too.
    pub(crate) fn touch(&mut self) {
        self.map.touch(self.token);
    }

    /// Put the token on an error of a channel that is not the hook's own.
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

/// Given back also when the hook panics.
struct LentBuffer<'a, 'b> {
    buffer: Option<Buffer>,
    ch: &'b mut Channel<'a>,
}

impl Drop for LentBuffer<'_, '_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.ch.map.buffers.give_back(buffer);
        }
    }
}

#[cold]
#[inline(never)]
fn but_not_would_block(error: io::Error) -> io::Result<()> {
    match errno::would_block(&error) {
        true => Ok(()),
        false => Err(error),
    }
}

impl fmt::Debug for Channel<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut view = f.debug_struct("Channel");
        view.field("token", &self.token);
        if let Some(link) = self.link() {
            view.field("state", &link.state_name())
                .field("peer", &link.peer())
                .field("queued", &self.queued());
        }
        view.finish()
    }
}
