//! Time: EDGE_CASES 36 to 39, 42 as far as no other thread is needed, and 43. (The time-outs of a
//! channel are in `timeouts.rs`.)

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[cfg(debug_assertions)]
use dispatch_loop::faults::{Call, Fault, clear, count, inject};
use dispatch_loop::{ChannelMap, LoopOptions, TimerId, run, run_with};

use crate::support::heap;
use crate::support::peers::{loopbacks, pair, read_all, unix_pair};
use crate::support::provoke::provoke;
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{turn_idle, turn_until};
use crate::support::waiting::DEADLINE;

const MILLISECOND: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// One wait, for as long as it takes.
fn one() -> LoopOptions {
    LoopOptions::default().with_count(1)
}

/// A timer that adds its name to the log.
fn note(log: &Log, name: &'static str) -> impl FnOnce(&mut ChannelMap) + 'static {
    let log = log.clone();
    move |_| log.add(name)
}

/// EDGE_CASES 36.
#[test]
fn timers_fire_in_order_and_never_early() {
    let fired = Rc::new(RefCell::new(Vec::new()));
    let mut map = ChannelMap::new().unwrap();
    let mut wanted = Vec::new();
    for (order, delay) in [30, 5, 30, 0, 12, 5, 0, 1].into_iter().enumerate() {
        let delay = delay * MILLISECOND;
        wanted.push((delay, order));
        let (fired, set) = (fired.clone(), Instant::now());
        map.call_later(delay, move |_| {
            assert!(set.elapsed() >= delay, "{:?} early", delay - set.elapsed());
            fired.borrow_mut().push((delay, order));
        });
    }
    run(&mut map).unwrap();
    wanted.sort();
    assert_eq!(*fired.borrow(), wanted);
}

/// EDGE_CASES 36: equal deadlines, which only one instant can give.
#[test]
fn equal_deadlines_fire_in_the_order_they_were_set() {
    let fired = Rc::new(RefCell::new(Vec::new()));
    let mut map = ChannelMap::new().unwrap();
    // As late as can be told, all at the same time; and more than one turn takes.
    for order in 0..3000 {
        let fired = fired.clone();
        map.call_soon(move |_| fired.borrow_mut().push(order));
    }
    map.turn(None).unwrap();
    let first = fired.borrow().len();
    assert!((1..3000).contains(&first), "the work of a turn is bounded, not {first}");
    assert_eq!(map.wait_limit(), Some(Duration::ZERO));
    run(&mut map).unwrap();
    assert_eq!(*fired.borrow(), Vec::from_iter(0..3000));
}

/// EDGE_CASES 36: a zero delay set inside a timer runs next turn.
#[test]
fn a_zero_delay_inside_a_timer_waits_for_the_next_turn() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (second, third) = (log.clone(), log.clone());
    map.call_soon(move |map| {
        second.add("first");
        map.call_soon(move |map| {
            second.add("second");
            map.call_later(Duration::ZERO, note(&third, "third"));
        });
    });
    for wanted in [&["first"][..], &["first", "second"], &["first", "second", "third"]] {
        run_with(&mut map, &one()).unwrap();
        assert_eq!(log.events(), wanted);
    }
}

/// EDGE_CASES 37: the loop waits with such a delay as with any other.
#[test]
fn huge_delays_saturate() {
    for huge in [Duration::MAX, Duration::from_secs(u64::MAX / 2), Duration::from_secs(1 << 40)] {
        let log = Log::new();
        let (near, mut far) = pair(loopbacks()[0]);
        let mut map = ChannelMap::new().unwrap();
        let token = map.add(near, Recorder::new("a", &log)).unwrap();
        let timers =
            [map.call_later(huge, |_| panic!("so soon?")), map.call_every(huge, |_| panic!("so soon?"))];
        let mut channel = map.channel(token).unwrap();
        channel.set_timeout(Some(huge));
        channel.set_close_timeout(huge);
        let own = channel.call_later(huge, |_| panic!("so soon?"));
        channel.call_every(huge, |_| panic!("so soon?"));
        run_with(&mut map, &one().with_timeout(Duration::ZERO)).unwrap();
        far.write_all(b"now").unwrap();
        run_with(&mut map, &one()).unwrap();
        assert_eq!(log.input("a"), b"now");
        map.turn(Some(Duration::ZERO)).unwrap();
        assert!(map.cancel(own) && timers.into_iter().all(|timer| map.cancel(timer)));
        drop(far);
        run_with(&mut map, &LoopOptions::default().with_timeout(huge)).unwrap();
        assert_eq!(log.of("a").last().unwrap(), "close: end of stream");
    }
}

/// EDGE_CASES 37: late by many intervals, it fires once, and goes on in the old rhythm. (That no
/// jump of the wall clock matters is so because nobody asks it.)
#[test]
fn a_late_repeating_timer_fires_once() {
    const INTERVAL: Duration = Duration::from_millis(40);
    let times = Rc::new(Cell::new(0));
    let mut map = ChannelMap::new().unwrap();
    let counting = times.clone();
    let before_set = Instant::now();
    let timer = map.call_every(INTERVAL, move |_| counting.set(counting.get() + 1));
    let after_set = Instant::now();
    for late in [5.5, 1.5] {
        std::thread::sleep(INTERVAL.mul_f32(late));
        times.set(0);
        map.turn(Some(Duration::ZERO)).unwrap();
        assert_eq!(times.get(), 1, "a burst");
        // The next beat is a whole number of intervals after the first moment.
        let before = Instant::now();
        let left = map.wait_limit().unwrap();
        let after = Instant::now();
        if left.is_zero() {
            continue; // late once more, before it could be asked
        }
        let earliest = (before + left).saturating_duration_since(after_set).as_nanos();
        let latest = (after + left).saturating_duration_since(before_set).as_nanos();
        let beats = latest / INTERVAL.as_nanos();
        assert!(beats * INTERVAL.as_nanos() >= earliest, "out of rhythm: {earliest} to {latest} ns");
    }
    assert!(map.cancel(timer));
    run(&mut map).unwrap();
}

/// EDGE_CASES 38.
#[test]
fn a_cancelled_timer_does_not_fire_though_it_is_due() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let others = Rc::new(RefCell::new(Vec::<TimerId>::new()));
    let (cancelling, to_cancel) = (log.clone(), others.clone());
    let own = Rc::new(Cell::new(None));
    let to_cancel_itself = own.clone();
    let every = map.call_every(MILLISECOND, move |map| {
        cancelling.add("every");
        for other in to_cancel.borrow_mut().drain(..) {
            assert!(map.cancel(other) && !map.cancel(other));
        }
        let own = to_cancel_itself.get().unwrap();
        assert!(map.cancel(own), "the timer that runs can be cancelled");
        assert!(!map.cancel(own), "once");
    });
    own.set(Some(every));
    for _ in 0..3 {
        others.borrow_mut().push(map.call_later(2 * MILLISECOND, note(&log, "cancelled")));
    }
    let spoiled = log.clone();
    others.borrow_mut().push(map.call_every(2 * MILLISECOND, move |_| spoiled.add("cancelled")));
    map.call_later(3 * MILLISECOND, note(&log, "the last"));
    // All of them are due in one turn.
    std::thread::sleep(5 * MILLISECOND);
    run(&mut map).unwrap();
    assert_eq!(log.events(), ["every", "the last"]);
    assert!(!map.cancel(every));
}

/// EDGE_CASES 38: no timer of another map.
#[test]
fn a_timer_of_another_map_is_refused() {
    let log = Log::new();
    let [mut map, mut other] = [(); 2].map(|()| ChannelMap::new().unwrap());
    let timer = map.call_later(MILLISECOND, note(&log, "fired"));
    let same = other.call_later(MILLISECOND, note(&log, "also fired"));
    assert!(!other.cancel(timer) && !map.cancel(same));
    run(&mut map).unwrap();
    run(&mut other).unwrap();
    assert_eq!(log.events(), ["fired", "also fired"]);
}

/// EDGE_CASES 38: a channel's timers die with it, whatever ends it, also those set at the last
/// moment; and none of them keeps the loop from returning.
#[test]
fn the_timers_of_a_channel_die_with_it() {
    for on in loopbacks() {
        for abort in [false, true] {
            let log = Log::new();
            let mut map = ChannelMap::new().unwrap();
            let held = Rc::new(());
            let set = {
                let (log, held) = (log.clone(), held.clone());
                move |ch: &mut dispatch_loop::Channel<'_>| {
                    for delay in [Duration::ZERO, MILLISECOND, HOUR] {
                        let (once, every) = (log.clone(), log.clone());
                        let (one, other) = (held.clone(), held.clone());
                        ch.call_later(delay, move |_| {
                            once.add("a timer");
                            drop(one);
                            Ok(())
                        });
                        ch.call_every(delay, move |_| {
                            every.add("a timer");
                            drop(other.clone());
                            Ok(())
                        });
                    }
                    ch.set_timeout(Some(HOUR));
                    Ok(())
                }
            };
            let set_last = set.clone();
            let recorder = Recorder::new("a", &log).on("close", set_last);
            let recorder = recorder.on("open", move |ch| {
                set(ch)?;
                if abort {
                    ch.abort()
                } else {
                    ch.close()
                }
                set(ch)
            });
            let (_, mut far) = provoke(&mut map, on, "open", recorder);
            turn_until(&mut map, &log, |_| log.closed("a"));
            assert_eq!(Rc::strong_count(&held), 1, "a timer is still there");
            assert_eq!(map.wait_limit(), None, "something would keep the loop waiting");
            let _ = far.read(&mut [0]);
            // Another channel in the same slot is not to blame for it.
            map.add(far, Recorder::new("b", &log)).unwrap();
            run(&mut map).unwrap();
            let closed = if abort { "close: aborted" } else { "close: closed" };
            assert_eq!(log.of("a").last().unwrap(), closed, "{:?}", log.events());
        }
    }
}

/// The timers of a channel are given its view, and may end it.
#[test]
fn a_timer_of_a_channel_serves_it() {
    for on in loopbacks() {
        let log = Log::new();
        let (near, mut far) = pair(on);
        let mut map = ChannelMap::new().unwrap();
        let ticks = Rc::new(Cell::new(0));
        let counting = ticks.clone();
        let recorder = Recorder::new("a", &log).on("open", move |ch| {
            let counting = counting.clone();
            ch.call_every(MILLISECOND, move |ch| {
                counting.set(counting.get() + 1);
                ch.push(b"tick")?;
                if counting.get() == 5 {
                    ch.close();
                }
                Ok(())
            });
            let never = ch.call_later(HOUR, |_| panic!("cancelled"));
            ch.call_later(Duration::ZERO, move |ch| {
                assert!(ch.cancel(never) && !ch.cancel(never));
                Ok(())
            });
            Ok(())
        });
        map.add(near, recorder).unwrap();
        run(&mut map).unwrap();
        let (got, end) = read_all(&mut far);
        end.unwrap();
        assert_eq!((got.len(), ticks.get()), (20, 5));
        assert_eq!(log.of("a"), ["open", "close: closed"]);
    }
}

/// EDGE_CASES 38: nothing of a cancelled timer is kept, and nothing of one that has fired.
#[test]
fn timers_leave_no_memory_behind() {
    let (near, _far) = unix_pair();
    let mut map = ChannelMap::new().unwrap();
    let token = map.add(near, Recorder::new("a", &Log::new())).unwrap();
    turn_idle(&mut map);
    let round = |map: &mut ChannelMap| {
        for _ in 0..1000 {
            let bytes = [1u8; 512];
            let timer = map.call_later(HOUR, move |_| assert_eq!(bytes, [1; 512]));
            assert!(map.cancel(timer));
            let mut channel = map.channel(token).unwrap();
            let timer = channel.call_every(HOUR, move |_| {
                assert_eq!(bytes, [1; 512]);
                Ok(())
            });
            channel.set_timeout(Some(HOUR));
            assert!(channel.cancel(timer));
            map.call_soon(move |_| assert_eq!(bytes, [1; 512]));
            map.turn(Some(Duration::ZERO)).unwrap();
        }
        map.channel(token).unwrap().set_timeout(None);
        map.turn(Some(Duration::ZERO)).unwrap();
        heap::live()
    };
    let before = round(&mut map);
    let after = round(&mut map);
    assert!((after - before).abs() < 4096, "{} bytes of a thousand timers are left", after - before);
    assert_eq!(map.wait_limit(), None);
}

/// EDGE_CASES 39.
#[test]
fn deferred_work_that_defers_itself_starves_nobody() {
    fn again(map: &mut ChannelMap, turns: Rc<Cell<u64>>) {
        turns.set(turns.get() + 1);
        map.call_soon(move |map| again(map, turns));
    }
    for on in loopbacks() {
        let log = Log::new();
        let (near, mut far) = pair(on);
        let mut map = ChannelMap::new().unwrap();
        map.add(near, Recorder::new("a", &log)).unwrap();
        let turns = Rc::new(Cell::new(0));
        again(&mut map, turns.clone());
        let rounds = Rc::new(Cell::new(0));
        let counting = rounds.clone();
        map.call_every(Duration::ZERO, move |_| counting.set(counting.get() + 1));
        map.call_later(5 * MILLISECOND, note(&log, "timer"));
        far.write_all(b"me too").unwrap();
        turn_until(&mut map, &log, |_| log.has("timer") && log.input("a") == b"me too");
        let before = (turns.get(), rounds.get());
        map.turn(None).unwrap();
        assert_eq!((turns.get(), rounds.get()), (before.0 + 1, before.1 + 1), "once a turn");
    }
}

/// EDGE_CASES 42.
#[cfg(debug_assertions)]
#[test]
fn stop_ends_the_loop_after_its_turn() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let timer = map.call_later(HOUR, |_| panic!("nobody waits an hour"));
    map.stop();
    let waits = count(Call::Wait);
    run(&mut map).unwrap();
    assert_eq!(count(Call::Wait), waits, "it returned without waiting");
    let stopping = log.clone();
    map.call_soon(move |map| {
        map.stop();
        stopping.add("stopped");
    });
    map.call_soon(note(&log, "also of this turn"));
    run(&mut map).unwrap();
    assert_eq!(log.events(), ["stopped", "also of this turn"]);
    // From a hook that the settle runs, before the wait.
    let (near, far) = unix_pair();
    let recorder = Recorder::new("a", &log).on("open", |ch| {
        ch.map_mut().stop();
        Ok(())
    });
    map.add(near, recorder).unwrap();
    run(&mut map).unwrap();
    assert!(log.has("a open") && map.len() == 1);
    drop(far);
    assert!(map.cancel(timer));
    run(&mut map).unwrap();
    assert!(log.closed("a"));
}

/// EDGE_CASES 42: woken by a timer, that runs before the loop returns.
#[test]
fn one_wait_runs_the_timer_that_ended_it() {
    for delay in [0, 1, 7, 20] {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        map.call_later(delay * MILLISECOND, note(&log, "fired"));
        map.call_later(HOUR, |_| panic!("nobody waits an hour"));
        run_with(&mut map, &one()).unwrap();
        assert_eq!(log.events(), ["fired"], "after {delay} ms");
    }
}

/// EDGE_CASES 43.
#[test]
fn a_signal_does_not_end_the_wait() {
    const PERIOD: Duration = Duration::from_millis(150);
    signal_hook::flag::register(libc::SIGUSR1, Arc::default()).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let loops = done.clone();
    // SAFETY: it asks for nothing and cannot fail.
    #[allow(unsafe_code)]
    let this_thread = unsafe { libc::pthread_self() } as usize;
    let signals = std::thread::spawn(move || {
        let begun = Instant::now();
        while !loops.load(Ordering::SeqCst) && begun.elapsed() < DEADLINE {
            // SAFETY: the thread is alive, because it joins this one.
            #[allow(unsafe_code)]
            let sent = unsafe { libc::pthread_kill(this_thread as libc::pthread_t, libc::SIGUSR1) };
            assert_eq!(sent, 0);
            std::thread::sleep(10 * MILLISECOND);
        }
    });
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    // An empty map has nothing to wait for.
    map.listen(loopbacks()[0], Recorder::new("listener", &log)).unwrap();
    turn_idle(&mut map);
    let begun = Instant::now();
    map.turn(Some(PERIOD)).unwrap();
    let idle = begun.elapsed();
    map.call_later(PERIOD, note(&log, "fired"));
    let begun = Instant::now();
    let result = run_with(&mut map, &one());
    let timer = begun.elapsed();
    done.store(true, Ordering::SeqCst);
    signals.join().unwrap();
    result.unwrap();
    assert_eq!(log.events(), ["fired"]);
    // Begun anew by each signal, it would have lasted as long as there were signals.
    for waited in [idle, timer] {
        assert!(waited >= PERIOD && waited < DEADLINE / 2, "{waited:?}");
    }
}

/// EDGE_CASES 43, with each wait interrupted as soon as it begins.
#[cfg(debug_assertions)]
#[test]
fn an_interrupted_wait_goes_on() {
    let mut map = ChannelMap::new().unwrap();
    map.listen(loopbacks()[0], Recorder::new("listener", &Log::new())).unwrap();
    turn_idle(&mut map);
    for timeout in [Some(Duration::ZERO), Some(20 * MILLISECOND)] {
        inject(Call::Wait, 0, 5, Fault::Errno(libc::EINTR));
        let (begun, waits) = (Instant::now(), count(Call::Wait));
        map.turn(timeout).unwrap();
        assert!(begun.elapsed() >= timeout.unwrap());
        assert_eq!(count(Call::Wait), waits + 6);
        clear();
    }
}
