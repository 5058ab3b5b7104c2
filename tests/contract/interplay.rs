//! Limits, producers, broadcasts and ends where they meet.

use std::io::{self, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use dispatch_loop::{ChannelMap, More, OnError, OnLimit, Token};

use crate::support::opened::{opened_on, view};
use crate::support::peers::{loopbacks, pair, read_now, reads_all, unix_pair};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{run_out, turn_quiet, turn_until};
use crate::support::waiting::wait_for_input;

/// EDGE_CASES 124. The error was dropped, and what came after the producer was taken for the rest.
#[test]
fn a_producer_that_failed_is_told_though_a_push_offers_the_queue_before() {
    for on_error in [OnError::End, OnError::Keep] {
        for way in ["push", "broadcast", "map limit"] {
            let log = Log::new();
            let (near, far) = pair(loopbacks()[0]);
            let far = reads_all(far);
            let recorder = Recorder::new("a", &log).on_error(on_error).on("open", |ch| {
                ch.set_limit(100_000, OnLimit::Refuse);
                // So much of the budget of the turn that the piece before the failure does not fit in.
                ch.push(&[b'x'; 62 * 1024])?;
                let mut asked = 0;
                ch.push_producer(move |buffer: &mut Vec<u8>| {
                    asked += 1;
                    buffer.extend_from_slice(&[b'y'; 3 * 1024][..if asked == 1 { 3 * 1024 } else { 0 }]);
                    if asked == 1 { Ok(More::Again) } else { Err(io::Error::other("the disk")) }
                })
            });
            let (mut map, token) = opened_on(near, recorder);
            assert_eq!(view(&mut map, token).queued(), 1024);
            match way {
                "push" => view(&mut map, token).push(&[b'z'; 100_000]).unwrap(),
                "broadcast" => map.broadcast([token], &[b'z'; 100_000]),
                _ => map.set_limit(1000),
            }
            turn_until(&mut map, &log, |_| log.count("a error: the disk") == 1);
            if on_error == OnError::Keep {
                view(&mut map, token).close();
            }
            run_out(&mut map, &log);
            let (got, end) = far.join().unwrap();
            assert_eq!(end.is_ok(), on_error == OnError::Keep, "{on_error:?} {way}");
            assert!(end.is_err() || got.starts_with(&[b'x'; 62 * 1024]), "{on_error:?} {way}");
        }
    }
}

/// A channel whose peer reads nothing, with at least so much queued.
fn behind(map: &mut ChannelMap, log: &Log, name: &'static str, queued: usize) -> (Token, UnixStream) {
    let (near, far) = unix_pair();
    let token = map.add(near, Recorder::new(name, log)).unwrap().token();
    turn_quiet(map);
    while view(map, token).queued() < queued {
        view(map, token).push_vec(vec![b'f'; 20_000]).unwrap();
        turn_quiet(map);
    }
    (token, far)
}

/// EDGE_CASES 125. What is broadcast is held until the last channel has it, so ending one channel freed
/// nothing, and every channel that had anything queued was ended.
#[test]
fn a_broadcast_over_the_limit_of_the_map_ends_no_more_channels_than_need_be() {
    const LIMIT: usize = 8 << 20;
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (small, _small) = behind(&mut map, &log, "small", 500_000);
    let (one, _one) = behind(&mut map, &log, "one", 10_000);
    let (other, _other) = behind(&mut map, &log, "other", 10_000);
    map.set_limit(LIMIT);
    map.broadcast([one, other], &vec![b'b'; LIMIT]);
    turn_until(&mut map, &log, |map| !map.contains(one) && !map.contains(other));
    turn_quiet(&mut map);
    assert!(map.contains(small));
    assert_eq!(log.count("small close"), 0);
    assert_eq!(log.of("one").last().unwrap(), &format!("close: {}", dispatch_loop::Reason::Limit));
}

/// A channel that reads once and closes, and its peer.
fn that_closes(map: &mut ChannelMap, log: &Log, name: &'static str) -> (Token, TcpStream) {
    let (near, far) = pair(loopbacks()[0]);
    let closes = Recorder::new(name, log).on("read", |ch| {
        ch.close();
        Ok(())
    });
    (map.add(near, closes).unwrap().token(), far)
}

/// EDGE_CASES 126. One whose peer has ended in the same turn counts no longer: the other is not cut off.
#[test]
fn a_lingering_channel_whose_peer_has_ended_makes_room_for_another() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    map.set_linger_limit(1);
    let (old, mut old_far) = that_closes(&mut map, &log, "old");
    let (new, mut new_far) = that_closes(&mut map, &log, "new");
    turn_quiet(&mut map);
    old_far.write_all(b"request").unwrap();
    wait_for_input(view(&mut map, old).socket().unwrap());
    turn_quiet(&mut map);
    assert!(map.contains(old), "it lingers");
    // Both in one turn, the close first.
    new_far.write_all(b"request").unwrap();
    wait_for_input(view(&mut map, new).socket().unwrap());
    drop(old_far);
    wait_for_input(view(&mut map, old).socket().unwrap());
    turn_quiet(&mut map);
    assert!(!map.contains(old));
    assert!(map.contains(new), "{:?}", log.events());
    drop(new_far);
    run_out(&mut map, &log);
}

/// EDGE_CASES 127. A limit that is lowered holds for those that linger already.
#[test]
fn a_lowered_limit_on_lingering_channels_holds_at_once() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let names = ["a", "b", "c"];
    let mut fars = names.map(|name| that_closes(&mut map, &log, name));
    turn_quiet(&mut map);
    for (token, far) in &mut fars {
        far.write_all(b"request").unwrap();
        wait_for_input(view(&mut map, *token).socket().unwrap());
        turn_quiet(&mut map);
    }
    assert_eq!(map.len(), 3);
    map.set_linger_limit(1);
    turn_quiet(&mut map);
    assert_eq!(names.map(|name| log.closed(name)), [true, true, false], "the oldest give way");
    map.set_linger_limit(0);
    turn_quiet(&mut map);
    assert!(map.is_empty());
}

/// EDGE_CASES 128. What follows the output waited for an event that did not come: a close was a time-out, a FIN
/// and an upgrade never happened.
#[test]
fn what_follows_the_output_follows_though_a_limit_has_sent_the_last_of_it() {
    for way in ["close", "shutdown_write", "wrap_source"] {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (token, mut far) = behind(&mut map, &log, "a", 20_000);
        let mut ch = view(&mut map, token);
        match way {
            "close" => ch.close(),
            "shutdown_write" => ch.shutdown_write(),
            _ => ch.wrap_source(Ok).unwrap(),
        }
        turn_quiet(&mut map);
        assert!(view(&mut map, token).queued() > 10_000);
        far.set_nonblocking(true).unwrap();
        let (got, ended) = read_now(&mut far);
        assert!(!got.is_empty() && !ended);
        if way == "wrap_source" {
            view(&mut map, token).set_limit(10_000, OnLimit::Refuse);
            view(&mut map, token).push(&[b'p'; 10_001]).unwrap_err();
        } else {
            map.set_limit(10_000);
        }
        assert_eq!(view(&mut map, token).queued(), 0, "all is sent");
        turn_quiet(&mut map);
        let (_, ended) = read_now(&mut far);
        assert_eq!(ended, way != "wrap_source", "{way}");
        assert_eq!(log.has("a wrapped"), way == "wrap_source");
        assert_eq!(log.has("a close: closed"), way == "close", "{way}");
    }
}
