//! `set_timeout` and `handle_timeout`: EDGE_CASES 5, and what counts as a sign of life.

use std::cell::Cell;
use std::io::Write;
use std::net::TcpListener;
use std::rc::Rc;
use std::time::{Duration, Instant};

use dispatch_loop::{Channel, ChannelMap, Dispatcher, OnError, Reason, run};

use crate::support::peers::{black_hole, loopbacks, narrow_pair, pair, read_all};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{turn_idle, turn_until};

const MILLISECOND: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// All defaults but the last hook.
struct Plain(Log);

impl Dispatcher for Plain {
    fn handle_close(&mut self, _: &mut Channel<'_>, reason: &Reason) {
        self.0.add(format!("close: {reason}"));
    }
}

/// By default a channel on which nothing comes or goes ends.
#[test]
fn an_idle_channel_times_out() {
    for on in loopbacks() {
        let log = Log::new();
        let (near, mut far) = pair(on);
        let mut map = ChannelMap::new().unwrap();
        let begun = Instant::now();
        let token = map.add(near, Plain(log.clone())).unwrap();
        map.channel(token).unwrap().set_timeout(Some(30 * MILLISECOND));
        run(&mut map).unwrap();
        assert!(begun.elapsed() >= 30 * MILLISECOND, "too early");
        assert_eq!(log.events(), ["close: timed out"]);
        let (got, _) = read_all(&mut far);
        assert_eq!(got, b"");
    }
}

/// EDGE_CASES 5: one outcome, and no event after it.
#[test]
fn a_connect_times_out() {
    for on in loopbacks() {
        let log = Log::new();
        let (listener, _filling, address) = black_hole(on);
        let mut map = ChannelMap::new().unwrap();
        let begun = Instant::now();
        let plain = map.connect(address, Plain(log.clone())).unwrap();
        let told = Recorder::new("a", &log).on("timeout", |ch| {
            assert!(ch.is_connecting());
            ch.close();
            Ok(())
        });
        let told = map.connect(address, told).unwrap();
        // What was pushed is no sign of life.
        for token in [plain.token(), told.token()] {
            let mut ch = map.channel(token).unwrap();
            ch.push(b"never sent").unwrap();
            ch.set_timeout(Some(50 * MILLISECOND));
        }
        turn_until(&mut map, &log, |map| map.is_empty());
        assert!(begun.elapsed() >= 50 * MILLISECOND, "too early");
        let mut events = log.events();
        events.sort();
        assert_eq!(events, ["a close: closed", "a timeout", "close: timed out"]);
        // There is room in the backlog now, and nobody left to use it.
        drop(listener.accept().unwrap());
        turn_idle(&mut map);
        assert_eq!(log.events().len(), 3);
    }
}

/// EDGE_CASES 5: counted from `connect`, not from when the time was set; and anew once connected.
#[test]
fn a_connect_in_time_is_not_timed_out() {
    for on in loopbacks() {
        let log = Log::new();
        let listener = TcpListener::bind(on).unwrap();
        let mut map = ChannelMap::new().unwrap();
        let handle = map.connect(listener.local_addr().unwrap(), Recorder::new("a", &log)).unwrap();
        let connected = Instant::now();
        map.channel(handle).unwrap().set_timeout(Some(60 * MILLISECOND));
        turn_until(&mut map, &log, |_| log.closed("a"));
        assert!(connected.elapsed() >= 60 * MILLISECOND);
        assert_eq!(log.of("a"), ["connect", "open", "timeout", "close: aborted"]);

        // It is over when it is set.
        let (_listener, _filling, address) = black_hole(on);
        let handle = map.connect(address, Recorder::new("b", &log)).unwrap();
        std::thread::sleep(20 * MILLISECOND);
        map.channel(handle).unwrap().set_timeout(Some(10 * MILLISECOND));
        assert_eq!(map.wait_limit(), Some(Duration::ZERO));
        map.turn(Some(Duration::ZERO)).unwrap();
        assert_eq!(log.of("b"), ["timeout", "close: aborted"]);
    }
}

/// A byte that comes and a byte that goes move the deadline; a full queue does not.
#[test]
fn traffic_keeps_a_channel_alive() {
    const TIMEOUT: Duration = Duration::from_millis(120);
    for on in loopbacks() {
        for inwards in [true, false] {
            let log = Log::new();
            let (near, mut far) = narrow_pair(on);
            let mut map = ChannelMap::new().unwrap();
            let token = map.add(near, Recorder::new("a", &log).quiet()).unwrap();
            map.channel(token).unwrap().set_timeout(Some(TIMEOUT));
            let begun = Instant::now();
            while begun.elapsed() < 2 * TIMEOUT {
                // The turn sees the byte before it sees how late it is.
                match inwards {
                    true => far.write_all(b".").unwrap(),
                    false => map.channel(token).unwrap().push(b".").unwrap(),
                }
                map.turn(Some(Duration::ZERO)).unwrap();
                std::thread::sleep(TIMEOUT / 20);
            }
            assert_eq!(log.of("a"), ["open"], "it was never idle");
            let last = Instant::now();
            map.channel(token).unwrap().push(&[0; 4_000_000]).unwrap();
            turn_until(&mut map, &log, |_| log.closed("a"));
            assert!(last.elapsed() >= TIMEOUT);
            assert_eq!(log.of("a")[log.of("a").len() - 2..], ["timeout", "close: aborted"]);
        }
    }
}

/// A hook that lets the channel live starts the time anew; one may also set another or none.
#[test]
fn the_time_starts_anew_after_the_hook() {
    for on in loopbacks() {
        let log = Log::new();
        let (near, _far) = pair(on);
        let mut map = ChannelMap::new().unwrap();
        let last = Rc::new(Cell::new(Instant::now()));
        let mut rounds = 0;
        let recorder = Recorder::new("a", &log).on("timeout", move |ch| {
            let timeout = if rounds == 3 { 40 * MILLISECOND } else { 10 * MILLISECOND };
            assert!(last.replace(Instant::now()).elapsed() >= timeout, "too early");
            rounds += 1;
            match rounds {
                1 | 2 => {}
                3 => ch.set_timeout(Some(40 * MILLISECOND)),
                _ => ch.set_timeout(None),
            }
            Ok(())
        });
        let token = map.add(near, recorder).unwrap();
        map.channel(token).unwrap().set_timeout(Some(10 * MILLISECOND));
        turn_until(&mut map, &log, |_| log.count("a timeout") == 4);
        assert_eq!(map.wait_limit().filter(|limit| !limit.is_zero()), None, "no timer is left");
        turn_idle(&mut map);
        assert_eq!(log.of("a"), ["open", "timeout", "timeout", "timeout", "timeout"]);
    }
}

/// An error of the hook is one of the dispatcher's; kept, the time starts anew as well.
#[test]
fn a_timeout_hook_that_fails_is_an_error_of_its_channel() {
    for on_error in [OnError::End, OnError::Keep] {
        let log = Log::new();
        let (near, _far) = pair(loopbacks()[0]);
        let mut map = ChannelMap::new().unwrap();
        let recorder = Recorder::new("a", &log).on_error(on_error);
        let recorder = recorder.on("timeout", |_| Err(std::io::Error::other("no patience")));
        let token = map.add(near, recorder).unwrap();
        map.channel(token).unwrap().set_timeout(Some(5 * MILLISECOND));
        turn_until(&mut map, &log, |_| log.closed("a") || log.count("a timeout") == 3);
        let failed = ["timeout", "error: no patience"];
        let wanted = match on_error {
            OnError::End => [&["open"][..], &failed, &["close: no patience"]].concat(),
            OnError::Keep => [&["open"][..], &failed, &failed, &failed].concat(),
        };
        assert_eq!(log.of("a"), wanted);
    }
}

/// The hook is not for a channel that ends: `close` has its own deadline. And a time that is taken
/// back or replaced is over.
#[test]
fn a_channel_that_ends_runs_no_timeout_hook() {
    let log = Log::new();
    let (near, _far) = narrow_pair(loopbacks()[0]);
    let mut map = ChannelMap::new().unwrap();
    let token = map.add(near, Recorder::new("a", &log)).unwrap();
    let mut ch = map.channel(token).unwrap();
    ch.push(&[0; 4_000_000]).unwrap();
    ch.set_timeout(Some(MILLISECOND));
    ch.set_close_timeout(60 * MILLISECOND);
    ch.close();
    run(&mut map).unwrap();
    assert_eq!(log.of("a"), ["close: timed out"]);

    let (near, _far) = pair(loopbacks()[0]);
    let token = map.add(near, Recorder::new("b", &log)).unwrap();
    map.channel(token).unwrap().set_timeout(Some(MILLISECOND));
    map.channel(token).unwrap().set_timeout(Some(HOUR));
    std::thread::sleep(2 * MILLISECOND);
    turn_idle(&mut map);
    map.channel(token).unwrap().set_timeout(Some(MILLISECOND));
    map.channel(token).unwrap().set_timeout(None);
    std::thread::sleep(2 * MILLISECOND);
    turn_idle(&mut map);
    assert_eq!(log.of("b"), ["open"]);
    assert_eq!(map.wait_limit(), None);
}
