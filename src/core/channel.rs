//! What a hook may do: the view of one channel, made of its map and its token.

use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::core::action::Action;
use crate::core::map::ChannelMap;
use crate::error::{ChannelError, LookupError};
use crate::link::outbox::{Limits, OnLimit};
use crate::link::output::Output;
use crate::link::producer::Producer;
use crate::link::{Phase, State};
use crate::net::address::Address;
use crate::net::unix::Credentials;
use crate::reason::Reason;
use crate::threads::outlet::Outlet;
use crate::timers::TimerId;
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
    pub fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let turn = self.map.turn;
        let result = self.state_mut().and_then(|state| state.recv(turn, buffer));
        self.named(result)
    }

    /// Take the urgent byte, C's `recv` with `MSG_OOB`; `WouldBlock` if there is none.
    pub fn recv_urgent(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.state_mut().and_then(|state| state.recv_urgent(buffer));
        self.named(result)
    }

    /// Read once, up to 64 KiB, into the loop's own buffer, and lend that to `f`.
    ///
    /// `f` does not run, and the result is `Ok(())`, when nothing is there or the stream is at
    /// its end. A lost connection is an `Err`, as with [`recv`](Channel::recv).
    pub fn read_with<F>(&mut self, f: F) -> io::Result<()>
    where
        F: FnOnce(&mut Channel<'_>, &[u8]) -> io::Result<()>,
    {
        let mut buffer = self.map.take_buffer();
        let result = match self.recv(&mut buffer) {
            Ok(0) => Ok(Ok(())),
            Ok(read) => catch_unwind(AssertUnwindSafe(|| f(self, &buffer[..read]))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Ok(())),
            Err(error) => Ok(Err(error)),
        };
        self.map.give_buffer_back(buffer);
        result.unwrap_or_else(|payload| resume_unwind(payload))
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
            self.change(|state| state.unread(bytes));
        }
    }

    /// Drop what was put back.
    pub fn discard_unread(&mut self) {
        self.change(|state| state.unread = None);
    }

    /// Call `handle_read` no more, until [`resume_reading`](Channel::resume_reading); on a
    /// listener, `handle_accept`. The peer's end of stream is not noticed meanwhile, a reset is.
    pub fn pause_reading(&mut self) {
        self.change(|state| state.paused = true);
    }

    /// The other way round. What came meanwhile is delivered.
    pub fn resume_reading(&mut self) {
        self.change(|state| state.paused = false);
    }

    /// Pause reading by itself while more is queued than the high watermark, until the low one.
    /// Off by default. What answers as much as it gets (an echo, a proxy) needs this.
    pub fn set_auto_pause(&mut self, on: bool) {
        self.change(|state| state.auto_pause = on);
    }

    // Output.

    /// Send as much as fits now: Python's `send`. 0 when nothing fits, while output is queued,
    /// and while connecting. [`push`](Channel::push) takes the care of the rest off you.
    ///
    /// # Errors
    /// `BrokenPipe` after `close`, `abort` or `shutdown_write`; else the connection is lost.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let turn = self.map.turn;
        let result = self.state_mut().and_then(|state| state.send(turn, bytes));
        self.named(result)
    }

    /// Send all of `bytes`, in order: at once what fits, the rest when there is room. asynchat's
    /// `push`, asyncio's `write`.
    ///
    /// The first push of a turn goes out at once; further ones of the same turn leave together at
    /// its end. `Ok` also when the peer is gone: `handle_close` tells.
    ///
    /// # Errors
    /// `BrokenPipe` after `close`, `abort` or `shutdown_write`; `QuotaExceeded`, with nothing
    /// taken, over the hard limit (see [`set_limit`](Channel::set_limit)).
    pub fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.put(Output::Bytes(bytes))
    }

    /// As [`push`](Channel::push); what does not fit now is kept without being copied.
    pub fn push_vec(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        self.put(Output::Vec(bytes))
    }

    /// As [`push_vec`](Channel::push_vec), for bytes that go to several channels.
    pub fn push_shared(&mut self, bytes: Arc<[u8]>) -> io::Result<()> {
        self.put(Output::Shared(bytes))
    }

    /// As [`push`](Channel::push), for bytes that lie in several places, all or none: asyncio's
    /// `writelines`, C's `writev`.
    pub fn push_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<()> {
        self.put(Output::Slices(slices))
    }

    /// Queue something that makes its bytes when there is room for them: asynchat's
    /// `push_with_producer`. What is pushed after it is sent after it. Until it has made its last
    /// bytes it counts for 4 KiB among the watermarks and the hard limit.
    pub fn push_producer(&mut self, producer: impl Producer) -> io::Result<()> {
        let result = self.state_mut().and_then(|state| state.push_producer(Box::new(producer)));
        self.named(result)
    }

    /// Ask the producer again that said [`More::Later`](crate::More::Later). From another thread:
    /// through a [`Remote`](crate::Remote).
    pub fn wake_producer(&mut self) {
        self.change(|state| state.outbox.wake_producer());
    }

    /// Drop what is queued, also a piece of which a part is sent already, and every producer. What
    /// the system has taken is on its way.
    pub fn discard_queued(&mut self) {
        self.change(|state| state.outbox.clear());
    }

    /// A way for another thread to feed this channel, with backpressure.
    ///
    /// # Errors
    /// It is a listener, or it has ended.
    pub fn outlet(&mut self) -> io::Result<Outlet> {
        self.touch();
        let result = self.map.outlet(self.token);
        self.named(result)
    }

    /// Bytes that wait to be sent. What a producer will still make is not counted.
    pub fn queued(&self) -> usize {
        self.state().map_or(0, |state| state.outbox.queued())
    }

    /// `handle_high` runs when more than `high` bytes (64 KiB) are queued, `handle_low` when it is
    /// down to `low` (32 KiB). asyncio's `set_write_buffer_limits`. A `low` above `high` is
    /// lowered to it.
    pub fn set_watermarks(&mut self, low: usize, high: usize) {
        self.change(|state| {
            let limits = Limits { low: low.min(high), high, ..state.outbox.limits() };
            state.outbox.set_limits(limits);
        });
    }

    /// The hard limit of what may be queued, in bytes (16 MiB), and what becomes of a push over
    /// it ([`OnLimit::Refuse`]).
    pub fn set_limit(&mut self, bytes: usize, on_limit: OnLimit) {
        self.change(|state| {
            state.outbox.set_limits(Limits { hard: bytes, ..state.outbox.limits() });
            state.on_limit = on_limit;
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
        self.change(|state| state.close(Reason::Closed));
    }

    /// Drop what is queued and reset the connection.
    pub fn abort(&mut self) {
        self.change(|state| {
            state.reset = true;
            state.kill(Reason::Aborted);
        });
    }

    /// Send what is queued, then FIN, and go on reading: C's `shutdown(SHUT_WR)`, asyncio's
    /// `write_eof`. The channel ends when the peer's end of stream was read as well.
    pub fn shutdown_write(&mut self) {
        self.change(|state| state.shut |= state.phase != Phase::Listening && !state.datagrams);
    }

    /// How long a closing channel may go without getting rid of a byte (30 s).
    pub fn set_close_timeout(&mut self, timeout: Duration) {
        self.change(|state| state.clock().close_timeout = timeout);
    }

    /// Whether the end has begun: nothing can be pushed any more.
    pub fn is_closing(&self) -> bool {
        self.state().is_none_or(State::is_closing)
    }

    // Time.

    /// Call `handle_timeout` when no byte came or went for `timeout`; while connecting: when that
    /// took `timeout` since [`connect`](ChannelMap::connect). `None`, the default: never.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        let token = self.token;
        self.touch();
        let Some(state) = self.map.state_mut(token).filter(|state| state.phase != Phase::Closed) else {
            return;
        };
        let connecting = state.is_connecting();
        let clock = state.clock();
        if !connecting {
            clock.active = std::time::Instant::now();
        }
        clock.timeout = timeout;
        if let Some(timer) = clock.idle_timer.take() {
            self.map.timers.cancel(timer);
        }
        if timeout.is_some() {
            self.map.start_idle_timer(token);
        }
    }

    /// What the default of [`handle_timeout`](crate::Dispatcher::handle_timeout) does: end the channel with
    /// [`Reason::TimedOut`]. If something was queued, the connection is reset.
    pub fn time_out(&mut self) {
        self.change(|state| state.kill(Reason::TimedOut));
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
        match self.map.state_mut(self.token) {
            Some(state) if state.phase != Phase::Closed => state.has_timers = true,
            // The channel is gone, and so is its timer.
            _ => return self.map.dead_timer(),
        }
        self.map.set_timer(delay, action)
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
        let state = self.state();
        let asked = match state.and_then(|state| state.local.as_deref()) {
            Some(known) => Ok(known.clone()),
            None => match state.and_then(State::fd) {
                Some(fd) => crate::sys::local_addr(fd),
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
        let known = self.state().and_then(|state| state.peer.clone());
        self.named(known.ok_or_else(|| io::ErrorKind::NotConnected.into()))
    }

    /// Who is at the other end of a Unix-domain socket: `SO_PEERCRED`. Linux only.
    ///
    /// # Errors
    /// There is no such thing on this socket or system.
    pub fn peer_credentials(&self) -> io::Result<Credentials> {
        let fd = self.state().and_then(State::fd).ok_or(io::ErrorKind::NotConnected)?;
        self.named(crate::net::unix::credentials(fd))
    }

    /// `TCP_NODELAY`: send at once what is pushed (on), or gather small pieces while some are under
    /// way.
    ///
    /// # Errors
    /// This is no TCP socket (any more).
    pub fn set_no_delay(&mut self, on: bool) -> io::Result<()> {
        let fd = self.state().and_then(State::fd).ok_or(io::ErrorKind::NotConnected)?;
        self.named(crate::sys::stream::set_no_delay(fd, on))
    }

    /// `SO_KEEPALIVE`: probe the peer when it was silent for so long; `None`, the default: never.
    /// What a program's own messages can find out, they find out sooner.
    ///
    /// # Errors
    /// This is no TCP socket (any more), or the system does not take the time.
    pub fn set_keep_alive(&mut self, silence: Option<Duration>) -> io::Result<()> {
        let fd = self.state().and_then(State::fd).ok_or(io::ErrorKind::NotConnected)?;
        self.named(crate::sys::stream::set_keep_alive(fd, silence))
    }

    /// Whether this is a listener: Python's `accepting`.
    pub fn is_listening(&self) -> bool {
        self.state().is_some_and(|state| state.phase == Phase::Listening)
    }

    /// Whether a `connect` is under way: Python's `connecting`.
    pub fn is_connecting(&self) -> bool {
        self.state().is_some_and(State::is_connecting)
    }

    /// Whether data can pass: Python's `connected`.
    pub fn is_connected(&self) -> bool {
        self.state().is_some_and(|state| matches!(state.phase, Phase::Opening | Phase::Open) && !state.lost)
    }

    /// Whether input is delivered: the channel is open and not paused. asyncio's `is_reading`. Also
    /// after a write that failed, when there is still something to read.
    pub fn is_reading(&self) -> bool {
        self.state().is_some_and(|state| state.phase == Phase::Open && !state.is_paused())
    }

    /// Whether reading is paused, by [`pause_reading`](Channel::pause_reading) or by itself.
    pub fn is_paused(&self) -> bool {
        self.state().is_some_and(State::is_paused)
    }

    /// The socket, for options that are not here; `None` in `handle_close`. To read, write or
    /// close it past the channel is asking for trouble.
    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.state()?.fd()
    }

    /// In the background, a channel does not keep [`run`](crate::run) going: that returns when only
    /// such channels are left. Off by default. What a daemon thread is among threads.
    pub fn set_background(&mut self, on: bool) {
        self.map.set_background(self.token, on);
    }

    // For this crate.

    /// Log, once for this channel, that a hook was left at its default.
    pub(crate) fn log_default(&mut self, what: &str) {
        let token = self.token;
        let Ok(state) = self.state_mut() else { return };
        if !std::mem::replace(&mut state.default_logged, true) && self.map.throttle_admits() {
            log::warn!("channel {token}: the default {what}; implement the hook");
        }
    }

    pub(crate) fn put(&mut self, output: Output<'_>) -> io::Result<()> {
        let turn = self.map.turn;
        let result = self.state_mut().and_then(|state| state.push(turn, output));
        self.named(result)
    }

    pub(crate) fn put_datagram(&mut self, bytes: &[u8], to: &Address) -> io::Result<()> {
        let turn = self.map.turn;
        self.touch();
        let result = self.state_mut().and_then(|state| state.push_datagram(turn, bytes, Some(to), true));
        self.named(result)
    }

    fn state(&self) -> Option<&State> {
        self.map.state(self.token)
    }

    pub(crate) fn state_mut(&mut self) -> io::Result<&mut State> {
        let token = self.token;
        self.map.state_mut(token).ok_or_else(|| LookupError::Gone(token).into())
    }

    fn change(&mut self, f: impl FnOnce(&mut State)) {
        self.touch();
        if let Some(state) = self.map.state_mut(self.token) {
            f(state);
        }
    }

    pub(crate) fn touch(&mut self) {
        self.map.touch(self.token);
    }

    /// Put the token on an error of a channel that is not the hook's own.
    pub(crate) fn named<T>(&self, result: io::Result<T>) -> io::Result<T> {
        match result {
            Err(error) if self.foreign && ChannelError::token_of(&error).is_none() => {
                Err(ChannelError::wrap(self.token, error))
            }
            result => result,
        }
    }
}

impl fmt::Debug for Channel<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut view = f.debug_struct("Channel");
        view.field("token", &self.token);
        if let Some(state) = self.state() {
            view.field("phase", &state.phase)
                .field("peer", &state.peer)
                .field("queued", &state.outbox.queued());
        }
        view.finish()
    }
}
