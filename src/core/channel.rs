//! What a hook may do: the view of one channel, which is its map and its token.

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

    // Input.

    /// Read what is there, at most `buffer.len()` bytes: Python's `recv`, with C's results.
    ///
    /// `Ok(0)` is the end of the stream; `handle_eof` runs after the hook. `WouldBlock`: nothing is
    /// there, or the channel has read its 64 KiB of this turn. Any other error is a lost connection;
    /// returning it with `?` is not an error of the hook. After `close` there is no more input.
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

    /// Read once, up to 64 KiB, into the loop's buffer, and lend that to `f`.
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

    /// Put back input that this hook does not use: it is read again, before anything else, by the
    /// next `handle_read`, which runs without waiting (unless reading is paused). C's `ungetc` for
    /// any number of bytes; if they are put back in pieces, the last piece is read first.
    ///
    /// Use it for the dispatcher that takes over
    /// ([`replace_dispatcher`](Channel::replace_dispatcher)), or to continue after
    /// [`resume_reading`](Channel::resume_reading). Keep an unfinished message elsewhere: put back, it
    /// would be delivered again at once, unchanged. No effect on a channel that has ended.
    pub fn unread(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.change(|link| link.unread(bytes));
        }
    }

    /// Drop what was put back.
    pub fn discard_unread(&mut self) {
        self.change(Link::discard_unread);
    }

    /// Stop calling `handle_read` (on a listener, `handle_accept`) until
    /// [`resume_reading`](Channel::resume_reading). Meanwhile the peer's end of stream is not noticed;
    /// a reset is.
    pub fn pause_reading(&mut self) {
        self.change(Link::pause_reading);
    }

    /// Undo [`pause_reading`](Channel::pause_reading). What arrived meanwhile is delivered.
    pub fn resume_reading(&mut self) {
        self.change(Link::resume_reading);
    }

    /// Pause reading automatically from when more than the high watermark is queued until the queue is
    /// down to the low one. Off by default. Channels that send as much as they read (an echo, a proxy)
    /// need this.
    pub fn set_auto_pause(&mut self, on: bool) {
        self.change(|link| link.set_auto_pause(on));
    }

    // Output.

    /// Send as much as fits now: Python's `send`. Returns 0 when nothing fits, while output is queued,
    /// and while connecting. [`push`](Channel::push) also sends the rest.
    ///
    /// # Errors
    /// `BrokenPipe` after `close`, `abort` or `shutdown_write`; otherwise the connection is lost.
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
    /// What a hook pushes to its own channel is sent in one call when the hook returns, however many
    /// pushes it was; a piece of 4 KiB or more is sent at once, with what was pushed before it. What is
    /// pushed to another channel is sent at the end of the turn. `Ok` also when the peer is gone, which
    /// `handle_close` reports.
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

    /// As [`push`](Channel::push); what cannot be sent now is queued without a copy.
    pub fn push_vec(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        self.put(Pushed::Vec(bytes))
    }

    /// As [`push_vec`](Channel::push_vec), for bytes that go to several channels.
    pub fn push_shared(&mut self, bytes: Arc<[u8]>) -> io::Result<()> {
        self.put(Pushed::Shared(bytes))
    }

    /// As [`push`](Channel::push), for bytes in several slices, all or none: asyncio's
    /// `writelines`, C's `writev`.
    pub fn push_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<()> {
        self.put(Pushed::Slices(slices))
    }

    /// Queue a producer, which makes its bytes when there is room for them: asynchat's
    /// `push_with_producer`. What is pushed after it is sent after it. Until it is done it counts as
    /// 4 KiB towards the watermarks and the hard limit.
    pub fn push_producer(&mut self, producer: impl Producer) -> io::Result<()> {
        self.touch();
        let result = self.map.push_producer(self.token, Box::new(producer));
        self.named(result)
    }

    /// Ask the producer again that returned [`More::Later`](crate::More::Later). From another thread,
    /// use a [`Remote`](crate::Remote).
    pub fn wake_producer(&mut self) {
        self.change(Link::wake_producer);
    }

    /// Drop what is queued, including the rest of a piece that is partly sent, and every producer. What
    /// the system has accepted is still sent.
    pub fn discard_queued(&mut self) {
        self.change(Link::discard_queued);
        self.map.gather.sent(self.token);
    }

    /// Bytes that wait to be sent. What producers are still to make is not counted.
    pub fn queued(&self) -> usize {
        self.link().map_or(0, Link::queued) + self.map.gather.bytes_of(self.token).len()
    }

    /// `handle_high` runs when more than `high` bytes (default 64 KiB) are queued, `handle_low` when
    /// the queue is down to `low` (default 32 KiB). asyncio's `set_write_buffer_limits`. A `low` above
    /// `high` is lowered to it.
    pub fn set_watermarks(&mut self, low: usize, high: usize) {
        self.change(|link| link.set_limits(Limits { low: low.min(high), high, ..link.limits() }));
    }

    /// The hard limit for what is queued, in bytes (default 16 MiB), and what happens to a push that
    /// would exceed it (default [`OnLimit::Refuse`]).
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
    /// If no byte is sent for 30 s ([`set_close_timeout`](Channel::set_close_timeout)), the
    /// connection is reset. If the peer has sent something that was never read, it gets FIN and up to
    /// 2 s to end, because closing at once would reset the connection and could destroy what the peer
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
    /// `write_eof`. The channel ends once the peer's end of stream was read, too.
    pub fn shutdown_write(&mut self) {
        self.change(Link::shutdown_write);
    }

    /// How long a closing channel may go without sending a byte (default 30 s). Of one that is closing
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

    /// Whether the channel is closing or has ended: nothing more can be pushed.
    pub fn is_closing(&self) -> bool {
        self.link().is_none_or(Link::is_closing)
    }

    // Time.

    /// Call `handle_timeout` when no byte was received or sent for `timeout`; while connecting, when
    /// that has taken `timeout` since [`connect`](ChannelMap::connect). `None`, the default: never.
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

    /// Call `f` after `delay`, unless the channel has ended by then. A channel can have any number of
    /// timers. An `Err` goes to `handle_error`; a panic ends the channel.
    pub fn call_later<F>(&mut self, delay: Duration, f: F) -> TimerId
    where
        F: FnOnce(&mut Channel<'_>) -> io::Result<()> + 'static,
    {
        self.set_timer(delay, Action::Channel(self.token, Box::new(f)))
    }

    /// Call `f` every `interval`, the first time after one `interval`; see [`ChannelMap::call_every`].
    pub fn call_every<F>(&mut self, interval: Duration, f: F) -> TimerId
    where
        F: FnMut(&mut Channel<'_>) -> io::Result<()> + 'static,
    {
        self.set_timer(interval, Action::ChannelEvery(self.token, interval, Box::new(f)))
    }

    fn set_timer(&mut self, delay: Duration, action: Action) -> TimerId {
        let key = match self.link() {
            Some(link) if !link.is_told() => self.map.set_timer(Some(self.token), delay, action),
            // The channel is gone, and its timers with it.
            _ => TimerKey::NONE,
        };
        self.map.timer_id(key)
    }

    /// Cancel a timer; `false` if it has run or was cancelled already.
    pub fn cancel(&mut self, timer: TimerId) -> bool {
        self.map.cancel(timer)
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

    /// The address of the other end, as `accept` or `connect` had it: Python's `getpeername()`.
    ///
    /// # Errors
    /// `NotConnected` if there is none, as on a listener.
    pub fn peer_addr(&self) -> io::Result<Address> {
        let known = self.link().and_then(Link::peer);
        self.named(known.ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }

    /// The process at the other end of a Unix-domain socket: `SO_PEERCRED`. Linux only.
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

    /// Whether this is a listener: Python's `accepting`.
    pub fn is_listening(&self) -> bool {
        self.link().is_some_and(Link::is_listening)
    }

    /// Whether a `connect` is in progress: Python's `connecting`.
    pub fn is_connecting(&self) -> bool {
        self.link().is_some_and(Link::is_connecting)
    }

    /// Whether data can pass: Python's `connected`.
    pub fn is_connected(&self) -> bool {
        self.link().is_some_and(|link| (link.is_opening() || link.is_open()) && !link.is_broken())
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
    /// descriptor. The channel is served in the next turn as if its socket were ready.
    pub fn source_ready(&mut self) {
        self.touch();
        let token = self.token;
        if let Some(link) = self.map.link_mut(token).filter(|link| !link.is_pending()) {
            link.set_pending(true);
            self.map.pending.push(token);
        }
    }

    /// The socket, for options that have no method here; `None` in `handle_close`. Do not read, write
    /// or close it directly.
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.link()?.fd()
    }

    /// Put the channel in the background: [`run`](crate::run) returns when only such channels are
    /// left, as a program ends when only daemon threads are left. Off by default.
    pub fn set_background(&mut self, on: bool) {
        self.map.set_background(self.token, on);
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

/// Returns the buffer to the map, also when the hook panics.
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
