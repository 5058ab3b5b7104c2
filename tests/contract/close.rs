//! Closing: EDGE_CASES 29 to 34, and the rules 10 and 12 of the contract. (35 and rule 11 are in
//! `handle_close.rs`.)

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

#[cfg(debug_assertions)]
use dispatch_loop::faults::{Call, Fault, inject};
use dispatch_loop::{Channel, ChannelMap, Eof, Token};

use crate::support::opened::address_of;
use crate::support::peers::{
    loopbacks, narrow_pair, pair, pattern, read_all, read_exactly, read_now, reads_all, reset, unix_pair,
};
use crate::support::provoke::{hooks, provoke};
use crate::support::recorder::{Log, Recorder, text};
use crate::support::turning::{assert_calm, turn_idle, turn_until, turns_at_once};
use crate::support::waiting::DEADLINE;

const MILLISECOND: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    Close,
    Abort,
    Shutdown,
}

fn act(ch: &mut Channel<'_>, what: Act) {
    match what {
        Act::Close => ch.close(),
        Act::Abort => ch.abort(),
        Act::Shutdown => ch.shutdown_write(),
    }
}

/// EDGE_CASES 29.
#[test]
fn close_and_abort_twice_from_every_hook_are_one_end() {
    use Act::*;
    for on in loopbacks() {
        for hook in hooks() {
            for acts in [[Close, Close], [Close, Abort], [Abort, Abort], [Abort, Close], [Shutdown, Abort]] {
                let log = Log::new();
                let mut map = ChannelMap::new().unwrap();
                map.set_linger_limit(0);
                let recorder = Recorder::new("a", &log).on(hook, move |ch| {
                    let _ = ch.recv(&mut [0; 64]);
                    acts.iter().for_each(|what| act(ch, *what));
                    assert_eq!(ch.push(b"too late").unwrap_err().kind(), ErrorKind::BrokenPipe);
                    assert!(ch.is_closing());
                    Ok(())
                });
                let recorder = recorder.on("close", move |ch| {
                    acts.iter().for_each(|what| act(ch, *what));
                    ch.shutdown_write();
                    Ok(())
                });
                let (handle, mut far) = provoke(&mut map, on, hook, recorder);
                turn_until(&mut map, &log, |_| log.closed("a"));
                turns_at_once(&mut map, 3, |_| false);
                let what = format!("{acts:?} in {hook}: {:?}", log.of("a"));
                // What was queued is lost: that is the reason then.
                let aborted = acts[0] != Close || (hook == "high" && acts[1] == Abort);
                let reason = match hook {
                    _ if aborted => "close: aborted",
                    // What it was told of is why.
                    "error" => "close: provoked",
                    _ => "close: closed",
                };
                assert_eq!(log.of("a").last().unwrap(), reason, "{what}");
                assert_eq!(log.count("a close: "), 1, "{what}");
                assert_eq!(log.of("a").iter().filter(|event| event.starts_with(hook)).count(), 1, "{what}");
                assert!(map.is_empty() && map.channel(handle).is_err(), "{what}");
                let (_, end) = read_all(&mut far);
                match acts.contains(&Abort) {
                    true => assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset, "{what}"),
                    false => end.unwrap_or_else(|error| panic!("{what}: {error}")),
                }
            }
        }
    }
}

/// EDGE_CASES 29, from outside: from the accept hook, another channel's hook, between turns.
#[test]
fn close_and_abort_work_on_any_channel_from_anywhere() {
    for on in loopbacks() {
        for acts in [[Act::Close, Act::Close], [Act::Close, Act::Abort], [Act::Abort, Act::Close]] {
            let log = Log::new();
            let mut map = ChannelMap::new().unwrap();
            map.set_linger_limit(0);
            let victims = Rc::new(RefCell::new(Vec::<Token>::new()));
            let others = victims.clone();
            let listener = Recorder::new("listener", &log).on_accept(move |ch, _, _| {
                acts.iter().for_each(|what| act(ch, *what));
                for &other in others.borrow().iter() {
                    let mut other = ch.map_mut().channel(other)?;
                    acts.iter().for_each(|what| act(&mut other, *what));
                }
                Ok(())
            });
            let listener = map.listen(on, listener).unwrap();
            let (near, _far) = pair(on);
            let untouched = map.add(near, Recorder::new("b", &log)).unwrap();
            victims.borrow_mut().push(untouched.token());
            let _client = TcpStream::connect(address_of(&mut map, listener)).unwrap();
            turn_until(&mut map, &log, |map| map.is_empty());
            let (near, _far) = pair(on);
            let between = map.add(near, Recorder::new("c", &log)).unwrap();
            let mut between = map.channel(between).unwrap();
            acts.iter().for_each(|what| act(&mut between, *what));
            turn_until(&mut map, &log, |map| map.is_empty());
            assert_eq!(log.count("listener accept"), 1);
            let reason = if acts[0] == Act::Abort { "close: aborted" } else { "close: closed" };
            for name in ["listener", "b", "c"] {
                let closes: Vec<_> = log.of(name).into_iter().filter(|e| e.starts_with("close")).collect();
                assert_eq!(closes, [reason], "{name}");
            }
            // Rule 10: closed before it was open, it never is.
            assert_eq!(log.of("c"), [reason]);
        }
    }
}

/// EDGE_CASES 30: and the peer's own input was never read.
#[test]
fn close_with_a_full_queue_sends_all_of_it() {
    for on in loopbacks() {
        for unread in [0, 100_000] {
            let log = Log::new();
            let (near, mut far) = narrow_pair(on);
            far.write_all(&vec![b'u'; unread.min(10_000)]).unwrap();
            let bytes = pattern(2_000_000);
            let (sent, mut also) = (bytes.clone(), far.try_clone().unwrap());
            let mut map = ChannelMap::new().unwrap();
            let recorder = Recorder::new("a", &log).on("open", move |ch| {
                ch.push(&sent)?;
                ch.close();
                Ok(())
            });
            map.add(near, recorder).unwrap();
            map.turn(Some(Duration::ZERO)).unwrap();
            assert!(!log.closed("a"), "there is a queue to be sent first");
            let reader = reads_all(far);
            // Input that comes while the queue is being sent, and after FIN, is dropped.
            let writer = std::thread::spawn(move || {
                for chunk in vec![b'u'; unread].chunks(1000) {
                    let _ = also.write_all(chunk);
                }
                also.shutdown(Shutdown::Write)
            });
            dispatch_loop::run(&mut map).unwrap();
            let (got, end) = reader.join().unwrap();
            end.unwrap_or_else(|error| panic!("FIN was due after {} bytes, not: {error}", got.len()));
            assert!(got == bytes, "{} bytes of {}", got.len(), bytes.len());
            let _ = writer.join().unwrap();
            assert_eq!(log.of("a"), ["open", "close: closed"], "no input is delivered after close");
        }
    }
}

/// Rule 10: the peer that never ends after our FIN is let go after 2 s, having lost nothing.
#[test]
fn a_peer_that_does_not_end_is_let_go() {
    let log = Log::new();
    let (near, mut far) = pair(loopbacks()[0]);
    far.write_all(b"never read").unwrap();
    let mut map = ChannelMap::new().unwrap();
    let recorder = Recorder::new("a", &log).on("read", |ch| {
        ch.push(b"goodbye")?;
        ch.close();
        Ok(())
    });
    map.add(near, recorder).unwrap();
    let begun = Instant::now();
    turn_until(&mut map, &log, |_| {
        // It still sends, and that is no reason to reset it.
        far.write_all(b"more").is_err() || begun.elapsed() > Duration::from_millis(200)
    });
    assert_eq!(read_exactly(&mut far, 7), b"goodbye");
    assert_eq!(far.read(&mut [0]).unwrap(), 0, "FIN comes at once");
    assert!(!log.closed("a"));
    turn_until(&mut map, &log, |_| log.closed("a"));
    assert!(begun.elapsed() >= Duration::from_secs(2));
    assert_eq!(log.of("a"), ["open", "read", "close: closed"]);
}

/// EDGE_CASES 30: the peer never reads.
#[test]
fn close_gives_up_at_its_deadline() {
    for on in loopbacks() {
        let log = Log::new();
        let (near, mut far) = narrow_pair(on);
        let mut map = ChannelMap::new().unwrap();
        let recorder = Recorder::new("a", &log).on("open", |ch| {
            ch.set_close_timeout(60 * MILLISECOND);
            ch.push(&[0; 4_000_000])?;
            ch.close();
            Ok(())
        });
        map.add(near, recorder).unwrap();
        let begun = Instant::now();
        dispatch_loop::run(&mut map).unwrap();
        assert!(begun.elapsed() >= 60 * MILLISECOND, "too early");
        assert_eq!(log.of("a"), ["open", "close: timed out"]);
        let (_, end) = read_all(&mut far);
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

/// Rule 10: it is the time without progress that counts.
#[test]
fn a_slow_reader_is_no_dead_one() {
    const TIMEOUT: Duration = Duration::from_millis(250);
    let log = Log::new();
    let (near, mut far) = narrow_pair(loopbacks()[0]);
    far.set_nonblocking(true).unwrap();
    let mut map = ChannelMap::new().unwrap();
    let bytes = pattern(2_000_000);
    let sent = bytes.clone();
    let recorder = Recorder::new("a", &log).on("open", move |ch| {
        ch.set_close_timeout(TIMEOUT);
        ch.push(&sent)?;
        ch.close();
        Ok(())
    });
    map.add(near, recorder).unwrap();
    let begun = Instant::now();
    let mut got = Vec::new();
    let mut turns = 0;
    while !log.closed("a") && begun.elapsed() < DEADLINE {
        map.turn(Some(Duration::ZERO)).unwrap();
        turns += 1;
        // For a while it takes its time, but never too much of it: there is room at each turn.
        if turns < 12 {
            std::thread::sleep(TIMEOUT / 8);
        }
        got.extend(read_now(&mut far).0);
    }
    assert!(begun.elapsed() > TIMEOUT, "the test is about more time than that");
    assert_eq!(log.of("a"), ["open", "close: closed"]);
    got.extend(read_now(&mut far).0);
    assert!(got == bytes, "{} bytes of {}", got.len(), bytes.len());
}

/// EDGE_CASES 31.
#[test]
fn abort_with_a_full_queue_resets_at_once() {
    for on in loopbacks() {
        let log = Log::new();
        let (near, mut far) = pair(on);
        let mut map = ChannelMap::new().unwrap();
        let recorder = Recorder::new("a", &log).on("open", |ch| {
            ch.push(&[0; 10_000_000])?;
            ch.abort();
            assert_eq!(ch.queued(), 0, "an abort drops the queue");
            Ok(())
        });
        map.add(near, recorder).unwrap();
        map.turn(Some(Duration::ZERO)).unwrap();
        assert_eq!(log.of("a"), ["open", "close: aborted"]);
        let (got, end) = read_all(&mut far);
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert!(got.len() < 10_000_000);
    }
}

/// EDGE_CASES 32, and rule 12.
#[test]
fn a_half_closed_channel_is_calm_and_notices_the_reset() {
    for on in loopbacks() {
        for queue in [0, 10_000_000] {
            let log = Log::new();
            let (near, far) = narrow_pair(on);
            let mut map = ChannelMap::new().unwrap();
            let token = map.add(near, Recorder::new("a", &log).eof(Eof::KeepWriting)).unwrap();
            far.shutdown(Shutdown::Write).unwrap();
            turn_until(&mut map, &log, |_| log.has("a eof"));
            map.channel(token).unwrap().push(&vec![0; queue]).unwrap();
            turn_idle(&mut map);
            assert_calm(&mut map);
            assert!(!log.closed("a"));
            reset(far);
            dispatch_loop::run(&mut map).unwrap();
            let end = log.of("a").pop().unwrap();
            let (broken, gone) = (text(libc::EPIPE), text(libc::ECONNRESET));
            assert!(end == format!("close: {broken}") || end == format!("close: {gone}"), "{end}");
            assert_eq!(log.count("a eof"), 1);
            assert_eq!(log.count("a close"), 1);
        }
    }
}

/// EDGE_CASES 33.
#[test]
fn a_unix_peer_that_writes_and_closes_is_read_before_the_end() {
    for paused in [false, true] {
        let log = Log::new();
        let (near, mut far) = unix_pair();
        let mut map = ChannelMap::new().unwrap();
        let recorder = Recorder::new("a", &log).on("open", move |ch| {
            if paused {
                ch.pause_reading();
            }
            Ok(())
        });
        let token = map.add(near, recorder).unwrap();
        turn_idle(&mut map);
        far.write_all(b"the last words").unwrap();
        drop(far);
        if paused {
            turn_idle(&mut map);
            assert_calm(&mut map);
            assert_eq!(log.of("a"), ["open"]);
            map.channel(token).unwrap().resume_reading();
        }
        dispatch_loop::run(&mut map).unwrap();
        assert_eq!(log.input("a"), b"the last words");
        assert_eq!(log.of("a")[log.of("a").len() - 2..], ["eof", "close: end of stream"]);
    }
}

/// EDGE_CASES 33: all is sent, but the peer has ended both ways, and nobody waits for anything.
#[test]
fn a_unix_peer_that_is_gone_ends_a_channel_that_keeps_its_write_side() {
    let log = Log::new();
    let (near, far) = unix_pair();
    let mut map = ChannelMap::new().unwrap();
    map.add(near, Recorder::new("a", &log).eof(Eof::KeepWriting)).unwrap();
    far.shutdown(Shutdown::Write).unwrap();
    turn_until(&mut map, &log, |_| log.has("a eof"));
    assert_calm(&mut map);
    drop(far);
    dispatch_loop::run(&mut map).unwrap();
    assert_eq!(log.count("a close: "), 1);
}

/// EDGE_CASES 34.
#[test]
fn shutdown_write_sends_fin_after_the_last_byte() {
    for on in loopbacks() {
        let log = Log::new();
        let (near, far) = narrow_pair(on);
        let mut answering = far.try_clone().unwrap();
        let mut map = ChannelMap::new().unwrap();
        let bytes = pattern(1_000_000);
        let sent = bytes.clone();
        let recorder = Recorder::new("a", &log).on("open", move |ch| {
            ch.push(&sent)?;
            ch.shutdown_write();
            ch.shutdown_write();
            for pushed in [ch.push(b"after"), ch.push_vec(vec![1]), ch.push_shared([1][..].into())] {
                assert_eq!(pushed.unwrap_err().kind(), ErrorKind::BrokenPipe);
            }
            assert_eq!(ch.send(b"after").unwrap_err().kind(), ErrorKind::BrokenPipe);
            assert!(!ch.is_closing(), "it goes on reading");
            Ok(())
        });
        let token = map.add(near, recorder).unwrap();
        let reader = reads_all(far);
        turn_until(&mut map, &log, |_| reader.is_finished());
        let (got, end) = reader.join().unwrap();
        end.unwrap();
        assert!(got == bytes, "{} bytes of {}", got.len(), bytes.len());
        assert_calm(&mut map);
        answering.write_all(b"an answer after FIN").unwrap();
        turn_until(&mut map, &log, |_| !log.input("a").is_empty());
        map.channel(token).unwrap().shutdown_write();
        drop(answering);
        dispatch_loop::run(&mut map).unwrap();
        assert_eq!(log.input("a"), b"an answer after FIN");
        assert_eq!(log.of("a").last().unwrap(), "close: end of stream");
    }
}

/// EDGE_CASES 34: both sides at once, whatever the dispatchers answer to the end of the stream.
#[test]
fn both_sides_shut_down_and_both_end() {
    for on in loopbacks() {
        for answers in [[Eof::Close, Eof::Close], [Eof::KeepWriting, Eof::Close], [Eof::KeepWriting; 2]] {
            let log = Log::new();
            let mut map = ChannelMap::new().unwrap();
            let (near, far) = pair(on);
            for (name, socket, answer) in [("a", near, answers[0]), ("b", far, answers[1])] {
                let recorder = Recorder::new(name, &log).eof(answer).on("open", |ch| {
                    ch.push(b"all there is")?;
                    ch.shutdown_write();
                    Ok(())
                });
                map.add(socket, recorder).unwrap();
            }
            dispatch_loop::run(&mut map).unwrap();
            for name in ["a", "b"] {
                assert_eq!(log.input(name), b"all there is");
                assert_eq!(log.of(name)[log.of(name).len() - 2..], ["eof", "close: end of stream"]);
            }
        }
    }
}

/// EDGE_CASES 34: before the connect is through, and when `shutdown` itself fails.
#[cfg(debug_assertions)]
#[test]
fn shutdown_write_waits_for_the_connect_and_survives_its_failure() {
    for on in loopbacks() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (handle, mut far) = provoke(&mut map, on, "connect", Recorder::new("a", &log));
        let mut ch = map.channel(handle).unwrap();
        ch.push(b"early").unwrap();
        ch.shutdown_write();
        assert_eq!(ch.push(b"late").unwrap_err().kind(), ErrorKind::BrokenPipe);
        turn_until(&mut map, &log, |_| log.has("a open"));
        let (got, end) = read_all(&mut far);
        end.unwrap();
        assert_eq!(got, b"early");
        drop(far);
        dispatch_loop::run(&mut map).unwrap();
        assert_eq!(log.of("a"), ["connect", "open", "read", "eof", "close: end of stream"]);

        let (near, mut far) = pair(on);
        far.write_all(b"still there").unwrap();
        drop(far);
        let recorder = Recorder::new("b", &log).on("open", |ch| {
            ch.shutdown_write();
            Ok(())
        });
        map.add(near, recorder).unwrap();
        inject(Call::Shutdown, 0, 1, Fault::Errno(libc::ENOTCONN));
        dispatch_loop::run(&mut map).unwrap();
        assert_eq!(log.input("b"), b"still there", "a lost write side is not the read side");
        assert_eq!(log.of("b").last().unwrap(), &format!("close: {}", text(libc::ENOTCONN)));
    }
}
