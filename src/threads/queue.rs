//! The bounded queue between the loop and other threads, generic in its message. `Remote` and `Outlet`
//! both put theirs into it: so what one thread gives to the two takes effect in that order. Who waits for
//! room, who is woken, and what becomes of messages when the loop stops or the map goes.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::error::panicked;
use crate::guard::drop_caught;
use crate::report::Escaped;
use crate::sys::poll::Waker;
use crate::threads::bell::Bell;
use crate::threads::room::Room;
use crate::threads::send_error::SendError;

const OPEN: u8 = 0;
const STOPPED: u8 = 1;
const GONE: u8 = 2;

pub(crate) struct Shared<M> {
    /// One queue for all, so that what one thread sends keeps its order.
    queue: Sender<Queued<M>>,
    /// The loop's end of it; here, so that what comes too late can still be dropped.
    taken: Receiver<Queued<M>>,
    /// How many more messages are taken, but for those that are never refused: what threads of our own have
    /// found out, and what drops have left to do. Those are as many as there are channels.
    room: Room,
    waker: Waker,
    bell: Bell,
    stop: AtomicBool,
    state: AtomicU8,
    /// How often the loop was stopped: who waited through one is to know, also if the loop runs again.
    stops: AtomicU64,
    /// What threads that need room or credit wait with.
    lock: Mutex<()>,
    changed: Condvar,
    /// Whom to tell of a stop and of the end, by number.
    watches: Mutex<BTreeMap<u64, Watch>>,
    last_watch: AtomicU64,
}

struct Queued<M> {
    message: M,
    /// It has taken a place.
    counted: bool,
}

type Watch = Arc<dyn Fn() + Send + Sync>;

impl<M> Shared<M> {
    /// Wake the loop from its wait, unless it looks at the queue anyway. Call it after the message is in the
    /// queue.
    pub(crate) fn wake(&self) {
        if self.bell.must_ring() {
            self.waker.wake();
        }
    }

    pub(crate) fn post(&self, message: M, wait: bool) -> Result<(), SendError<M>> {
        if let Err(error) = self.check() {
            return Err(error.map(|()| message));
        }
        match self.try_send(message) {
            Ok(()) => {
                self.wake();
                self.drop_if_gone();
                Ok(())
            }
            Err(message) => self.post_when_there_is_room(message, wait && !owns_a_map()),
        }
    }

    /// Give the message back if there is no room.
    pub(crate) fn try_send(&self, message: M) -> Result<(), M> {
        if !self.room.take() {
            return Err(message);
        }
        // The other end is in this very struct.
        let _ = self.queue.send(Queued { message, counted: true });
        Ok(())
    }

    /// As [`post`](Shared::post), past the bound and through a stop.
    pub(crate) fn post_unbounded(&self, message: M) -> Result<(), SendError<M>> {
        if self.state.load(Ordering::SeqCst) == GONE {
            return Err(SendError::Ended(message));
        }
        let _ = self.queue.send(Queued { message, counted: false });
        self.wake();
        self.drop_if_gone();
        Ok(())
    }

    fn post_when_there_is_room(&self, message: M, may_wait: bool) -> Result<(), SendError<M>> {
        let mut kept = Some(message);
        let result = self.wait_until(may_wait, || match self.try_send(kept.take()?) {
            Ok(()) => Some(Ok(())),
            Err(message) => {
                kept = Some(message);
                None
            }
        });
        match (result, kept) {
            (Err(error), Some(message)) => Err(error.map(|()| message)),
            _ => {
                self.wake();
                self.drop_if_gone();
                Ok(())
            }
        }
    }

    /// A message that was accepted while the map went is dropped with it. After a full fence, which
    /// `wake` has; `end` has another: so one of the two sees the message.
    fn drop_if_gone(&self) {
        if self.state.load(Ordering::SeqCst) == GONE {
            self.drop_all();
        }
    }

    fn take(&self) -> Option<M> {
        let Queued { message, counted } = self.taken.try_recv().ok()?;
        if counted {
            self.room.give_back();
        }
        Some(message)
    }

    fn drop_all(&self) {
        while let Some(message) = self.take() {
            // The closure is the user's, and its drop may panic.
            drop_caught("a message", message);
        }
    }

    /// The loop has not emptied the queue.
    pub(crate) fn keep_news(&self) {
        self.bell.keep_news();
    }

    /// The loop has waited and is at work: until it leaves, it will look at the queue again before it waits, and
    /// need not be woken.
    #[inline]
    pub(crate) fn go_to_work(&self) {
        self.bell.go_to_work();
    }

    #[inline]
    pub(crate) fn leave_work(&self) {
        self.bell.leave_work();
        // There is room again for what was taken.
        self.tell_waiters();
    }

    pub(crate) fn ask_stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.wake();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.state.load(Ordering::SeqCst) != OPEN
    }

    pub(crate) fn watch(&self, watch: Watch) -> u64 {
        let number = self.last_watch.fetch_add(1, Ordering::Relaxed) + 1;
        self.watches().insert(number, watch);
        number
    }

    pub(crate) fn unwatch(&self, number: u64) {
        // Its drop is the user's, and may come back here.
        let watch = self.watches().remove(&number);
        drop_caught("an `on_stop`", watch);
    }

    fn watches(&self) -> MutexGuard<'_, BTreeMap<u64, Watch>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing is taken any more: wake who waits for room, and tell who watches.
    fn tell_of_the_stop(&self) {
        self.tell_waiters();
        let watches: Vec<Watch> = self.watches().values().cloned().collect();
        for watch in watches {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| watch())) {
                log::warn!("an `on_stop` {}", Escaped(panicked(payload)));
            }
            // The last one, if its guard was dropped meanwhile.
            drop_caught("an `on_stop`", watch);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    fn check(&self) -> Result<(), SendError<()>> {
        match self.state.load(Ordering::SeqCst) {
            OPEN => Ok(()),
            STOPPED => Err(SendError::Stopped(())),
            _ => Err(SendError::Ended(())),
        }
    }

    /// Try until `attempt` has an answer, or the loop is stopped or gone; without `may_wait`, once.
    pub(crate) fn wait_until(
        &self,
        may_wait: bool,
        mut attempt: impl FnMut() -> Option<Result<(), SendError<()>>>,
    ) -> Result<(), SendError<()>> {
        let mut guard = self.lock();
        self.bell.begin_waiting();
        let stops = self.stops.load(Ordering::SeqCst);
        let result = loop {
            if let Err(error) = self.check() {
                break Err(error);
            }
            if self.stops.load(Ordering::SeqCst) != stops {
                break Err(SendError::Stopped(()));
            }
            if let Some(answer) = attempt() {
                break answer;
            }
            if !may_wait {
                break Err(SendError::Full(()));
            }
            guard = self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
        };
        self.bell.end_waiting();
        result
    }

    pub(crate) fn wait_while_stopped(&self) {
        let mut guard = self.lock();
        self.bell.begin_waiting();
        while self.state.load(Ordering::SeqCst) == STOPPED {
            guard = self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.bell.end_waiting();
    }

    /// Refuse what comes from now on, and wake who waits; or take it again. The end is for good.
    pub(crate) fn set_stopped(&self, stopped: bool) {
        if self.state.load(Ordering::SeqCst) == GONE {
            return;
        }
        if stopped {
            self.stops.fetch_add(1, Ordering::SeqCst);
            self.state.store(STOPPED, Ordering::SeqCst);
            self.room.shut();
            self.tell_of_the_stop();
        } else {
            self.room.open();
            self.state.store(OPEN, Ordering::SeqCst);
            self.tell_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something that threads may wait for has changed.
    pub(crate) fn tell_waiters(&self) {
        if self.bell.has_waiters() {
            // A thread between its attempt and its wait holds the lock.
            drop(self.lock());
            self.changed.notify_all();
        }
    }
}

/// The loop's end of the queue, which exists once a `Remote` or an `Outlet` was made.
pub(crate) struct Queue<M> {
    shared: Arc<Shared<M>>,
}

impl<M> Queue<M> {
    pub(crate) fn new(waker: Waker, capacity: usize, stopped: bool) -> Queue<M> {
        let (sender, receiver) = unbounded();
        let shared = Shared {
            queue: sender,
            taken: receiver,
            room: Room::new(capacity, stopped),
            waker,
            bell: Bell::new(),
            stop: AtomicBool::new(false),
            state: AtomicU8::new(if stopped { STOPPED } else { OPEN }),
            stops: AtomicU64::new(0),
            lock: Mutex::new(()),
            changed: Condvar::new(),
            watches: Mutex::default(),
            last_watch: AtomicU64::new(0),
        };
        Queue { shared: Arc::new(shared) }
    }

    /// What the threads' ends hold.
    pub(crate) fn shared(&self) -> Arc<Shared<M>> {
        self.shared.clone()
    }

    pub(crate) fn answers(&self) -> Answers<M> {
        Answers(self.shared.clone())
    }

    /// Messages that wait.
    pub(crate) fn len(&self) -> usize {
        self.shared.taken.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.shared.taken.is_empty()
    }

    pub(crate) fn take(&self) -> Option<M> {
        self.shared.take()
    }

    /// Whether it is worth while to look into the queue.
    #[inline]
    pub(crate) fn has_news(&self) -> bool {
        self.shared.bell.has_news()
    }

    /// The queue is about to be emptied; what comes during that is news again.
    pub(crate) fn take_news(&self) {
        self.shared.bell.take_news();
    }

    #[inline]
    pub(crate) fn is_stop_asked(&self) -> bool {
        self.shared.stop.load(Ordering::Acquire)
    }

    pub(crate) fn take_stop(&self) {
        self.shared.stop.store(false, Ordering::SeqCst);
    }

    /// Give no place away any more, if all that was accepted has run.
    pub(crate) fn shut_if_empty(&self) -> bool {
        if self.shared.room.shut() && self.is_empty() {
            return true;
        }
        self.shared.room.open();
        self.shared.tell_waiters();
        false
    }

    pub(crate) fn set_stopped(&self, stopped: bool) {
        self.shared.set_stopped(stopped);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.shared.is_stopped()
    }

    /// The map goes: refuse everything for good, and wake who waits.
    pub(crate) fn end(&self) {
        // Said once: a map's drop, and that of its mailbox, both come here.
        if self.shared.state.swap(GONE, Ordering::SeqCst) != GONE {
            self.shared.tell_of_the_stop();
        }
    }

    /// Something that threads may wait for has changed.
    pub(crate) fn tell_waiters(&self) {
        self.shared.tell_waiters();
    }
}

/// The way back of a thread that finds something out for a channel.
pub(crate) struct Answers<M>(Arc<Shared<M>>);

impl<M> Answers<M> {
    /// Run `answer` on the loop's thread, also after a stop, when it runs again.
    pub(crate) fn give(&self, answer: M) {
        // It fails when nothing will ever take it.
        drop(self.0.post_unbounded(answer));
    }
}

impl<M> Drop for Queue<M> {
    fn drop(&mut self) {
        self.end();
        self.shared.drop_all();
    }
}

thread_local! {
    static MAPS: Cell<usize> = const { Cell::new(0) };
}

/// Whether this thread owns a map: then it must not wait for a loop, be it its own or another's.
pub(crate) fn owns_a_map() -> bool {
    MAPS.try_with(Cell::get).is_ok_and(|maps| maps > 0)
}

/// Counts a map as its thread's for as long as it lives.
pub(crate) struct Owner(());

impl Owner {
    pub(crate) fn new() -> Owner {
        MAPS.set(MAPS.get() + 1);
        Owner(())
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // A map that is dropped with the thread's own locals outlives the count.
        let _ = MAPS.try_with(|maps| maps.set(maps.get() - 1));
    }
}
