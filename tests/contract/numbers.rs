//! The numbers of a map: what its loop has counted, and what the map holds.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use dispatch_loop::{Address, Channel, ChannelMap, Dispatcher, Numbers, Socket, run};

use crate::support::opened::address_of;
use crate::support::peers::{reset, unix_pair};
use crate::support::recorder::Log;
use crate::support::turning::{turn_idle, turn_until};
use crate::support::waiting::DEADLINE;

struct Echo;

impl Dispatcher for Echo {
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, data| ch.push(data))
    }
}

struct EchoServer;

impl Dispatcher for EchoServer {
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
        ch.map_mut().add(socket, Echo).map(drop)
    }
}

fn closes(numbers: &Numbers) -> Vec<(&'static str, u64)> {
    numbers.closes().filter(|(_, count)| *count > 0).collect()
}

#[test]
fn bytes_accepts_and_reasons_of_the_end_are_counted() {
    let mut map = ChannelMap::new().unwrap();
    let server = map.listen("127.0.0.1:0", EchoServer).unwrap();
    let address = address_of(&mut map, server);
    let mut clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
    turn_until(&mut map, &Log::new(), |map| map.len() == 4);
    for (at, client) in clients.iter_mut().enumerate() {
        client.write_all(&vec![b'x'; 100 * (at + 1)]).unwrap();
    }
    turn_until(&mut map, &Log::new(), |map| map.numbers().bytes_out == 600);
    for (at, client) in clients.iter_mut().enumerate() {
        client.read_exact(&mut vec![0; 100 * (at + 1)]).unwrap();
    }
    let each: Vec<_> = map.tokens().collect();
    let each = each.into_iter().map(|token| map.channel(token).unwrap().bytes_in());
    assert_eq!(each.collect::<Vec<_>>(), [0, 100, 200, 300]);
    let numbers = map.numbers();
    assert_eq!((numbers.accepts, numbers.bytes_in), (3, 600));
    assert_eq!((numbers.channels, numbers.listening, numbers.open, numbers.closing), (4, 1, 3, 0));
    // Three connections opened and were read; there may have been false alarms.
    assert!(numbers.hooks >= 9, "{} hooks", numbers.hooks);
    assert!(numbers.turns > 0 && numbers.events >= 4, "{numbers:?}");

    reset(clients.pop().unwrap());
    drop(clients);
    turn_until(&mut map, &Log::new(), |map| map.len() == 1);
    let numbers = map.numbers();
    assert_eq!(closes(&numbers), [("end of stream", 2), ("error", 1)]);
    assert_eq!((numbers.bytes_in, numbers.bytes_out), (600, 600), "those of the ended count, too");
    assert_eq!((numbers.channels, numbers.open), (1, 0));
}

#[test]
fn what_is_queued_is_counted_until_it_is_sent() {
    const BYTES: usize = 1024 * 1024;
    let mut map = ChannelMap::new().unwrap();
    let (near, mut far) = unix_pair();
    let echo = map.add(near, Echo).unwrap();
    map.channel(echo).unwrap().push(&vec![b'x'; BYTES]).unwrap();
    turn_idle(&mut map);
    let numbers = map.numbers();
    assert!(numbers.queued > 0, "{numbers:?}");
    assert_eq!(numbers.queued + numbers.bytes_out, BYTES as u64);
    let reader = thread::spawn(move || far.read_exact(&mut vec![0; BYTES]).map(|()| far).unwrap());
    turn_until(&mut map, &Log::new(), |map| map.numbers().queued == 0);
    assert_eq!(map.numbers().bytes_out, BYTES as u64);
    drop(reader.join().unwrap());
}

#[test]
fn timers_and_how_late_they_run_are_counted() {
    let mut map = ChannelMap::new().unwrap();
    for _ in 0..10 {
        map.call_later(Duration::from_millis(1), |_| ());
    }
    assert_eq!(map.numbers().timers, 10);
    run(&mut map).unwrap();
    let numbers = map.numbers();
    assert_eq!(numbers.timers, 0);
    assert_eq!(numbers.lag.count(), 10);
    assert!(numbers.lag.sum() < DEADLINE);
    assert_eq!(numbers.turn_time.count(), 0, "no meter, no clock");
}

/// The loop sleeps: the question wakes it, and leaves it asleep.
#[test]
fn another_thread_reads_the_numbers_of_a_sleeping_loop() {
    let mut map = ChannelMap::new().unwrap();
    let (near, mut far) = unix_pair();
    map.add(near, Echo).unwrap();
    let (meter, remote) = (map.meter(), map.remote());
    let asker = thread::spawn(move || {
        far.write_all(b"hello").unwrap();
        far.read_exact(&mut [0; 5]).unwrap();
        let first = meter.read(DEADLINE);
        assert_eq!((first.bytes_in, first.bytes_out, first.open), (5, 5, 1));
        let second = meter.read(DEADLINE);
        assert!(second.taken > first.taken);
        assert!(second.turn_time.count() > 0);
        let turns = second.turns - first.turns;
        assert!(turns <= 3, "{turns} turns for one question");
        remote.stop();
    });
    run(&mut map).unwrap();
    asker.join().unwrap();
}

#[test]
fn a_loop_that_does_not_run_leaves_the_asker_what_it_has() {
    let mut map = ChannelMap::new().unwrap();
    let meter = map.meter();
    assert_eq!(meter.read(DEADLINE).turns, 0, "not waited for on the map's own thread");
    let copy = meter.clone();
    let other = thread::spawn(move || copy.read(Duration::from_millis(1)).turns);
    assert_eq!(other.join().unwrap(), 0);
    drop(map);
    assert_eq!(meter.read(Duration::ZERO).turns, 0, "the map is gone");
}

/// With a meter the loop does the same, by the same calls.
#[test]
fn a_meter_changes_nothing_of_what_is_served() {
    let mut map = ChannelMap::new().unwrap();
    let (near, mut far) = unix_pair();
    map.add(near, Echo).unwrap();
    let _meter = map.meter();
    for round in 0..100 {
        far.write_all(&[round]).unwrap();
        map.turn(Some(DEADLINE)).unwrap();
        let mut echo = [0];
        far.read_exact(&mut echo).unwrap();
        assert_eq!(echo, [round]);
    }
    let numbers = map.numbers();
    assert_eq!((numbers.bytes_in, numbers.bytes_out), (100, 100));
    assert_eq!(numbers.turn_time.count(), numbers.turns);
}
