//! Writing: EDGE_CASES 23 to 28, and the rules 7, 16 and 17 of the contract as far as they are
//! about output.

use std::cell::Cell;
use std::io::{ErrorKind, Read};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[cfg(debug_assertions)]
use dispatch_loop::faults::{Call, Fault, clear, count, inject};
use dispatch_loop::{ChannelMap, More, OnError, OnLimit};

use crate::support::opened::{fill, finish, opened, view};
use crate::support::peers::{loopbacks, read_exactly, reads_to_end, unix_pair};
use crate::support::process::alone;
use crate::support::recorder::{Log, Recorder, text};
use crate::support::turning::{assert_calm, run_out, turn_idle, turn_until};

/// EDGE_CASES 23.
#[cfg(debug_assertions)]
#[test]
fn an_empty_push_is_nothing() {
    for on in loopbacks() {
        let log = Log::new();
        let (mut map, token, far) = opened(on, Recorder::new("a", &log));
        let before = [Call::Send, Call::Control].map(count);
        let mut ch = view(&mut map, token);
        ch.push(b"").unwrap();
        ch.push_vec(Vec::new()).unwrap();
        ch.push_shared(Arc::new([])).unwrap();
        assert_eq!(ch.send(b"").unwrap(), 0);
        map.broadcast([token], b"");
        turn_idle(&mut map);
        assert_eq!([Call::Send, Call::Control].map(count), before, "no system call");
        assert_eq!(finish(&mut map, &log, token, far), b"");
        assert_eq!(log.of("a"), ["open", "close: closed"]);
    }
}

/// EDGE_CASES 24, in all the ways to push, and with a system that takes little, nothing, or is
/// interrupted.
#[cfg(debug_assertions)]
#[test]
fn ten_thousand_small_pushes_keep_their_order() {
    for on in loopbacks() {
        for faulty in [false, true] {
            let log = Log::new();
            let (mut map, token, far) = opened(on, Recorder::new("a", &log));
            let mut wanted = Vec::new();
            for n in 0..10_000 {
                let line = format!("{n}:{}\n", "x".repeat(n % 211)).into_bytes();
                wanted.extend_from_slice(&line);
                if faulty && n % 100 == 0 {
                    for fault in [
                        Fault::Short(1),
                        Fault::Errno(libc::EINTR),
                        Fault::Short(7),
                        Fault::Errno(libc::EAGAIN),
                    ] {
                        inject(Call::Send, 1, 1, fault);
                    }
                }
                let mut ch = view(&mut map, token);
                match n % 5 {
                    0 => ch.push(&line).unwrap(),
                    1 => ch.push_vec(line).unwrap(),
                    2 => ch.push_shared(line.into()).unwrap(),
                    3 => map.broadcast([token], &line),
                    _ => {
                        let mut bytes = line.into_iter();
                        let produce = move |buffer: &mut Vec<u8>| {
                            buffer.extend(bytes.by_ref().take(100));
                            Ok(if bytes.len() > 0 { More::Again } else { More::Done })
                        };
                        ch.push_producer(produce).unwrap();
                    }
                }
                if n % 1000 == 500 {
                    map.turn(Some(Duration::ZERO)).unwrap();
                }
            }
            assert!(view(&mut map, token).queued() > 100_000, "past the socket's buffer");
            let far = reads_to_end(far);
            turn_until(&mut map, &log, |map| view(map, token).queued() == 0);
            view(&mut map, token).close();
            run_out(&mut map, &log);
            clear();
            assert!(far.join().unwrap() == wanted);
        }
    }
}

/// EDGE_CASES 25.
#[test]
fn a_push_to_a_peer_that_has_closed_is_ok_and_then_the_end() {
    alone(None, || {
        let signalled = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGPIPE, signalled.clone()).unwrap();
        for on in loopbacks() {
            for paused in [false, true] {
                let log = Log::new();
                let (mut map, token, far) =
                    opened(on, Recorder::new("a", &log).eof(dispatch_loop::Eof::KeepWriting));
                if paused {
                    view(&mut map, token).pause_reading();
                }
                drop(far);
                turn_until(&mut map, &log, |map| {
                    if let Ok(mut ch) = map.channel(token) {
                        ch.push(b"anybody there?").expect("handle_close tells, not push");
                        // In the same turn again: gathered, and sent by the loop.
                        ch.push(b"anybody?").expect("handle_close tells, not push");
                    }
                    log.closed("a")
                });
                let ends = [libc::EPIPE, libc::ECONNRESET].map(|end| format!("close: {}", text(end)));
                let last = log.of("a").pop().unwrap();
                assert!(ends.contains(&last), "{last}");
                assert_eq!(log.count("a error"), 0, "a lost peer is no error");
                assert_eq!(log.count("a close"), 1);
            }
        }
        assert!(!signalled.load(Ordering::Relaxed), "SIGPIPE");
    });
}

/// Rule 7: a lost peer, as `send` tells it, and what is Ok and what not afterwards.
#[cfg(debug_assertions)]
#[test]
fn send_says_how_much_went_and_why_no_more_goes() {
    for on in loopbacks() {
        let log = Log::new();
        let (mut map, token, _far) = opened(on, Recorder::new("a", &log));
        assert_eq!(view(&mut map, token).send(b"abc").unwrap(), 3);
        inject(Call::Send, 0, 1, Fault::Short(2));
        assert_eq!(view(&mut map, token).send(b"abc").unwrap(), 2);
        inject(Call::Send, 0, 1, Fault::Errno(libc::EAGAIN));
        assert_eq!(view(&mut map, token).send(b"abc").unwrap(), 0, "nothing fits");
        fill(&mut map, &log, token);
        let sends = count(Call::Send);
        assert_eq!(view(&mut map, token).send(b"out of turn").unwrap(), 0, "while output is queued");
        assert_eq!(count(Call::Send), sends);
        view(&mut map, token).abort();
        let mut ch = view(&mut map, token);
        for error in
            [ch.send(b"x").unwrap_err(), ch.push(b"x").unwrap_err(), ch.push_vec(vec![1]).unwrap_err()]
        {
            assert_eq!(error.kind(), ErrorKind::BrokenPipe);
            assert_eq!(dispatch_loop::ChannelError::token_of(&error), Some(token));
        }

        let (mut map, token, _far) = opened(on, Recorder::new("b", &log));
        inject(Call::Send, 0, 1, Fault::Errno(libc::ECONNRESET));
        let mut ch = view(&mut map, token);
        for _ in 0..2 {
            assert_eq!(ch.send(b"x").unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
        ch.push(b"x").unwrap();
        assert!(ch.is_closing() && ch.queued() == 0);
    }
}

/// EDGE_CASES 26: on while the socket takes it, without waiting, a bounded part of it each turn.
#[cfg(debug_assertions)]
#[test]
fn the_budget_of_a_turn_ends_before_the_socket_is_full() {
    let log = Log::new();
    let (near, mut far) = unix_pair();
    socket2::SockRef::from(&near).set_send_buffer_size(1 << 20).unwrap();
    let mut map = ChannelMap::new().unwrap();
    let token = map.add(near, Recorder::new("a", &log)).unwrap().token();
    map.turn(Some(Duration::ZERO)).unwrap();
    let bytes = vec![b'x'; 200 * 1024];
    let before = [Call::Send, Call::Control].map(count);
    view(&mut map, token).push_vec(bytes.clone()).unwrap();
    let mut left = vec![view(&mut map, token).queued()];
    while left.last() != Some(&0) {
        map.turn(Some(Duration::ZERO)).unwrap();
        // Before the view: to look at a channel is to touch it.
        let waits = map.wait_limit();
        left.push(view(&mut map, token).queued());
        assert!(
            left.len() < 20 && (left.last() == Some(&0) || waits == Some(Duration::ZERO)),
            "{waits:?} {left:?}"
        );
    }
    assert_eq!(left[0], bytes.len() - 64 * 1024, "the first push goes out at once");
    assert!(left.windows(2).all(|two| two[0] - two[1] <= 64 * 1024), "{left:?}");
    let calls = [Call::Send, Call::Control].map(count);
    assert!(calls[0] - before[0] <= 8 && calls[1] == before[1], "it was never full: {before:?} {calls:?}");
    assert!(read_exactly(&mut far, bytes.len()) == bytes);
    assert_calm(&mut map);
}

/// Rule 5: `handle_write` is asked for, runs with an empty queue only, and as often as there is
/// room; when `writable` is false again, it costs nothing.
#[test]
fn handle_write_runs_when_nothing_is_queued() {
    for on in loopbacks() {
        let log = Log::new();
        let left = Rc::new(Cell::new(5));
        let (asked, sent) = (left.clone(), left.clone());
        let dispatcher = Recorder::new("a", &log).writable(move |_| asked.get() > 0).on("write", move |ch| {
            assert_eq!(ch.queued(), 0);
            sent.set(sent.get() - 1);
            ch.push_vec(vec![b'w'; 6 << 20])
        });
        let (mut map, token, far) = opened(on, dispatcher);
        turn_idle(&mut map);
        assert_eq!(log.count("a write"), 1, "the queue is full");
        let far = reads_to_end(far);
        turn_until(&mut map, &log, |map| left.get() == 0 && view(map, token).queued() == 0);
        turn_idle(&mut map);
        assert_calm(&mut map);
        assert_eq!(log.count("a write"), 5);
        view(&mut map, token).close();
        run_out(&mut map, &log);
        assert_eq!(far.join().unwrap().len(), 5 * (6 << 20));
    }
}

/// EDGE_CASES 27, over a Unix-domain pair, which has room when its peer has read, and only then.
#[test]
fn watermarks_are_told_once_and_in_turn() {
    let log = Log::new();
    let (near, mut far) = unix_pair();
    far.set_nonblocking(true).unwrap();
    let mut map = ChannelMap::new().unwrap();
    let token = map.add(near, Recorder::new("a", &log)).unwrap().token();
    let told = || (log.count("a high"), log.count("a low"));
    fill(&mut map, &log, token);
    let full = view(&mut map, token).queued();
    view(&mut map, token).set_watermarks(8_000, full + 10_000);
    for (bytes, times) in [(10_000, 0), (1, 1), (50_000, 1), (1, 1)] {
        view(&mut map, token).push(&vec![0; bytes]).unwrap();
        turn_idle(&mut map);
        assert_eq!(told(), (times, 0));
    }
    for round in 1..=3 {
        turn_until(&mut map, &log, |map| {
            let queued = view(map, token).queued();
            assert_eq!(told(), (round, if queued <= 8_000 { round } else { round - 1 }), "{queued}");
            let _ = far.read(&mut [0; 64 * 1024]);
            queued == 0
        });
        turn_idle(&mut map);
        assert_eq!(told(), (round, round));
        if round < 3 {
            view(&mut map, token).push(&vec![0; 14 << 20]).unwrap();
            turn_idle(&mut map);
        }
    }
}

/// EDGE_CASES 27: what `handle_low` and `handle_high` push themselves is counted as well, and up
/// and down between two looks is told as both.
#[test]
fn watermarks_of_a_busy_queue_alternate() {
    for on in loopbacks() {
        let log = Log::new();
        let dispatcher = Recorder::new("a", &log)
            .on("high", |ch| ch.push(&[0; 1000]))
            .on("low", |ch| ch.push(&[0; 3000]))
            .on("open", |ch| {
                ch.set_watermarks(5000, 1000);
                Ok(())
            });
        let (mut map, token, far) = opened(on, dispatcher);
        let far = reads_to_end(far);
        turn_until(&mut map, &log, |map| {
            for _ in 0..3 {
                view(map, token).push(&[0; 700]).unwrap();
            }
            log.count("a low") >= 50
        });
        view(&mut map, token).close();
        turn_until(&mut map, &log, |map| map.is_empty());
        far.join().unwrap();
        let told: Vec<_> = log.of("a").into_iter().filter(|e| matches!(&e[..], "high" | "low")).collect();
        assert!(
            told.chunks(2).all(|two| two[0] == "high" && two.get(1).is_none_or(|low| low == "low")),
            "{told:?}"
        );
    }
}

/// Rule 16 and EDGE_CASES 28: refused, and nothing of it taken.
#[test]
fn over_the_hard_limit_a_push_is_refused() {
    for on in loopbacks() {
        let log = Log::new();
        let (mut map, token, far) = opened(on, Recorder::new("a", &log));
        let sent = fill(&mut map, &log, token);
        let mut ch = view(&mut map, token);
        let full = ch.queued();
        ch.set_limit(full + 1000, OnLimit::Refuse);
        ch.push(&[b'1'; 600]).unwrap();
        for _ in 0..3 {
            let refused =
                [ch.push(&[b'2'; 401]), ch.push_vec(vec![b'2'; 500]), ch.push_shared([b'2'; 600].into())];
            for refused in refused {
                assert_eq!(refused.unwrap_err().kind(), ErrorKind::QuotaExceeded);
            }
        }
        assert_eq!(ch.queued(), full + 600, "a refused push takes nothing");
        ch.push(&[b'3'; 400]).unwrap();
        assert!(!ch.is_closing());
        let got = finish(&mut map, &log, token, far);
        assert_eq!(got.len(), sent + 1000);
        assert_eq!(got[sent..], [&[b'1'; 600][..], &[b'3'; 400]].concat());
        assert_eq!(log.count("a error"), 0);
    }
}

/// EDGE_CASES 28: the default limit is 16 MiB, whatever the peer does not take.
#[test]
fn the_default_limit_bounds_the_memory() {
    let log = Log::new();
    let (mut map, token, _far) = opened(loopbacks()[0], Recorder::new("a", &log));
    let block: Arc<[u8]> = vec![0; 1 << 20].into();
    let refused = (0..40).find_map(|_| {
        let refused = view(&mut map, token).push_shared(block.clone()).err();
        map.turn(Some(Duration::ZERO)).unwrap();
        refused
    });
    assert_eq!(refused.unwrap().kind(), ErrorKind::QuotaExceeded);
    let queued = view(&mut map, token).queued();
    assert!(queued <= 16 << 20 && queued > 12 << 20, "{queued}");
}

/// EDGE_CASES 28: or the channel ends, and the peer sees a reset.
#[test]
fn over_the_hard_limit_the_channel_ends() {
    for on in loopbacks() {
        let log = Log::new();
        let (mut map, token, mut far) = opened(on, Recorder::new("a", &log));
        fill(&mut map, &log, token);
        let mut ch = view(&mut map, token);
        let full = ch.queued();
        ch.set_limit(full + 1000, OnLimit::End);
        ch.push(&[0; 1000]).unwrap();
        ch.push(&[0]).unwrap();
        assert!(ch.is_closing() && ch.queued() == 0);
        turn_until(&mut map, &log, |map| map.is_empty());
        assert_eq!(log.of("a").last().unwrap(), &format!("close: {}", dispatch_loop::Reason::Limit));
        let error = far.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

/// A hook that hands a refusal back with `?` has its `handle_error` asked, as for any error.
#[test]
fn a_refusal_handed_back_by_the_hook_asks_handle_error() {
    for (answer, ends) in [(OnError::Keep, 0), (OnError::End, 1)] {
        let log = Log::new();
        let dispatcher = Recorder::new("a", &log).on_error(answer).on("open", |ch| {
            ch.set_limit(10, OnLimit::Refuse);
            ch.push(b"more than ten")
        });
        let (mut map, _, _far) = opened(loopbacks()[0], dispatcher);
        turn_idle(&mut map);
        assert_eq!((log.count("a error: "), log.count("a close: ")), (1, ends));
    }
}
