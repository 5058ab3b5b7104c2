//! A token bucket: so many a second, and a burst at once.

use std::time::Duration;

use crate::clock::Time;

const SECOND: u128 = 1_000_000_000;

/// It fills up at a steady rate, and is kept as the moment at which it will be full, so that nothing has to
/// happen while it fills.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    /// Tokens a second.
    rate: u64,
    burst: u64,
    full_at: Time,
}

impl Bucket {
    /// A full bucket. Neither number is 0; what is, counts as 1.
    pub(crate) fn new(rate: u64, burst: u64, now: Time) -> Bucket {
        Bucket { rate: rate.max(1), burst: burst.max(1), full_at: now }
    }

    pub(crate) fn burst(&self) -> u64 {
        self.burst
    }

    /// How many tokens can be taken now.
    pub(crate) fn available(&self, now: Time) -> u64 {
        let missing = self.full_at.since(now).as_nanos() * u128::from(self.rate);
        self.burst.saturating_sub(u64::try_from(missing.div_ceil(SECOND)).unwrap_or(u64::MAX))
    }

    /// Take tokens, also more than there are: then it takes that much longer until there are some.
    pub(crate) fn take(&mut self, tokens: u64, now: Time) {
        self.full_at = self.full_at.max(now).after(self.time_for(tokens));
    }

    /// Put back what was taken and not used.
    pub(crate) fn give_back(&mut self, tokens: u64) {
        self.full_at = self.full_at.before(self.time_for(tokens));
    }

    /// How long it takes until so many, or all that it holds, can be taken.
    pub(crate) fn wait_for(&self, tokens: u64, now: Time) -> Duration {
        let spare = self.time_for(self.burst.saturating_sub(tokens));
        self.full_at.since(now).saturating_sub(spare)
    }

    fn time_for(&self, tokens: u64) -> Duration {
        let nanos = (u128::from(tokens) * SECOND).div_ceil(u128::from(self.rate));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_burst_at_once_and_then_the_rate() {
        let start = clock::now();
        let mut bucket = Bucket::new(1000, 10, start);
        assert_eq!(bucket.available(start), 10);
        bucket.take(10, start);
        assert_eq!((bucket.available(start), bucket.wait_for(1, start)), (0, MS));
        assert_eq!(bucket.wait_for(10, start), 10 * MS);
        assert_eq!(bucket.available(start.after(3 * MS)), 3);
        assert_eq!(bucket.wait_for(3, start.after(3 * MS)), Duration::ZERO);
        assert_eq!(bucket.available(start.after(1000 * MS)), 10);
    }

    #[test]
    fn what_was_taken_too_much_is_waited_for() {
        let start = clock::now();
        let mut bucket = Bucket::new(1000, 10, start);
        bucket.take(30, start);
        assert_eq!((bucket.available(start), bucket.wait_for(1, start)), (0, 21 * MS));
        assert_eq!(bucket.available(start.after(25 * MS)), 5);
    }

    #[test]
    fn the_largest_numbers_do_no_harm() {
        let start = clock::now();
        let mut fast = Bucket::new(u64::MAX, u64::MAX, start);
        fast.take(u64::MAX, start);
        assert_eq!(fast.available(start.after(2 * 1000 * MS)), u64::MAX);
        let mut slow = Bucket::new(0, 0, start);
        slow.take(u64::MAX, start);
        assert_eq!(slow.available(start), 0);
        assert!(slow.wait_for(1, start) > Duration::from_secs(1_000_000_000));
    }
}
