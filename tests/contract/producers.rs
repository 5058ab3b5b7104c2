//! Producers that wait to be woken. (The ready-made ones are in `layers/producers.rs`.)

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

#[cfg(debug_assertions)]
use dispatch_loop::faults::{Call, Fault, inject};
use dispatch_loop::{ChannelMap, Eof, More, OnError, Producer, Token};

use crate::support::ends::record_kinds;
use crate::support::logging::capture_log;
use crate::support::opened::{fill, finish, opened, view};
use crate::support::peers::{
    cut_short, loopbacks, narrow_pair, pair, read_now, reads_to_end, reset, text_now,
};
use crate::support::recorder::{Log, Recorder, text};
use crate::support::turning::{assert_calm, comes_to_rest, run_out, turn_quiet, turn_until, waits_in};
use crate::support::waiting::DEADLINE;

/// What the test gives for the producer to send, and how often that was asked.
#[derive(Clone, Default)]
struct Tap(Rc<RefCell<Inside>>);

#[derive(Default)]
struct Inside {
    pieces: VecDeque<(Vec<u8>, More)>,
    asked: usize,
}

impl Tap {
    fn give(&self, bytes: &str, more: More) {
        self.0.borrow_mut().pieces.push_back((bytes.into(), more));
    }

    fn asked(&self) -> usize {
        self.0.borrow().asked
    }

    /// Later, unless something was given.
    fn producer(&self) -> impl Producer + use<> {
        let tap = self.0.clone();
        move |buffer: &mut Vec<u8>| {
            let mut tap = tap.borrow_mut();
            tap.asked += 1;
            let (bytes, more) = tap.pieces.pop_front().unwrap_or((vec![], More::Later));
            buffer.extend(bytes);
            Ok(more)
        }
    }

    /// Nobody holds the producer any more.
    fn is_free(&self) -> bool {
        Rc::strong_count(&self.0) == 1
    }
}

/// It waits at no cost, and what is behind it waits with it.
#[test]
fn a_producer_that_has_nothing_yet_costs_nothing_and_keeps_its_place() {
    for on in loopbacks() {
        let log = Log::new();
        let (mut map, token, mut far) = opened(on, Recorder::new("a", &log));
        let tap = Tap::default();
        let mut ch = view(&mut map, token);
        ch.push(b"before ").unwrap();
        ch.push_producer(tap.producer()).unwrap();
        ch.push(b"behind").unwrap();
        turn_quiet(&mut map);
        assert_calm(&mut map);
        assert_eq!(map.wait_limit(), None);
        assert_eq!((tap.asked(), view(&mut map, token).queued()), (1, 6));
        assert_eq!(view(&mut map, token).send(b"not before that").unwrap(), 0);
        assert_eq!(text_now(&mut far), "before ");
        // With bytes, they go out, and it waits again.
        tap.give("one ", More::Later);
        turn_quiet(&mut map);
        assert_eq!(tap.asked(), 1, "nobody has woken it");
        view(&mut map, token).wake_producer();
        turn_quiet(&mut map);
        assert_calm(&mut map);
        assert_eq!((tap.asked(), text_now(&mut far).as_str()), (2, "one "));
        // Nothing, again and again.
        view(&mut map, token).wake_producer();
        turn_quiet(&mut map);
        assert_eq!((tap.asked(), text_now(&mut far).as_str()), (3, ""));
        // Woken twice at once, it is asked once.
        tap.give("two ", More::Again);
        tap.give("three ", More::Later);
        view(&mut map, token).wake_producer();
        view(&mut map, token).wake_producer();
        turn_quiet(&mut map);
        assert_eq!((tap.asked(), text_now(&mut far).as_str()), (5, "two three "));
        tap.give("last ", More::Done);
        view(&mut map, token).wake_producer();
        turn_quiet(&mut map);
        assert_eq!((tap.asked(), text_now(&mut far).as_str()), (6, "last behind"));
        assert!(tap.is_free());
        view(&mut map, token).wake_producer();
        turn_quiet(&mut map);
        assert_eq!(log.of("a"), ["open"]);
    }
}

/// Several in a row: each waits for itself, and a waking is for the one whose turn it is.
#[test]
fn of_several_producers_that_wait_the_first_is_woken() {
    for on in loopbacks() {
        let log = Log::new();
        let (mut map, token, mut far) = opened(on, Recorder::new("a", &log));
        let taps = [(); 3].map(|()| Tap::default());
        for tap in &taps {
            view(&mut map, token).push_producer(tap.producer()).unwrap();
            view(&mut map, token).push(b"|").unwrap();
        }
        turn_quiet(&mut map);
        let mut sent = String::new();
        for (at, tap) in taps.iter().enumerate() {
            assert_eq!(
                taps.each_ref().map(Tap::asked),
                std::array::from_fn(|n| 3 * usize::from(n < at) + usize::from(n == at))
            );
            tap.give("", More::Later);
            view(&mut map, token).wake_producer();
            turn_quiet(&mut map);
            tap.give("done", More::Done);
            view(&mut map, token).wake_producer();
            turn_quiet(&mut map);
            sent += &text_now(&mut far);
        }
        assert_eq!(sent, "done|done|done|");
        assert_eq!(view(&mut map, token).queued(), 0);
    }
}

/// By a timer, by another channel's hook, by the channel's own, and by another thread.
#[test]
fn a_producer_is_woken_from_anywhere() {
    for on in loopbacks() {
        for by in ["timer", "other", "own", "thread"] {
            let log = Log::new();
            let tap = Tap::default();
            let giving = tap.clone();
            let wake = move |map: &mut ChannelMap, token: Token| {
                giving.give("woken", More::Done);
                map.channel(token).map(|mut ch| ch.wake_producer())
            };
            let from_own = wake.clone();
            let dispatcher = Recorder::new("a", &log).on("read", move |ch| {
                ch.recv(&mut [0; 9])?;
                let token = ch.token();
                Ok(from_own(ch.map_mut(), token)?)
            });
            let (mut map, token, mut far) = opened(on, dispatcher);
            view(&mut map, token).push_producer(tap.producer()).unwrap();
            turn_quiet(&mut map);
            assert_eq!(tap.asked(), 1);
            match by {
                "timer" => {
                    map.call_later(Duration::from_millis(1), move |map| wake(map, token).unwrap());
                }
                "own" => far.write_all(b"now").unwrap(),
                "other" => {
                    let (near, mut other) = pair(on);
                    let dispatcher = Recorder::new("b", &log).on("read", move |ch| {
                        ch.recv(&mut [0; 9])?;
                        Ok(wake(ch.map_mut(), token)?)
                    });
                    map.add(near, dispatcher).unwrap();
                    other.write_all(b"now").unwrap();
                    turn_until(&mut map, &log, |_| log.has("b read"));
                }
                _ => {
                    tap.give("woken", More::Done);
                    let remote = map.remote();
                    let wake = move |map: &mut ChannelMap| map.channel(token).unwrap().wake_producer();
                    std::thread::spawn(move || remote.call(wake).map_err(drop).unwrap());
                }
            }
            turn_until(&mut map, &log, |map| view(map, token).queued() == 0 && tap.asked() == 2);
            turn_quiet(&mut map);
            assert_eq!(text_now(&mut far), "woken", "by {by}");
        }
    }
}

/// A thread that makes the bytes, and wakes the producer for each.
#[test]
fn another_thread_may_make_the_bytes() {
    for on in loopbacks() {
        let log = Log::new();
        let (mut map, token, far) = opened(on, Recorder::new("a", &log));
        let far = reads_to_end(far);
        let (give, take) = mpsc::sync_channel::<Vec<u8>>(4);
        view(&mut map, token)
            .push_producer(move |buffer: &mut Vec<u8>| match take.try_recv() {
                Ok(bytes) => {
                    buffer.extend(bytes);
                    Ok(More::Again)
                }
                Err(mpsc::TryRecvError::Empty) => Ok(More::Later),
                Err(mpsc::TryRecvError::Disconnected) => Ok(More::Done),
            })
            .unwrap();
        view(&mut map, token).close();
        let remote = map.remote();
        let maker = std::thread::spawn(move || {
            let wake = || {
                let _ = remote.call(move |map| {
                    if let Ok(mut ch) = map.channel(token) {
                        ch.wake_producer();
                    }
                });
            };
            for n in 0..1000u32 {
                give.send(n.to_string().into_bytes()).unwrap();
                wake();
            }
            drop(give);
            wake();
        });
        turn_until(&mut map, &log, |map| map.is_empty());
        maker.join().unwrap();
        assert!(far.join().unwrap() == (0..1000).map(|n| n.to_string()).collect::<String>().into_bytes());
        assert_eq!(log.of("a"), ["open", "close: closed"]);
    }
}

/// Woken before it is its turn: it is asked when that comes, and not before.
#[test]
fn a_producer_woken_before_its_turn_is_asked_when_that_comes() {
    for on in loopbacks() {
        let log = Log::new();
        let (near, far) = narrow_pair(on);
        let mut map = ChannelMap::new().unwrap();
        let token = map.add(near, Recorder::new("a", &log)).unwrap().token();
        turn_quiet(&mut map);
        let filled = fill(&mut map, &log, token);
        let tap = Tap::default();
        view(&mut map, token).push_producer(tap.producer()).unwrap();
        view(&mut map, token).wake_producer();
        turn_quiet(&mut map);
        assert_calm(&mut map);
        assert_eq!(tap.asked(), 0);
        tap.give("the end", More::Later);
        let mut far = far;
        let reader = std::thread::spawn(move || {
            let mut all = vec![0; filled + 7];
            far.read_exact(&mut all).unwrap();
            (all, far)
        });
        turn_until(&mut map, &log, |map| tap.asked() == 1 && view(map, token).queued() == 0);
        let (all, mut far) = reader.join().unwrap();
        assert!(all.ends_with(b"ffthe end"));
        turn_quiet(&mut map);
        assert_eq!(tap.asked(), 1);
        tap.give("!", More::Done);
        view(&mut map, token).wake_producer();
        turn_quiet(&mut map);
        assert_eq!(text_now(&mut far), "!");
    }
}

/// Woken while its own last bytes are still queued, it is asked when they are gone.
#[cfg(debug_assertions)]
#[test]
fn a_producer_woken_while_its_bytes_are_under_way_is_asked_after_them() {
    for on in loopbacks() {
        let log = Log::new();
        let (mut map, token, mut far) = opened(on, Recorder::new("a", &log));
        let tap = Tap::default();
        tap.give("first ", More::Later);
        inject(Call::Send, 0, 1, Fault::Short(2));
        view(&mut map, token).push_producer(tap.producer()).unwrap();
        map.turn(Some(Duration::ZERO)).unwrap();
        tap.give("second", More::Done);
        view(&mut map, token).wake_producer();
        turn_quiet(&mut map);
        assert_eq!((text_now(&mut far).as_str(), tap.asked()), ("first second", 2));
    }
}

// The end.

/// `close` waits for it as it waits for a peer that takes nothing.
#[test]
fn close_gives_a_producer_that_waits_until_its_deadline() {
    for on in loopbacks() {
        for shut in [false, true] {
            for woken in [false, true] {
                let log = Log::new();
                let (mut map, token, mut far) = opened(on, Recorder::new("a", &log));
                map.set_linger_limit(0);
                let tap = Tap::default();
                let mut ch = view(&mut map, token);
                ch.push(b"before ").unwrap();
                ch.push_producer(tap.producer()).unwrap();
                ch.push(b" behind").unwrap();
                if shut {
                    ch.shutdown_write();
                }
                let patience = if woken { DEADLINE } else { Duration::from_millis(40) };
                ch.set_close_timeout(patience);
                ch.close();
                turn_quiet(&mut map);
                assert!(map.contains(token));
                let waits = waits_in(&mut map, Duration::from_millis(20));
                assert!(waits <= 5, "{waits} waits");
                if woken {
                    tap.give("between", More::Done);
                    view(&mut map, token).wake_producer();
                }
                run_out(&mut map, &log);
                assert!(tap.is_free());
                let mut all = String::new();
                let end = far.read_to_string(&mut all);
                if woken {
                    assert_eq!((all.as_str(), end.is_ok()), ("before between behind", true));
                    assert_eq!(log.of("a"), ["open", "close: closed"]);
                } else {
                    assert_eq!((all.as_str(), end.is_err()), ("before ", true));
                    assert_eq!(log.of("a"), ["open", "close: timed out"]);
                }
            }
        }
    }
}

/// The time starts anew with each byte that goes out.
#[test]
fn close_gives_a_slow_producer_new_time_with_each_byte() {
    let log = Log::new();
    let (mut map, token, far) = opened(loopbacks()[0], Recorder::new("a", &log));
    let far = reads_to_end(far);
    let tap = Tap::default();
    let mut ch = view(&mut map, token);
    ch.push_producer(tap.producer()).unwrap();
    ch.set_close_timeout(Duration::from_millis(400));
    ch.close();
    let mut left = 30;
    let giving = tap.clone();
    map.call_every(Duration::from_millis(20), move |map| {
        left -= 1;
        giving.give(".", if left > 0 { More::Later } else { More::Done });
        if let Ok(mut ch) = map.channel(token) {
            ch.wake_producer();
        }
        if left == 0 {
            map.stop();
        }
    });
    dispatch_loop::run(&mut map).unwrap();
    turn_until(&mut map, &log, |map| map.is_empty());
    assert_eq!(far.join().unwrap(), [b'.'; 30]);
    assert_eq!(log.of("a"), ["open", "close: closed"]);
}

/// `shutdown_write`: the FIN comes after it, and reading goes on meanwhile.
#[test]
fn shutdown_write_ends_after_a_producer_that_waits() {
    for on in loopbacks() {
        let log = Log::new();
        let (mut map, token, mut far) = opened(on, Recorder::new("a", &log));
        let tap = Tap::default();
        view(&mut map, token).push_producer(tap.producer()).unwrap();
        view(&mut map, token).shutdown_write();
        far.write_all(b"still there?").unwrap();
        turn_until(&mut map, &log, |_| log.input("a").len() == 12);
        turn_quiet(&mut map);
        assert_eq!(text_now(&mut far), "");
        tap.give("yes", More::Done);
        view(&mut map, token).wake_producer();
        turn_quiet(&mut map);
        assert_eq!(read_now(&mut far), (b"yes".to_vec(), true));
        far.shutdown(Shutdown::Write).unwrap();
        turn_until(&mut map, &log, |map| map.is_empty());
    }
}

/// The peer's end and its reset find a producer that waits.
#[test]
fn a_peer_that_goes_while_a_producer_waits_is_noticed() {
    for on in loopbacks() {
        for by_reset in [false, true] {
            for eof in [Eof::Close, Eof::KeepWriting] {
                let log = Log::new();
                let (mut map, token, far) = opened(on, Recorder::new("a", &log).eof(eof));
                let tap = Tap::default();
                view(&mut map, token).push_producer(tap.producer()).unwrap();
                view(&mut map, token).set_close_timeout(Duration::from_millis(20));
                turn_quiet(&mut map);
                if by_reset {
                    reset(far);
                    run_out(&mut map, &log);
                    assert_eq!(log.of("a").last().unwrap(), &format!("close: {}", text(libc::ECONNRESET)));
                } else {
                    far.shutdown(Shutdown::Write).unwrap();
                    turn_until(&mut map, &log, |_| log.has("a eof"));
                    if eof == Eof::KeepWriting {
                        turn_quiet(&mut map);
                        assert_calm(&mut map);
                        tap.give("answer", More::Done);
                        view(&mut map, token).wake_producer();
                        assert_eq!(finish(&mut map, &log, token, far), b"answer");
                    } else {
                        run_out(&mut map, &log);
                        assert_eq!(log.of("a").last().unwrap(), "close: timed out");
                    }
                }
                assert!(tap.is_free());
            }
        }
    }
}

#[cfg(debug_assertions)]
#[test]
fn discard_queued_empties_the_queue_and_frees_its_producers() {
    for on in loopbacks() {
        for then in ["push", "close", "shutdown"] {
            let log = Log::new();
            let (mut map, token, far) = opened(on, Recorder::new("a", &log));
            let tap = Tap::default();
            inject(Call::Send, 0, 1, Fault::Short(3));
            inject(Call::Send, 0, 1000, Fault::Errno(libc::EAGAIN));
            let mut ch = view(&mut map, token);
            ch.set_watermarks(10, 20);
            ch.push(b"out of which a part is sent").unwrap();
            map.turn(Some(Duration::ZERO)).unwrap();
            let mut ch = view(&mut map, token);
            ch.push_producer(tap.producer()).unwrap();
            ch.push_shared([b'x'; 100][..].into()).unwrap();
            dispatch_loop::faults::clear();
            assert!(ch.queued() > 100);
            if then == "shutdown" {
                ch.shutdown_write();
            }
            ch.discard_queued();
            ch.discard_queued();
            assert_eq!(ch.queued(), 0);
            assert!(tap.is_free());
            match then {
                "push" => ch.push(b" after").unwrap(),
                "close" => ch.close(),
                _ => {}
            }
            turn_quiet(&mut map);
            if matches!(then, "shutdown" | "close") {
                far.shutdown(Shutdown::Write).unwrap();
                run_out(&mut map, &log);
                assert_eq!(reads_to_end(far).join().unwrap(), b"out");
            } else {
                assert_calm(&mut map);
                assert_eq!(finish(&mut map, &log, token, far), b"out after");
            }
            // Told of the high mark, it is told of the low one, unless it is closing.
            let untold = usize::from(then == "close");
            assert_eq!(log.count("a high"), log.count("a low") + untold, "{:?}", log.events());
        }
    }
}

/// The one that waited is forgotten, and the next is asked as if there had been none.
#[test]
fn a_producer_after_discard_queued_starts_afresh() {
    for on in loopbacks() {
        let log = Log::new();
        let (mut map, token, mut far) = opened(on, Recorder::new("a", &log));
        let (old, new) = (Tap::default(), Tap::default());
        view(&mut map, token).push_producer(old.producer()).unwrap();
        turn_quiet(&mut map);
        assert_eq!(old.asked(), 1);
        new.give("new", More::Later);
        let mut ch = view(&mut map, token);
        ch.discard_queued();
        ch.push_producer(new.producer()).unwrap();
        turn_quiet(&mut map);
        assert!(old.is_free());
        assert_eq!((new.asked(), text_now(&mut far).as_str()), (1, "new"));
    }
}

/// It was told of the high mark; when the queue is thrown away, it is told of the low one. While
/// closing, the end is near.
#[test]
fn discard_queued_of_a_full_queue_tells_the_low_mark() {
    for on in loopbacks() {
        for closing in [false, true] {
            let log = Log::new();
            let (near, far) = narrow_pair(on);
            let mut map = ChannelMap::new().unwrap();
            let token = map.add(near, Recorder::new("a", &log)).unwrap().token();
            turn_quiet(&mut map);
            view(&mut map, token).push_vec(vec![b'x'; 5_000_000]).unwrap();
            turn_until(&mut map, &log, |_| log.has("a high"));
            turn_quiet(&mut map);
            if closing {
                view(&mut map, token).close();
                turn_quiet(&mut map);
            }
            view(&mut map, token).discard_queued();
            turn_quiet(&mut map);
            if closing {
                far.shutdown(Shutdown::Write).unwrap();
                run_out(&mut map, &log);
                assert_eq!(log.of("a"), ["open", "high", "close: closed"]);
                continue;
            }
            assert_calm(&mut map);
            assert_eq!(log.of("a"), ["open", "high", "low"]);
            view(&mut map, token).push(b"fresh").unwrap();
            let all = finish(&mut map, &log, token, far);
            assert!(all.ends_with(b"xfresh"));
        }
    }
}

/// A producer that fails when it is woken goes to `handle_error`, as another does.
#[test]
fn a_producer_that_fails_after_a_wait_goes_to_handle_error() {
    for keep in [false, true] {
        for panics in [false, true] {
            capture_log();
            let log = Log::new();
            let on_error = if keep { OnError::Keep } else { OnError::End };
            let (mut map, token, far) = opened(loopbacks()[0], Recorder::new("a", &log).on_error(on_error));
            let mut first = true;
            view(&mut map, token)
                .push_producer(move |_: &mut Vec<u8>| match std::mem::replace(&mut first, false) {
                    true => Ok(More::Later),
                    false if panics => panic!("the disk"),
                    false => Err(io::Error::other("the disk")),
                })
                .unwrap();
            view(&mut map, token).push(b"behind").unwrap();
            turn_quiet(&mut map);
            view(&mut map, token).wake_producer();
            turn_until(&mut map, &log, |_| log.count("a error: ") == 1);
            if keep && !panics {
                assert_eq!(finish(&mut map, &log, token, far), b"behind");
            } else {
                run_out(&mut map, &log);
                assert_eq!(cut_short(far), b"");
            }
        }
    }
}

/// `handle_write` waits with it: the queue is not empty.
#[test]
fn handle_write_waits_until_a_producer_is_done() {
    let log = Log::new();
    let wants = Rc::new(Cell::new(true));
    let (asked, told) = (wants.clone(), wants.clone());
    let dispatcher = Recorder::new("a", &log).writable(move |_| asked.get()).on("write", move |ch| {
        told.set(false);
        ch.push(b"written")
    });
    let (near, mut far) = pair(loopbacks()[0]);
    let mut map = ChannelMap::new().unwrap();
    let token = map.add(near, dispatcher).unwrap().token();
    let tap = Tap::default();
    view(&mut map, token).push_producer(tap.producer()).unwrap();
    turn_quiet(&mut map);
    assert_calm(&mut map);
    assert_eq!(log.of("a"), ["open"]);
    tap.give("made ", More::Done);
    view(&mut map, token).wake_producer();
    turn_until(&mut map, &log, |_| log.has("a write"));
    turn_quiet(&mut map);
    assert_eq!(text_now(&mut far), "made written");
}

/// While connecting, and with a source of its own.
#[test]
fn a_producer_pushed_before_the_channel_is_open_keeps_its_place() {
    for kind in record_kinds() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (handle, far) = kind.open(&mut map, Recorder::new("a", &log), |far| far.read_to_end());
        let tap = Tap::default();
        tap.give("one ", More::Later);
        let mut ch = map.channel(handle).unwrap();
        ch.push_producer(tap.producer()).unwrap();
        ch.push(b"behind").unwrap();
        ch.wake_producer();
        turn_until(&mut map, &log, |_| tap.asked() == 1);
        assert!(comes_to_rest(&mut map), "{kind:?}");
        tap.give("two ", More::Again);
        tap.give("three ", More::Done);
        view(&mut map, handle.token()).wake_producer();
        view(&mut map, handle.token()).close();
        turn_until(&mut map, &log, |map| map.is_empty());
        assert_eq!(far.join().unwrap().unwrap(), b"one two three behind", "{kind:?}");
    }
}
