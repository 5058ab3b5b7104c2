//! The explicit table of the living channels: asyncore's `socket_map`, but not a global.

use std::any::TypeId;
use std::cell::Cell;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::{Clock, Time, Turn};
use crate::core::action::{Action, Message};
use crate::core::dispatcher::Dispatcher;
use crate::core::gather::Gather;
use crate::core::slots::Slots;
use crate::error::LookupError;
use crate::guard::drop_guarded;
use crate::link::Link;
use crate::link::due::Step;
use crate::link::life::Role;
use crate::link::output::Pushed;
use crate::link::producer::Producer;
use crate::link::source::{Held, Plain, Source};
use crate::net::resolve::{self, Resolver};
use crate::net::socket::Socket;
use crate::reason::Reason;
use crate::report::{Escaped, Throttle};
use crate::sys::poll::Poll;
use crate::sys::{self, Kind};
use crate::threads::queue::{Owner, Queue};
use crate::timers::{TimerId, TimerKey, Timers};
use crate::token::{Handle, Token};

/// The most that one read takes.
const BUFFER: usize = 64 * 1024;
pub(crate) type Buffer = Box<[u8; BUFFER]>;

/// Messages that may wait in the queue of other threads.
const REMOTE_CAPACITY: usize = 1024;

const MOST_REMOTE_CAPACITY: usize = 1 << 20;

/// What a slot holds.
#[derive(Default)]
pub(crate) struct Seat {
    /// `None` while one of its hooks runs.
    pub(crate) dispatcher: Option<Box<dyn Dispatcher>>,
    pub(crate) link: Link,
}

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
    pub(crate) id: u32,
    pub(crate) slots: Slots<Seat>,
    pub(crate) poll: Poll,
    pub(crate) clock: Clock,
    pub(crate) timers: Timers<Action>,
    /// Counts the turns, for the budgets.
    pub(crate) turn: Turn,
    /// Channels for the next settle: those that are `listed`.
    pub(crate) dirty: Vec<Token>,
    /// Channels whose source has buffered input.
    pub(crate) pending: Vec<Token>,
    /// Listeners that wait for a descriptor to become free.
    pub(crate) starved: Vec<Token>,
    /// What the running hook has pushed.
    pub(crate) gather: Gather,
    /// For reads; the second for a read within the closure of another.
    buffer: Option<Buffer>,
    second_buffer: Option<Buffer>,
    pub(crate) stopping: bool,
    /// `run` was stopped, and has not been called again.
    pub(crate) stopped: bool,
    /// Being dropped: nothing can be added.
    pub(crate) ended: bool,
    /// Dispatchers that are out of their slots, for a hook or a `with`.
    pub(crate) out: u32,
    pub(crate) throttle: Throttle,
    /// Messages of other threads, once a `Remote` or an `Outlet` was made.
    pub(crate) queue: Option<Queue<Message>>,
    remote_capacity: usize,
    /// Channels that do not keep the loop going.
    pub(crate) background: usize,
    /// Internal channels: connect attempts.
    pub(crate) internal: usize,
    pub(crate) resolver: Resolver,
    /// The dispatcher type whose default `readable`, or `writable`, ran last.
    pub(crate) default_readable: Cell<Option<TypeId>>,
    pub(crate) default_writable: Cell<Option<TypeId>>,
    /// The type last found to override neither `readable` nor `writable`.
    pub(crate) never_asked: Option<TypeId>,
    _owner: Owner,
}

impl ChannelMap {
    /// An empty map with its own poller.
    ///
    /// # Errors
    /// No descriptor is left, or the system's poller has no level-triggered mode.
    pub fn new() -> io::Result<ChannelMap> {
        static LAST_ID: AtomicU64 = AtomicU64::new(0);
        let id = LAST_ID.fetch_add(1, Ordering::Relaxed) + 1;
        // A token must never name another channel, and has 32 bits for its map.
        let Ok(id) = u32::try_from(id) else {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "no number is left for another map"));
        };
        Ok(ChannelMap {
            id,
            slots: Slots::new(id),
            poll: Poll::new()?,
            clock: Clock::new(),
            timers: Timers::new(),
            turn: Turn { number: 1, time: Time::default() },
            dirty: Vec::new(),
            pending: Vec::new(),
            starved: Vec::new(),
            gather: Gather::new(),
            buffer: None,
            second_buffer: None,
            stopping: false,
            stopped: false,
            ended: false,
            out: 0,
            throttle: Throttle::default(),
            queue: None,
            remote_capacity: REMOTE_CAPACITY,
            background: 0,
            internal: 0,
            resolver: resolve::system(),
            default_readable: Cell::new(None),
            default_writable: Cell::new(None),
            never_asked: None,
            _owner: Owner::new(),
        })
    }

    // Adding channels.

    /// Make a channel of an existing socket: what `handle_accept` was given, a stream or a
    /// listener of `std::net` or `std::os::unix::net`, or [any descriptor](Socket::from_fd). The socket
    /// is made non-blocking.
    ///
    /// # Errors
    /// The socket cannot be made non-blocking, or the map is being dropped. Then the socket is closed
    /// and the dispatcher dropped.
    pub fn add<D: Dispatcher>(&mut self, socket: impl Into<Socket>, dispatcher: D) -> io::Result<Handle<D>> {
        let socket = socket.into();
        if !socket.nonblocking {
            sys::set_nonblocking(socket.as_fd())?;
        }
        let peer = match socket.peer {
            None if socket.kind != Kind::Listener => sys::peer_addr(socket.fd.as_fd()).ok(),
            peer => peer,
        };
        let mut link = Link::new(Held::Plain(Plain(socket.fd)), socket.kind);
        link.set_local(socket.local);
        link.set_peer(peer);
        if socket.file.is_some() {
            link.rare().file = socket.file;
        }
        self.insert(link, dispatcher)
    }

    /// Make a channel of your own source, whose socket is non-blocking and connected.
    ///
    /// # Errors
    /// The map is being dropped.
    pub fn add_source<D: Dispatcher>(&mut self, source: impl Source, dispatcher: D) -> io::Result<Handle<D>> {
        let peer = source.descriptor().and_then(|fd| sys::peer_addr(fd).ok());
        let mut link = Link::new(Held::own(Box::new(source)), Kind::Stream);
        link.set_peer(peer);
        self.insert(link, dispatcher)
    }

    /// Add an internal channel.
    pub(crate) fn insert_internal<D: Dispatcher>(
        &mut self,
        mut link: Link,
        dispatcher: D,
    ) -> io::Result<Token> {
        link.set_role(Role::Internal);
        let handle = self.insert(link, dispatcher)?;
        self.internal += 1;
        Ok(handle.token())
    }

    pub(crate) fn insert<D: Dispatcher>(&mut self, mut link: Link, dispatcher: D) -> io::Result<Handle<D>> {
        if self.ended {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the channel map is being dropped"));
        }
        link.set_asks(self.never_asked != Some(TypeId::of::<D>()));
        link.listed = true;
        let seat = Seat { dispatcher: Some(Box::new(dispatcher)), link };
        let Some(token) = self.slots.insert(seat) else {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "the channel map is full"));
        };
        self.dirty.push(token);
        Ok(token.typed())
    }

    // Contents.

    /// Whether the channel is in this map.
    pub fn contains(&self, token: impl Into<Token>) -> bool {
        self.link(token.into()).is_some()
    }

    /// All channels, listeners included, in the order of their slots.
    pub fn tokens(&self) -> impl Iterator<Item = Token> + '_ {
        let is_users = |token: &Token| self.link(*token).is_some_and(|link| link.role() != Role::Internal);
        self.slots.tokens().filter(is_users)
    }

    /// How many channels there are, listeners and those about to end included.
    pub fn len(&self) -> usize {
        self.slots.len() - self.internal
    }

    /// Whether there is no channel.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Push the same bytes to several channels. Never fails: channels that are gone or ending, and
    /// listeners, are skipped; a channel that would exceed its hard limit ends with
    /// [`Reason::Limit`], whatever its [`OnLimit`](crate::OnLimit).
    ///
    /// If many channels broadcast in one turn, each receiver is queued the sum of their input but
    /// drains only 64 KiB a turn. Pause the senders while a queue is high, or even a fast reader
    /// reaches its hard limit.
    pub fn broadcast(&mut self, tokens: impl IntoIterator<Item = Token>, bytes: &[u8]) {
        let mut shared: Option<Arc<[u8]>> = None;
        for token in tokens {
            let Some(link) = self.link_mut(token) else { continue };
            if link.is_shut() || link.is_listening() {
                continue;
            }
            if link.takes(bytes.len()) {
                drop(self.put(token, Pushed::Broadcast(bytes, &mut shared), true));
            } else {
                link.end_by_reset(Reason::Limit);
                self.touch(token);
            }
        }
    }

    /// [`close`](Channel::close) every channel: Python's `close_all`, but what is queued is sent first.
    pub fn close_all(&mut self) {
        let tokens: Vec<Token> = self.tokens().collect();
        for token in tokens {
            self.touch(token);
            if let Some(link) = self.link_mut(token) {
                link.close(Reason::Closed);
            }
        }
    }

    // Time.

    /// Call `f` in the next turn, after the ready channels were served. asyncio's `call_soon`.
    pub fn call_soon(&mut self, f: impl FnOnce(&mut ChannelMap) + 'static) -> TimerId {
        self.call_later(Duration::ZERO, f)
    }

    /// Call `f` after `delay`, measured by a monotonic clock: never earlier, and later if other hooks
    /// take long. Timers for the same time run in the order in which they were set. A `delay` beyond
    /// the range of the clock is shortened to it. A panic is caught and logged.
    pub fn call_later(&mut self, delay: Duration, f: impl FnOnce(&mut ChannelMap) + 'static) -> TimerId {
        let key = self.set_timer(None, delay, Action::Call(Box::new(f)));
        self.timer_id(key)
    }

    /// Call `f` every `interval`, the first time after one `interval`. A late call runs once for all
    /// that were missed, and the rhythm stays. With an `interval` of zero it runs every turn, and the
    /// loop never sleeps.
    pub fn call_every(&mut self, interval: Duration, f: impl FnMut(&mut ChannelMap) + 'static) -> TimerId {
        let key = self.set_timer(None, interval, Action::CallEvery(interval, Box::new(f)));
        self.timer_id(key)
    }

    /// Cancel a timer, even from within itself; `false` if it has run or was cancelled already.
    pub fn cancel(&mut self, timer: TimerId) -> bool {
        if timer.map != self.id {
            return false;
        }
        match self.timers.cancel(timer.key) {
            Some(action) => {
                drop_guarded(&mut self.throttle, "a timer", action);
                true
            }
            None => false,
        }
    }

    /// Set a timer, which is cancelled when its `owner`, if any, ends.
    pub(crate) fn set_timer(&mut self, owner: Option<Token>, delay: Duration, action: Action) -> TimerKey {
        let now = self.clock.now();
        // The turn's time is updated only while there are timers; from here on there is one.
        self.turn.time = now;
        self.timers.set(now.after(delay), owner.map(|token| token.slot), action)
    }

    pub(crate) fn timer_id(&self, key: TimerKey) -> TimerId {
        TimerId { map: self.id, key }
    }

    /// Start the timer of `set_timeout`.
    pub(crate) fn start_idle_timer(&mut self, token: Token) {
        let now = self.clock.now();
        let Some(link) = self.link_mut(token) else { return };
        let idle_for = now.since(link.active());
        let Some(timeout) = link.rare_if_any().and_then(|rare| rare.timeout) else { return };
        let timer = self.set_timer(Some(token), timeout.saturating_sub(idle_for), Action::Idle(token));
        if let Some(link) = self.link_mut(token) {
            link.rare().idle_timer = Some(timer);
        }
    }

    // The loop.

    /// How many messages of other threads the queue holds before senders must wait (default 1,024). At
    /// least one, at most 2^20; no effect after the first [`remote`](ChannelMap::remote) or
    /// [`outlet`](crate::Channel::outlet).
    pub fn set_remote_capacity(&mut self, messages: usize) {
        self.remote_capacity = messages.clamp(1, MOST_REMOTE_CAPACITY);
    }

    pub(crate) fn open_queue(&mut self) -> &Queue<Message> {
        let (waker, capacity, stopped) = (self.poll.waker(), self.remote_capacity, self.stopped);
        self.queue.get_or_insert_with(|| Queue::new(waker, capacity, stopped))
    }

    /// Make [`run`](crate::run) return after the current turn; if it is not running, its next call
    /// returns without waiting. Channels stay.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// How long a [`turn`](ChannelMap::turn) may wait at most: zero when there is something to do at
    /// once, the time until the next timer, `None` when only a descriptor can bring work. With the
    /// poller's descriptor ([`AsFd`]), this is what another loop needs to drive this one.
    pub fn wait_limit(&self) -> Option<Duration> {
        self.wait_limit_at(self.clock.now())
    }

    pub(crate) fn wait_limit_at(&self, now: Time) -> Option<Duration> {
        let mail = self.queue.as_ref().is_some_and(|queue| !queue.is_empty());
        if mail || !self.dirty.is_empty() || !self.pending.is_empty() {
            return Some(Duration::ZERO);
        }
        let deadline = self.timers.first_deadline()?;
        Some(deadline.since(now))
    }

    // For this crate.

    #[inline]
    pub(crate) fn link(&self, token: Token) -> Option<&Link> {
        self.slots.get(token).map(|seat| &seat.link)
    }

    #[inline]
    pub(crate) fn link_mut(&mut self, token: Token) -> Option<&mut Link> {
        self.slots.get_mut(token).map(|seat| &mut seat.link)
    }

    /// Mark the channel dirty: the next settle looks at it. `false` if there is no such channel.
    pub(crate) fn touch(&mut self, token: Token) -> bool {
        let Some(seat) = self.slots.get_mut(token) else { return false };
        seat.link.set_due(Step::Look);
        if !seat.link.listed {
            seat.link.listed = true;
            self.dirty.push(token);
        }
        true
    }

    /// Push to a channel, from any caller.
    pub(crate) fn put(&mut self, token: Token, pushed: Pushed<'_>, limited: bool) -> io::Result<()> {
        self.touch(token);
        let Some(seat) = self.slots.get_mut(token) else { return Err(LookupError::Gone(token).into()) };
        if self.gather.is_of(token) && seat.link.gathers() {
            self.gather.unseal();
            if self.gather.push_small(token, &pushed) {
                return Ok(());
            }
        }
        let before = self.gather.bytes_of(token);
        if seat.link.push(self.turn, before, pushed, limited)? {
            self.gather.sent(token);
        }
        Ok(())
    }

    pub(crate) fn push_producer(&mut self, token: Token, producer: Box<dyn Producer>) -> io::Result<()> {
        let Some(seat) = self.slots.get_mut(token) else { return Err(LookupError::Gone(token).into()) };
        if seat.link.push_producer(self.gather.bytes_of(token), producer)? {
            self.gather.sent(token);
        }
        Ok(())
    }

    /// Send what the running hook of this channel has pushed: something that must come after it
    /// follows.
    pub(crate) fn send_gathered(&mut self, token: Token) {
        let bytes = self.gather.bytes_of(token);
        if bytes.is_empty() {
            return;
        }
        if let Some(seat) = self.slots.get_mut(token) {
            seat.link.send_gathered(self.turn, bytes);
        }
        self.gather.sent(token);
    }

    #[inline]
    pub(crate) fn take_buffer(&mut self) -> Buffer {
        match self.buffer.take() {
            Some(buffer) => buffer,
            None => self.take_second_buffer(),
        }
    }

    #[cold]
    #[inline(never)]
    fn take_second_buffer(&mut self) -> Buffer {
        self.second_buffer.take().unwrap_or_else(new_buffer)
    }

    #[inline]
    pub(crate) fn give_buffer_back(&mut self, buffer: Buffer) {
        match self.buffer {
            None => self.buffer = Some(buffer),
            Some(_) => self.give_second_buffer_back(buffer),
        }
    }

    #[cold]
    #[inline(never)]
    fn give_second_buffer_back(&mut self, buffer: Buffer) {
        self.second_buffer = Some(buffer);
    }

    pub(crate) fn set_background(&mut self, token: Token, on: bool) {
        let Some(link) = self.link_mut(token) else { return };
        if link.role() == Role::Internal {
            return;
        }
        let role = if on { Role::Background } else { Role::User };
        match (link.set_role(role), role) {
            (Role::User, Role::Background) => self.background += 1,
            (Role::Background, Role::User) => self.background -= 1,
            _ => {}
        }
    }

    /// Log a failure of `token`: what failed, and why.
    pub(crate) fn report(&mut self, token: Token, what: &str, why: &dyn fmt::Display) {
        if !self.throttle.admits() {
            return;
        }
        let link = self.link(token);
        let address =
            link.and_then(|link| link.peer().or_else(|| link.local().map(|local| (**local).clone())));
        match address {
            Some(address) => log::warn!("channel {token} ({}): {what}: {}", Escaped(address), Escaped(why)),
            None => log::warn!("channel {token}: {what}: {}", Escaped(why)),
        }
    }

    #[cfg(debug_assertions)]
    pub(crate) fn wear_out(&mut self, left: u32) {
        self.slots.wear_out(left);
    }
}

/// Made on the heap: it is too big for a small stack.
#[cold]
fn new_buffer() -> Buffer {
    match vec![0; BUFFER].into_boxed_slice().try_into() {
        Ok(buffer) => buffer,
        Err(_) => unreachable!("it has that length"),
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
