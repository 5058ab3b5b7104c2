//! What the loops of a group share, and what other threads may hold of it.

use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::time::Duration;

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
        Seat { map: map.id, remote: map.remote(), meter: map.meter(), load: Load::default() }
    }
}

pub(super) struct Shared {
    loops: usize,
    seats: OnceLock<Box<[Seat]>>,
    /// The end is wanted: a loop that returns has not failed.
    ending: AtomicBool,
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

    /// All loops that could start have done so.
    pub(super) fn take_seats(&self, seats: Vec<Seat>) {
        if seats.len() < self.loops {
            self.lock().failure.get_or_insert((0, ErrorKind::Other, "it did not start".to_owned()));
        }
        let _ = self.seats.set(seats.into());
        self.lock().seated = true;
        self.changed.notify_all();
    }

    /// Before that, a loop might hand over to one that is not there.
    pub(super) fn wait_for_seats(&self) {
        let is_missing = |state: &mut State| !state.seated;
        drop(self.changed.wait_while(self.lock(), is_missing).unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn has_failed(&self) -> bool {
        self.lock().failure.is_some()
    }

    /// A loop has failed: the others end with it.
    pub(super) fn fail(&self, index: usize, error: &io::Error) {
        self.lock().failure.get_or_insert((index, error.kind(), error.to_string()));
        self.stop();
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
        for seat in self.seats() {
            let options = options.clone();
            // Refused only if it has ended.
            let _ = seat.remote.call_after_stop(move |map| map.drain(&options));
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

    pub(super) fn is_complete(&self) -> bool {
        self.0.seats().len() == self.0.loops && !self.0.has_failed()
    }

    pub(super) fn failure(&self) -> Option<io::Error> {
        let state = self.0.lock();
        let (index, kind, why) = state.failure.as_ref()?;
        Some(io::Error::new(*kind, format!("loop {index}: {why}")))
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
    /// those of earlier; on a thread that owns a map, of all of them.
    pub fn numbers(&self) -> Vec<Numbers> {
        self.0.seats().iter().map(|seat| seat.meter.read(PATIENCE)).collect()
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
