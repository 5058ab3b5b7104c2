//! The numbers of a map: counters that its loop keeps, and a snapshot of them for whoever asks.

use std::fmt;
use std::time::{Duration, Instant};

use crate::reason::Reason;

/// What the loop of a map has done, and what the map holds: a snapshot, made by
/// [`ChannelMap::numbers`](crate::ChannelMap::numbers) and [`Meter::read`](crate::Meter::read).
///
/// Counters begin at zero with the map and only grow. Gauges (`channels` and what follows it) are of the
/// moment of the snapshot.
///
/// ```
/// use dispatch_loop::{ChannelMap, Channel, Dispatcher};
/// use std::io::{self, Write};
///
/// struct Echo;
///
/// impl Dispatcher for Echo {
///     fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
///         ch.read_with(|ch, data| ch.push(data))
///     }
/// }
///
/// let (near, mut far) = std::os::unix::net::UnixStream::pair()?;
/// let mut map = ChannelMap::new()?;
/// map.add(near, Echo)?;
/// far.write_all(b"hello")?;
/// map.turn(None)?;
/// let numbers = map.numbers();
/// assert_eq!((numbers.bytes_in, numbers.bytes_out, numbers.open), (5, 5, 1));
/// # io::Result::Ok(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Numbers {
    /// When the snapshot was made.
    pub taken: Instant,
    /// Turns of the loop. In each it waits once, if only for no time.
    pub turns: u64,
    /// Descriptors that were reported ready.
    pub events: u64,
    /// Hooks that were called; `readable` and `writable` are not counted.
    pub hooks: u64,
    /// Bytes that channels have received; through a source of one's own, what it gave.
    pub bytes_in: u64,
    /// Bytes that the system, or a source of one's own, has taken from channels.
    pub bytes_out: u64,
    /// Connections that listeners have accepted and not [refused](Numbers::refusals).
    pub accepts: u64,
    /// Calls of `accept` that failed, but for those that found nothing.
    pub accept_errors: u64,
    /// By limit.
    pub(crate) refusals: [u64; LIMITS.len()],
    pub(crate) rests: [u64; LIMITS.len()],
    /// Hooks that took too long, by [name](Numbers::slow_hooks).
    pub(crate) slow: Vec<(&'static str, u64)>,
    /// Channels that have ended, by [reason](Numbers::closes).
    pub(crate) closes: [u64; Reason::NAMES.len()],
    /// Channels in the map: the sum of the next four.
    pub channels: usize,
    /// Listeners.
    pub listening: usize,
    /// Channels whose `connect` is in progress.
    pub connecting: usize,
    /// Channels that can carry data, or are about to open.
    pub open: usize,
    /// Closing channels: something queued is still being sent, or the peer's end is awaited.
    pub closing: usize,
    /// Bytes queued on all channels.
    pub queued: u64,
    /// Timers set, the library's own included.
    pub timers: usize,
    /// Messages of other threads that wait.
    pub messages: usize,
    /// [Calls that block](crate::ChannelMap::spawn_blocking) and wait for a thread.
    pub blocking_waiting: usize,
    /// Such calls that are under way, or whose results have not been taken yet.
    pub blocking_running: usize,
    /// How long turns took, without their waits. Recorded while there is a [`Meter`](crate::Meter).
    pub turn_time: Histogram,
    /// How late timers ran.
    pub lag: Histogram,
}

impl Numbers {
    /// How often a hook, or what is called like one (`"a timer"`), was found to take longer than the threshold of
    /// [`watch_slow_hooks`](crate::ChannelMap::watch_slow_hooks), for those that were.
    pub fn slow_hooks(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.slow.iter().copied()
    }

    /// Add those of another map: counters and gauges are summed. `taken` stays.
    pub fn add(&mut self, other: &Numbers) {
        let counters = [
            (&mut self.turns, other.turns),
            (&mut self.events, other.events),
            (&mut self.hooks, other.hooks),
            (&mut self.bytes_in, other.bytes_in),
            (&mut self.bytes_out, other.bytes_out),
            (&mut self.accepts, other.accepts),
            (&mut self.accept_errors, other.accept_errors),
            (&mut self.queued, other.queued),
        ];
        counters.into_iter().for_each(|(sum, one)| *sum += one);
        let by_cause = self.closes.iter_mut().zip(other.closes);
        let by_limit = self.refusals.iter_mut().zip(other.refusals);
        let rests = self.rests.iter_mut().zip(other.rests);
        by_cause.chain(by_limit).chain(rests).for_each(|(sum, one)| *sum += one);
        for &(name, times) in &other.slow {
            match self.slow.iter_mut().find(|(slow, _)| *slow == name) {
                Some((_, sum)) => *sum += times,
                None => self.slow.push((name, times)),
            }
        }
        let gauges = [
            (&mut self.channels, other.channels),
            (&mut self.listening, other.listening),
            (&mut self.connecting, other.connecting),
            (&mut self.open, other.open),
            (&mut self.closing, other.closing),
            (&mut self.timers, other.timers),
            (&mut self.messages, other.messages),
            (&mut self.blocking_waiting, other.blocking_waiting),
            (&mut self.blocking_running, other.blocking_running),
        ];
        gauges.into_iter().for_each(|(sum, one)| *sum += one);
        self.turn_time.add(&other.turn_time);
        self.lag.add(&other.lag);
    }

    /// How many channels have ended for each reason, with its name: `"end of stream"`, `"closed"`,
    /// `"aborted"`, `"error"`, `"timed out"`, `"limit"`, `"detached"`, `"map ended"`. The
    /// library's own channels, such as the attempts of a `connect` by name, are among them.
    pub fn closes(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Reason::NAMES.into_iter().zip(self.closes)
    }

    /// How many connections were accepted and refused, for each limit of [`AcceptLimits`] that can be the
    /// cause, with its name: `"total"`, `"per peer"`, `"rate"`.
    ///
    /// [`AcceptLimits`]: crate::AcceptLimits
    pub fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        LIMITS.into_iter().zip(self.refusals).filter(|(limit, _)| *limit != "descriptors")
    }

    /// How often a listener at which somebody waited had to rest, for each cause, with its name: `"total"`
    /// and `"rate"`, which are limits of [`AcceptLimits`], and `"descriptors"`, of which there were not
    /// enough, or no memory.
    ///
    /// [`AcceptLimits`]: crate::AcceptLimits
    pub fn rests(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        LIMITS.into_iter().zip(self.rests).filter(|(limit, _)| *limit != "per peer")
    }
}

/// The limits that keep connections out, in the order of `AcceptLimit`.
const LIMITS: [&str; 4] = ["total", "per peer", "rate", "descriptors"];

/// Counters that only the thread of the map touches.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters {
    pub(crate) events: u64,
    pub(crate) hooks: u64,
    /// Of channels that have ended.
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) accepts: u64,
    pub(crate) accept_errors: u64,
    pub(crate) refusals: [u64; LIMITS.len()],
    pub(crate) rests: [u64; LIMITS.len()],
    pub(crate) closes: [u64; Reason::NAMES.len()],
    pub(crate) turn_time: Histogram,
    pub(crate) lag: Histogram,
}

impl Counters {
    /// A channel has ended.
    pub(crate) fn ended(&mut self, reason: &Reason, received: u64, sent: u64) {
        self.bytes_in += received;
        self.bytes_out += sent;
        self.closes[reason.index()] += 1;
    }

    /// A snapshot; of what channels hold, those that have ended are in it.
    pub(crate) fn snapshot(&self, taken: Instant, turns: u64) -> Numbers {
        Numbers {
            taken,
            turns,
            events: self.events,
            hooks: self.hooks,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            accepts: self.accepts,
            accept_errors: self.accept_errors,
            refusals: self.refusals,
            rests: self.rests,
            slow: Vec::new(),
            closes: self.closes,
            channels: 0,
            listening: 0,
            connecting: 0,
            open: 0,
            closing: 0,
            queued: 0,
            timers: 0,
            messages: 0,
            blocking_waiting: 0,
            blocking_running: 0,
            turn_time: self.turn_time.clone(),
            lag: self.lag.clone(),
        }
    }
}

/// How many buckets there are: up to 2^35 ns, which is 34 s, and one for what is longer.
const BUCKETS: usize = 27;

/// The exponent of the first bucket's bound: 2^10 ns, about 1 µs.
const FIRST: u32 = 10;

/// Durations, counted in buckets that double from 1 µs (1,024 ns) to 34 s (2^35 ns).
///
/// ```
/// use dispatch_loop::ChannelMap;
///
/// let map = ChannelMap::new()?;
/// let turns = map.numbers().turn_time;
/// assert_eq!(turns.count(), 0);
/// assert_eq!(turns.quantile(0.99), None);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    buckets: [u64; BUCKETS],
    sum: Duration,
}

impl Histogram {
    pub(crate) fn record(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        // The number of bits that it takes to write `nanos - 1`: times up to and with a power are below it.
        let bits = u64::BITS - nanos.saturating_sub(1).leading_zeros();
        self.buckets[(bits.saturating_sub(FIRST) as usize).min(BUCKETS - 1)] += 1;
        self.sum += time;
    }

    fn add(&mut self, other: &Histogram) {
        self.buckets.iter_mut().zip(other.buckets).for_each(|(sum, one)| *sum += one);
        self.sum += other.sum;
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Their sum.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// For each bucket, the longest duration that belongs to it (`None`: any that is longer than the others
    /// allow), and how many are in this bucket.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> + '_ {
        self.buckets.iter().enumerate().map(|(at, count)| (bound(at), *count))
    }

    /// An upper bound for the shortest `q` of all durations, to within a factor of 2: 0.5 gives the median,
    /// 0.99 what one in a hundred exceeds. `None` if nothing was recorded.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let count = self.count();
        let wanted = (count as f64 * q.clamp(0.0, 1.0)).ceil().max(1.0) as u64;
        let mut seen = 0;
        let at = self.buckets.iter().position(|bucket| {
            seen += bucket;
            seen >= wanted
        });
        at.map(|at| bound(at).unwrap_or(Duration::MAX))
    }
}

/// The longest duration in a bucket; the last one takes all that is longer.
fn bound(at: usize) -> Option<Duration> {
    (at < BUCKETS - 1).then(|| Duration::from_nanos(1 << (FIRST as usize + at)))
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.count())
            .field("median", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .field("longest", &self.quantile(1.0))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_is_in_the_bucket_that_it_fits() {
        let mut histogram = Histogram::default();
        for nanos in [0, 1024, 1025, 2048, 1 << 35, (1 << 35) + 1, u64::MAX] {
            histogram.record(Duration::from_nanos(nanos));
        }
        let filled: Vec<_> = histogram.buckets().filter(|(_, count)| *count > 0).collect();
        let nanos = |n| Some(Duration::from_nanos(n));
        assert_eq!(filled, [(nanos(1024), 2), (nanos(2048), 2), (nanos(1 << 35), 1), (None, 2)]);
        assert_eq!(histogram.count(), 7);
    }

    #[test]
    fn a_quantile_is_a_bound_for_that_part_of_all() {
        let mut histogram = Histogram::default();
        for _ in 0..99 {
            histogram.record(Duration::from_micros(100));
        }
        histogram.record(Duration::from_millis(100));
        let micros = |n: u64| Duration::from_nanos(n << 10);
        assert_eq!(histogram.quantile(0.5), Some(micros(128)));
        assert_eq!(histogram.quantile(0.99), Some(micros(128)));
        assert_eq!(histogram.quantile(1.0), Some(micros(131_072)));
    }
}
