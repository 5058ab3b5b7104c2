//! The explicit table of the living channels: `socket_map` of asyncore, but nobody's global.

use std::any::Any;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::core::action::Action;
use crate::core::channel::Channel;
use crate::core::dispatcher::Dispatcher;
use crate::core::slots::Slots;
use crate::error::{ChannelError, LookupError, clone_error};
use crate::event_loop::hooks::{Entered, Ran};
use crate::event_loop::{hooks, settle};
use crate::link::output::Output;
use crate::link::source::{Held, Plain, Source};
use crate::link::{Phase, State};
use crate::net::resolve;
use crate::net::resolve::Resolver;
use crate::net::socket::Socket;
use crate::reason::Reason;
use crate::report::Throttle;
use crate::sys::Kind;
use crate::sys::poll::Poll;
use crate::threads::credit::Credit;
use crate::threads::outlet::Outlet;
use crate::threads::queue::{Answers, Mailbox, Owner};
use crate::threads::remote::Remote;
use crate::timers::{TimerId, Timers};
use crate::token::{Handle, Token};
use crate::{event_loop, sys};

/// What one read takes at most, and how many such buffers are kept.
const BUFFER: usize = 64 * 1024;
const BUFFERS: usize = 2;

/// Messages that other threads may have under way.
const REMOTE_CAPACITY: usize = 1024;

const MOST_REMOTE_CAPACITY: usize = 1 << 20;

/// The table of living channels, with all that they share: the poller, the timers, the buffer.
///
/// It belongs to the thread that made it. [`run`](crate::run) drives it. Dropping it ends every
/// channel, with `handle_close` for each.
///
/// ```
/// use dispatch_loop::{Channel, ChannelMap, Dispatcher};
/// use std::io;
///
/// struct Greeter;
///
/// impl Dispatcher for Greeter {
///     fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
///         ch.push(b"hello\n")?;
///         ch.close();
///         Ok(())
///     }
/// }
///
/// let (ours, mut theirs) = std::os::unix::net::UnixStream::pair()?;
/// let mut map = ChannelMap::new()?;
/// map.add(ours, Greeter)?;
/// dispatch_loop::run(&mut map)?;                   // until no channel is left
///
/// let mut got = String::new();
/// io::Read::read_to_string(&mut theirs, &mut got)?;
/// assert_eq!(got, "hello\n");
/// # io::Result::Ok(())
/// ```
pub struct ChannelMap {
    pub(crate) id: u64,
    pub(crate) slots: Slots<State>,
    pub(crate) poll: Poll,
    pub(crate) timers: Timers,
    /// The timer that runs, and whether it was cancelled meanwhile.
    pub(crate) running_timer: Option<(u64, bool)>,
    /// Channels that the next settle looks at; those flagged `touched`.
    pub(crate) touched: Vec<Token>,
    /// Channels whose source has input inside.
    pub(crate) pending: Vec<Token>,
    /// Listeners that wait for a descriptor to become free.
    pub(crate) starved: Vec<Token>,
    buffers: Vec<Vec<u8>>,
    /// Counts the turns, for the budgets.
    pub(crate) turn: u32,
    pub(crate) stopping: bool,
    /// `run` was stopped, and not called again.
    pub(crate) stopped: bool,
    /// Being dropped: nothing can be added.
    pub(crate) ended: bool,
    /// Dispatchers that are taken out at this moment, for a hook or a `with`.
    pub(crate) out: u32,
    pub(crate) throttle: Throttle,
    /// Where other threads put what is to be done here, once somebody has asked for a way.
    pub(crate) mailbox: Option<Mailbox>,
    remote_capacity: usize,
    /// Channels that do not keep the loop going.
    pub(crate) background: usize,
    /// Channels that are nobody's but our own.
    pub(crate) hidden: usize,
    pub(crate) resolver: Resolver,
    _owner: Owner,
}

impl ChannelMap {
    /// An empty map, with a poller of its own.
    ///
    /// # Errors
    /// No descriptor is left, or the system's poller has no level-triggered mode.
    pub fn new() -> io::Result<ChannelMap> {
        static LAST_ID: AtomicU64 = AtomicU64::new(0);
        let id = LAST_ID.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(ChannelMap {
            id,
            slots: Slots::new(id),
            poll: Poll::new()?,
            timers: Timers::default(),
            running_timer: None,
            touched: Vec::new(),
            pending: Vec::new(),
            starved: Vec::new(),
            buffers: Vec::new(),
            turn: 1,
            stopping: false,
            stopped: false,
            ended: false,
            out: 0,
            throttle: Throttle::default(),
            mailbox: None,
            remote_capacity: REMOTE_CAPACITY,
            background: 0,
            hidden: 0,
            resolver: resolve::system(),
            _owner: Owner::new(),
        })
    }

    // Channels come.

    /// Make a channel of a socket that exists: what `handle_accept` was given, a stream or a
    /// listener of `std::net` or `std::os::unix::net`, [any descriptor](Socket::from_fd). It is made
    /// non-blocking.
    ///
    /// # Errors
    /// The socket cannot be made non-blocking, or the map is being dropped. The socket is closed
    /// and the dispatcher dropped then.
    pub fn add<D: Dispatcher>(&mut self, socket: impl Into<Socket>, dispatcher: D) -> io::Result<Handle<D>> {
        let socket = socket.into();
        if !socket.nonblocking {
            sys::set_nonblocking(socket.as_fd())?;
        }
        let phase = if socket.kind == Kind::Listener { Phase::Listening } else { Phase::Opening };
        let peer = match socket.peer {
            None if socket.kind != Kind::Listener => sys::peer_addr(socket.fd.as_fd()).ok(),
            peer => peer,
        };
        let mut state = State::new(Held::Plain(Plain(socket.fd)), Box::new(dispatcher), phase);
        state.local = socket.local;
        state.peer = peer;
        state.file = socket.file;
        state.datagrams = socket.kind == Kind::Datagram;
        self.insert(state)
    }

    /// Make a channel of a source of your own, whose socket is non-blocking and connected.
    ///
    /// # Errors
    /// The map is being dropped.
    pub fn add_source<D: Dispatcher>(&mut self, source: impl Source, dispatcher: D) -> io::Result<Handle<D>> {
        let peer = sys::peer_addr(source.as_fd()).ok();
        let mut state = State::new(Held::own(Box::new(source)), Box::new(dispatcher), Phase::Opening);
        state.peer = peer;
        self.insert(state)
    }

    pub(crate) fn insert_hidden(&mut self, mut state: State) -> io::Result<Token> {
        state.hidden = true;
        let handle = self.insert::<crate::event_loop::dial::Attempt>(state)?;
        self.hidden += 1;
        Ok(handle.token())
    }

    pub(crate) fn insert<D: Dispatcher>(&mut self, state: State) -> io::Result<Handle<D>> {
        if self.ended {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the channel map is being dropped"));
        }
        let Some(token) = self.slots.insert(Box::new(state)) else {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "the channel map is full"));
        };
        self.touch(token);
        Ok(token.typed())
    }

    // Channels are reached.

    /// The view of any channel, as its own hooks have it.
    ///
    /// # Errors
    /// [`LookupError::Gone`]; handed back from a hook with `?`, that is logged and ends nothing.
    pub fn channel(&mut self, token: impl Into<Token>) -> Result<Channel<'_>, LookupError> {
        let token = token.into();
        match self.touch(token) {
            true => Ok(Channel::foreign(self, token)),
            false => Err(LookupError::Gone(token)),
        }
    }

    /// The dispatcher behind a handle.
    ///
    /// # Errors
    /// It is gone, of another type, or one of its hooks is running.
    pub fn get<T: Dispatcher>(&self, handle: Handle<T>) -> Result<&T, LookupError> {
        let token = handle.token();
        let state = self.state(token).ok_or(LookupError::Gone(token))?;
        let dispatcher = state.dispatcher.as_deref().ok_or(LookupError::Running(token))?;
        (dispatcher as &dyn Any).downcast_ref().ok_or(LookupError::OtherType(token))
    }

    /// As [`get`](ChannelMap::get), to change it; `readable` and `writable` are asked afterwards.
    ///
    /// # Errors
    /// As [`get`](ChannelMap::get).
    pub fn get_mut<T: Dispatcher>(&mut self, handle: Handle<T>) -> Result<&mut T, LookupError> {
        let token = handle.token();
        self.touch(token);
        let state = self.state_mut(token).ok_or(LookupError::Gone(token))?;
        let dispatcher = state.dispatcher.as_deref_mut().ok_or(LookupError::Running(token))?;
        (dispatcher as &mut dyn Any).downcast_mut().ok_or(LookupError::OtherType(token))
    }

    /// Call `f` with a dispatcher and the view of its channel, as in one of its own hooks.
    ///
    /// # Errors
    /// Those of [`get`](ChannelMap::get), and that of `f`, as it is. A copy of it (kind, system code,
    /// text) goes to the dispatcher's own `handle_error`, later; but not of `WouldBlock`, nor of an
    /// error about another channel. A panic of `f` is caught and ends that channel.
    ///
    /// An error of a method of the view that `f` is given names its channel, so a hook of another
    /// channel may hand it back with `?`. An error of `f`'s own does not; handed back, it is that
    /// hook's error as well.
    pub fn with<T, R, F>(&mut self, handle: Handle<T>, f: F) -> io::Result<R>
    where
        T: Dispatcher,
        F: FnOnce(&mut T, &mut Channel<'_>) -> io::Result<R>,
    {
        let token = handle.token();
        self.get(handle)?;
        self.touch(token);
        let _entered = Entered::now(self.id);
        let ran = hooks::call_foreign(self, token, |dispatcher, ch| {
            let dispatcher =
                (dispatcher as &mut dyn Any).downcast_mut().ok_or(LookupError::OtherType(token))?;
            f(dispatcher, ch)
        });
        match ran {
            Ran::Returned(Ok(value)) => Ok(value),
            Ran::Returned(Err(error)) => {
                let about_it = ChannelError::token_of(&error).is_none_or(|about| about == token);
                if about_it && error.kind() != io::ErrorKind::WouldBlock {
                    self.note_failure(token, clone_error(&error));
                }
                Err(error)
            }
            Ran::Panicked(error) => {
                let copy = ChannelError::wrap(token, clone_error(&error));
                self.report(token, "with", &error);
                if let Some(state) = self.state_mut(token) {
                    state.kill(Reason::from(error));
                }
                Err(copy)
            }
            Ran::Absent => Err(LookupError::Gone(token).into()),
        }
    }

    /// The first failure waits for the settle; a second one before it is of no consequence.
    fn note_failure(&mut self, token: Token, error: io::Error) {
        if let Some(state) = self.state_mut(token) {
            state.failure.get_or_insert(error);
        }
    }

    /// Whether the channel is (still) in this map.
    pub fn contains(&self, token: impl Into<Token>) -> bool {
        self.state(token.into()).is_some()
    }

    /// All channels, listeners included, in the order of their slots.
    pub fn tokens(&self) -> impl Iterator<Item = Token> + '_ {
        self.slots.tokens().filter(|token| self.state(*token).is_some_and(|state| !state.hidden))
    }

    /// How many channels there are, listeners and those about to end included.
    pub fn len(&self) -> usize {
        self.slots.len() - self.hidden
    }

    /// Whether there is no channel.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Push the same bytes to several channels. Never fails: what is gone, ending or a listener
    /// is passed over; a channel that would be over its hard limit ends with [`Reason::Limit`],
    /// whatever its [`OnLimit`](crate::OnLimit).
    ///
    /// One peer's 64 KiB of a turn can become far more for each of the others, who are sent 64 KiB a
    /// turn: where many may talk at once, listen to nobody for a moment when much was said, or who
    /// reads well is over the limit, too.
    pub fn broadcast(&mut self, tokens: impl IntoIterator<Item = Token>, bytes: &[u8]) {
        let mut shared: Option<Arc<[u8]>> = None;
        let turn = self.turn;
        for token in tokens {
            if !self.touch(token) {
                continue;
            }
            let Some(state) = self.state_mut(token) else { continue };
            if state.is_closing() || state.shut || state.phase == Phase::Listening {
                continue;
            }
            match state.outbox.takes(bytes.len()) {
                true => drop(state.push(turn, Output::Broadcast(bytes, &mut shared))),
                false => state.kill_over_limit(),
            }
        }
    }

    /// [`close`](Channel::close) every channel: Python's `close_all`, but what is queued is sent.
    pub fn close_all(&mut self) {
        let tokens: Vec<Token> = self.tokens().collect();
        for token in tokens {
            self.touch(token);
            if let Some(state) = self.state_mut(token) {
                state.close(Reason::Closed);
            }
        }
    }

    // Time.

    /// Call `f` in the next turn, after the channels that are ready. asyncio's `call_soon`.
    pub fn call_soon(&mut self, f: impl FnOnce(&mut ChannelMap) + 'static) -> TimerId {
        self.call_later(Duration::ZERO, f)
    }

    /// Call `f` after `delay`, by a clock that never jumps; not earlier, and later by what the
    /// hooks before it take. Equal times run in the order they were set. A `delay` too long for
    /// the clock is as long as it can be. A panic is caught and logged.
    pub fn call_later(&mut self, delay: Duration, f: impl FnOnce(&mut ChannelMap) + 'static) -> TimerId {
        self.set_timer(delay, Action::Call(Box::new(f)))
    }

    /// Call `f` every `interval`, for the first time after one. When it is late, it runs once for
    /// all that it missed, and goes on in the old rhythm. An `interval` of zero is every turn, and
    /// keeps the loop from sleeping.
    pub fn call_every(&mut self, interval: Duration, f: impl FnMut(&mut ChannelMap) + 'static) -> TimerId {
        self.set_timer(interval, Action::CallEvery(interval, Box::new(f)))
    }

    /// Cancel a timer, also from within itself; `false` if there is no such timer any more.
    pub fn cancel(&mut self, timer: TimerId) -> bool {
        if timer.map != self.id {
            return false;
        }
        match &mut self.running_timer {
            Some((id, cancelled)) if *id == timer.id => !std::mem::replace(cancelled, true),
            _ => match self.timers.cancel(timer.id) {
                Some(timer) => {
                    hooks::drop_guarded(self, "a timer", timer);
                    true
                }
                None => false,
            },
        }
    }

    pub(crate) fn set_timer(&mut self, delay: Duration, action: Action) -> TimerId {
        TimerId { map: self.id, id: self.timers.set(delay, action) }
    }

    /// The name of a timer that was never set.
    pub(crate) fn dead_timer(&self) -> TimerId {
        TimerId { map: self.id, id: 0 }
    }

    /// Begin to watch whether the channel is idle for as long as its clock says.
    pub(crate) fn start_idle_timer(&mut self, token: Token) {
        let Some(state) = self.slots.get_mut(token) else { return };
        state.has_timers = true;
        let clock = state.clock();
        let Some(timeout) = clock.timeout else { return };
        let left = timeout.saturating_sub(clock.active.elapsed());
        clock.idle_timer = Some(self.timers.set(left, Action::Idle(token)));
    }

    // Other threads.

    /// A way for other threads to have things done on this one.
    pub fn remote(&mut self) -> Remote {
        self.open_mailbox().remote()
    }

    /// How many messages of other threads may wait (1,024) before they must. At least one, at most
    /// 2^20; of no effect after the first [`remote`](ChannelMap::remote) or [`outlet`](Channel::outlet).
    pub fn set_remote_capacity(&mut self, messages: usize) {
        self.remote_capacity = messages.clamp(1, MOST_REMOTE_CAPACITY);
    }

    pub(crate) fn set_background(&mut self, token: Token, on: bool) {
        let Some(state) = self.slots.get_mut(token) else { return };
        match (std::mem::replace(&mut state.background, on), on) {
            (false, true) => self.background += 1,
            (true, false) => self.background -= 1,
            _ => {}
        }
    }

    pub(crate) fn outlet(&mut self, token: Token) -> io::Result<Outlet> {
        let state = self.slots.get_mut(token).ok_or(LookupError::Gone(token))?;
        if state.phase == Phase::Listening || state.phase == Phase::Closed {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "this channel carries no data"));
        }
        let credit = state.credit.get_or_insert_with(Credit::new).clone();
        let (queued, high, ended) =
            (state.outbox.queued(), state.outbox.limits().high, state.is_closing() || state.shut);
        let mailbox = self.open_mailbox();
        mailbox.publish(&credit, queued, high, ended);
        Ok(mailbox.outlet(token, credit))
    }

    pub(crate) fn answers(&mut self) -> Answers {
        self.open_mailbox().answers()
    }

    fn open_mailbox(&mut self) -> &Mailbox {
        let (waker, capacity, stopped) = (self.poll.waker(), self.remote_capacity, self.stopped);
        self.mailbox.get_or_insert_with(|| Mailbox::new(waker, capacity, stopped))
    }

    // The loop.

    /// Let [`run`](crate::run) return after the current turn; if it is not running, its next call
    /// returns without waiting. Channels stay.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// One turn of the loop: settle, wait for at most `timeout` (`None`: for as long as it takes),
    /// serve what is ready, run due timers, settle. Python's `poll()`. It does not wait if its
    /// settle ends the last channel; nor with `None` when there is nothing to wait for.
    ///
    /// # Errors
    /// The poller failed, or this is called from inside one of the map's own hooks (`Deadlock`).
    pub fn turn(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        event_loop::turn(self, timeout, false, false)
    }

    /// For how long a [`turn`](ChannelMap::turn) may wait at most: zero when there is something to
    /// do at once, until the next timer, `None` when only a descriptor can bring work. With the
    /// descriptor of the poller ([`AsFd`]) this is what another loop needs to drive this one.
    pub fn wait_limit(&self) -> Option<Duration> {
        let mail = self.mailbox.as_ref().is_some_and(|mailbox| !mailbox.is_empty());
        if mail || !self.touched.is_empty() || !self.pending.is_empty() {
            return Some(Duration::ZERO);
        }
        let deadline = self.timers.first_deadline()?;
        Some(deadline.saturating_duration_since(Instant::now()))
    }

    // For this crate.

    #[inline]
    pub(crate) fn state(&self, token: Token) -> Option<&State> {
        self.slots.get(token)
    }

    #[inline]
    pub(crate) fn state_mut(&mut self, token: Token) -> Option<&mut State> {
        self.slots.get_mut(token)
    }

    /// Let the next settle look at the channel; `false` if there is none.
    pub(crate) fn touch(&mut self, token: Token) -> bool {
        let Some(state) = self.slots.get_mut(token) else { return false };
        if !state.touched {
            state.touched = true;
            self.touched.push(token);
        }
        true
    }

    pub(crate) fn take_buffer(&mut self) -> Vec<u8> {
        self.buffers.pop().unwrap_or_else(|| vec![0; BUFFER])
    }

    pub(crate) fn give_buffer_back(&mut self, buffer: Vec<u8>) {
        if self.buffers.len() < BUFFERS {
            self.buffers.push(buffer);
        }
    }

    #[cfg(debug_assertions)]
    pub(crate) fn wear_out(&mut self, left: u32) {
        self.slots.wear_out(left);
    }
}

/// The poller's descriptor: readable when a [`turn`](ChannelMap::turn) has something to do.
impl AsFd for ChannelMap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poll.as_fd()
    }
}

impl fmt::Debug for ChannelMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelMap")
            .field("id", &self.id)
            .field("channels", &self.len())
            .finish_non_exhaustive()
    }
}

impl Drop for ChannelMap {
    fn drop(&mut self) {
        // A `handle_close` that tries to run the loop is refused here as well.
        let _entered = Entered::now(self.id);
        if let Some(mailbox) = &self.mailbox {
            mailbox.end();
        }
        let mut index = 0;
        let mut id = self.id;
        self.ended = true;
        while index < self.slots.capacity() {
            if let Some(token) = self.slots.token_at(index) {
                settle::end_for_good(self, token, Reason::MapEnded);
            }
            index += 1;
            // A `handle_close` may have put another map in this place; that one is dropped then.
            if self.id != id {
                id = self.id;
                self.ended = true;
                index = 0;
                if let Some(mailbox) = &self.mailbox {
                    mailbox.end();
                }
            }
        }
        let left = (std::mem::take(&mut self.timers), self.mailbox.take());
        hooks::drop_guarded(self, "a timer or a message", left);
    }
}
