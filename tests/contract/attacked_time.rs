//! Deadlines, bandwidth and numbers where features meet: EDGE_CASES 500 to 506.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::mem;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use dispatch_loop::{Bandwidth, ChannelMap, Deadlines, Interest, MinRate, More, Source};

use crate::support::echo::Echo;
use crate::support::opened::{opened_on, view};
use crate::support::peers::{black_hole, loopbacks, narrow_pair, pair, unix_pair};
use crate::support::recorder::{Log, Recorder};
use crate::support::records::{Options, Records};
use crate::support::turning::{turn_idle, turn_until};
use crate::support::waiting::DEADLINE;

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
    let add = |map: &mut ChannelMap, name| {
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

/// EDGE_CASES 508: nothing is queued behind the failure that would need bandwidth.
#[test]
fn a_producer_that_fails_under_a_bandwidth_is_told() {
    for panics in [false, true] {
        let log = Log::new();
        let (near, _far) = unix_pair();
        let (mut map, token) = opened_on(near, Recorder::new("a", &log));
        view(&mut map, token).set_write_bandwidth(Some(&Bandwidth::new(1000)));
        let mut asked = 0;
        let producer = move |buffer: &mut Vec<u8>| {
            asked += 1;
            match asked {
                1 => {
                    buffer.extend_from_slice(&[b'p'; 300]);
                    Ok(More::Again)
                }
                _ if panics => panic!("on purpose"),
                _ => Err(io::Error::other("on purpose")),
            }
        };
        view(&mut map, token).push_producer(producer).unwrap();
        turn_until(&mut map, &log, |_| log.closed("a"));
        assert!(map.numbers().turns < 50, "{} turns", map.numbers().turns);
    }
}

/// EDGE_CASES 509: what the system needs to keep small messages is nothing that was to be sent.
#[test]
fn a_reader_of_many_small_messages_on_a_unix_domain_socket_is_not_slow() {
    let log = Log::new();
    let (near, mut far) = unix_pair();
    let (mut map, token) = opened_on(near, Recorder::new("a", &log).quiet());
    let rate = MinRate::new(20).with_window(Duration::from_secs(1));
    view(&mut map, token).set_deadlines(&Deadlines::default().with_write_rate(rate));
    view(&mut map, token).call_every(10 * MILLISECOND, |ch| ch.push(b"x"));
    let (begun, mut read) = (Instant::now(), 0);
    while begun.elapsed() < Duration::from_secs(3) {
        map.turn(Some(5 * MILLISECOND)).unwrap();
        // Half of it.
        let sent = map.channel(token).map_or(0, |ch| ch.bytes_out());
        if sent > 2 * read {
            read += far.read(&mut [0]).unwrap() as u64;
        }
        assert!(map.contains(token), "{read} of them were read: {:?}", log.events());
    }
}

/// Takes whatever it is given, and sends it by and by.
struct Keeper(TcpStream, Vec<u8>);

impl Keeper {
    fn flush(&mut self) -> io::Result<bool> {
        let sent = match (&self.0).write(&self.1) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            sent => sent?,
        };
        self.1.drain(..sent);
        Ok(sent > 0)
    }
}

impl Source for Keeper {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(buffer)
    }
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.extend_from_slice(bytes);
        self.flush().map(|_| bytes.len())
    }
    fn shutdown_write(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn interest(&self, wanted: Interest) -> Interest {
        Interest { write: wanted.write || self.output_pending(), ..wanted }
    }
    fn drive(&mut self, _: Interest) -> io::Result<bool> {
        self.flush()
    }
    fn output_pending(&self) -> bool {
        !self.1.is_empty()
    }
}

/// EDGE_CASES 510: what is inside a source of one's own, and nothing behind it.
#[test]
fn a_steady_reader_of_what_is_inside_a_source_is_not_slow() {
    const ALL: usize = 400_000;
    for on in loopbacks().into_iter().take(1) {
        for reads in [true, false] {
            let log = Log::new();
            let (near, mut far) = narrow_pair(on);
            near.set_nonblocking(true).unwrap();
            far.set_nonblocking(true).unwrap();
            let mut map = ChannelMap::new().unwrap();
            let keeper = Keeper(near, Vec::new());
            let token = map.add_source(keeper, Recorder::new("a", &log).quiet()).unwrap().token();
            let rate = MinRate::new(10_000).with_window(Duration::from_secs(1));
            view(&mut map, token).set_deadlines(&Deadlines::default().with_write_rate(rate));
            view(&mut map, token).push_vec(vec![b'k'; ALL]).unwrap();
            let (begun, mut got) = (Instant::now(), 0);
            while got < ALL && (reads || !log.closed("a")) {
                map.turn(Some(5 * MILLISECOND)).unwrap();
                // 100,000 a second; or a byte now and then, which is sent.
                if !reads {
                    let _ = far.write(b"x");
                } else if begun.elapsed() * 100_000 > Duration::from_secs(got as u64) {
                    got += far.read(&mut [0; 2000]).unwrap_or(0);
                }
                assert!(!reads || map.contains(token), "{got} were read: {:?}", log.events());
            }
            assert!(begun.elapsed() < DEADLINE);
        }
    }
}
