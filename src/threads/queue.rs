//! The bounded queue between the loop and other threads, which `Remote` and `Outlet` both put their
//! messages into: so what one thread gives to the two takes effect in that order. Who waits for
//! room, who is woken, and what becomes of messages when the loop stops or the map goes.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, unbounded};

use crate::error::panicked;
use crate::report::Escaped;
use crate::sys::poll::Waker;
use crate::threads::bell::Bell;
use crate::threads::credit::Credit;
use crate::threads::outlet::Outlet;
use crate::threads::remote::{Call, Remote, SendError};
use crate::token::Token;

pub(crate) enum Message {
    Call(Call),
    /// For a channel; from an outlet, if there is a credit.
    Bytes(Token, Vec<u8>, Option<Arc<Credit>>),
}

impl Message {
    pub(crate) fn into_call(self) -> Call {
        match self {
            Message::Call(call) => call,
            Message::Bytes(..) => unreachable!("a call is given back as a call"),
        }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        match self {
            Message::Bytes(_, bytes, _) => bytes,
            Message::Call(_) => unreachable!("bytes are given back as bytes"),
        }
    }
}

const OPEN: u8 = 0;
const STOPPED: u8 = 1;
const GONE: u8 = 2;

pub(crate) struct Shared {
    queue: Sender<Message>,
    /// The loop's end of it; here, so that what comes too late can still be dropped.
    taken: Receiver<Message>,
    /// What threads of our own have found out: as much as there are channels that wait for it, and
    /// never refused.
    answers: (Sender<Call>, Receiver<Call>),
    waker: Waker,
    bell: Bell,
    stop: AtomicBool,
    state: AtomicU8,
    /// What threads that need room or credit wait with.
    lock: Mutex<()>,
    changed: Condvar,
    /// Whom to tell of a stop and of the end, by number.
    watches: Mutex<BTreeMap<u64, Watch>>,
    last_watch: AtomicU64,
}

type Watch = Arc<dyn Fn() + Send + Sync>;

impl Shared {
    /// Call the loop out of its wait, unless it comes by anyway. After the message is in the queue.
    pub(crate) fn wake(&self) {
        if self.bell.must_ring() {
            self.waker.wake();
        }
    }

    pub(crate) fn post(&self, message: Message, wait: bool) -> Result<(), SendError<Message>> {
        if let Err(error) = self.check() {
            return Err(error.map(|()| message));
        }
        match self.queue.try_send(message) {
            Ok(()) => {
                self.wake();
                self.drop_if_gone();
                Ok(())
            }
            Err(TrySendError::Disconnected(message)) => Err(SendError::Ended(message)),
            Err(TrySendError::Full(message)) => self.post_when_there_is_room(message, wait && !owns_a_map()),
        }
    }

    fn post_when_there_is_room(&self, message: Message, may_wait: bool) -> Result<(), SendError<Message>> {
        let mut kept = Some(message);
        let result = self.wait_until(may_wait, || match self.queue.try_send(kept.take()?) {
            Ok(()) => Some(Ok(())),
            Err(TrySendError::Full(message)) => {
                kept = Some(message);
                None
            }
            Err(TrySendError::Disconnected(message)) => {
                kept = Some(message);
                Some(Err(SendError::Ended(())))
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

    fn take(&self) -> Option<Message> {
        let answer = self.answers.1.try_recv().map(Message::Call);
        answer.or_else(|_| self.taken.try_recv()).ok()
    }

    fn drop_all(&self) {
        while let Some(message) = self.take() {
            // The closure is the user's, and its drop may panic.
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(message))) {
                log::warn!("the drop of a message {}", Escaped(panicked(payload)));
            }
        }
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
        drop(watch);
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
        let result = loop {
            if let Err(error) = self.check() {
                break Err(error);
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

/// The loop's end of the queue; there is one when somebody has asked for a remote.
pub(crate) struct Mailbox {
    shared: Arc<Shared>,
}

impl Mailbox {
    pub(crate) fn new(waker: Waker, capacity: usize, stopped: bool) -> Mailbox {
        let (sender, receiver) = bounded(capacity);
        let shared = Shared {
            queue: sender,
            taken: receiver,
            answers: unbounded(),
            waker,
            bell: Bell::new(),
            stop: AtomicBool::new(false),
            state: AtomicU8::new(if stopped { STOPPED } else { OPEN }),
            lock: Mutex::new(()),
            changed: Condvar::new(),
            watches: Mutex::default(),
            last_watch: AtomicU64::new(0),
        };
        Mailbox { shared: Arc::new(shared) }
    }

    pub(crate) fn remote(&self) -> Remote {
        Remote { shared: self.shared.clone() }
    }

    pub(crate) fn outlet(&self, token: Token, credit: Arc<Credit>) -> Outlet {
        Outlet { shared: self.shared.clone(), token, credit }
    }

    pub(crate) fn answers(&self) -> Answers {
        Answers(self.shared.clone())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.shared.taken.is_empty() && self.shared.answers.1.is_empty()
    }

    pub(crate) fn take(&self) -> Option<Message> {
        self.shared.take()
    }

    /// The loop has waited and is at work, for as long as the guard lives: it will look at the
    /// queue again before it waits, and need not be woken.
    pub(crate) fn busy(&self) -> Busy {
        self.shared.bell.go_to_work();
        Busy(self.shared.clone())
    }

    pub(crate) fn is_stop_asked(&self) -> bool {
        self.shared.stop.load(Ordering::SeqCst)
    }

    pub(crate) fn take_stop(&self) -> bool {
        self.shared.stop.swap(false, Ordering::SeqCst)
    }

    /// Refuse what comes from now on, and wake who waits; or take it again.
    pub(crate) fn set_stopped(&self, stopped: bool) {
        self.shared.state.store(if stopped { STOPPED } else { OPEN }, Ordering::SeqCst);
        if stopped {
            self.shared.tell_of_the_stop();
        } else {
            self.shared.tell_waiters();
        }
    }

    /// The map goes: refuse everything for good, and wake who waits.
    pub(crate) fn end(&self) {
        // Said once: a map's drop, and that of its mailbox, both come here.
        if self.shared.state.swap(GONE, Ordering::SeqCst) != GONE {
            self.shared.tell_of_the_stop();
        }
    }

    /// Tell the outlets of a channel how it stands.
    pub(crate) fn publish(&self, credit: &Credit, queued: usize, high: usize, ended: bool) {
        credit.set(queued, high, ended);
        self.shared.tell_waiters();
    }
}

/// The way back of a thread that finds something out for a channel.
pub(crate) struct Answers(Arc<Shared>);

impl Answers {
    /// Run `answer` on the loop's thread, also after a stop, when it runs again.
    pub(crate) fn give(&self, answer: Call) {
        // It fails when nobody will ever take it.
        let _ = self.0.answers.0.send(answer);
        self.0.wake();
        self.0.drop_if_gone();
    }
}

pub(crate) struct Busy(Arc<Shared>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.bell.leave_work();
        // There is room again for what was taken.
        self.0.tell_waiters();
    }
}

impl Drop for Mailbox {
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
    MAPS.get() > 0
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
