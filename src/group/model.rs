//! How connections are handed over, in every interleaving of a few steps, with the counters, the places and the bell
//! that the loops use: RUSTFLAGS="--cfg loom" cargo test --release --target-dir target/loom --lib group::model

use std::collections::VecDeque;

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;

use crate::net::load::{Load, Raised};
use crate::threads::bell::Bell;
use crate::threads::room::Room;

/// A loop, as the others see it.
struct Seat {
    load: Load,
    room: Room,
    bell: Bell,
    queue: Mutex<VecDeque<Raised>>,
    /// It was woken from its wait.
    is_woken: AtomicBool,
    is_gone: AtomicBool,
    served: AtomicUsize,
}

impl Seat {
    fn new(capacity: usize) -> Seat {
        Seat {
            load: Load::default(),
            room: Room::new(capacity, false),
            bell: Bell::new(),
            queue: Mutex::default(),
            is_woken: AtomicBool::new(false),
            is_gone: AtomicBool::new(false),
            served: AtomicUsize::new(0),
        }
    }

    /// What an acceptor does: count first, then hand over. `false`: there is no room.
    fn hand_over(&self) -> bool {
        if self.is_gone.load(Ordering::SeqCst) {
            return false;
        }
        let raised = self.load.raise();
        if !self.room.take() {
            return false;
        }
        self.queue.lock().unwrap().push_back(raised);
        if self.bell.must_ring() {
            self.is_woken.store(true, Ordering::SeqCst);
        }
        // The loop may have gone meanwhile.
        if self.is_gone.load(Ordering::SeqCst) {
            self.drop_all();
        }
        true
    }

    fn take(&self) -> Option<Raised> {
        let raised = self.queue.lock().unwrap().pop_front()?;
        self.room.give_back();
        Some(raised)
    }

    /// What the loop does with all that has come; it goes on to wait. How many stay.
    fn serve(&self) -> usize {
        let mut open = 0;
        while let Some(raised) = self.take() {
            assert!(raised.stays(Some(&self.load)));
            open += 1;
        }
        self.served.fetch_add(open, Ordering::SeqCst);
        open
    }

    fn close(&self, open: usize) {
        (0..open).for_each(|_| self.load.lower());
    }

    /// The map is dropped.
    fn end(&self) {
        self.is_gone.store(true, Ordering::SeqCst);
        self.drop_all();
    }

    fn drop_all(&self) {
        while let Some(raised) = self.take() {
            drop(raised);
        }
    }
}

/// A count is raised before the connection is on its way, and lowered once: who looks meanwhile sees no more than
/// there are, and at the end there are none.
#[test]
fn a_loop_counts_each_connection_once() {
    loom::model(|| {
        let seat = Arc::new(Seat::new(2));
        let acceptor = {
            let seat = seat.clone();
            thread::spawn(move || {
                assert!(seat.hand_over());
                // The next one sees it, unless it has ended by now.
                assert!(seat.load.get() <= 1);
                assert!(seat.hand_over());
                assert!(seat.load.get() <= 2);
            })
        };
        let open = seat.serve();
        assert!((open..=2).contains(&seat.load.get()));
        seat.close(open);
        acceptor.join().unwrap();
        assert_eq!(seat.load.get(), 2 - open);
        let open = seat.serve();
        seat.close(open);
        assert_eq!((seat.load.get(), seat.served.load(Ordering::SeqCst)), (0, 2));
    });
}

/// The loop takes what was handed to it before it waits, or is woken.
#[test]
fn no_connection_waits_for_a_loop_that_sleeps() {
    loom::model(|| {
        let seat = Arc::new(Seat::new(1));
        seat.bell.go_to_work();
        let acceptor = {
            let seat = seat.clone();
            thread::spawn(move || assert!(seat.hand_over()))
        };
        if seat.bell.has_news() {
            seat.bell.take_news();
            seat.serve();
        }
        seat.bell.leave_work();
        let looks_again = seat.bell.has_news();
        acceptor.join().unwrap();
        let is_served = seat.served.load(Ordering::SeqCst) == 1;
        assert!(is_served || looks_again || seat.is_woken.load(Ordering::SeqCst));
    });
}

/// Two that accept want the one place in the queue of a loop: who gets none goes on to the next loop, and counts there
/// and nowhere else.
#[test]
fn a_full_queue_means_the_next_loop() {
    loom::model(|| {
        let seats = Arc::new([Seat::new(1), Seat::new(2)]);
        let accept = |seats: &[Seat; 2]| assert!(seats[0].hand_over() || seats[1].hand_over());
        let other = {
            let seats = seats.clone();
            thread::spawn(move || accept(&seats))
        };
        accept(&seats);
        other.join().unwrap();
        let loads = [seats[0].load.get(), seats[1].load.get()];
        assert_eq!(loads, [1, 1]);
        seats.iter().for_each(|seat| seat.close(seat.serve()));
        assert!(seats.iter().all(|seat| seat.load.get() == 0 && seat.served.load(Ordering::SeqCst) == 1));
        assert!(seats[0].room.shut() && seats[1].room.shut());
    });
}

/// A loop that drains ends when nothing is on its way to it: what was accepted before is served, what comes later is
/// refused.
#[test]
fn a_drain_ends_with_nothing_on_its_way() {
    loom::model(|| {
        let seat = Arc::new(Seat::new(1));
        let acceptor = {
            let seat = seat.clone();
            thread::spawn(move || seat.hand_over())
        };
        let mut open = seat.serve();
        // As `shut_if_empty`.
        let has_ended = seat.room.shut() && seat.queue.lock().unwrap().is_empty();
        if !has_ended {
            seat.room.open();
        }
        let accepted = acceptor.join().unwrap();
        if has_ended {
            assert_eq!(usize::from(accepted), open);
            assert!(seat.queue.lock().unwrap().is_empty());
        }
        open += seat.serve();
        assert_eq!(usize::from(accepted), open);
        seat.close(open);
        assert_eq!(seat.load.get(), 0);
    });
}

/// What was on its way to a loop that goes is dropped, and counts no more.
#[test]
fn a_loop_that_goes_leaves_no_count() {
    loom::model(|| {
        let seat = Arc::new(Seat::new(1));
        let acceptor = {
            let seat = seat.clone();
            thread::spawn(move || seat.hand_over())
        };
        seat.end();
        acceptor.join().unwrap();
        assert_eq!(seat.load.get(), 0);
        assert!(seat.queue.lock().unwrap().is_empty());
    });
}
