//! The places of the bounded queue: who has one may put a message in. Small enough to be checked in every
//! interleaving, as the bell is.

#[cfg(all(loom, test))]
use loom::sync::atomic::{AtomicUsize, Ordering};
#[cfg(not(all(loom, test)))]
use std::sync::atomic::{AtomicUsize, Ordering};

/// Set in `places`: none is given away, however many there are.
const SHUT: usize = 1 << (usize::BITS - 1);

pub(crate) struct Room {
    /// How many more messages are taken.
    places: AtomicUsize,
    capacity: usize,
}

impl Room {
    pub(crate) fn new(capacity: usize, is_shut: bool) -> Room {
        Room { places: AtomicUsize::new(if is_shut { capacity | SHUT } else { capacity }), capacity }
    }

    /// Take a place; `false` if there is none.
    pub(crate) fn take(&self) -> bool {
        let take_place = |places: usize| if places & SHUT == 0 { places.checked_sub(1) } else { None };
        self.places.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take_place).is_ok()
    }

    /// The message is out of the queue.
    pub(crate) fn give_back(&self) {
        self.places.fetch_add(1, Ordering::SeqCst);
    }

    /// Give no place away any more; whether nobody has one. A thread may have its place, and be about to use it.
    pub(crate) fn shut(&self) -> bool {
        self.places.fetch_or(SHUT, Ordering::SeqCst) & !SHUT == self.capacity
    }

    /// Give places away again.
    pub(crate) fn open(&self) {
        self.places.fetch_and(!SHUT, Ordering::SeqCst);
    }
}
