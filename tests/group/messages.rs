//! Messages between loops: their order, and that nobody waits for anybody.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use dispatch_loop::{ChannelMap, Loops};

use crate::support::groups::{joined, keep_busy, on, start};
use crate::support::waiting::wait_until;

/// EDGE_CASES 458: on each loop, in the order of the one who sent, and once.
#[test]
fn what_one_thread_broadcasts_arrives_on_each_loop_in_order() {
    let group = start(3);
    let seen = Arc::new([(); 3].map(|()| Mutex::new(Vec::new())));
    for n in 0..3000 {
        let seen = seen.clone();
        group.broadcast(move |index, _| seen[index].lock().unwrap().push(n)).unwrap();
    }
    wait_until("all have arrived", || seen.iter().all(|seen| seen.lock().unwrap().len() == 3000));
    assert!(seen.iter().all(|seen| seen.lock().unwrap().iter().copied().eq(0..3000)));
    group.stop();
    joined(group).unwrap();
}

/// EDGE_CASES 459: a loop does not wait for another one that is full, or has ended; the others are told.
#[test]
fn a_loop_that_broadcasts_leaves_out_the_one_that_is_full() {
    let group = start(3);
    let busy = keep_busy(group.loops().remote(1));
    let told = Arc::new([(); 3].map(|()| AtomicUsize::new(0)));
    let (loops, telling) = (group.loops(), told.clone());
    let results = on(group.loops().remote(0), move |_| {
        (0..1500)
            .map(|_| {
                let telling = telling.clone();
                loops.broadcast(move |index, _| {
                    telling[index].fetch_add(1, Ordering::SeqCst);
                })
            })
            .map(|result| result.map_err(|error| (error.kind(), error.to_string())))
            .collect::<Vec<_>>()
    });
    // The first that is full is named: that may be its own, which has no time to take what it sends itself.
    let (told_all, left_out): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert!(told_all.len() >= 1000 && left_out.len() >= 400, "{} and {}", told_all.len(), left_out.len());
    let full = std::io::ErrorKind::QuotaExceeded;
    assert!(left_out.iter().all(|error| error.as_ref().is_err_and(|(kind, _)| *kind == full)));
    drop(busy);
    wait_until("it has what it was told", || {
        let count = |index: usize| told[index].load(Ordering::SeqCst);
        count(1) >= told_all.len() && count(2) >= count(1)
    });
    group.stop();
    joined(group).unwrap();
}

/// EDGE_CASES 460: 250,000 messages of each of four loops to the others; what is given back is sent later. Every
/// one arrives once, in the order of its sender, and nobody waits for ever.
#[test]
fn loops_that_flood_each_other_do_not_wait_for_each_other() {
    const MESSAGES: u64 = 250_000;
    #[derive(Default)]
    struct Seen {
        /// From each loop, the number of the last.
        last: [AtomicU64; 4],
    }
    fn go_on(map: &mut ChannelMap, loops: Loops, seen: Arc<[Seen; 4]>, own: usize, mut next: u64) {
        for _ in 0..200 {
            if next > MESSAGES {
                return;
            }
            let to = (own + 1 + next as usize % 3) % 4;
            let (there, number) = (seen.clone(), next);
            let arrive = move |_: &mut ChannelMap| {
                let before = there[to].last[own].swap(number, Ordering::Relaxed);
                assert!(before < number, "{number} after {before}");
            };
            if loops.remote(to).call(arrive).is_err() {
                break; // it is full: later
            }
            next += 1;
        }
        map.call_soon(move |map| go_on(map, loops, seen, own, next));
    }
    let group = start(4);
    let seen = Arc::<[Seen; 4]>::default();
    let (loops, all) = (group.loops(), seen.clone());
    group.broadcast(move |own, map| go_on(map, loops.clone(), all.clone(), own, 1)).unwrap();
    wait_until("the last of each has arrived", || {
        (0..4).all(|from| {
            let wanted = [MESSAGES, MESSAGES - 1, MESSAGES - 2];
            wanted.iter().all(|number| {
                let to = (from + 1 + *number as usize % 3) % 4;
                seen[to].last[from].load(Ordering::Relaxed) == *number
            })
        })
    });
    group.stop();
    joined(group).unwrap();
}
