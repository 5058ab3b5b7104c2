//! What another thread may hold: `Remote`, to have things done on the loop's thread, and `Outlet`, to
//! feed one channel. Both put messages into one bounded queue, so what one thread gives to the two
//! takes effect in that order; and both know the wake-up and the wait that go with it.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::bell::Bell;
use crate::error::panicked;
use crate::poll::Waker;
use crate::report::Escaped;
use crate::{Channel, ChannelMap, Dispatcher, Handle, Token};

/// What [`Remote::call`] sends, and gives back when it cannot.
pub type Call = Box<dyn FnOnce(&mut ChannelMap) + Send>;

/// Bytes that one [`write`](io::Write::write) to an [`Outlet`] takes at most.
const WRITE: usize = 64 * 1024;

/// Why a message was not taken, and the message.
///
/// ```
/// use dispatch_loop::{ChannelMap, SendError};
///
/// let mut map = ChannelMap::new()?;
/// let remote = map.remote();
/// drop(map);
/// let refused = remote.call(|_| println!("too late")).unwrap_err();
/// assert!(matches!(refused, SendError::Ended(_)));
/// # std::io::Result::Ok(())
/// ```
#[non_exhaustive]
pub enum SendError<T> {
    /// There is no room, and this thread does not wait: it asked not to, or it owns a map, and two
    /// loops that wait for each other would never end.
    Full(T),
    /// The loop was stopped, and [`run`](crate::run) has not been called again.
    Stopped(T),
    /// The map is gone, or (to an outlet) the channel.
    Ended(T),
}

impl<T> SendError<T> {
    /// The message.
    pub fn into_inner(self) -> T {
        match self {
            SendError::Full(value) | SendError::Stopped(value) | SendError::Ended(value) => value,
        }
    }

    fn map<U>(self, f: impl FnOnce(T) -> U) -> SendError<U> {
        match self {
            SendError::Full(value) => SendError::Full(f(value)),
            SendError::Stopped(value) => SendError::Stopped(f(value)),
            SendError::Ended(value) => SendError::Ended(f(value)),
        }
    }

    fn text(&self) -> &'static str {
        match self {
            SendError::Full(_) => "the queue to the loop is full",
            SendError::Stopped(_) => "the loop was stopped",
            SendError::Ended(_) => "the channel or its map has ended",
        }
    }
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            SendError::Full(_) => "Full",
            SendError::Stopped(_) => "Stopped",
            SendError::Ended(_) => "Ended",
        };
        write!(f, "{name}(..)")
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl<T> std::error::Error for SendError<T> {}

/// `Full` is `WouldBlock`, the others are `BrokenPipe`; the message is dropped.
impl<T> From<SendError<T>> for io::Error {
    fn from(error: SendError<T>) -> Self {
        let kind = match error {
            SendError::Full(_) => io::ErrorKind::WouldBlock,
            SendError::Stopped(_) | SendError::Ended(_) => io::ErrorKind::BrokenPipe,
        };
        io::Error::new(kind, error.text())
    }
}

pub(crate) enum Message {
    Call(Call),
    /// For a channel; from an outlet, if there is a credit.
    Bytes(Token, Vec<u8>, Option<Arc<Credit>>),
}

impl Message {
    fn into_call(self) -> Call {
        match self {
            Message::Call(call) => call,
            Message::Bytes(..) => unreachable!("a call is given back as a call"),
        }
    }

    fn into_bytes(self) -> Vec<u8> {
        match self {
            Message::Bytes(_, bytes, _) => bytes,
            Message::Call(_) => unreachable!("bytes are given back as bytes"),
        }
    }
}

/// A way from any thread to the loop's: asyncio's `call_soon_threadsafe`. Made by
/// [`ChannelMap::remote`], cloned as often as you like.
///
/// What it has taken runs on the loop's thread, in each thread's order, at most 256 messages a turn,
/// or is dropped with the map. When the queue (1,024 messages, see
/// [`set_remote_capacity`](ChannelMap::set_remote_capacity)) is full, a call waits; on a thread that
/// owns a map it gives the message back instead.
///
/// ```
/// use dispatch_loop::ChannelMap;
///
/// let mut map = ChannelMap::new()?;
/// let remote = map.remote();
/// map.call_later(std::time::Duration::from_secs(60), |_| ());     // keeps the loop waiting
/// let thread = std::thread::spawn(move || {
///     remote.call(|map| println!("on the loop's thread: {} channels", map.len()))?;
///     remote.stop();
///     Ok::<_, dispatch_loop::SendError<_>>(())
/// });
/// dispatch_loop::run(&mut map)?;
/// assert!(thread.join().unwrap().is_ok());
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone)]
pub struct Remote {
    shared: Arc<Shared>,
}

impl Remote {
    /// Run `f` on the loop's thread. A panic of `f` is caught and logged.
    ///
    /// # Errors
    /// `Full` only on a thread that owns a map, `Stopped`, `Ended`; each has the closure.
    pub fn call(&self, f: impl FnOnce(&mut ChannelMap) + Send + 'static) -> Result<(), SendError<Call>> {
        let message = Message::Call(Box::new(f));
        self.shared.post(message, true).map_err(|error| error.map(Message::into_call))
    }

    /// As [`call`](Remote::call), but a stop is only waited for to be over; `false` if `f` will
    /// never run.
    pub(crate) fn call_across_stops(&self, f: impl FnOnce(&mut ChannelMap) + Send + 'static) -> bool {
        let mut message = Message::Call(Box::new(f));
        loop {
            match self.shared.post(message, true) {
                Ok(()) => return true,
                Err(SendError::Stopped(kept)) => message = kept,
                Err(_) => return false,
            }
            self.shared.wait_while_stopped();
        }
    }

    /// Run `f` with a dispatcher and its channel, as [`ChannelMap::with`] does: an `Err` goes to
    /// its `handle_error`, a panic ends that channel. If the channel is gone, `f` is dropped.
    ///
    /// # Errors
    /// As [`call`](Remote::call).
    pub fn with<T, F>(&self, handle: Handle<T>, f: F) -> Result<(), SendError<Call>>
    where
        T: Dispatcher,
        F: FnOnce(&mut T, &mut Channel<'_>) -> io::Result<()> + Send + 'static,
    {
        self.call(move |map| {
            if let Err(error) = map.with(handle, f) {
                log::debug!("a remote `with`: {error}");
            }
        })
    }

    /// Push bytes to a channel, without ever waiting. If the channel is gone or closing when they
    /// arrive, or over its hard limit, they are dropped, and the log says so.
    ///
    /// # Errors
    /// `Full`, `Stopped`, `Ended`; each has the bytes.
    pub fn try_send(
        &self,
        token: impl Into<Token>,
        bytes: impl Into<Vec<u8>>,
    ) -> Result<(), SendError<Vec<u8>>> {
        let message = Message::Bytes(token.into(), bytes.into(), None);
        self.shared.post(message, false).map_err(|error| error.map(Message::into_bytes))
    }

    /// Let [`run`](crate::run) return, as [`ChannelMap::stop`] does. Needs no room in the queue.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.wake();
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("queued", &self.shared.queue.len()).finish_non_exhaustive()
    }
}

/// A producing thread's way to feed one channel, with backpressure: Made by
/// [`Channel::outlet`], cloned as often as you like.
///
/// [`send`](Outlet::send) waits while what is under way to the channel plus what is queued in it is
/// above its high watermark; so a thread that reads a file of any size costs bounded memory. It is
/// woken with an error when the channel ends, the loop stops or the map goes. As an
/// [`io::Write`], an outlet takes at most 64 KiB a call.
///
/// ```
/// use dispatch_loop::{Channel, ChannelMap, Dispatcher};
/// use std::io::{self, Read, Write};
///
/// struct Idle;
/// impl Dispatcher for Idle {}
///
/// let (mut peer, near) = std::os::unix::net::UnixStream::pair()?;
/// let mut map = ChannelMap::new()?;
/// let handle = map.add(near, Idle)?;
/// let mut outlet = map.channel(handle)?.outlet()?;
/// let producer = std::thread::spawn(move || -> io::Result<()> {
///     for n in 0..100_000 {
///         writeln!(outlet, "{n}")?;
///     }
///     outlet.close()?;
///     Ok(())
/// });
/// # let reader = std::thread::spawn(move || { let mut s = String::new(); peer.read_to_string(&mut s).map(|_| s) });
/// dispatch_loop::run(&mut map)?;
/// producer.join().unwrap()?;
/// # assert!(reader.join().unwrap()?.ends_with("99999\n"));
/// # io::Result::Ok(())
/// ```
#[derive(Clone)]
pub struct Outlet {
    shared: Arc<Shared>,
    token: Token,
    credit: Arc<Credit>,
}

impl Outlet {
    /// Give bytes to the channel; wait first while it is above its high watermark. They are never
    /// refused by its hard limit.
    ///
    /// # Errors
    /// `Full` only on a thread that owns a map, `Stopped`, `Ended`; each has the bytes. `Ended` also
    /// after `close`, `abort` or `shutdown_write` of the channel.
    pub fn send(&self, bytes: impl Into<Vec<u8>>) -> Result<(), SendError<Vec<u8>>> {
        self.give(bytes.into(), true)
    }

    /// As [`send`](Outlet::send), but `Full` instead of waiting.
    ///
    /// # Errors
    /// As [`send`](Outlet::send).
    pub fn try_send(&self, bytes: impl Into<Vec<u8>>) -> Result<(), SendError<Vec<u8>>> {
        self.give(bytes.into(), false)
    }

    /// [`shutdown_write`](Channel::shutdown_write) the channel, after all that was sent before.
    ///
    /// # Errors
    /// As [`send`](Outlet::send).
    pub fn shutdown_write(&self) -> Result<(), SendError<()>> {
        self.end(|ch| ch.shutdown_write())
    }

    /// [`close`](Channel::close) the channel, after all that was sent before.
    ///
    /// # Errors
    /// As [`send`](Outlet::send).
    pub fn close(&self) -> Result<(), SendError<()>> {
        self.end(|ch| ch.close())
    }

    /// The channel it feeds.
    pub fn token(&self) -> Token {
        self.token
    }

    fn end(&self, end: fn(&mut Channel<'_>)) -> Result<(), SendError<()>> {
        let token = self.token;
        let call: Call = Box::new(move |map| {
            if let Ok(mut channel) = map.channel(token) {
                end(&mut channel);
            }
        });
        self.shared.post(Message::Call(call), true).map_err(|error| error.map(drop))
    }

    fn give(&self, bytes: Vec<u8>, wait: bool) -> Result<(), SendError<Vec<u8>>> {
        if self.credit.is_over() || self.credit.ended.load(Ordering::SeqCst) {
            let may_wait = wait && !owns_a_map();
            let waited = self.shared.wait_until(may_wait, || {
                if self.credit.ended.load(Ordering::SeqCst) {
                    return Some(Err(SendError::Ended(())));
                }
                (!self.credit.is_over()).then_some(Ok(()))
            });
            if let Err(error) = waited {
                return Err(error.map(|()| bytes));
            }
        }
        let len = bytes.len();
        self.credit.in_flight.fetch_add(len, Ordering::SeqCst);
        let message = Message::Bytes(self.token, bytes, Some(self.credit.clone()));
        self.shared.post(message, wait).map_err(|error| {
            self.credit.in_flight.fetch_sub(len, Ordering::SeqCst);
            // Somebody may have found the account overdrawn meanwhile.
            self.shared.tell_waiters();
            error.map(Message::into_bytes)
        })
    }
}

/// Waits as [`send`](Outlet::send) does; `Deadlock` where it would have to wait on a thread that owns a
/// map, `BrokenPipe` when the channel has ended or the loop was stopped.
impl io::Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = &bytes[..bytes.len().min(WRITE)];
        if taken.is_empty() {
            return Ok(0);
        }
        match self.send(taken) {
            Ok(()) => Ok(taken.len()),
            Err(SendError::Full(_)) => Err(io::Error::new(
                io::ErrorKind::Deadlock,
                "writing to this outlet would have to wait, on a thread that owns a channel map",
            )),
            Err(error) => Err(error.into()),
        }
    }

    /// Nothing to do: what was written is on its way.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outlet").field("token", &self.token).finish_non_exhaustive()
    }
}

/// What the outlets of one channel and the loop know of each other.
pub(crate) struct Credit {
    /// Taken by an outlet, and not yet given to the channel.
    in_flight: AtomicUsize,
    /// In the channel's outbox, and its high watermark, as the loop last saw them.
    queued: AtomicUsize,
    high: AtomicUsize,
    /// Nothing can be sent on the channel any more.
    ended: AtomicBool,
}

impl Credit {
    fn is_over(&self) -> bool {
        let owed = self.in_flight.load(Ordering::SeqCst) + self.queued.load(Ordering::SeqCst);
        owed > self.high.load(Ordering::SeqCst)
    }
}

const OPEN: u8 = 0;
const STOPPED: u8 = 1;
const GONE: u8 = 2;

struct Shared {
    queue: Sender<Message>,
    /// The loop's end of it; here, so that what comes too late can still be dropped.
    taken: Receiver<Message>,
    waker: Waker,
    bell: Bell,
    stop: AtomicBool,
    state: AtomicU8,
    /// What threads that need room or credit wait with.
    lock: Mutex<()>,
    changed: Condvar,
}

impl Shared {
    /// Call the loop out of its wait, unless it comes by anyway. After the message is in the queue.
    fn wake(&self) {
        if self.bell.must_ring() {
            self.waker.wake();
        }
    }

    fn post(&self, message: Message, wait: bool) -> Result<(), SendError<Message>> {
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

    fn drop_all(&self) {
        while let Ok(message) = self.taken.try_recv() {
            // The closure is the user's, and its drop may panic.
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(message))) {
                log::warn!("the drop of a message {}", Escaped(panicked(payload)));
            }
        }
    }

    fn check(&self) -> Result<(), SendError<()>> {
        match self.state.load(Ordering::SeqCst) {
            OPEN => Ok(()),
            STOPPED => Err(SendError::Stopped(())),
            _ => Err(SendError::Ended(())),
        }
    }

    /// Try until `attempt` has an answer, or the loop is stopped or gone; without `may_wait`, once.
    fn wait_until(
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

    fn wait_while_stopped(&self) {
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
    fn tell_waiters(&self) {
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
            waker,
            bell: Bell::new(),
            stop: AtomicBool::new(false),
            state: AtomicU8::new(if stopped { STOPPED } else { OPEN }),
            lock: Mutex::new(()),
            changed: Condvar::new(),
        };
        Mailbox { shared: Arc::new(shared) }
    }

    pub(crate) fn remote(&self) -> Remote {
        Remote { shared: self.shared.clone() }
    }

    pub(crate) fn outlet(&self, token: Token, credit: Arc<Credit>) -> Outlet {
        Outlet { shared: self.shared.clone(), token, credit }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.shared.taken.is_empty()
    }

    pub(crate) fn take(&self) -> Option<Message> {
        self.shared.taken.try_recv().ok()
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
        self.shared.tell_waiters();
    }

    /// The map goes: refuse everything for good, and wake who waits.
    pub(crate) fn end(&self) {
        self.shared.state.store(GONE, Ordering::SeqCst);
        self.shared.tell_waiters();
    }

    /// A new account between a channel and its outlets.
    pub(crate) fn credit() -> Arc<Credit> {
        Arc::new(Credit {
            in_flight: AtomicUsize::new(0),
            queued: AtomicUsize::new(0),
            high: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
        })
    }

    /// `bytes` of an outlet have reached the channel, which has `queued` now. The settle tells
    /// who waits.
    pub(crate) fn arrived(credit: &Credit, bytes: usize, queued: usize) {
        credit.queued.store(queued, Ordering::SeqCst);
        credit.in_flight.fetch_sub(bytes, Ordering::SeqCst);
    }

    /// Tell the outlets of a channel how it stands.
    pub(crate) fn publish(&self, credit: &Credit, queued: usize, high: usize, ended: bool) {
        credit.queued.store(queued, Ordering::SeqCst);
        credit.high.store(high, Ordering::SeqCst);
        credit.ended.store(ended, Ordering::SeqCst);
        self.shared.tell_waiters();
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
fn owns_a_map() -> bool {
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
