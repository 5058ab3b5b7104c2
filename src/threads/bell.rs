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
    /// Something may have been put into the queue since the loop last emptied it.
    news: AtomicBool,
    /// The loop is at work, and will look at the queue before it waits.
    at_work: AtomicBool,
    /// Threads that wait for room or for credit.
    waiters: AtomicUsize,
}

impl Bell {
    pub(crate) fn new() -> Bell {
        Bell { news: AtomicBool::new(false), at_work: AtomicBool::new(false), waiters: AtomicUsize::new(0) }
    }

    /// A thread has put something into the queue: must it wake the loop?
    pub(crate) fn must_ring(&self) -> bool {
        // A swap like that of `take_news`, so that of the two one comes after the other in the model as well.
        self.news.swap(true, Ordering::AcqRel);
        fence(Ordering::SeqCst);
        !self.at_work.load(Ordering::Relaxed)
    }

    /// Is it worth while for the loop to look into the queue?
    pub(crate) fn has_news(&self) -> bool {
        self.news.load(Ordering::Acquire)
    }

    /// The loop is about to empty the queue; what comes during that is news again.
    pub(crate) fn take_news(&self) {
        self.news.swap(false, Ordering::SeqCst);
    }

    /// It has not emptied it.
    pub(crate) fn keep_news(&self) {
        self.news.store(true, Ordering::Release);
    }

    /// The loop has waited.
    pub(crate) fn go_to_work(&self) {
        self.at_work.store(true, Ordering::Relaxed);
    }

    /// The loop looks whether there is news once more after this, and waits if there is none.
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
            let seen = bell.has_news();
            let rung = sender.join().unwrap();
            assert!(seen || rung);
        });
    }

    /// The loop never takes the news of a message and not the message.
    #[test]
    fn bell_keeps_the_news_of_what_was_not_taken() {
        loom::model(|| {
            let bell = Arc::new(Bell::new());
            let queued = Arc::new(AtomicUsize::new(0));
            let sender = {
                let (bell, queued) = (bell.clone(), queued.clone());
                thread::spawn(move || {
                    queued.fetch_add(1, Ordering::Relaxed);
                    bell.must_ring();
                })
            };
            bell.take_news();
            let taken = queued.swap(0, Ordering::Relaxed) > 0;
            sender.join().unwrap();
            assert!(taken || bell.has_news());
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
