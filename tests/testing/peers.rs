//! What a peer can do to a channel, and what it shows of it.

use std::io::{self, ErrorKind};
use std::time::Duration;

use dispatch_loop::{ChannelMap, Eof, Handle, OnError, run, testing};

use crate::support::recorder::{Log, Recorder, text};

const SECOND: Duration = Duration::from_secs(1);

fn added(log: &Log, recorder: Recorder) -> (ChannelMap, Handle<Recorder>, testing::Peer) {
    let mut map = testing::map().unwrap();
    let (handle, peer) = testing::add(&mut map, recorder).unwrap();
    testing::advance(&mut map, Duration::ZERO).unwrap();
    assert_eq!(log.of("a"), ["open"]);
    (map, handle, peer)
}

#[test]
fn bytes_come_in_pieces_each_in_a_turn_of_its_own_and_at_its_time() {
    let log = Log::new();
    let (mut map, _, peer) = added(&log, Recorder::new("a", &log));
    peer.send("one").send("two").wait(SECOND).send_in_pieces("threefour", 5, SECOND);
    testing::advance(&mut map, Duration::ZERO).unwrap();
    assert_eq!((log.count("a read"), log.input("a")), (2, b"onetwo".to_vec()));
    testing::advance(&mut map, SECOND).unwrap();
    assert_eq!((log.count("a read"), log.input("a")), (3, b"onetwothree".to_vec()));
    assert!(!peer.is_done());
    testing::advance(&mut map, SECOND).unwrap();
    assert_eq!((log.count("a read"), log.input("a")), (4, b"onetwothreefour".to_vec()));
    assert!(peer.is_done());
}

#[test]
fn a_full_buffer_is_told_by_the_watermarks_and_empties_as_the_peer_reads() {
    let log = Log::new();
    let (mut map, handle, peer) = added(&log, Recorder::new("a", &log));
    peer.set_buffer(10).stop_reading();
    let mut ch = map.channel(handle).unwrap();
    ch.set_watermarks(5, 15);
    ch.push(&[b'x'; 30]).unwrap();
    testing::advance(&mut map, SECOND).unwrap();
    assert_eq!((peer.sent().len(), peer.unread()), (10, 10));
    assert_eq!(map.channel(handle).unwrap().queued(), 20);
    peer.read(4).wait(SECOND).read(10);
    testing::advance(&mut map, Duration::ZERO).unwrap();
    assert_eq!((peer.sent().len(), peer.unread()), (14, 10));
    assert_eq!(log.of("a"), ["open", "high"]);
    testing::advance(&mut map, SECOND).unwrap();
    assert_eq!((peer.sent().len(), peer.unread()), (24, 10));
    peer.read_on();
    testing::advance(&mut map, Duration::ZERO).unwrap();
    assert_eq!((peer.take_sent().len(), peer.unread()), (30, 0));
    assert_eq!(peer.sent(), b"");
    assert_eq!(log.of("a"), ["open", "high", "low"]);
}

#[test]
fn short_writes_lose_nothing() {
    let log = Log::new();
    let (mut map, handle, peer) = added(&log, Recorder::new("a", &log));
    peer.set_most_per_send(3);
    let bytes: Vec<u8> = (0..=255).cycle().take(1000).collect();
    map.channel(handle).unwrap().push(&bytes).unwrap();
    testing::advance(&mut map, Duration::ZERO).unwrap();
    assert_eq!(peer.sent(), bytes);
}

/// Level-triggered, as any socket: it is asked to write in every turn in which there is room.
#[test]
fn handle_write_runs_when_there_is_room() {
    let log = Log::new();
    let writer = Recorder::new("a", &log).writable(|_| true).on("write", |ch| ch.send(b"abcd").map(drop));
    let mut map = testing::map().unwrap();
    let (_, peer) = testing::add(&mut map, writer).unwrap();
    peer.set_buffer(10).stop_reading();
    testing::advance(&mut map, Duration::ZERO).unwrap();
    assert_eq!(
        (log.of("a"), peer.sent()),
        (["open", "write", "write", "write"].map(str::to_owned).to_vec(), b"abcdabcdab".to_vec())
    );
    peer.wait(SECOND).read(4);
    testing::advance(&mut map, SECOND).unwrap();
    assert_eq!((log.count("a write"), peer.sent().len()), (4, 14));
}

#[test]
fn an_orderly_end_in_both_directions() {
    let log = Log::new();
    let (mut map, handle, peer) = added(&log, Recorder::new("a", &log).eof(Eof::KeepWriting));
    peer.send("last words").fin();
    testing::advance(&mut map, SECOND).unwrap();
    assert_eq!(log.of("a"), ["open", "read", "read", "eof"]);
    assert!(!peer.has_fin() && !peer.is_closed());
    map.channel(handle).unwrap().push(b"answer").unwrap();
    map.channel(handle).unwrap().shutdown_write();
    run(&mut map).unwrap();
    assert!(peer.has_fin() && peer.is_closed() && !peer.is_reset());
    assert_eq!(peer.sent(), b"answer");
    assert_eq!(log.of("a").last().unwrap(), "close: end of stream");
}

/// As over TCP: FIN, and then up to 2 s for the peer's.
#[test]
fn a_channel_that_closes_lingers_for_its_peer() {
    for end in [SECOND, 5 * SECOND] {
        let log = Log::new();
        let (mut map, handle, peer) = added(&log, Recorder::new("a", &log));
        let begun = map.now();
        peer.wait(end).fin();
        map.channel(handle).unwrap().push(b"bye").unwrap();
        map.channel(handle).unwrap().close();
        testing::advance(&mut map, Duration::ZERO).unwrap();
        assert!(peer.has_fin() && !peer.is_closed());
        run(&mut map).unwrap();
        assert_eq!(map.now() - begun, end.min(2 * SECOND));
        assert_eq!(log.of("a"), ["open", "close: closed"]);
    }
}

#[test]
fn what_is_cut_short_is_reset() {
    for how in ["abort", "drop", "close timeout"] {
        let log = Log::new();
        let (mut map, handle, peer) = added(&log, Recorder::new("a", &log));
        let begun = map.now();
        peer.set_buffer(10).stop_reading();
        map.channel(handle).unwrap().push(&[b'x'; 30]).unwrap();
        testing::advance(&mut map, SECOND).unwrap();
        match how {
            "abort" => map.channel(handle).unwrap().abort(),
            "drop" => drop(std::mem::replace(&mut map, testing::map().unwrap())),
            _ => map.channel(handle).unwrap().close(),
        }
        run(&mut map).unwrap();
        assert!(peer.is_reset() && peer.is_closed() && !peer.has_fin(), "{how}");
        assert_eq!(peer.sent().len(), 10);
        let time = if how == "close timeout" { 31 * SECOND } else { SECOND };
        assert_eq!(map.now() - begun, time, "{how}");
    }
}

/// A hook drops its own map, with something queued.
#[test]
fn what_a_hook_cuts_short_with_its_map_is_reset() {
    let log = Log::new();
    let recorder = Recorder::new("a", &log).on("read", |ch| {
        ch.push(&[b'x'; 30])?;
        drop(std::mem::replace(ch.map_mut(), testing::map()?));
        Ok(())
    });
    let (mut map, _, peer) = added(&log, recorder);
    peer.set_buffer(10).stop_reading().send("go");
    testing::advance(&mut map, Duration::ZERO).unwrap();
    assert!(peer.is_reset() && peer.is_closed());
    assert_eq!(peer.sent().len(), 10);
}

#[test]
fn a_reset_comes_after_the_input_before_it() {
    let log = Log::new();
    let (mut map, _, peer) = added(&log, Recorder::new("a", &log));
    peer.send("last words").reset();
    run(&mut map).unwrap();
    assert_eq!(log.input("a"), b"last words");
    let reset = text(libc::ECONNRESET);
    assert_eq!(log.of("a"), ["open".into(), "read".into(), "read".into(), format!("close: {reset}")]);
}

#[test]
fn a_reset_ends_a_paused_channel_at_once_and_a_fin_does_not() {
    let log = Log::new();
    let (mut map, handle, peer) = added(&log, Recorder::new("a", &log));
    map.channel(handle).unwrap().pause_reading();
    peer.send("unread").fin();
    testing::advance(&mut map, 3600 * SECOND).unwrap();
    assert_eq!(log.of("a"), ["open"]);
    peer.reset();
    run(&mut map).unwrap();
    assert_eq!(log.of("a"), ["open".into(), format!("close: {}", text(libc::ECONNRESET))]);
}

#[test]
fn reads_and_sends_fail_as_they_are_told_to() {
    let log = Log::new();
    let (mut map, _, peer) = added(&log, Recorder::new("a", &log));
    peer.send("before").fail_reads(io::Error::from_raw_os_error(libc::ETIMEDOUT));
    run(&mut map).unwrap();
    assert_eq!(log.input("a"), b"before");
    assert_eq!(log.of("a").last().unwrap(), &format!("close: {}", text(libc::ETIMEDOUT)));

    let log = Log::new();
    let (mut map, handle, peer) = added(&log, Recorder::new("a", &log).on_error(OnError::Keep));
    peer.fail_send(ErrorKind::BrokenPipe).wait(SECOND).send("still read").fin();
    map.channel(handle).unwrap().push(b"lost").unwrap();
    run(&mut map).unwrap();
    assert_eq!((log.input("a"), peer.sent()), (b"still read".to_vec(), Vec::new()));
    assert_eq!(log.of("a").last().unwrap(), "close: broken pipe");
}

/// A system that is short of memory is tried again.
#[test]
fn a_shortage_passes() {
    let log = Log::new();
    let (mut map, handle, peer) = added(&log, Recorder::new("a", &log));
    peer.fail_send(io::Error::from_raw_os_error(libc::ENOBUFS));
    map.channel(handle).unwrap().push(b"sent in the end").unwrap();
    testing::advance(&mut map, Duration::ZERO).unwrap();
    assert_eq!(peer.sent(), b"");
    testing::advance(&mut map, SECOND).unwrap();
    assert_eq!((peer.sent(), log.of("a")), (b"sent in the end".to_vec(), vec!["open".to_owned()]));
}

#[test]
fn both_ends_have_addresses_also_at_the_end() {
    let log = Log::new();
    let seen = log.clone();
    let recorder = Recorder::new("a", &log).on("close", move |ch| {
        seen.add(format!("{} {}", ch.local_addr()?, ch.peer_addr()?));
        Ok(())
    });
    let (mut map, _, peer) = added(&log, recorder);
    peer.fin();
    run(&mut map).unwrap();
    assert_eq!(log.events().last().unwrap(), "198.51.100.1:80 192.0.2.1:49152");
}

/// Rule 6: a channel that does nothing with its input is suspended, whatever its clock.
#[test]
fn a_channel_that_reads_nothing_does_not_stop_the_clock() {
    let log = Log::new();
    let (mut map, _, peer) = added(&log, Recorder::new("a", &log).on("read", |_| Ok(())));
    peer.send("ignored");
    testing::advance(&mut map, 60 * SECOND).unwrap();
    assert!((64..200).contains(&log.count("a read")), "{}", log.count("a read"));
}

/// A peer that reads slowly but steadily is alive, also while everything is in the buffer.
#[test]
fn what_the_peer_reads_of_the_buffer_counts_as_activity() {
    let log = Log::new();
    let (mut map, handle, peer) = added(&log, Recorder::new("a", &log));
    let begun = map.now();
    peer.read_slowly(1, SECOND);
    map.channel(handle).unwrap().push(&[b'x'; 60]).unwrap();
    map.channel(handle).unwrap().set_timeout(Some(5 * SECOND));
    run(&mut map).unwrap();
    assert_eq!((peer.sent().len(), peer.unread()), (60, 0));
    assert_eq!(log.of("a"), ["open", "timeout", "close: aborted"]);
    let silent = map.now() - begun - 60 * SECOND;
    assert!((5 * SECOND..=10 * SECOND).contains(&silent), "{silent:?}");
}

#[test]
fn a_pair_is_a_source_like_any_other() {
    let log = Log::new();
    let mut map = testing::map().unwrap();
    let (end, peer) = testing::pair(&mut map);
    peer.send("before it is added");
    let handle = map.add_source(end, Recorder::new("a", &log)).unwrap();
    run_until_told(&mut map);
    assert_eq!(log.input("a"), b"before it is added");
    assert!(map.channel(handle).unwrap().source::<testing::End>().is_some());
    map.channel(handle).unwrap().close();
    run(&mut map).unwrap();
    assert!(peer.is_closed() && peer.has_fin());
}

fn run_until_told(map: &mut ChannelMap) {
    testing::advance(map, Duration::ZERO).unwrap();
}
