//! `on_signal`. Each test has a signal of its own, because the process has them all in common.

use std::cell::Cell;
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

#[cfg(debug_assertions)]
use dispatch_loop::faults::{Call, count};
use dispatch_loop::{Channel, ChannelMap, Dispatcher, LoopOptions, Reason, run, run_with};
use signal_hook::consts::*;
use signal_hook::low_level::raise;

use crate::support::logging::{capture_log, logged};
use crate::support::peers::{loopbacks, pair, unix_pair};
use crate::support::process::{alone, open_descriptors};
use crate::support::recorder::{Log, Recorder};
use crate::support::threads::{held, run_to_its_end};
use crate::support::turning::{assert_calm, turn_idle, turn_until};
use crate::support::waiting::DEADLINE;

type Count = Rc<Cell<u32>>;

fn counting(count: &Count) -> impl FnMut(&mut ChannelMap) + 'static {
    let count = count.clone();
    move |_| count.set(count.get() + 1)
}

/// On the loop's thread, once for those that come close together, and again for the next.
#[test]
fn a_signal_calls_back() {
    let (mut map, came) = (held(), Count::default());
    map.on_signal(SIGUSR1, counting(&came)).unwrap();
    assert_calm(&mut map);
    for n in 1..=20 {
        for _ in 0..n % 3 + 1 {
            raise(SIGUSR1).unwrap();
        }
        map.turn(None).unwrap();
        assert_eq!(came.get(), n);
    }
    assert_calm(&mut map);
    assert_eq!(came.get(), 20);
}

/// EDGE_CASES 43: it comes to a loop that sleeps, from another thread or to that very one.
#[test]
fn a_signal_ends_a_wait() {
    let mut map = held();
    map.on_signal(SIGUSR2, |map| map.stop()).unwrap();
    for _ in 0..20 {
        let thread = thread::spawn(|| raise(SIGUSR2).unwrap());
        run(&mut map).unwrap();
        thread.join().unwrap();
    }
    let begun = Instant::now();
    map.call_soon(|_| raise(SIGUSR2).unwrap());
    run(&mut map).unwrap();
    assert!(begun.elapsed() < DEADLINE / 2);
}

/// Of one signal or of several, in one map or in two: each is called.
#[test]
fn several_watches_are_all_called() {
    let (mut map, mut other) = (held(), held());
    let counts = [(); 4].map(|()| Count::default());
    map.on_signal(SIGWINCH, counting(&counts[0])).unwrap();
    let second = map.on_signal(SIGWINCH, counting(&counts[1])).unwrap();
    map.on_signal(SIGURG, counting(&counts[2])).unwrap();
    other.on_signal(SIGWINCH, counting(&counts[3])).unwrap();
    let mut after = |signal, close, wanted: [u32; 4]| {
        raise(signal).unwrap();
        turn_until(&mut map, &Log::new(), |_| counts[1].get() >= wanted[1] && counts[2].get() >= wanted[2]);
        other.turn(Some(Duration::ZERO)).unwrap();
        turn_idle(&mut map);
        assert_eq!([0, 1, 2, 3].map(|n: usize| counts[n].get()), wanted);
        if close {
            map.channel(second).unwrap().close();
            turn_until(&mut map, &Log::new(), |map| !map.contains(second));
        }
    };
    after(SIGWINCH, false, [1, 1, 0, 1]);
    after(SIGURG, true, [1, 1, 1, 1]);
    after(SIGWINCH, false, [2, 1, 1, 2]);
}

/// A watch keeps `run` from neither ending nor sleeping.
#[cfg(debug_assertions)]
#[test]
fn a_watch_keeps_run_neither_going_nor_awake() {
    let mut map = ChannelMap::new().unwrap();
    let watch = map.on_signal(SIGHUP, |_| ()).unwrap();
    let begun = Instant::now();
    run_to_its_end(&mut map);
    assert!(map.contains(watch) && map.is_empty());
    // With a timer it stays until that has run, in a few waits.
    let ran = Count::default();
    let fired = ran.clone();
    map.call_later(Duration::from_millis(100), move |_| fired.set(1));
    let waits = count(Call::Wait);
    run_to_its_end(&mut map);
    let waits = count(Call::Wait) - waits;
    assert!(ran.get() == 1 && waits <= 5, "{waits} waits");
    assert!(begun.elapsed() < DEADLINE / 2);
    // Nor does it spin while somebody else turns it.
    raise(SIGHUP).unwrap();
    turn_idle(&mut map);
    assert_calm(&mut map);
}

/// Rule 14, for any channel; and one that comes to the fore again keeps it going.
#[cfg(debug_assertions)]
#[test]
fn run_ends_when_only_channels_in_the_background_are_left() {
    for on in loopbacks() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let listener = map.listen(on, Recorder::new("listener", &log)).unwrap();
        map.channel(listener).unwrap().set_background(true);
        let (near, far) = pair(on);
        let front = map.add(near, Recorder::new("front", &log)).unwrap();
        drop(far);
        run_to_its_end(&mut map);
        assert!(map.contains(listener) && !map.contains(front));
        assert_eq!(log.of("front").last().unwrap(), "close: end of stream");
        // Twice is once.
        for on in [true, true, false, false] {
            map.channel(listener).unwrap().set_background(on);
        }
        let short = LoopOptions::default().with_timeout(Duration::ZERO).with_count(3);
        let waits = count(Call::Wait);
        run_with(&mut map, &short).unwrap();
        assert_eq!(count(Call::Wait) - waits, 3);
        // What ends in the background leaves no trace in the account.
        map.channel(listener).unwrap().set_background(true);
        map.channel(listener).unwrap().close();
        let (near, far) = pair(on);
        let front = map.add(near, Recorder::new("last", &log)).unwrap();
        thread::spawn(move || drop(far));
        run_to_its_end(&mut map);
        assert!(!map.contains(front) && map.is_empty());
    }
}

/// From outside and from inside; what it held is dropped, and the signal does nothing.
#[test]
fn closing_its_token_ends_a_watch() {
    for inside in [false, true] {
        let (mut map, came, held) = (held(), Count::default(), Arc::new(()));
        let (mine, mut count, own) = (held.clone(), counting(&came), Rc::new(Cell::new(None)));
        let token = own.clone();
        let watch = move |map: &mut ChannelMap| {
            assert!(Arc::strong_count(&mine) > 0);
            count(map);
            if inside {
                map.channel(token.get().unwrap()).unwrap().close();
            }
        };
        let watch = map.on_signal(SIGALRM, watch).unwrap();
        own.set(Some(watch));
        raise(SIGALRM).unwrap();
        turn_until(&mut map, &Log::new(), |_| came.get() == 1);
        if !inside {
            map.channel(watch).unwrap().close();
        }
        turn_until(&mut map, &Log::new(), |map| !map.contains(watch));
        assert_eq!(Arc::strong_count(&held), 1);
        raise(SIGALRM).unwrap();
        turn_idle(&mut map);
        assert_eq!((came.get(), map.len()), (1, 0));
    }
}

/// The map's end is the watch's.
#[test]
fn a_dropped_map_leaves_no_watch() {
    alone(None, || {
        let before = open_descriptors();
        for _ in 0..5 {
            let (mut map, held) = (ChannelMap::new().unwrap(), Arc::new(()));
            let mine = held.clone();
            map.on_signal(SIGTERM, move |_| drop(mine.clone())).unwrap();
            drop(map);
            assert_eq!((Arc::strong_count(&held), open_descriptors()), (1, before));
        }
        // There was a handler once, and it does nothing now.
        raise(SIGTERM).unwrap();
    });
}

/// Nor those that there are not.
#[test]
fn signals_that_cannot_be_watched_are_refused() {
    let mut map = ChannelMap::new().unwrap();
    for signal in [SIGKILL, SIGSTOP, SIGSEGV, SIGILL, SIGFPE, 0, -1, 4321] {
        let error = map.on_signal(signal, |_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{signal}");
    }
    assert!(map.is_empty());
    run_to_its_end(&mut map);
}

/// EDGE_CASES 97, rule 13: it is logged, the next signal calls it again, and others go on.
#[test]
fn a_watch_that_panics_is_called_again() {
    capture_log();
    let (mut map, came, panicked) = (held(), Count::default(), Count::default());
    let count = panicked.clone();
    let panics = map.on_signal(SIGCONT, move |_| {
        count.set(count.get() + 1);
        panic!("on purpose");
    });
    map.on_signal(SIGCONT, counting(&came)).unwrap();
    for n in 1..=3 {
        raise(SIGCONT).unwrap();
        turn_until(&mut map, &Log::new(), |_| came.get() == n && panicked.get() == n);
    }
    assert_eq!(logged("a signal's callback panicked: on purpose").len(), 3);
    assert!(map.contains(panics.unwrap()));
}

/// What a server does on SIGTERM: everything ends, the watch as well, and `run` returns.
#[test]
fn a_signal_may_close_everything() {
    struct Quiet(Count);
    impl Dispatcher for Quiet {
        fn handle_close(&mut self, _: &mut Channel<'_>, reason: &Reason) {
            assert!(matches!(reason, Reason::Closed));
            self.0.set(self.0.get() + 1);
        }
    }
    let (mut map, closed) = (ChannelMap::new().unwrap(), Count::default());
    let (near, _far) = unix_pair();
    map.add(near, Quiet(closed.clone())).unwrap();
    map.listen("127.0.0.1:0", Quiet(closed.clone())).unwrap();
    map.on_signal(SIGINT, |map| map.close_all()).unwrap();
    let thread = thread::spawn(|| raise(SIGINT).unwrap());
    run_to_its_end(&mut map);
    thread.join().unwrap();
    assert_eq!(closed.get(), 2);
}

/// It is none of the map's channels: nobody counts it, and `close_all` leaves it.
#[test]
fn a_watch_is_no_channel_of_the_maps() {
    let (mut map, came) = (ChannelMap::new().unwrap(), Count::default());
    let watch = map.on_signal(SIGTTIN, counting(&came)).unwrap();
    turn_idle(&mut map);
    assert_eq!((map.len(), map.tokens().count(), map.numbers().channels), (0, 0, 0));
    assert!(map.is_idle());
    map.close_all();
    turn_idle(&mut map);
    raise(SIGTTIN).unwrap();
    map.turn(Some(DEADLINE)).unwrap();
    assert_eq!(came.get(), 1);
    // Its token closes it.
    map.channel(watch).unwrap().close();
    turn_until(&mut map, &Log::new(), |map| !map.contains(watch));
}
