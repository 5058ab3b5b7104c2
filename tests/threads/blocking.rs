//! Calls that block: EDGE_CASES 526 to 530.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use dispatch_loop::{Channel, ChannelMap, Dispatcher, DrainOptions, Handle, run};

use crate::support::peers::{loopbacks, pair, read_to_end};
use crate::support::recorder::{Log, Recorder};

/// EDGE_CASES 526: `run` waits for the results, which run on its thread, each once.
#[test]
fn results_come_to_the_loop_which_waits_for_them() {
    let mut map = ChannelMap::new().unwrap();
    let here = std::thread::current().id();
    let seen = Rc::new(RefCell::new(Vec::new()));
    for n in 0..100_u32 {
        let seen = seen.clone();
        let work = move || (n * n, std::thread::current().id());
        map.spawn_blocking(work, move |map, (square, thread)| {
            assert!(thread != here && std::thread::current().id() == here);
            // One asks for the next.
            if n == 0 {
                let seen = seen.clone();
                map.spawn_blocking(|| (), move |_, ()| seen.borrow_mut().push(u32::MAX)).unwrap();
            }
            seen.borrow_mut().push(square);
        })
        .unwrap();
    }
    assert!(!map.is_idle());
    run(&mut map).unwrap();
    let mut seen = seen.take();
    seen.sort_unstable();
    let mut expected: Vec<u32> = (0..100).map(|n| n * n).collect();
    expected.push(u32::MAX);
    assert_eq!(seen, expected);
}

/// Work that goes on until it is let go.
struct Gate {
    open: Arc<AtomicBool>,
    running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Gate {
    fn new() -> Gate {
        Gate { open: Arc::default(), running: Arc::default(), most: Arc::default() }
    }

    fn work(&self) -> impl FnOnce() + Send + 'static {
        let (open, running, most) = (self.open.clone(), self.running.clone(), self.most.clone());
        move || {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            while !open.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            running.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn wait_for(&self, running: usize) {
        while self.running.load(Ordering::SeqCst) < running {
            std::thread::yield_now();
        }
    }
}

/// EDGE_CASES 527: a bounded number at once, a bounded number waits, and the numbers say so.
#[test]
fn more_than_the_limits_allow_is_refused_and_harms_nobody() {
    let mut map = ChannelMap::new().unwrap();
    map.set_blocking_limits(2, 3);
    let gate = Gate::new();
    let done = Rc::new(RefCell::new(0));
    for _ in 0..2 {
        let done = done.clone();
        map.spawn_blocking(gate.work(), move |_, ()| *done.borrow_mut() += 1).unwrap();
    }
    gate.wait_for(2);
    for _ in 0..3 {
        let done = done.clone();
        map.spawn_blocking(gate.work(), move |_, ()| *done.borrow_mut() += 1).unwrap();
    }
    let error = map.spawn_blocking(gate.work(), |_, ()| unreachable!()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::QuotaExceeded);
    assert!(error.to_string().contains("2 threads, and 3 wait"), "{error}");
    let numbers = map.numbers();
    assert_eq!((numbers.blocking_running, numbers.blocking_waiting), (2, 3));
    gate.open.store(true, Ordering::SeqCst);
    run(&mut map).unwrap();
    assert_eq!(done.take(), 5);
    assert_eq!(gate.most.load(Ordering::SeqCst), 2);
    let numbers = map.numbers();
    assert_eq!((numbers.blocking_running, numbers.blocking_waiting), (0, 0));
    map.spawn_blocking(gate.work(), |_, ()| ()).unwrap();
    run(&mut map).unwrap();
}

struct Waits {
    log: Log,
}

impl Dispatcher for Waits {
    fn handle_close(&mut self, _: &mut Channel<'_>, reason: &dispatch_loop::Reason) {
        self.log.add(format!("a close: {reason}"));
    }
}

/// EDGE_CASES 528: with its channel, work that has not begun goes, and so do results; they keep nothing going.
#[test]
fn what_a_channel_awaits_goes_with_it() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    map.set_blocking_limits(1, 10);
    let (near, far) = pair(loopbacks()[0]);
    let a: Handle<Waits> = map.add(near, Waits { log: log.clone() }).unwrap();
    let gate = Gate::new();
    let begun = Arc::new(AtomicUsize::new(0));
    let held = Arc::new(());
    let mut ch = map.channel(a).unwrap();
    for work in [true, false] {
        let (gate, begun, held) = (gate.work(), begun.clone(), held.clone());
        let at_work = move || {
            begun.fetch_add(1, Ordering::SeqCst);
            if work {
                gate();
            }
        };
        ch.spawn_blocking(at_work, move |_, ()| unreachable!("{held:?}")).unwrap();
    }
    gate.wait_for(1);
    ch.close();
    drop(far);
    run(&mut map).unwrap();
    assert!(log.closed("a"));
    assert_eq!(Arc::strong_count(&held), 1, "neither is kept");
    gate.open.store(true, Ordering::SeqCst);
    // Both threads' worth of work is over when another call has been done.
    map.spawn_blocking(|| (), |_, ()| ()).unwrap();
    run(&mut map).unwrap();
    assert_eq!(begun.load(Ordering::SeqCst), 1);
    let error = map.channel(a).map(|mut ch| ch.spawn_blocking(|| (), |_, ()| Ok(())));
    assert!(error.is_err(), "it is gone");
}

/// EDGE_CASES 529: what fails is told as in a hook; the dispatcher is at hand; a drain waits.
#[test]
fn the_result_of_a_channels_call_is_handled_as_in_a_hook() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    map.set_blocking_limits(1, 10);
    let (near, mut far) = pair(loopbacks()[0]);
    let token = map.add(near, Recorder::new("a", &log)).unwrap();
    let gate = Gate::new();
    let mut ch = map.channel(token).unwrap();
    ch.spawn_blocking(gate.work(), |ch, ()| ch.push(b"7")).unwrap();
    ch.spawn_blocking_with(|| 8, |_: &mut Recorder, ch, n| ch.push(format!("{n}").as_bytes())).unwrap();
    // A drain ends idle channels, but this one awaits something.
    map.drain(&DrainOptions::default());
    map.call_later(Duration::from_millis(50), move |_| gate.open.store(true, Ordering::SeqCst));
    run(&mut map).unwrap();
    assert_eq!(read_to_end(&mut far), b"78");

    for (work, why) in [((|| ()) as fn(), "no good"), (|| panic!("as it should"), "as it should")] {
        let log = Log::new();
        let (near, _far) = pair(loopbacks()[0]);
        let mut map = ChannelMap::new().unwrap();
        let token = map.add(near, Recorder::new("b", &log)).unwrap();
        let done = |_: &mut Channel<'_>, ()| Err(io::Error::other("no good"));
        map.channel(token).unwrap().spawn_blocking(work, done).unwrap();
        run(&mut map).unwrap();
        let told = log.of("b");
        assert!(told.iter().any(|event| event.starts_with("error") && event.contains(why)), "{told:?}");
        assert!(told.last().unwrap().contains(why), "{told:?}");
    }
}

/// EDGE_CASES 530.
#[test]
fn a_map_that_goes_takes_what_it_awaits_along_and_a_panic_is_no_result() {
    let mut map = ChannelMap::new().unwrap();
    map.set_blocking_limits(1, 10);
    map.spawn_blocking(|| panic!("logged"), |_, ()| unreachable!()).unwrap();
    run(&mut map).unwrap();
    let gate = Gate::new();
    let (ended, ends) = mpsc::channel::<()>();
    map.spawn_blocking(gate.work(), |_, ()| unreachable!()).unwrap();
    gate.wait_for(1);
    map.spawn_blocking(move || ended.send(()), |_, _| unreachable!()).unwrap();
    drop(map);
    assert!(ends.recv_timeout(Duration::from_secs(30)).is_err(), "it was dropped, and not begun");
    gate.open.store(true, Ordering::SeqCst);
}
