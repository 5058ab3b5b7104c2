//! Who reads the numbers of a map from other threads: each asks, the loop makes a snapshot.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::Time;
use crate::numbers::Numbers;
use crate::sys::poll::Waker;
use crate::threads::pulse::Pulse;

pub(crate) struct Readers {
    waker: Waker,
    /// What the loop is at.
    pub(crate) pulse: Arc<Pulse>,
    /// Somebody waits for the next snapshot.
    asked: AtomicBool,
    /// Turns are timed: a meter was made, or somebody has asked.
    is_timed: AtomicBool,
    latest: Mutex<Numbers>,
    renewed: Condvar,
}

/// The loop's side.
pub(crate) struct Reading {
    pub(crate) readers: Arc<Readers>,
    /// When the turn's wait was over, until the turn is.
    pub(crate) begun: Option<Time>,
}

impl Readers {
    pub(crate) fn new(waker: Waker, first: Numbers, pulse: Arc<Pulse>) -> Readers {
        Readers {
            waker,
            pulse,
            asked: AtomicBool::new(false),
            is_timed: AtomicBool::new(false),
            latest: Mutex::new(first),
            renewed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Numbers> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ask for a snapshot, and wait for it for at most `patience`. The latest that there is.
    pub(crate) fn read(&self, patience: Duration) -> Numbers {
        let asked = Instant::now();
        self.is_timed.store(true, Ordering::Relaxed);
        let latest = self.lock();
        self.asked.store(true, Ordering::Release);
        self.waker.wake();
        let is_old = |numbers: &mut Numbers| numbers.taken < asked;
        let waited = self.renewed.wait_timeout_while(latest, patience, is_old);
        waited.unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    pub(crate) fn is_timed(&self) -> bool {
        self.is_timed.load(Ordering::Relaxed)
    }

    pub(crate) fn begin_timing(&self) {
        self.is_timed.store(true, Ordering::Relaxed);
    }

    /// Whether the loop is to make one.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    pub(crate) fn publish(&self, numbers: Numbers) {
        // The lock is held while somebody asks, so an answer is never older than its question.
        let mut latest = self.lock();
        self.asked.store(false, Ordering::Release);
        *latest = numbers;
        drop(latest);
        self.renewed.notify_all();
    }
}
