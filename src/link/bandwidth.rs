//! Bandwidth: what one channel, or a group of them, may carry; and how a channel waits for its share.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

use crate::bucket::Bucket;
use crate::clock::{self, Time};

/// What is waited for at most, in bytes.
const MOST: u64 = 64 * 1024;
/// What is waited for is what comes in this part of a second.
const PARTS: u64 = 10;

/// How many bytes a second may pass: a token bucket, for one direction of a channel, or for all that share it.
///
/// Clones share one bucket: channels that are given clones of the same are a group, which together carry no
/// more than it allows, and take turns. It belongs to the thread of its map. Use it with
/// [`set_read_bandwidth`](crate::Channel::set_read_bandwidth) and
/// [`set_write_bandwidth`](crate::Channel::set_write_bandwidth).
///
/// ```
/// use dispatch_loop::{Address, Bandwidth, Channel, Dispatcher, Socket};
/// use std::io;
///
/// struct Echo;
///
/// impl Dispatcher for Echo {
///     fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
///         ch.read_with(|ch, data| ch.push(data))
///     }
/// }
///
/// struct Server {
///     all: Bandwidth,
/// }
///
/// impl Dispatcher for Server {
///     fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
///         let echo = ch.map_mut().add(socket, Echo)?;
///         let own = Bandwidth::new(20 * 1024).with_burst(64 * 1024);
///         ch.map_mut().channel(echo)?.set_write_bandwidth([&own, &self.all]);
///         Ok(())
///     }
/// }
///
/// let server = Server { all: Bandwidth::new(1024 * 1024) };
/// ```
#[derive(Clone)]
pub struct Bandwidth {
    rate: u64,
    bucket: Rc<Cell<Bucket>>,
}

impl Bandwidth {
    /// So many bytes a second, at least 1, and a burst of as many.
    pub fn new(bytes_per_second: u64) -> Bandwidth {
        Bandwidth::with(bytes_per_second, bytes_per_second)
    }

    /// The same rate with another burst: how many bytes may pass at once after a pause, at least 1. The bucket
    /// is a new one, which is full; so call it before making clones.
    #[must_use]
    pub fn with_burst(self, bytes: u64) -> Bandwidth {
        Bandwidth::with(self.rate, bytes)
    }

    fn with(rate: u64, burst: u64) -> Bandwidth {
        let bucket = Bucket::new(rate, burst, clock::now());
        Bandwidth { rate, bucket: Rc::new(Cell::new(bucket)) }
    }

    fn available(&self, now: Time) -> u64 {
        self.bucket.get().available(now)
    }

    fn change(&self, f: impl FnOnce(&mut Bucket)) {
        let mut bucket = self.bucket.get();
        f(&mut bucket);
        self.bucket.set(bucket);
    }

    /// For how much a channel waits: not for each byte, and not so long that others wait long for it.
    fn share(&self) -> u64 {
        (self.rate / PARTS).clamp(1, MOST).min(self.bucket.get().burst())
    }
}

impl fmt::Debug for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut view = f.debug_struct("Bandwidth");
        view.field("bytes_per_second", &self.rate).field("burst", &self.bucket.get().burst()).finish()
    }
}

/// One direction of a channel with limited bandwidth.
pub(crate) struct Flow {
    /// It is within each of them. There is at least one.
    of: Vec<Bandwidth>,
    /// Bytes that were taken from the buckets, and have not passed yet.
    granted: u64,
    wait: Wait,
    /// How often it has waited.
    pub(super) waits: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    No,
    /// The settle sets a timer.
    Due(Time),
    Timed(Time),
}

impl Flow {
    pub(super) fn new(of: Vec<Bandwidth>) -> Flow {
        Flow { of, granted: 0, wait: Wait::No, waits: 0 }
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.wait != Wait::No
    }

    /// How many bytes may pass now, of `wanted`. If it is none, the flow waits from now on, in line behind those
    /// of the same group that wait already: what it waits for is taken from the buckets at once. It is no more
    /// than is `there` to pass, as others would wait for what nobody uses.
    pub(super) fn admit(&mut self, wanted: u64, there: impl FnOnce() -> u64) -> u64 {
        if self.is_waiting() || wanted == 0 {
            return 0;
        }
        let now = clock::now();
        let available = self.of.iter().map(|bandwidth| bandwidth.available(now)).min().unwrap_or(0);
        let share = self.of.iter().map(Bandwidth::share).min().unwrap_or(1).min(wanted);
        let admitted = self.granted + if available >= share { available } else { 0 };
        if admitted > 0 {
            return admitted.min(wanted);
        }
        let share = share.min(there().max(1));
        let wait = self.of.iter().map(|bandwidth| bandwidth.bucket.get().wait_for(share, now)).max();
        self.take(share, now);
        self.granted = share;
        self.wait = Wait::Due(now.after(wait.unwrap_or_default()));
        self.waits = self.waits.wrapping_add(1);
        0
    }

    /// So many have passed.
    pub(super) fn passed(&mut self, bytes: u64) {
        let granted = bytes.min(self.granted);
        self.granted -= granted;
        if bytes > granted {
            self.take(bytes - granted, clock::now());
        }
    }

    fn take(&self, bytes: u64, now: Time) {
        self.of.iter().for_each(|bandwidth| bandwidth.change(|bucket| bucket.take(bytes, now)));
    }

    /// Until when it waits, if a timer is to be set for that; once for each wait.
    pub(super) fn begins_wait(&mut self) -> Option<Time> {
        let Wait::Due(until) = self.wait else { return None };
        self.wait = Wait::Timed(until);
        Some(until)
    }

    /// Whether it has waited, and the wait is over.
    pub(super) fn ends_wait(&mut self, now: Time) -> bool {
        let over = matches!(self.wait, Wait::Timed(until) if until <= now);
        if over {
            self.wait = Wait::No;
        }
        over
    }
}

/// What it has not used, others may.
impl Drop for Flow {
    fn drop(&mut self) {
        self.of.iter().for_each(|bandwidth| bandwidth.change(|bucket| bucket.give_back(self.granted)));
    }
}
