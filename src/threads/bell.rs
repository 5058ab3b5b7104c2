//! The wake-up protocol between the loop and other threads, small enough to be checked in every
//! interleaving: RUSTFLAGS="--cfg loom" cargo test --release --target-dir target/loom --lib bell
//!
//! Each side first says what it does and then looks at what the other has said, with a full fence
//! in between; so at least one of them sees the other.

#[cfg(all(loom, test))]
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
#[cfg(not(all(loom, test)))]
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

pub(crate) struct Bell {
    /// The loop is at work, and will look at the queue before it waits.
    at_work: AtomicBool,
    /// Threads that wait for room or for credit.
    waiters: AtomicUsize,
}

impl Bell {
    pub(crate) fn new() -> Bell {
        Bell { at_work: AtomicBool::new(false), waiters: AtomicUsize::new(0) }
    }

    /// A thread has put something into the queue: must it wake the loop?
    pub(crate) fn must_ring(&self) -> bool {
        fence(Ordering::SeqCst);
        !self.at_work.load(Ordering::Relaxed)
    }

    /// The loop has waited.
    pub(crate) fn go_to_work(&self) {
        self.at_work.store(true, Ordering::Relaxed);
    }

    /// The loop looks at the queue once more after this, and waits if it is empty.
    pub(crate) fn leave_work(&self) {
        self.at_work.store(false, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// A thread is about to try once more, and to wait if that fails.
    pub(crate) fn begin_waiting(&self) {
        self.waiters.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    pub(crate) fn end_waiting(&self) {
        self.waiters.fetch_sub(1, Ordering::Relaxed);
    }

    /// The loop has made room: is there a thread to be told?
    pub(crate) fn has_waiters(&self) -> bool {
        fence(Ordering::SeqCst);
        self.waiters.load(Ordering::Relaxed) > 0
    }
}

#[cfg(all(test, loom))]
mod tests {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// The loop never goes to sleep beside a full queue with nobody to wake it.
    #[test]
    fn bell_rings_or_the_loop_sees_the_message() {
        loom::model(|| {
            let bell = Arc::new(Bell::new());
            let queued = Arc::new(AtomicUsize::new(0));
            bell.go_to_work();
            let sender = {
                let (bell, queued) = (bell.clone(), queued.clone());
                thread::spawn(move || {
                    queued.fetch_add(1, Ordering::Relaxed);
                    bell.must_ring()
                })
            };
            bell.leave_work();
            let seen = queued.load(Ordering::Relaxed) > 0;
            let rung = sender.join().unwrap();
            assert!(seen || rung);
        });
    }

    /// A thread never goes to sleep beside an empty queue with nobody to wake it.
    #[test]
    fn bell_tells_the_waiter_or_the_waiter_sees_the_room() {
        loom::model(|| {
            let bell = Arc::new(Bell::new());
            let queued = Arc::new(AtomicUsize::new(1));
            let waiter = {
                let (bell, queued) = (bell.clone(), queued.clone());
                thread::spawn(move || {
                    bell.begin_waiting();
                    queued.load(Ordering::Relaxed) == 0
                })
            };
            queued.fetch_sub(1, Ordering::Relaxed);
            let told = bell.has_waiters();
            let saw_room = waiter.join().unwrap();
            assert!(told || saw_room);
            bell.end_waiting();
        });
    }
}
