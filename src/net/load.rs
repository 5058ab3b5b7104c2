//! How many connections each loop of a group has.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many connections a loop has.
#[derive(Clone, Default)]
pub(crate) struct Load(Arc<AtomicUsize>);

impl Load {
    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// One more, until what is returned is dropped.
    pub(crate) fn raise(&self) -> Raised {
        self.0.fetch_add(1, Ordering::Relaxed);
        Raised(self.0.clone())
    }
}

/// A connection that counts for its loop.
#[derive(Debug)]
pub(crate) struct Raised(Arc<AtomicUsize>);

impl Drop for Raised {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
