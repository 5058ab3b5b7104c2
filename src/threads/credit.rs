//! The account of one channel's outlets: what is under way to it, and how it stands.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What the outlets of one channel and the loop know of each other.
pub(crate) struct Credit {
    /// Taken by an outlet, and not yet given to the channel.
    pub(crate) in_flight: AtomicUsize,
    /// In the channel's outbox, and its high watermark, as the loop last saw them.
    queued: AtomicUsize,
    high: AtomicUsize,
    /// Nothing can be sent on the channel any more.
    pub(crate) ended: AtomicBool,
}

impl Credit {
    pub(crate) fn new() -> Arc<Credit> {
        Arc::new(Credit {
            in_flight: AtomicUsize::new(0),
            queued: AtomicUsize::new(0),
            high: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
        })
    }

    /// `bytes` of an outlet have reached the channel, which has `queued` now. The settle tells
    /// who waits.
    pub(crate) fn arrived(&self, bytes: usize, queued: usize) {
        self.queued.store(queued, Ordering::SeqCst);
        self.in_flight.fetch_sub(bytes, Ordering::SeqCst);
    }

    /// How the channel stands.
    pub(crate) fn set(&self, queued: usize, high: usize, ended: bool) {
        self.queued.store(queued, Ordering::SeqCst);
        self.high.store(high, Ordering::SeqCst);
        self.ended.store(ended, Ordering::SeqCst);
    }

    /// Whether bytes that were taken have not reached the channel.
    pub(crate) fn owes(&self) -> bool {
        self.in_flight.load(Ordering::SeqCst) > 0
    }

    pub(crate) fn is_over(&self) -> bool {
        let owed = self.in_flight.load(Ordering::SeqCst) + self.queued.load(Ordering::SeqCst);
        owed > self.high.load(Ordering::SeqCst)
    }
}
