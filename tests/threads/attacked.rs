//! Calls that block, answers, and the queue between threads, under attack: EDGE_CASES 560 to 568.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::panic::panic_any;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

#[cfg(debug_assertions)]
use dispatch_loop::faults::{Call, Fault, inject};
use dispatch_loop::{AskError, Channel, ChannelMap, DrainOptions, run};

use crate::support::peers::{loopbacks, pair};
use crate::support::recorder::{Log, Recorder};
use crate::support::threads::run_to_its_end;
use crate::support::waiting::{DEADLINE, wait_until};

const LONG: Duration = Duration::from_secs(60);

/// Work that goes on until it is let go.
fn until(gate: &Arc<AtomicBool>) -> impl FnOnce() + Send + 'static {
    let gate = gate.clone();
    move || {
        while !gate.load(SeqCst) {
            thread::yield_now();
        }
    }
}

/// EDGE_CASES 560.
#[test]
fn who_has_a_result_may_ask_for_the_next_where_none_may_wait() {
    fn next(map: &mut ChannelMap, left: u32) {
        if left > 0 {
            map.spawn_blocking(|| (), move |map, ()| next(map, left - 1)).unwrap();
        }
    }
    let mut map = ChannelMap::new().unwrap();
    map.set_blocking_limits(1, 0);
    next(&mut map, 500);
    run(&mut map).unwrap();
    // What a thread is about to begin does not wait, either.
    for _ in 0..100 {
        let mut map = ChannelMap::new().unwrap();
        map.set_blocking_limits(3, 2);
        let gate = Arc::new(AtomicBool::new(false));
        for _ in 0..5 {
            map.spawn_blocking(until(&gate), |_, ()| ()).unwrap();
        }
        let error = map.spawn_blocking(|| (), |_, ()| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::QuotaExceeded);
        gate.store(true, SeqCst);
    }
}

/// EDGE_CASES 561.
#[test]
fn fewer_calls_are_done_at_once_when_the_limit_is_lowered() {
    let mut map = ChannelMap::new().unwrap();
    let gate = Arc::new(Barrier::new(4));
    for _ in 0..4 {
        let gate = gate.clone();
        map.spawn_blocking(move || gate.wait(), |_, _| ()).unwrap();
    }
    run(&mut map).unwrap();
    map.set_blocking_limits(1, 100);
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    for _ in 0..20 {
        let (running, most) = (running.clone(), most.clone());
        let work = move || {
            most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
            thread::sleep(Duration::from_millis(2));
            running.fetch_sub(1, SeqCst);
        };
        map.spawn_blocking(work, |_, ()| ()).unwrap();
    }
    run(&mut map).unwrap();
    assert_eq!(most.load(SeqCst), 1);
}

/// EDGE_CASES 562.
#[cfg(debug_assertions)]
#[test]
fn no_more_wait_than_may_when_the_system_has_no_thread_left() {
    let mut map = ChannelMap::new().unwrap();
    map.set_blocking_limits(8, 3);
    let gate = Arc::new(Barrier::new(2));
    let of_work = gate.clone();
    map.spawn_blocking(move || of_work.wait(), |_, _| ()).unwrap();
    inject(Call::Thread, 0, 100, Fault::Errno(11));
    let taken = (0..100).filter(|_| map.spawn_blocking(|| (), |_, ()| ()).is_ok()).count();
    dispatch_loop::faults::clear();
    gate.wait();
    run(&mut map).unwrap();
    assert!(taken <= 4, "{taken} were taken");
}

/// Panics when it is dropped, with a value that does so, too.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic_any(Bomb);
    }
}

/// EDGE_CASES 563: of two values that panic when they are dropped, each is dropped by itself.
#[test]
fn a_result_and_its_closure_that_both_panic_when_dropped_harm_nobody() {
    let mut map = ChannelMap::new().unwrap();
    for of_channel in [false, true] {
        let mut map = ChannelMap::new().unwrap();
        let (near, _far) = pair(loopbacks()[0]);
        let token = map.add(near, Recorder::new("a", &Log::new())).unwrap();
        let bomb = Bomb;
        match of_channel {
            false => map.spawn_blocking(|| Bomb, move |_, _| drop(bomb)).unwrap(),
            true => {
                let done = move |_: &mut Channel<'_>, _| {
                    drop(bomb);
                    Ok(())
                };
                map.channel(token).unwrap().spawn_blocking(|| Bomb, done).unwrap();
            }
        }
        wait_until("the result is there", || map.numbers().messages == 1);
        drop(map);
    }
    // Refused, with three of them.
    map.set_blocking_limits(1, 0);
    let gate = Arc::new(Barrier::new(2));
    let of_work = gate.clone();
    map.spawn_blocking(move || of_work.wait(), |_, _| ()).unwrap();
    let (a, b) = (Bomb, Bomb);
    let work = move || drop(a);
    assert!(map.spawn_blocking(work, move |_, ()| drop(b)).is_err());
    gate.wait();
    run(&mut map).unwrap();
    // A panic of a panic's value does not get out.
    map.call_soon(|_| panic_any(Bomb));
    map.spawn_blocking(|| panic_any(Bomb), |_, ()| ()).unwrap();
    run(&mut map).unwrap();
}

/// EDGE_CASES 564: a thread outlives what its work has left to be dropped.
#[test]
fn a_result_that_nobody_wants_and_that_panics_when_dropped_costs_no_thread() {
    let mut map = ChannelMap::new().unwrap();
    map.set_blocking_limits(1, 10);
    let (near, far) = pair(loopbacks()[0]);
    let token = map.add(near, Recorder::new("a", &Log::new())).unwrap();
    let gate = Arc::new(Barrier::new(2));
    let of_work = gate.clone();
    let work = move || {
        of_work.wait();
        of_work.wait();
        Bomb
    };
    map.channel(token).unwrap().spawn_blocking(work, |_, _| Ok(())).unwrap();
    gate.wait();
    drop(far);
    run(&mut map).unwrap();
    gate.wait();
    let done = Rc::new(Cell::new(false));
    let told = done.clone();
    map.spawn_blocking(|| (), move |_, ()| told.set(true)).unwrap();
    run_to_its_end(&mut map);
    assert!(done.get());
}

/// EDGE_CASES 565.
#[test]
fn what_a_loop_that_stops_and_goes_on_has_answered_is_not_lost() {
    let mut map = ChannelMap::new().unwrap();
    let remote = map.remote();
    for round in 0..100 {
        let ran = Arc::new(AtomicBool::new(false));
        let (remote, of_call) = (remote.clone(), ran.clone());
        let asks = thread::spawn(move || remote.ask(LONG, move |_| of_call.store(true, SeqCst)));
        map.turn(Some(Duration::ZERO)).unwrap();
        while !asks.is_finished() {
            map.stop();
            run(&mut map).unwrap();
            map.turn(Some(Duration::ZERO)).unwrap();
        }
        let answer = asks.join().unwrap();
        let expected = if ran.load(SeqCst) { Ok(()) } else { Err(AskError::Stopped) };
        assert_eq!(answer, expected, "round {round}");
    }
}

/// EDGE_CASES 566.
#[test]
fn a_drain_waits_for_the_results_of_calls_that_block() {
    for by_deadline in [false, true] {
        let mut map = ChannelMap::new().unwrap();
        let log = Log::new();
        let (near, _far) = pair(loopbacks()[0]);
        map.add(near, Recorder::new("a", &log)).unwrap();
        let gate = Arc::new(AtomicBool::new(false));
        let done = Rc::new(Cell::new(false));
        let told = done.clone();
        map.spawn_blocking(until(&gate), move |_, ()| told.set(true)).unwrap();
        let deadline = if by_deadline { Duration::from_millis(300) } else { DEADLINE };
        map.drain(&DrainOptions::default().with_deadline(deadline));
        if !by_deadline {
            let gate = gate.clone();
            map.call_later(Duration::from_millis(300), move |_| gate.store(true, SeqCst));
        }
        let turns = map.numbers().turns;
        let begun = Instant::now();
        run(&mut map).unwrap();
        assert!(begun.elapsed() < DEADLINE / 2);
        assert_eq!(done.get(), !by_deadline);
        assert!(map.numbers().turns - turns < 100, "it does not spin");
        gate.store(true, SeqCst);
    }
}

/// EDGE_CASES 567.
#[test]
fn no_more_look_ups_are_taken_than_may_wait() {
    let mut map = ChannelMap::new().unwrap();
    let gate = Arc::new(AtomicBool::new(false));
    let let_go = gate.clone();
    map.set_resolver(move |_, _| {
        until(&gate)();
        Ok(vec![([127, 0, 0, 1], 1).into()])
    });
    map.set_blocking_limits(1, 0);
    let told = Rc::new(Cell::new(0));
    let mut taken = 0;
    for _ in 0..1100 {
        let told = told.clone();
        let done = move |_: &mut ChannelMap, _| told.set(told.get() + 1);
        match map.look_up("name:1", LONG, done) {
            Ok(()) => taken += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::QuotaExceeded),
        }
    }
    let_go.store(true, SeqCst);
    run(&mut map).unwrap();
    assert_eq!((taken, told.get()), (1024, 1024));
    map.look_up("name:1", LONG, |_, found| assert!(found.is_ok())).unwrap();
    run(&mut map).unwrap();
}

/// EDGE_CASES 568: a hook puts another map in the place of its own, and never comes back to it.
#[test]
fn what_a_channel_awaits_goes_with_it_also_when_its_map_was_swapped_away() {
    let mut map = ChannelMap::new().unwrap();
    map.set_blocking_limits(1, 10);
    let (gate, begun) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let away = Rc::new(RefCell::new(ChannelMap::new().unwrap()));
    let (there, of_hook, of_work) = (away.clone(), gate.clone(), begun.clone());
    let (near, _far) = pair(loopbacks()[0]);
    let swaps = Recorder::new("a", &Log::new()).on("open", move |ch| {
        ch.spawn_blocking(until(&of_hook), |_, ()| unreachable!())?;
        let begun = of_work.clone();
        ch.spawn_blocking(move || begun.store(true, SeqCst), |_, ()| unreachable!())?;
        std::mem::swap(ch.map_mut(), &mut *there.borrow_mut());
        Ok(())
    });
    map.add(near, swaps).unwrap();
    run(&mut map).unwrap();
    let mut map = away.replace(map);
    map.turn(Some(Duration::ZERO)).unwrap();
    assert!(map.is_empty() && map.is_idle(), "nothing is awaited any more");
    gate.store(true, SeqCst);
    map.spawn_blocking(|| (), |_, ()| ()).unwrap();
    run(&mut map).unwrap();
    assert!(!begun.load(SeqCst));
}
