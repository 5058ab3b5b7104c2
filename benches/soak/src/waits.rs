//! How long things took: a histogram, exact to 3 %.

use std::time::Duration;

/// Buckets for each doubling of the time.
const STEPS: usize = 32;

#[derive(Clone)]
pub struct Waits {
    buckets: Vec<u64>,
    pub count: u64,
    pub worst: Duration,
}

impl Default for Waits {
    fn default() -> Waits {
        Waits::new()
    }
}

impl Waits {
    pub fn new() -> Waits {
        Waits { buckets: vec![0; 64 * STEPS], count: 0, worst: Duration::ZERO }
    }

    pub fn add(&mut self, wait: Duration) {
        self.buckets[bucket(wait.as_micros() as u64)] += 1;
        self.count += 1;
        self.worst = self.worst.max(wait);
    }

    /// How many took longer than that.
    pub fn later_than(&self, time: Duration) -> u64 {
        self.buckets[bucket(time.as_micros() as u64) + 1..].iter().sum()
    }

    /// As long as this many of a hundred waits took, or less.
    pub fn percentile(&self, percent: u64) -> Duration {
        let wanted = (self.count * percent).div_ceil(100);
        let mut seen = 0;
        let found = self.buckets.iter().position(|waits| {
            seen += waits;
            seen >= wanted
        });
        Duration::from_micros(end_of(found.unwrap_or(0))).min(self.worst)
    }
}

fn bucket(micros: u64) -> usize {
    let power = micros.checked_ilog2().unwrap_or(0).saturating_sub(STEPS.ilog2()) as usize;
    power * STEPS + (micros >> power) as usize
}

fn end_of(bucket: usize) -> u64 {
    // The first two doublings have buckets of one microsecond.
    let power = (bucket / STEPS).saturating_sub(1);
    ((bucket - power * STEPS) as u64 + 1) << power
}
