//! Panics stay local: EDGE_CASES 44 and 45. (Those of the accept hook are in `accept.rs`, those of
//! what is no hook but runs for one channel in `errors.rs`.)

use std::cell::Cell;
use std::io::Write;
use std::net::TcpStream;
use std::panic::panic_any;
use std::time::Duration;

use dispatch_loop::{Channel, ChannelMap, Dispatcher, OnError, Reason, run};

use crate::support::heap;
use crate::support::logging::{capture_log, logged};
use crate::support::opened::address_of;
use crate::support::peers::{loopbacks, pair, read_all};
use crate::support::provoke::{assert_echoes, echo, hooks, provoke};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{turn_idle, turn_until};
use crate::support::waiting::wait_for_input;

const HOUR: Duration = Duration::from_secs(3600);

/// A panic whose payload panics again when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the payload as well");
    }
}

/// EDGE_CASES 44 and 53: whatever `handle_error` answers.
#[test]
fn a_panic_in_each_hook_ends_its_channel_alone() {
    for on in loopbacks() {
        for hook in hooks() {
            for bomb in [false, true] {
                let log = Log::new();
                let mut map = ChannelMap::new().unwrap();
                let (_, mut far_echo) = echo(&mut map, on, &log);
                let recorder =
                    Recorder::new("a", &log).on_error(OnError::Keep).on(hook, move |_| match bomb {
                        true => panic_any(Bomb),
                        false => panic!("boom"),
                    });
                let (handle, mut far) = provoke(&mut map, on, hook, recorder);
                turn_until(&mut map, &log, |_| log.closed("a"));
                let says = if bomb { "panicked: (no message)" } else { "panicked: boom" };
                let ends = match hook {
                    // A panic instead of an answer: it ends with what it was asked about.
                    "error" => ["read".into(), "error: provoked".into(), "close: provoked".into()],
                    _ => [hook.into(), format!("error: {says}"), format!("close: {says}")],
                };
                let all = log.of("a");
                assert_eq!(all[all.len() - 3..], ends, "{hook}: {all:?}");
                assert!(!map.contains(handle));
                let _ = read_all(&mut far);
                assert_echoes(&mut map, &log, &mut far_echo);
                assert_eq!(log.of("a"), all, "no hook after the last");
            }
        }
    }
}

/// EDGE_CASES 44: with the loop's buffers lent out, two deep.
#[test]
fn a_panic_with_the_buffer_in_hand_gives_it_back() {
    for on in loopbacks() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (echo, mut far_echo) = echo(&mut map, on, &log);
        turn_idle(&mut map);
        for round in 1..=4 {
            let (near, mut far) = pair(on);
            let recorder = Recorder::new("a", &log).on("read", move |ch| {
                ch.read_with(|ch, _| ch.map_mut().channel(echo)?.read_with(|_, _| panic!("boom")))
            });
            map.channel(echo).unwrap().pause_reading();
            map.add(near, recorder).unwrap();
            far_echo.write_all(b"lent when it happens").unwrap();
            wait_for_input(map.channel(echo).unwrap().socket().unwrap());
            far.write_all(b"x").unwrap();
            turn_until(&mut map, &log, |_| log.count("a close: panicked: boom") == round);
            map.channel(echo).unwrap().resume_reading();
            let before = heap::allocated();
            assert_echoes(&mut map, &log, &mut far_echo);
            assert!(heap::allocated() - before < 60_000, "the buffer was not given back");
        }
    }
}

/// EDGE_CASES 45: at the first question, and later; of a listener as well.
#[test]
fn a_panic_in_readable_or_writable_ends_its_channel() {
    for on in loopbacks() {
        for (asked, at) in [("readable", 1), ("readable", 2), ("writable", 1), ("writable", 2)] {
            let log = Log::new();
            let mut map = ChannelMap::new().unwrap();
            let (_, mut far_echo) = echo(&mut map, on, &log);
            let panics = move |which: &'static str| {
                let times = Cell::new(0);
                move |_: &Channel<'_>| {
                    times.set(times.get() + 1);
                    assert!(which != asked || times.get() != at, "boom");
                    which == "readable"
                }
            };
            let dispatcher = |name| {
                let recorder = Recorder::new(name, &log).on_error(OnError::Keep);
                recorder.readable(panics("readable")).writable(panics("writable"))
            };
            let (near, mut far) = pair(on);
            far.write_all(b"a second question").unwrap();
            map.add(near, dispatcher("a")).unwrap();
            let listener = map.listen(on, dispatcher("listener")).unwrap();
            let _client = TcpStream::connect(address_of(&mut map, listener)).unwrap();
            turn_until(&mut map, &log, |_| log.closed("a") && log.closed("listener"));
            for name in ["a", "listener"] {
                let all = log.of(name);
                assert_eq!(all[all.len() - 2..], ["error: panicked: boom", "close: panicked: boom"]);
                assert_eq!(log.count(&format!("{name} error")), 1);
            }
            assert_echoes(&mut map, &log, &mut far_echo);
        }
    }
}

/// What panics in `handle_close`, when it is dropped, or in both.
struct Fragile {
    log: Log,
    in_close: bool,
    in_drop: bool,
}

impl Dispatcher for Fragile {
    fn handle_close(&mut self, _: &mut Channel<'_>, _: &Reason) {
        self.log.add("fragile close");
        assert!(!self.in_close, "boom in handle_close");
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        self.log.add("fragile drop");
        assert!(!self.in_drop, "boom in drop");
    }
}

/// EDGE_CASES 44 and 45: logged, and the others of the same settle, or of the same drop, get theirs.
#[test]
fn a_panic_in_handle_close_or_in_a_drop_is_logged() {
    capture_log();
    for (in_close, in_drop) in [(true, false), (false, true), (true, true)] {
        for drop_map in [false, true] {
            let log = Log::new();
            let mut map = ChannelMap::new().unwrap();
            map.set_linger_limit(0);
            let lines = logged("boom").len();
            let mut fars = Vec::new();
            for _ in 0..3 {
                let (near, far) = pair(loopbacks()[0]);
                let fragile = map.add(near, Fragile { log: log.clone(), in_close, in_drop }).unwrap();
                let of_timer = Fragile { log: Log::new(), in_close, in_drop };
                let mut ch = map.channel(fragile).unwrap();
                // The timer is dropped unfired, and what it holds with it.
                ch.call_later(HOUR, move |_| {
                    drop(of_timer);
                    Ok(())
                });
                fars.push(far);
            }
            if drop_map {
                drop(map);
            } else {
                map.close_all();
                run(&mut map).unwrap();
                let (_, mut far_echo) = echo(&mut map, loopbacks()[0], &log);
                assert_echoes(&mut map, &log, &mut far_echo);
            }
            assert_eq!(log.of("fragile"), ["close", "drop", "close", "drop", "close", "drop"]);
            assert!(logged("boom").len() > lines, "it is logged");
        }
    }
}

/// EDGE_CASES 44: timers and calls of the map are nobody's.
#[test]
fn a_panic_in_a_timer_of_the_map_is_logged() {
    capture_log();
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (_, mut far_echo) = echo(&mut map, loopbacks()[0], &log);
    let fragile = Fragile { log: Log::new(), in_close: false, in_drop: true };
    map.call_soon(move |_| drop(fragile));
    map.call_later(Duration::from_millis(1), |_| panic!("boom of call_later"));
    let mut times = 0;
    let every = map.call_every(Duration::from_millis(1), move |_| {
        times += 1;
        panic!("boom {times} of call_every");
    });
    turn_until(&mut map, &log, |_| !logged("boom 2 of call_every").is_empty());
    assert!(map.cancel(every));
    turn_until(&mut map, &log, |_| logged("boom of call_later").len() == 1);
    assert_echoes(&mut map, &log, &mut far_echo);
}
