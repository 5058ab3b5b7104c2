//! Deadlines, bandwidth and numbers where features meet: EDGE_CASES 500 to 506.

use std::cell::RefCell;
use std::io::Write;
use std::mem;
use std::rc::Rc;
use std::time::{Duration, Instant};

use dispatch_loop::{Bandwidth, ChannelMap, Deadlines, MinRate};

use crate::support::echo::Echo;
use crate::support::opened::{opened_on, view};
use crate::support::peers::{black_hole, loopbacks, pair, unix_pair};
use crate::support::recorder::{Log, Recorder};
use crate::support::records::{Options, Records};
use crate::support::turning::{turn_idle, turn_until};

const MILLISECOND: Duration = Duration::from_millis(1);

/// EDGE_CASES 500: whoever asks for STARTTLS and then says nothing has no more time than others.
#[test]
fn in_a_handshake_in_mid_stream_the_deadlines_of_input_count() {
    for on in loopbacks() {
        let log = Log::new();
        let recorder = Recorder::new("a", &log).on("read", |ch| {
            ch.read_with(|_, _| Ok(()))?;
            ch.push(b"220 go ahead\r\n")?;
            ch.wrap_source(|plain| Ok(Box::new(Records::new(plain, false, Options::default()))))
        });
        let (near, mut far) = pair(on);
        let (mut map, token) = opened_on(near, recorder);
        view(&mut map, token).set_deadlines(&Deadlines::default().with_read(50 * MILLISECOND));
        far.write_all(b"STARTTLS\r\n").unwrap();
        turn_until(&mut map, &log, |map| !map.contains(token));
        assert_eq!(log.of("a"), ["open", "read", "deadline: read", "close: timed out"]);
    }
}

/// EDGE_CASES 501 and rule 4: before `handle_connect` comes no hook for output that nobody can take yet.
#[test]
fn while_a_channel_connects_its_output_is_not_slow() {
    for on in loopbacks() {
        let log = Log::new();
        let (_listener, _filling, nowhere) = black_hole(on);
        let mut map = ChannelMap::new().unwrap();
        let token = map.connect(nowhere, Recorder::new("a", &log)).unwrap().token();
        let rate = MinRate::new(1000).with_window(20 * MILLISECOND);
        view(&mut map, token).push(b"hello").unwrap();
        view(&mut map, token).set_deadlines(&Deadlines::default().with_write_rate(rate));
        let end = Instant::now() + 200 * MILLISECOND;
        while Instant::now() < end {
            map.turn(Some(5 * MILLISECOND)).unwrap();
        }
        assert_eq!(log.events(), Vec::<String>::new());
    }
}

/// EDGE_CASES 502: also where they are asked on the long way.
#[test]
fn readable_and_writable_are_no_hooks_that_are_counted() {
    let log = Log::new();
    let (near, _far) = unix_pair();
    let (mut map, token) = opened_on(near, Recorder::new("a", &log));
    for _ in 0..5 {
        view(&mut map, token).set_busy(false);
        map.turn(Some(Duration::ZERO)).unwrap();
    }
    assert_eq!(log.events(), ["a open"]);
    assert_eq!(map.numbers().hooks, 1);
}

/// EDGE_CASES 503: counters only grow.
#[test]
fn what_a_channel_that_died_of_a_swap_has_carried_stays_counted() {
    let log = Log::new();
    let other = Rc::new(RefCell::new(ChannelMap::new().unwrap()));
    let elsewhere = other.clone();
    let recorder = Recorder::new("a", &log).on("read", move |ch| {
        ch.read_with(|_, _| Ok(()))?;
        mem::swap(ch.map_mut(), &mut elsewhere.borrow_mut());
        Ok(())
    });
    let (near, mut far) = unix_pair();
    let (mut map, _) = opened_on(near, recorder);
    far.write_all(b"hello").unwrap();
    turn_until(&mut map, &log, |_| log.closed("a"));
    let mut there = other.borrow_mut();
    assert_eq!(there.numbers().bytes_in, 5);
    turn_idle(&mut there);
    let numbers = there.numbers();
    assert_eq!((numbers.bytes_in, numbers.channels), (5, 0));
    assert!(
        numbers.closes().any(|end| end == ("map ended", 1)),
        "{:?}",
        numbers.closes().collect::<Vec<_>>()
    );
}

/// EDGE_CASES 503: what has ended is counted once, also as seen from its last hook.
#[test]
fn in_its_last_hook_what_a_channel_has_carried_is_counted_once() {
    let log = Log::new();
    let seen = Rc::new(RefCell::new(None));
    let last = seen.clone();
    let recorder = Recorder::new("a", &log).on("close", move |ch| {
        *last.borrow_mut() = Some(ch.map().numbers());
        Ok(())
    });
    let (near, mut far) = unix_pair();
    let (mut map, _) = opened_on(near, recorder);
    far.write_all(b"hello").unwrap();
    drop(far);
    turn_until(&mut map, &log, |_| log.closed("a"));
    let seen = seen.borrow_mut().take().unwrap();
    assert_eq!((seen.bytes_in, seen.channels), (5, 1));
    assert_eq!(map.numbers().bytes_in, 5);
}

/// EDGE_CASES 504: of what is not there, nobody waits for a share.
#[test]
fn many_that_read_little_hold_nobody_of_their_group_up() {
    const SHARE: usize = 64 * 1024;
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let group = Bandwidth::new(10 * SHARE as u64).with_burst(SHARE as u64);
    let mut add = |map: &mut ChannelMap, name| {
        let (near, far) = unix_pair();
        let token = map.add(near, Recorder::new(name, &log).quiet()).unwrap().token();
        view(map, token).set_read_bandwidth(Some(&group));
        (token, far)
    };
    let (_, mut greedy) = add(&mut map, "greedy");
    // A share of each, one after the other, would take half a minute.
    let mut many: Vec<_> = (0..300).map(|_| add(&mut map, "many")).collect();
    let (last, mut far) = add(&mut map, "last");
    turn_idle(&mut map);
    greedy.write_all(&vec![b'g'; SHARE]).unwrap();
    turn_until(&mut map, &log, |_| log.input("greedy").len() > SHARE / 2);
    for (_, far) in &mut many {
        far.write_all(b"x").unwrap();
    }
    map.turn(Some(Duration::ZERO)).unwrap();
    map.turn(Some(Duration::ZERO)).unwrap();
    far.write_all(b"x").unwrap();
    turn_until(&mut map, &log, |map| view(map, last).bytes_in() == 1);
    turn_until(&mut map, &log, |_| log.input("many").len() == 300);
}

/// EDGE_CASES 505.
#[test]
fn a_channel_that_waits_for_its_bandwidth_shows_that() {
    let (near, mut far) = unix_pair();
    let mut map = ChannelMap::new().unwrap();
    let token = map.add(near, Echo).unwrap().token();
    view(&mut map, token).set_write_bandwidth(Some(&Bandwidth::new(1)));
    view(&mut map, token).set_read_bandwidth(Some(&Bandwidth::new(1)));
    view(&mut map, token).push(b"hello").unwrap();
    far.write_all(b"hello").unwrap();
    turn_idle(&mut map);
    let shown = format!("{:?}", view(&mut map, token));
    let wanted = "waits_for: its bandwidth, to read; its bandwidth, to send, ";
    assert!(shown.contains(wanted), "{shown}");
}
