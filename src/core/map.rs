//! The explicit table of the living channels: asyncore's `socket_map`, but not a global.

use std::any::TypeId;
use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use log::Level;

use crate::clock::{Clock, Time, Turn};
use crate::core::action::{Action, DrainCall, MapCall, Message};
use crate::core::ages::Ages;
use crate::core::buffer::Buffers;
use crate::core::dispatcher::Dispatcher;
use crate::core::gather::Gather;
use crate::core::lingering::Lingering;
use crate::core::slots::Slots;
use crate::drain::Drain;
#[cfg(feature = "testing")]
use crate::kit::stage::Stage;
use crate::link::account::Total;
use crate::link::due::Step;
use crate::link::state::{Link, Role};
use crate::net::load::Load;
use crate::net::places::{Alarm, Waiter};
use crate::net::resolve::{self, Resolver};
use crate::numbers::Counters;
use crate::report::{Escaped, Throttle, text_of};
use crate::sys::poll::Poll;
use crate::threads::pool::Pool;
use crate::threads::pulse::Pulse;
use crate::threads::queue::{Owner, Queue};
use crate::threads::readers::Reading;
use crate::threads::watcher::Watcher;
use crate::timers::Timers;
use crate::token::Token;

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
    /// Of a map for testing: its peers.
    #[cfg(feature = "testing")]
    pub(crate) stage: Option<Box<Stage>>,
    pub(crate) timers: Timers<Action>,
    /// The turn in which `call_soon` was last called, and the last timer that was set before.
    pub(crate) soon: (u32, u64),
    /// Counts the turns, for the budgets.
    pub(crate) turn: Turn,
    /// Channels for the next settle: those that are `listed`.
    pub(crate) dirty: Vec<Token>,
    /// Channels that were read on the short way and are to be asked `readable` and `writable`.
    pub(crate) asking: Vec<Token>,
    /// Channels whose source has buffered input.
    pub(crate) pending: Vec<Token>,
    /// Channels that wait for a descriptor or memory to become free.
    pub(crate) starved: Vec<Token>,
    /// Refused connections that are closing, the oldest first; they may have ended.
    pub(crate) refused: VecDeque<Token>,
    /// Rings when a place within limits is free that a listener of this map waits for.
    pub(crate) alarm: Option<Arc<Alarm>>,
    /// The error of the listener that ended last, if it ended with one.
    pub(crate) failed_listener: Option<io::Error>,
    pub(crate) lingering: Lingering,
    /// The turn in which a handshake last went on, and how many did in it.
    pub(crate) handshakes: (u32, u32),
    /// How many connections it has, if it belongs to a group.
    pub(crate) load: Option<Load>,
    /// Once a drain was begun.
    pub(crate) drain: Option<Box<Drain>>,
    /// Who is told how far it is.
    pub(crate) on_drain: Option<DrainCall>,
    /// The watches of the signals that drain it.
    #[cfg(feature = "signals")]
    pub(crate) drain_signals: Vec<Token>,
    /// What the loop is at, for other threads.
    pub(crate) pulse: Arc<Pulse>,
    /// What the running hook has pushed.
    pub(crate) gather: Gather,
    pub(crate) buffers: Buffers,
    pub(crate) total: Total,
    pub(crate) stopping: bool,
    /// `run` has returned, and neither it nor `turn` was called again.
    pub(crate) stopped: bool,
    /// Being dropped: nothing can be added.
    pub(crate) ended: bool,
    /// Dispatchers that are out of their slots, for a hook or a `with`.
    pub(crate) out: u32,
    pub(crate) throttle: Throttle,
    pub(crate) counters: Counters,
    /// Who reads the numbers from other threads, once there is somebody.
    pub(crate) reading: Option<Reading>,
    pub(crate) watcher: Option<Watcher>,
    pub(crate) ages: Ages,
    /// Messages of other threads, once a `Remote` or an `Outlet` was made.
    pub(crate) queue: Option<Queue<Message>>,
    remote_capacity: usize,
    /// Calls that block, once there was one.
    pub(crate) work: Option<Box<Pool<MapCall>>>,
    /// Channels that do not keep the loop going.
    pub(crate) background: usize,
    /// Internal channels: connect attempts, signal watches.
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
        let pulse = Arc::new(Pulse::new());
        Ok(ChannelMap {
            id,
            slots: Slots::new(id),
            poll: Poll::new()?,
            clock: Clock::REAL,
            #[cfg(feature = "testing")]
            stage: None,
            timers: Timers::new(),
            soon: (0, 0),
            turn: Turn { number: 1, time: Clock::REAL.now() },
            dirty: Vec::new(),
            asking: Vec::new(),
            pending: Vec::new(),
            starved: Vec::new(),
            refused: VecDeque::new(),
            alarm: None,
            failed_listener: None,
            lingering: Lingering::default(),
            handshakes: (0, 0),
            load: None,
            drain: None,
            on_drain: None,
            #[cfg(feature = "signals")]
            drain_signals: Vec::new(),
            gather: Gather::new(pulse.clone()),
            pulse,
            buffers: Buffers::default(),
            total: Total::default(),
            stopping: false,
            stopped: false,
            ended: false,
            out: 0,
            throttle: Throttle::new(),
            counters: Counters::default(),
            reading: None,
            watcher: None,
            ages: Ages::default(),
            queue: None,
            remote_capacity: REMOTE_CAPACITY,
            work: None,
            background: 0,
            internal: 0,
            resolver: resolve::system(),
            default_readable: Cell::new(None),
            default_writable: Cell::new(None),
            never_asked: None,
            _owner: Owner::new(),
        })
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
        // Who has put something into the queue and not said so yet will end the wait. And who has said so in the
        // turn that took it is no reason for another one.
        let mail = self.queue.as_ref().is_some_and(|queue| queue.has_news() && !queue.is_empty());
        if mail || !self.dirty.is_empty() || !self.asking.is_empty() || !self.pending.is_empty() {
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

    /// What a listener with limits waits with.
    pub(crate) fn waiter(&mut self) -> Waiter {
        let alarm = self.alarm.get_or_insert_with(|| Arc::new(Alarm::new(self.poll.waker())));
        Waiter { map: self.id, alarm: alarm.clone() }
    }

    /// Mark the channel dirty: the next settle looks at it. `false` if there is no such channel.
    pub(crate) fn touch(&mut self, token: Token) -> bool {
        self.touch_link(token).is_some()
    }

    #[inline]
    pub(crate) fn touch_link(&mut self, token: Token) -> Option<&mut Link> {
        let seat = self.slots.get_mut(token)?;
        // The next push is to see what becomes of it.
        self.gather.seal(token);
        seat.link.set_due(Step::Look);
        if !seat.link.listed {
            seat.link.listed = true;
            self.dirty.push(token);
        }
        Some(&mut seat.link)
    }

    /// Log a failure of `token`: what failed, and why.
    pub(crate) fn report(&mut self, token: Token, what: &str, why: &dyn fmt::Display) {
        self.report_at(Level::Warn, token, what, why);
    }

    pub(crate) fn report_at(&mut self, level: Level, token: Token, what: &str, why: &dyn fmt::Display) {
        if !log::log_enabled!(level) || !self.throttle.admits() {
            return;
        }
        let why = text_of(why);
        let link = self.link(token);
        let address =
            link.and_then(|link| link.peer().or_else(|| link.local().map(|local| (**local).clone())));
        match address {
            Some(address) => {
                log::log!(level, "channel {token} ({}): {what}: {}", Escaped(address), Escaped(why));
            }
            None => log::log!(level, "channel {token}: {what}: {}", Escaped(why)),
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
