//! The clock of a map, which every deadline, timeout and activity stamp uses.

use std::time::{Duration, Instant};

/// A moment, in nanoseconds since the clock was made. It never jumps, and saturates after 584 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time(u64);

impl Time {
    /// `delay` later, or the latest time that can be represented.
    pub(crate) fn after(self, delay: Duration) -> Time {
        Time(self.0.saturating_add(nanos(delay)))
    }

    /// The time since `earlier`; zero if this is not later.
    pub(crate) fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

fn nanos(duration: Duration) -> u64 {
    let whole = duration.as_secs().saturating_mul(1_000_000_000);
    whole.saturating_add(u64::from(duration.subsec_nanos()))
}

/// When a repeating call is next due: a late one skips what it missed.
pub(crate) fn next_beat(deadline: Time, interval: Duration, now: Time) -> Time {
    let next = deadline.after(interval);
    if next > now || interval.is_zero() {
        return next.max(now);
    }
    let late = (now.0 - next.0) % nanos(interval);
    Time(now.0.saturating_add(nanos(interval) - late))
}

/// A turn of the loop: its number, and a time that is good enough to stamp activity, but never to set a
/// timer. The time is updated only while there are timers, since only they look at such stamps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub(crate) number: u32,
    pub(crate) time: Time,
}

pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn new() -> Clock {
        Clock { start: Instant::now() }
    }

    pub(crate) fn now(&self) -> Time {
        Time(nanos(self.start.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_keeps_its_rhythm_and_skips_what_was_missed() {
        let ms = Duration::from_millis;
        let at = |n: u64| Time::default().after(ms(n));
        assert_eq!(next_beat(at(10), ms(10), at(12)), at(20));
        assert_eq!(next_beat(at(10), ms(10), at(55)), at(60));
        assert_eq!(next_beat(at(10), ms(10), at(20)), at(30));
        assert_eq!(next_beat(at(10), ms(0), at(12)), at(12));
    }

    #[test]
    fn a_delay_too_long_for_the_clock_is_as_long_as_can_be() {
        let late = Time(5).after(Duration::MAX);
        assert!(late > Time(5).after(Duration::from_secs(100 * 365 * 24 * 60 * 60)));
        assert_eq!(late.after(Duration::MAX), late);
    }
}
