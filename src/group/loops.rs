//! What the loops of a group share, and what other threads may hold of it.

use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

use crate::net::load::Load;
use crate::threads::queue::owns_a_map;
use crate::{Channel, ChannelMap, Detached, DrainOptions, Meter, Numbers, Remote, SendError};

/// How long a loop that is busy is waited for, before its numbers of earlier are taken.
const PATIENCE: Duration = Duration::from_secs(1);

/// How a loop of the group is reached.
pub(super) struct Seat {
    /// The number of its map.
    map: u32,
    remote: Remote,
    meter: Meter,
    load: Load,
}

impl Seat {
    pub(super) fn new(map: &mut ChannelMap) -> Seat {
        let load = map.load.get_or_insert_default().clone();
        Seat { map: map.id, remote: map.remote(), meter: map.quiet_meter(), load }
    }
}

pub(super) struct Shared {
    loops: usize,
    seats: OnceLock<Box<[Seat]>>,
    /// The end of all was asked for: a loop that ends is no reason for the others to end.
    ending: AtomicBool,
    /// The second signal, or 0.
    signal: AtomicI32,
    /// How many listeners all of them have.
    listeners: Load,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    seated: bool,
    /// The first loop that failed.
    failure: Option<(usize, ErrorKind, String)>,
}

impl Shared {
    pub(super) fn new(loops: usize) -> Shared {
        Shared {
            loops,
            seats: OnceLock::new(),
            ending: AtomicBool::new(false),
            signal: AtomicI32::new(0),
            listeners: Load::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seats(&self) -> &[Seat] {
        self.seats.get().map_or(&[], |seats| seats)
    }

    /// All loops that could start have done so; whether that is all.
    pub(super) fn take_seats(&self, seats: Vec<Seat>) -> bool {
        let is_complete = seats.len() == self.loops;
        if is_complete {
            let _ = self.seats.set(seats.into());
        }
        self.lock().seated = true;
        self.changed.notify_all();
        is_complete
    }

    /// Before that, a loop might hand over to one that is not there. `false`: another has not started.
    pub(super) fn wait_for_seats(&self) -> bool {
        let is_missing = |state: &mut State| !state.seated;
        drop(self.changed.wait_while(self.lock(), is_missing).unwrap_or_else(PoisonError::into_inner));
        self.seats.get().is_some()
    }

    /// A loop has failed: the others end with it, in order.
    pub(super) fn fail(&self, index: usize, error: &io::Error) {
        self.lock().failure.get_or_insert((index, error.kind(), error.to_string()));
        self.has_ended();
    }

    /// A loop has returned in order. If that was not asked of all, a hook has stopped or drained it alone: the
    /// others end in order, too.
    pub(super) fn has_ended(&self) {
        if !self.ending.load(Ordering::Acquire) {
            self.drain(&DrainOptions::default());
        }
    }

    fn drain(&self, options: &DrainOptions) {
        self.ending.store(true, Ordering::Release);
        let (options, asked) = (*options, Instant::now());
        for seat in self.seats() {
            // Refused only if it has ended.
            let _ = seat.remote.call_after_stop(move |map| {
                // A busy loop begins later, and ends with the others.
                let late = asked.elapsed();
                let lame_duck = options.lame_duck.saturating_sub(late);
                let deadline = options.deadline.saturating_sub(late);
                map.drain(&options.with_lame_duck(lame_duck).with_deadline(deadline));
            });
        }
    }

    fn stop(&self) {
        self.ending.store(true, Ordering::Release);
        self.seats().iter().for_each(|seat| seat.remote.stop());
    }
}

/// The loops of a [`LoopGroup`](crate::LoopGroup), for other threads and for dispatchers. Cheap to clone; it does
/// not keep the group going.
///
/// What one thread sends to one loop arrives there in order. No loop ever waits for another.
///
/// ```
/// use dispatch_loop::LoopGroup;
///
/// let group = LoopGroup::start(2, |_, _| Ok(()))?;
/// let loops = group.loops();
/// loops.broadcast(|index, map| println!("loop {index} has {} channels", map.len()))?;
/// loops.stop();
/// group.join()?;
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone)]
pub struct Loops(Arc<Shared>);

impl Loops {
    pub(super) fn new(shared: Arc<Shared>) -> Loops {
        Loops(shared)
    }

    pub(super) fn failure(&self) -> Option<io::Error> {
        let state = self.0.lock();
        let (index, kind, why) = state.failure.as_ref()?;
        Some(io::Error::new(*kind, format!("loop {index}: {why}")))
    }

    /// A map of one's own as the only loop, for code that works with one as with several.
    ///
    /// ```
    /// use dispatch_loop::{ChannelMap, Loops, Topics};
    ///
    /// let mut map = ChannelMap::new()?;
    /// let topics = Topics::new(&Loops::of(&mut map));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn of(map: &mut ChannelMap) -> Loops {
        let shared = Shared::new(1);
        shared.take_seats(vec![Seat::new(map)]);
        Loops(Arc::new(shared))
    }

    /// How many loops there are.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.0.loops
    }

    /// The way to one loop.
    ///
    /// # Panics
    /// There is no such loop.
    pub fn remote(&self, index: usize) -> &Remote {
        &self.0.seats()[index].remote
    }

    pub(super) fn listeners(&self) -> &Load {
        &self.0.listeners
    }

    /// As a loop that fails: the group ends in order, with this error.
    pub(super) fn fail(&self, index: usize, error: &io::Error) {
        self.0.fail(index, error);
    }

    pub(super) fn load(&self, index: usize) -> &Load {
        &self.0.seats()[index].load
    }

    /// The loops, the one with the fewest connections first.
    pub(super) fn by_load(&self) -> Vec<usize> {
        let mut order: Vec<(usize, usize)> =
            self.0.seats().iter().enumerate().map(|(index, seat)| (seat.load.get(), index)).collect();
        order.sort_unstable();
        order.into_iter().map(|(_, index)| index).collect()
    }

    /// How many connections each loop has of those that it was handed, or has accepted for the group.
    pub fn loads(&self) -> Vec<usize> {
        self.0.seats().iter().map(|seat| seat.load.get()).collect()
    }

    /// Call `f` on each loop's thread, with its number: the same closure, shared, one message a loop.
    ///
    /// While a loop's queue is full, this waits; on a thread that owns a map, such as that of a loop, it does
    /// not, and that loop is left out.
    ///
    /// # Errors
    /// A loop could not be told, because its queue is full or it has ended; the others were.
    pub fn broadcast(&self, f: impl Fn(usize, &mut ChannelMap) + Send + Sync + 'static) -> io::Result<()> {
        let f = Arc::new(f);
        let mut result = Ok(());
        for (index, seat) in self.0.seats().iter().enumerate() {
            let f = f.clone();
            if let Err(refused) = seat.remote.call(move |map| f(index, map)) {
                result = result.and(Err(not_told(index, &refused)));
            }
        }
        result
    }

    /// Which of the loops has this map.
    pub(super) fn index_of(&self, map: &ChannelMap) -> Option<usize> {
        self.0.seats().iter().position(|seat| seat.map == map.id)
    }

    /// Move a channel to another loop, with input that was put back and output that is queued: it is detached
    /// here, and `adopt` adds it there, where a dispatcher is to be made for it. An `Err` of `adopt` is logged.
    ///
    /// ```
    /// use dispatch_loop::{Channel, Dispatcher, Loops};
    /// use std::io;
    ///
    /// struct Busy {
    ///     loops: Loops,
    /// }
    ///
    /// impl Dispatcher for Busy {
    ///     fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
    ///         let loops = self.loops.clone();
    ///         self.loops.hand_over(ch, 1, move |map, moved| {
    ///             let moved_in = map.add(moved.socket, Busy { loops })?;
    ///             let mut ch = map.channel(moved_in)?;
    ///             ch.unread(&moved.unread);
    ///             ch.push_vec(moved.unsent)
    ///         })
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`detach`](Channel::detach). If the other loop has no room in its queue or has ended, the channel
    /// stays; this takes a place in that queue first.
    ///
    /// # Panics
    /// There is no such loop.
    pub fn hand_over(
        &self,
        ch: &mut Channel<'_>,
        to: usize,
        adopt: impl FnOnce(&mut ChannelMap, Detached) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        // The message goes first, and waits for what it brings: nothing is detached in vain.
        let parcel: Arc<Mutex<Option<Detached>>> = Arc::default();
        let mut held = parcel.lock().unwrap_or_else(PoisonError::into_inner);
        let (brought, raised) = (parcel.clone(), self.load(to).raise());
        let sent = self.remote(to).call(move |map| {
            let detached = brought.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some(mut detached) = detached else { return };
            detached.socket.count_for(raised);
            if let Err(error) = adopt(map, detached) {
                log::warn!("a channel that was handed over: {error}");
            }
        });
        sent.map_err(|refused| not_told(to, &refused))?;
        *held = Some(ch.detach()?);
        Ok(())
    }

    /// The numbers of each loop; [`Numbers::add`] sums them. Of a loop that does not answer within a second,
    /// those of earlier; on a thread that owns a map, of all of them. Turns are timed from the first call on.
    pub fn numbers(&self) -> Vec<Numbers> {
        self.0.seats().iter().map(|seat| seat.meter.read(PATIENCE)).collect()
    }

    /// The second signal, which has ended a drain before its time: see `LoopGroup::drain_on_signals` (feature
    /// `signals`).
    pub fn signal(&self) -> Option<i32> {
        Some(self.0.signal.load(Ordering::Acquire)).filter(|signal| *signal != 0)
    }

    /// A signal has come to this loop, as it does to each of them.
    #[cfg(feature = "signals")]
    pub(super) fn take_signal(&self, map: &mut ChannelMap, signal: i32, options: &DrainOptions) {
        // The others need not be told when this one ends first: to them it would look like a second signal.
        self.0.ending.store(true, Ordering::Release);
        if map.is_draining() {
            self.0.signal.store(signal, Ordering::Release);
            map.drain(&options.with_lame_duck(Duration::ZERO).with_deadline(Duration::ZERO));
        } else {
            map.drain(options);
        }
    }

    /// As [`LoopGroup::drain`](crate::LoopGroup::drain).
    pub fn drain(&self, options: &DrainOptions) {
        self.0.drain(options);
    }

    /// As [`LoopGroup::stop`](crate::LoopGroup::stop).
    pub fn stop(&self) {
        self.0.stop();
    }

    /// Call `f` on a loop's thread, and wait for what it returns.
    pub(super) fn ask<R: Send + 'static>(
        &self,
        index: usize,
        f: impl FnOnce(&mut ChannelMap) -> R + Send + 'static,
    ) -> io::Result<R> {
        if owns_a_map() {
            let why = "a loop must not wait for another; do this on a thread without a map";
            return Err(io::Error::new(ErrorKind::Deadlock, why));
        }
        let (answer, answers) = mpsc::channel();
        let asked = self.remote(index).call(move |map| drop(answer.send(f(map))));
        asked.map_err(|refused| not_told(index, &refused))?;
        let gone = |_| io::Error::new(ErrorKind::BrokenPipe, format!("loop {index} has ended"));
        answers.recv().map_err(gone)
    }
}

/// A message to a loop was refused.
pub(super) fn not_told<T>(index: usize, refused: &SendError<T>) -> io::Error {
    let kind = match refused {
        SendError::Full(_) => ErrorKind::QuotaExceeded,
        SendError::Stopped(_) | SendError::Ended(_) => ErrorKind::BrokenPipe,
    };
    io::Error::new(kind, format!("loop {index}: {refused}"))
}

impl fmt::Debug for Loops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loops").field("loads", &self.loads()).finish_non_exhaustive()
    }
}
