//! A clock that moves when the loop would wait, and only then.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use dispatch_loop::{Bandwidth, ChannelMap, run, testing};

use crate::support::recorder::{Log, Recorder};

const MS: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn timers_run_at_their_time_to_the_nanosecond() {
    let mut map = testing::map().unwrap();
    let begun = map.now();
    let ran = Rc::new(RefCell::new(Vec::new()));
    for (at, name) in [(3 * DAY, "c"), (MS, "a"), (2 * DAY + Duration::from_nanos(1), "b")] {
        let ran = ran.clone();
        map.call_later(at, move |map| ran.borrow_mut().push((name, map.now() - begun)));
    }
    assert_eq!(map.now(), begun, "it stands still");
    run(&mut map).unwrap();
    assert_eq!(*ran.borrow(), [("a", MS), ("b", 2 * DAY + Duration::from_nanos(1)), ("c", 3 * DAY)]);
}

#[test]
fn advance_runs_what_is_due_by_then_and_no_more() {
    let mut map = testing::map().unwrap();
    let begun = map.now();
    let beats = Rc::new(RefCell::new(0));
    let count = beats.clone();
    map.call_every(10 * MS, move |_| *count.borrow_mut() += 1);
    for (time, so_far) in [(Duration::ZERO, 0), (9 * MS, 0), (MS, 1), (25 * MS, 3)] {
        testing::advance(&mut map, time).unwrap();
        assert_eq!(*beats.borrow(), so_far);
    }
    assert_eq!(map.now() - begun, 35 * MS);
}

/// As a `turn` of any other map, it waits no longer than it is told to.
#[test]
fn a_turn_moves_the_clock_by_its_timeout_at_most() {
    let log = Log::new();
    let mut map = testing::map().unwrap();
    let (_, peer) = testing::add(&mut map, Recorder::new("a", &log)).unwrap();
    let begun = map.now();
    map.turn(Some(MS)).unwrap();
    map.turn(Some(7 * MS)).unwrap();
    assert_eq!(map.now() - begun, 8 * MS);
    peer.wait(5 * MS).send("x");
    map.turn(Some(DAY)).unwrap();
    assert_eq!((map.now() - begun, log.input("a")), (13 * MS, b"x".to_vec()));
}

/// A thread's work takes the time of the world, and none of the test's.
#[test]
fn the_clock_stands_still_while_a_thread_does_what_blocks() {
    let mut map = testing::map().unwrap();
    let begun = map.now();
    let ran = Rc::new(RefCell::new(Vec::new()));
    let [timer, result] = [ran.clone(), ran.clone()];
    map.call_later(MS, move |_| timer.borrow_mut().push("timer"));
    let work = || std::thread::sleep(20 * MS);
    map.spawn_blocking(work, move |map, ()| {
        result.borrow_mut().push(if map.now() == begun { "result" } else { "late" })
    })
    .unwrap();
    run(&mut map).unwrap();
    assert_eq!((ran.take(), map.now() - begun), (vec!["result", "timer"], MS));
}

/// EDGE_CASES 569: a thread is waited for, and before that no time passes, of which that of timers is a part.
#[test]
fn to_advance_is_to_wait_for_what_blocks_too() {
    for time in [Duration::ZERO, DAY] {
        let mut map = testing::map().unwrap();
        let begun = map.now();
        let done = Rc::new(RefCell::new(Vec::new()));
        let (told, ran) = (done.clone(), done.clone());
        map.call_later(MS, move |_| ran.borrow_mut().push(("timer", MS)));
        let work = || std::thread::sleep(20 * MS);
        map.spawn_blocking(work, move |map, ()| told.borrow_mut().push(("result", map.now() - begun)))
            .unwrap();
        testing::advance(&mut map, time).unwrap();
        let expected = [("result", Duration::ZERO), ("timer", MS)];
        assert_eq!(*done.borrow(), expected[..if time.is_zero() { 1 } else { 2 }]);
        assert_eq!(map.now() - begun, time);
    }
}

/// EDGE_CASES 570.
#[test]
fn a_peer_that_reads_nothing_again_and_again_does_nothing() {
    let mut map = testing::map().unwrap();
    let (handle, peer) = testing::add(&mut map, Recorder::new("a", &Log::new())).unwrap();
    peer.read_slowly(0, MS);
    map.channel(handle).unwrap().push(b"unread").unwrap();
    assert_eq!(run(&mut map).unwrap_err().kind(), ErrorKind::Deadlock);
}

#[test]
fn a_wait_for_ever_is_an_error_that_says_who_waits() {
    let log = Log::new();
    let mut map = testing::map().unwrap();
    let (handle, peer) = testing::add(&mut map, Recorder::new("a", &log)).unwrap();
    let error = run(&mut map).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Deadlock);
    assert!(error.to_string().contains(&format!("channel {} is open", handle.token())), "{error}");
    assert_eq!(map.turn(None).unwrap_err().kind(), ErrorKind::Deadlock);
    testing::advance(&mut map, DAY).unwrap();
    peer.fin();
    run(&mut map).unwrap();
    assert_eq!(log.of("a"), ["open", "read", "eof", "close: end of stream"]);
}

#[test]
fn what_never_comes_to_rest_is_an_error() {
    let mut map = testing::map().unwrap();
    map.call_every(Duration::ZERO, |_| ());
    assert_eq!(testing::advance(&mut map, MS).unwrap_err().kind(), ErrorKind::Deadlock);
}

#[test]
fn descriptors_are_refused() {
    let log = Log::new();
    let mut map = testing::map().unwrap();
    let (near, _far) = UnixStream::pair().unwrap();
    let refused = [
        map.add(near, Recorder::new("a", &log)).map(drop),
        map.listen("127.0.0.1:0", Recorder::new("a", &log)).map(drop),
        map.bind("127.0.0.1:0", Recorder::new("a", &log)).map(drop),
    ];
    for refused in refused {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("testing::add"), "{error}");
    }
    assert!(map.is_empty() && log.events().is_empty());
}

#[test]
fn other_maps_are_not_for_testing() {
    let mut map = ChannelMap::new().unwrap();
    let log = Log::new();
    let advanced = testing::advance(&mut map, MS).unwrap_err();
    let added = testing::add(&mut map, Recorder::new("a", &log)).map(drop).unwrap_err();
    assert_eq!((advanced.kind(), added.kind()), (ErrorKind::InvalidInput, ErrorKind::InvalidInput));
}

/// The maps for testing of a thread share a clock; another map of that thread has the system's.
#[test]
fn a_map_that_is_not_for_testing_has_its_own_time() {
    let mut tested = testing::map().unwrap();
    let other = testing::map().unwrap();
    let mut real = ChannelMap::new().unwrap();
    testing::advance(&mut tested, DAY).unwrap();
    assert_eq!(tested.now(), other.now());
    assert!(tested.now() > Instant::now() + DAY / 2);
    assert!(real.now() <= Instant::now());
    let begun = Instant::now();
    real.call_later(20 * MS, |_| ());
    run(&mut real).unwrap();
    assert!((20 * MS..DAY / 2).contains(&begun.elapsed()));
    drop((tested, other));
    assert!(testing::map().unwrap().now() <= Instant::now());
}

#[test]
fn timeouts_and_bandwidths_go_by_it() {
    let log = Log::new();
    let mut map = testing::map().unwrap();
    let begun = map.now();
    let silent = Recorder::new("a", &log).on("open", |ch| {
        ch.set_timeout(Some(DAY));
        Ok(())
    });
    testing::add(&mut map, silent).unwrap();
    let slow = Bandwidth::new(1000).with_burst(1000);
    let sender = Recorder::new("b", &log).on("open", move |ch| {
        ch.set_write_bandwidth([&slow]);
        ch.push_vec(vec![0; 61_000])?;
        ch.close();
        Ok(())
    });
    let (_, peer) = testing::add(&mut map, sender).unwrap();
    peer.wait(61 * 1000 * MS).fin();
    testing::advance(&mut map, 30 * 1000 * MS).unwrap();
    assert!((30_000..=31_000).contains(&peer.sent().len()), "{}", peer.sent().len());
    run(&mut map).unwrap();
    assert_eq!((peer.sent().len(), map.now() - begun), (61_000, DAY));
    assert_eq!(log.of("a"), ["open", "timeout", "close: aborted"]);
    assert_eq!(log.of("b"), ["open", "close: closed"]);
}

/// A bucket fills up while the test's time passes.
#[test]
fn a_bandwidth_that_was_not_used_for_an_hour_allows_its_burst_again() {
    let log = Log::new();
    let mut map = testing::map().unwrap();
    let (handle, peer) = testing::add(&mut map, Recorder::new("a", &log)).unwrap();
    testing::advance(&mut map, Duration::ZERO).unwrap();
    map.channel(handle).unwrap().set_write_bandwidth([&Bandwidth::new(1000)]);
    for _ in 0..3 {
        map.channel(handle).unwrap().push(&[0; 1000]).unwrap();
        testing::advance(&mut map, Duration::ZERO).unwrap();
        assert_eq!(peer.take_sent().len(), 1000);
        testing::advance(&mut map, DAY / 24).unwrap();
    }
}
