//! How many connections each loop of a group has. Whoever hands one over counts it before, so that the next
//! one is not given to the same loop for lack of news; the loop that has it counts it out.

#[cfg(all(loom, test))]
use loom::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
#[cfg(not(all(loom, test)))]
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

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
        Raised(Some(self.clone()))
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
pub(crate) struct Raised(Option<Load>);

impl Raised {
    /// It has arrived in a map with this load, which lowers it when the connection ends. `false`: it counts
    /// for another loop, or none, and no more.
    pub(crate) fn stays(mut self, load: Option<&Load>) -> bool {
        let own = self.0.as_ref();
        let arrived = load.zip(own).is_some_and(|(load, own)| Arc::ptr_eq(&load.0, &own.0));
        if arrived {
            // Not counted anew: it would count twice for a moment.
            self.0 = None;
        }
        arrived
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        self.0.iter().for_each(Load::lower);
    }
}

impl std::fmt::Debug for Raised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Raised")
    }
}
