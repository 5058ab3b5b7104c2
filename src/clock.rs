//! The clock of a map, which every deadline, timeout and activity stamp uses.

use std::time::{Duration, Instant};

/// A moment. It never jumps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time(Instant);

impl Time {
    /// `delay` later, or the latest time that can be represented.
    pub(crate) fn after(self, delay: Duration) -> Time {
        const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
        Time(self.0.checked_add(delay).unwrap_or_else(|| self.0 + FOREVER))
    }

    /// `delay` earlier, or the same if there is no such time.
    pub(crate) fn before(self, delay: Duration) -> Time {
        Time(self.0.checked_sub(delay).unwrap_or(self.0))
    }

    pub(crate) fn instant(self) -> Instant {
        self.0
    }

    /// The time since `earlier`; zero if this is not later.
    pub(crate) fn since(self, earlier: Time) -> Duration {
        self.0.saturating_duration_since(earlier.0)
    }
}

/// When a repeating call is next due: a late one skips what it missed.
pub(crate) fn next_beat(deadline: Time, interval: Duration, now: Time) -> Time {
    let next = deadline.after(interval);
    if next > now || interval.is_zero() {
        return next.max(now);
    }
    let late = now.since(next).as_nanos() % interval.as_nanos();
    let late = Duration::new((late / 1_000_000_000) as u64, (late % 1_000_000_000) as u32);
    now.after(interval - late)
}

/// A turn of the loop: its number, and a time that is good enough to stamp activity, but never to set a
/// timer. The time is updated only while there are timers, since only they look at such stamps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub(crate) number: u32,
    pub(crate) time: Time,
}

/// Where a map has its time from.
pub(crate) struct Clock {
    #[cfg(feature = "testing")]
    by_hand: bool,
}

impl Clock {
    /// The system's.
    pub(crate) const REAL: Clock = Clock {
        #[cfg(feature = "testing")]
        by_hand: false,
    };

    /// That of the tests of this thread.
    #[cfg(feature = "testing")]
    pub(crate) const BY_HAND: Clock = Clock { by_hand: true };

    #[inline]
    pub(crate) fn now(&self) -> Time {
        #[cfg(feature = "testing")]
        if self.by_hand {
            return now();
        }
        Time(Instant::now())
    }
}

/// The time where no map is at hand: the system's, but on a thread with a map for testing that of its tests.
#[inline]
pub(crate) fn now() -> Time {
    #[cfg(feature = "testing")]
    if let Some(now) = by_hand::now() {
        return now;
    }
    Time(Instant::now())
}

/// The clock of a thread's tests, which moves only when it is told to.
#[cfg(feature = "testing")]
pub(crate) mod by_hand {
    use std::cell::Cell;
    use std::time::Instant;

    use super::Time;

    thread_local! {
        /// It is there while somebody holds it.
        static NOW: Cell<Option<Time>> = const { Cell::new(None) };
        static HELD: Cell<u32> = const { Cell::new(0) };
    }

    /// Holds the clock: each map for testing does. It begins at the present.
    #[derive(Debug)]
    pub(crate) struct Hand(());

    impl Hand {
        pub(crate) fn new() -> Hand {
            if HELD.get() == 0 {
                NOW.set(Some(Time(Instant::now())));
            }
            HELD.set(HELD.get() + 1);
            Hand(())
        }

        /// Whether nobody else holds it.
        pub(crate) fn is_the_only_one(&self) -> bool {
            HELD.get() == 1
        }
    }

    impl Drop for Hand {
        fn drop(&mut self) {
            HELD.set(HELD.get() - 1);
            if HELD.get() == 0 {
                NOW.set(None);
            }
        }
    }

    pub(super) fn now() -> Option<Time> {
        NOW.get()
    }

    /// It never goes back.
    pub(crate) fn move_to(time: Time) {
        NOW.set(NOW.get().map(|now| now.max(time)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_keeps_its_rhythm_and_skips_what_was_missed() {
        let ms = Duration::from_millis;
        let start = now();
        let at = |n: u64| start.after(ms(n));
        assert_eq!(next_beat(at(10), ms(10), at(12)), at(20));
        assert_eq!(next_beat(at(10), ms(10), at(55)), at(60));
        assert_eq!(next_beat(at(10), ms(10), at(20)), at(30));
        assert_eq!(next_beat(at(10), ms(0), at(12)), at(12));
    }

    #[test]
    fn a_delay_too_long_for_the_clock_is_as_long_as_can_be() {
        let now = now();
        assert!(now.after(Duration::MAX) > now.after(Duration::from_secs(99 * 365 * 24 * 60 * 60)));
    }
}
