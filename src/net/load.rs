//! How many connections each loop of a group has. Whoever hands one over counts it before, so that the next
//! one is not given to the same loop for lack of news; the loop that has it counts it out.

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
        self.count();
        Raised(self.clone())
    }

    /// One more, until it is [lowered](Load::lower).
    pub(crate) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One less, of those that were counted or [stay](Raised::stays).
    pub(crate) fn lower(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection on its way into a map, which counts for its loop.
pub(crate) struct Raised(Load);

impl Raised {
    /// It has arrived in a map with this load, which lowers it when the connection ends. `false`: it counts
    /// for another loop, or none, and no more.
    pub(crate) fn stays(self, load: Option<&Load>) -> bool {
        let arrived = load.is_some_and(|load| Arc::ptr_eq(&load.0, &self.0.0));
        if arrived {
            self.0.count();
        }
        arrived
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        self.0.lower();
    }
}

impl std::fmt::Debug for Raised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Raised")
    }
}
