//! Input that a hook has put back: `Channel::unread`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

#[cfg(debug_assertions)]
use dispatch_loop::faults::{Call, Fault, count, inject};
use dispatch_loop::{Channel, ChannelMap, Eof, OnError};
use proptest::prelude::*;

use crate::support::ends::record_kinds;
use crate::support::logging::{capture_log, logged};
use crate::support::opened::{opened, view};
use crate::support::peers::{loopbacks, pair, pattern, read_all, reset, unix_pair};
use crate::support::recorder::{Log, Recorder, text};
use crate::support::turning::{
    arrive, assert_calm, comes_to_rest, run_out, turn_quiet, turn_until, turns_at_once, waits_in,
};
use crate::support::waiting::{wait_for_hang_up, wait_for_input};

/// A channel that has put back all of `sent` in its first `handle_read`, and pauses there if it is
/// told to. What it reads afterwards is its input.
fn put_back(pause: bool, log: &Log) -> Recorder {
    let (mut first, input) = (true, log.clone());
    Recorder::new("a", log).on("read", move |ch| {
        ch.read_with(|ch, data| {
            if std::mem::replace(&mut first, false) {
                ch.unread(data);
                if pause {
                    ch.pause_reading();
                }
            } else {
                input.add(format!("input {}", data.escape_ascii()));
            }
            Ok(())
        })
    })
}

/// What it has read, in one.
fn input(log: &Log) -> String {
    log.of("input").concat()
}

#[test]
fn what_is_put_back_in_any_pieces_is_read_again_in_order() {
    for on in loopbacks() {
        // How much is read of `abcdef`, and what is put back, in this order.
        for (read, pieces) in [
            (6, &["abcdef"][..]),
            (6, &["def", "abc"]),
            (6, &["f", "e", "d", "c", "b", "a"]),
            (6, &["", "abcdef", ""]),
            // More than was read, and something else.
            (6, &["abcdef", "more, and more, and "]),
            (3, &["abc", "0"]),
            (2, &["", "b", "a"]),
        ] {
            let log = Log::new();
            let (mut first, seen) = (true, log.clone());
            let dispatcher = Recorder::new("a", &log).on("read", move |ch| {
                let mut buffer = [0; 100];
                if std::mem::replace(&mut first, false) {
                    let got = ch.recv(&mut buffer[..read])?;
                    assert_eq!(got, read);
                    pieces.iter().for_each(|piece| ch.unread(piece.as_bytes()));
                    return Ok(());
                }
                let read = ch.recv(&mut buffer)?;
                seen.add(format!("input {}", buffer[..read].escape_ascii()));
                Ok(())
            });
            let (mut map, token, mut far) = opened(on, dispatcher);
            far.write_all(b"abcdef").unwrap();
            arrive(&mut map, token);
            let back: String = pieces.iter().rev().copied().collect();
            assert_eq!(input(&log), back + &"abcdef"[read..], "{pieces:?}");
            far.write_all(b"!").unwrap();
            arrive(&mut map, token);
            assert!(input(&log).ends_with("f!"));
        }
    }
}

/// It is there without the socket being ready, in the next turn, which does not wait; and it costs no
/// system call.
#[cfg(debug_assertions)]
#[test]
fn what_is_put_back_comes_in_the_next_turn_without_a_call() {
    for on in loopbacks() {
        let log = Log::new();
        let (mut map, token, mut far) = opened(on, put_back(false, &log));
        far.write_all(b"back").unwrap();
        wait_for_input(view(&mut map, token).socket().unwrap());
        turn_until(&mut map, &log, |_| log.count("a read") == 1);
        assert_eq!(map.wait_limit(), Some(Duration::ZERO));
        let before = [Call::Recv, Call::Control].map(count);
        map.turn(None).unwrap();
        assert_eq!(log.of("input"), ["back"]);
        assert_eq!([Call::Recv, Call::Control].map(count), before);
        turn_quiet(&mut map);
        assert_eq!(map.wait_limit(), None);
        assert_calm(&mut map);
        assert_eq!(log.of("a"), ["open", "read", "read"]);
    }
}

/// Outside of a hook as well: before it opens, and later.
#[test]
fn what_is_put_back_from_outside_comes_first() {
    for on in loopbacks() {
        let log = Log::new();
        let (near, mut far) = pair(on);
        let mut map = ChannelMap::new().unwrap();
        let token = map.add(near, Recorder::new("a", &log)).unwrap().token();
        view(&mut map, token).unread(b"first ");
        turn_quiet(&mut map);
        assert_eq!(log.input("a"), b"first ");
        assert_eq!(log.of("a"), ["open", "read"]);
        view(&mut map, token).unread(b"second ");
        assert_eq!(map.wait_limit(), Some(Duration::ZERO));
        turn_quiet(&mut map);
        far.write_all(b"third").unwrap();
        arrive(&mut map, token);
        assert_eq!(log.input("a"), b"first second third");
        // A listener reads nothing.
        let listener = map.listen(on, Recorder::new("listener", &log)).unwrap();
        map.channel(listener).unwrap().unread(b"nothing");
        turn_quiet(&mut map);
        assert_eq!(map.wait_limit(), None);
    }
}

#[test]
fn what_is_put_back_while_paused_waits_for_the_resume() {
    for on in loopbacks() {
        for by_readable in [false, true] {
            let log = Log::new();
            let wants = Rc::new(Cell::new(true));
            let (asked, told) = (wants.clone(), wants.clone());
            let (mut first, seen) = (true, log.clone());
            let dispatcher = Recorder::new("a", &log).readable(move |_| asked.get()).on("read", move |ch| {
                ch.read_with(|ch, data| {
                    if !std::mem::replace(&mut first, false) {
                        seen.add(format!("input {}", data.escape_ascii()));
                        return Ok(());
                    }
                    ch.unread(data);
                    match by_readable {
                        true => told.set(false),
                        false => ch.pause_reading(),
                    }
                    Ok(())
                })
            });
            let (mut map, token, mut far) = opened(on, dispatcher);
            far.write_all(b"early ").unwrap();
            arrive(&mut map, token);
            far.write_all(b"late").unwrap();
            wait_for_input(view(&mut map, token).socket().unwrap());
            turn_quiet(&mut map);
            assert_eq!(map.wait_limit(), None);
            assert_calm(&mut map);
            assert_eq!(log.of("a"), ["open", "read"]);
            wants.set(true);
            view(&mut map, token).resume_reading();
            turn_quiet(&mut map);
            assert_eq!(log.of("input"), ["early ", "late"]);
        }
    }
}

/// Reading is paused between the hook that puts back and the turn that would deliver it.
#[test]
fn a_pause_from_outside_holds_what_was_due() {
    let log = Log::new();
    let (mut map, token, mut far) = opened(loopbacks()[0], put_back(false, &log));
    far.write_all(b"back").unwrap();
    turn_until(&mut map, &log, |_| log.count("a read") == 1);
    view(&mut map, token).pause_reading();
    turn_quiet(&mut map);
    assert_calm(&mut map);
    assert_eq!(log.of("a"), ["open", "read"]);
    view(&mut map, token).resume_reading();
    turn_quiet(&mut map);
    assert_eq!(input(&log), "back");
}

/// The end was read before: first what was put back, then the end, once.
#[cfg(debug_assertions)]
#[test]
fn what_is_put_back_comes_before_an_end_already_read() {
    for on in loopbacks() {
        for unix in [false, true] {
            for pause in [false, true] {
                for eof in [Eof::Close, Eof::KeepWriting] {
                    let log = Log::new();
                    let (mut first, seen) = (true, log.clone());
                    let dispatcher = Recorder::new("a", &log).eof(eof).on("read", move |ch| {
                        let mut buffer = [0; 100];
                        let mut read = ch.recv(&mut buffer)?;
                        seen.add(format!("input {}", buffer[..read].escape_ascii()));
                        if std::mem::replace(&mut first, false) {
                            // All of it, and the end.
                            while read < 4 {
                                read += ch.recv(&mut buffer[read..])?;
                            }
                            match ch.recv(&mut [0]) {
                                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                                end => assert_eq!(end.unwrap(), 0),
                            }
                            ch.unread(&buffer[..read]);
                            if pause {
                                ch.pause_reading();
                            }
                        }
                        Ok(())
                    });
                    let mut map = ChannelMap::new().unwrap();
                    let (near, mut far): (socket2::Socket, socket2::Socket) = if unix {
                        let (near, far) = unix_pair();
                        (near.into(), far.into())
                    } else {
                        let (near, far) = pair(on);
                        (near.into(), far.into())
                    };
                    far.write_all(b"last").unwrap();
                    far.shutdown(Shutdown::Write).unwrap();
                    let near = TcpStream::from(OwnedFd::from(near));
                    let token = map.add(near, dispatcher).unwrap().token();
                    // A read of less than was asked for ends a plain socket's turn: let the end be
                    // met in the same hook.
                    inject(Call::Recv, 0, 1, Fault::Short(4));
                    turn_quiet(&mut map);
                    if pause {
                        assert_calm(&mut map);
                        assert_eq!(log.of("a"), ["open", "read"]);
                        view(&mut map, token).resume_reading();
                    }
                    if eof == Eof::KeepWriting {
                        turn_until(&mut map, &log, |_| log.has("a eof"));
                        turn_quiet(&mut map);
                        view(&mut map, token).close();
                    }
                    turn_until(&mut map, &log, |map| map.is_empty());
                    let but_reads: Vec<_> = log.of("a").into_iter().filter(|event| event != "read").collect();
                    let reason = if eof == Eof::Close { "close: end of stream" } else { "close: closed" };
                    assert_eq!(but_reads, ["open", "eof", reason]);
                    let inputs: Vec<_> = log.of("input").into_iter().filter(|got| !got.is_empty()).collect();
                    assert_eq!(inputs, ["last", "last"]);
                }
            }
        }
    }
}

/// Then the peer goes altogether, which cannot be masked.
#[test]
fn a_pause_holds_what_was_put_back_although_the_peer_is_gone() {
    let log = Log::new();
    let (mut first, seen) = (true, log.clone());
    let dispatcher = Recorder::new("a", &log).on("read", move |ch| {
        let mut buffer = [0; 100];
        let read = ch.recv(&mut buffer)?;
        seen.add(format!("input {}", buffer[..read].escape_ascii()));
        if std::mem::replace(&mut first, false) {
            assert_eq!(ch.recv(&mut [0]).unwrap(), 0);
            ch.unread(&buffer[..read]);
            ch.pause_reading();
        }
        Ok(())
    });
    let (near, mut far) = unix_pair();
    far.write_all(&[b'x'; 100]).unwrap();
    far.shutdown(Shutdown::Write).unwrap();
    let mut map = ChannelMap::new().unwrap();
    let token = map.add(near, dispatcher).unwrap().token();
    turn_quiet(&mut map);
    assert_eq!(log.of("a"), ["open", "read"]);
    drop(far);
    turn_quiet(&mut map);
    assert_calm(&mut map);
    assert_eq!(log.of("a"), ["open", "read"]);
    view(&mut map, token).resume_reading();
    run_out(&mut map, &log);
    assert_eq!(input(&log).len(), 200);
    assert_eq!(log.of("a"), ["open", "read", "read", "eof", "close: end of stream"]);
}

/// The end is met in the very hook that puts back: `recv` says 0, and then there is something again.
#[test]
fn what_is_put_back_after_the_end_was_met_is_read_before_it() {
    for on in loopbacks() {
        let log = Log::new();
        let (mut step, seen) = (0, log.clone());
        let dispatcher = Recorder::new("a", &log).on("read", move |ch| {
            step += 1;
            let mut buffer = [0; 10];
            let read = ch.recv(&mut buffer)?;
            seen.add(format!("input {}", buffer[..read].escape_ascii()));
            if read == 0 && step < 5 {
                ch.unread(b"once more");
            }
            Ok(())
        });
        let (mut map, _, mut far) = opened(on, dispatcher);
        far.write_all(b"last").unwrap();
        drop(far);
        turn_until(&mut map, &log, |map| map.is_empty());
        assert_eq!(log.of("input")[..3], ["last", "", "once more"]);
        let but_reads: Vec<_> = log.of("a").into_iter().filter(|event| event != "read").collect();
        assert_eq!(but_reads, ["open", "eof", "close: end of stream"]);
    }
}

/// Rule 4: what came before a reset is offered before the end, unless reading is paused.
#[test]
fn what_is_put_back_is_offered_before_a_reset_unless_paused() {
    for on in loopbacks() {
        for pause in [false, true] {
            let log = Log::new();
            let (mut map, token, mut far) = opened(on, put_back(pause, &log));
            far.write_all(b"before").unwrap();
            wait_for_input(view(&mut map, token).socket().unwrap());
            turn_until(&mut map, &log, |_| log.count("a read") == 1);
            reset(far);
            wait_for_hang_up(view(&mut map, token).socket().unwrap());
            run_out(&mut map, &log);
            assert_eq!(input(&log), if pause { "" } else { "before" });
            assert_eq!(log.of("a").last().unwrap(), &format!("close: {}", text(libc::ECONNRESET)));
            assert_eq!(log.count("a eof") + log.count("a error"), 0);
        }
    }
}

/// Rule 7: a write that fails does not end the reading, and so not what was put back.
#[cfg(debug_assertions)]
#[test]
fn what_is_put_back_is_read_after_a_write_that_failed() {
    for on in loopbacks() {
        for before in [false, true] {
            let log = Log::new();
            let (mut first, seen) = (true, log.clone());
            let dispatcher = Recorder::new("a", &log).on("read", move |ch| {
                ch.read_with(|ch, data| {
                    if !std::mem::replace(&mut first, false) {
                        seen.add(format!("input {}", data.escape_ascii()));
                        return Ok(());
                    }
                    if before {
                        ch.push(b"x")?;
                    }
                    ch.unread(data);
                    if !before {
                        ch.push(b"x")?;
                    }
                    Ok(())
                })
            });
            let (mut map, token, mut far) = opened(on, dispatcher);
            inject(Call::Send, 0, 1, Fault::Errno(libc::EPIPE));
            far.write_all(b"asked").unwrap();
            arrive(&mut map, token);
            far.write_all(b" more").unwrap();
            far.shutdown(Shutdown::Write).unwrap();
            run_out(&mut map, &log);
            assert_eq!(input(&log), "asked more", "the push comes first: {before}");
            assert_eq!(log.of("a").last().unwrap(), &format!("close: {}", text(libc::EPIPE)));
        }
    }
}

#[test]
fn what_is_put_back_goes_to_the_new_dispatcher() {
    for on in loopbacks() {
        for order in [false, true] {
            let log = Log::new();
            let new = log.clone();
            let dispatcher = Recorder::new("old", &log).on("read", move |ch| {
                ch.read_with(|ch, data| {
                    if order {
                        ch.unread(&data[3..]);
                    }
                    ch.replace_dispatcher(Recorder::new("new", &new))?;
                    if !order {
                        ch.unread(&data[3..]);
                    }
                    Ok(())
                })
            });
            let (mut map, token, mut far) = opened(on, dispatcher);
            far.write_all(b"old new").unwrap();
            arrive(&mut map, token);
            assert_eq!(log.input("new"), b" new");
            far.write_all(b"est").unwrap();
            far.shutdown(Shutdown::Write).unwrap();
            run_out(&mut map, &log);
            assert_eq!(log.input("new"), b" newest");
            assert_eq!(log.of("old"), ["open", "read"]);
            assert_eq!(log.of("new").last().unwrap(), "close: end of stream");
        }
    }
}

/// After `close` or `abort` no input comes, whatever was put back before or is put back then.
#[test]
fn after_close_no_hook_runs_but_the_last() {
    for on in loopbacks() {
        for abort in [false, true] {
            for queued in [false, true] {
                let log = Log::new();
                let dispatcher = Recorder::new("a", &log).on("read", move |ch| {
                    ch.read_with(|ch, data| {
                        ch.unread(data);
                        if queued {
                            ch.push_vec(vec![b'x'; 3_000_000])?;
                        }
                        if abort {
                            ch.abort()
                        } else {
                            ch.close()
                        }
                        ch.unread(data);
                        Ok(())
                    })
                });
                let (mut map, token, mut far) = opened(on, dispatcher);
                far.write_all(b"back").unwrap();
                turn_until(&mut map, &log, |_| log.has("a read"));
                if let Ok(mut ch) = map.channel(token) {
                    ch.unread(b"more");
                    turn_quiet(&mut map);
                    assert_eq!(map.wait_limit().is_some(), map.contains(token), "only the time to flush");
                }
                let far = std::thread::spawn(move || read_all(&mut far).0.len());
                run_out(&mut map, &log);
                let reason = if abort { "close: aborted" } else { "close: closed" };
                assert_eq!(log.of("a"), ["open", "read", reason]);
                let got = far.join().unwrap();
                assert!(abort || got == if queued { 3_000_000 } else { 0 });
            }
        }
    }
}

/// Rule 17: it counts for the budget of the turn as what is read does; what is beyond it comes in
/// the next turn.
#[test]
fn more_than_the_budget_comes_in_the_next_turns() {
    const LEN: usize = 300_000;
    for on in loopbacks() {
        let log = Log::new();
        let bytes = pattern(LEN);
        let got = Rc::new(RefCell::new(Vec::new()));
        let most = Rc::new(Cell::new(0));
        let (seen, largest) = (got.clone(), most.clone());
        let dispatcher = Recorder::new("a", &log).on("read", move |ch| {
            let before = seen.borrow().len();
            let mut buffer = [0; 10_000];
            let end = loop {
                match ch.recv(&mut buffer) {
                    Ok(0) => break Ok(()),
                    Ok(read) => seen.borrow_mut().extend_from_slice(&buffer[..read]),
                    Err(error) => break Err(error),
                }
            };
            largest.set(largest.get().max(seen.borrow().len() - before));
            end
        });
        let (mut map, token, mut far) = opened(on, dispatcher);
        let (near, mut other_far) = pair(on);
        let other = Recorder::new("b", &log);
        map.add(near, other).unwrap();
        turn_quiet(&mut map);
        view(&mut map, token).unread(&bytes[100_000..]);
        view(&mut map, token).unread(&bytes[..100_000]);
        other_far.write_all(b"me, too").unwrap();
        far.write_all(b"then this").unwrap();
        turn_until(&mut map, &log, |_| got.borrow().len() == LEN + 9);
        assert_eq!(most.get(), 64 * 1024);
        assert!(*got.borrow() == [&bytes[..], b"then this"].concat());
        let events = log.events();
        let at = |event: &str| events.iter().rposition(|e| e == event).unwrap();
        assert!(at("b read") < at("a read"), "the other is served meanwhile");
    }
}

/// Rule 6: a hook that puts everything back each time. It is suspended, and that is logged once; when
/// more comes it is enough.
#[test]
fn a_hook_that_puts_everything_back_does_not_spin() {
    for on in loopbacks() {
        for by_end in [false, true] {
            capture_log();
            let log = Log::new();
            let seen = log.clone();
            let reads = Rc::new(Cell::new(0));
            let counted = reads.clone();
            let dispatcher = Recorder::new("a", &log).quiet().on("read", move |ch| {
                counted.set(counted.get() + 1);
                let (mut buffer, mut read) = ([0; 100], 0);
                let ended = loop {
                    match ch.recv(&mut buffer[read..]) {
                        Ok(0) => break true,
                        Ok(more) => read += more,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => break false,
                        Err(error) => return Err(error),
                    }
                };
                if read < 8 && !ended {
                    ch.unread(&buffer[..read]);
                } else {
                    seen.add(format!("input {}", buffer[..read].escape_ascii()));
                }
                Ok(())
            });
            let (mut map, _, mut far) = opened(on, dispatcher);
            far.write_all(b"half").unwrap();
            turn_until(&mut map, &log, |_| !logged("ready for 64 turns").is_empty());
            assert!((64..70).contains(&reads.get()), "{} reads", reads.get());
            let waits = waits_in(&mut map, Duration::from_millis(300));
            assert!(waits <= 20, "{waits} waits in 0.3 s");
            assert_eq!(log.of("input"), [""; 0]);
            match by_end {
                true => far.shutdown(Shutdown::Write).unwrap(),
                false => far.write_all(b"full").unwrap(),
            }
            turn_until(&mut map, &log, |_| !log.of("input").is_empty());
            assert_eq!(log.of("input"), [if by_end { "half" } else { "halffull" }]);
            assert_eq!(logged("ready for 64 turns").len(), 1);
        }
    }
}

/// One that takes a byte each time makes progress, and is not suspended: no pause in 500 turns.
#[test]
fn a_hook_that_takes_a_byte_each_time_is_not_suspended() {
    capture_log();
    let log = Log::new();
    let got = log.clone();
    let dispatcher = Recorder::new("a", &log).quiet().on("read", move |ch| {
        ch.read_with(|ch, data| {
            got.add(format!("input {}", data[..1].escape_ascii()));
            ch.unread(&data[1..]);
            Ok(())
        })
    });
    let (mut map, token, mut far) = opened(loopbacks()[0], dispatcher);
    let text = "0123456789".repeat(50);
    far.write_all(text.as_bytes()).unwrap();
    arrive(&mut map, token);
    assert_eq!(input(&log), text);
    assert_eq!(logged("ready"), [""; 0]);
}

/// It is no sign of life of the peer.
#[test]
fn an_idle_timeout_is_not_put_off() {
    for on in loopbacks() {
        let log = Log::new();
        let dispatcher = Recorder::new("a", &log).quiet().on("read", |ch| {
            ch.read_with(|ch, data| {
                ch.unread(data);
                ch.pause_reading();
                ch.call_later(Duration::from_millis(5), |ch| {
                    ch.resume_reading();
                    Ok(())
                });
                Ok(())
            })
        });
        let (mut map, token, mut far) = opened(on, dispatcher);
        far.write_all(b"back").unwrap();
        view(&mut map, token).set_timeout(Some(Duration::from_millis(60)));
        run_out(&mut map, &log);
        assert_eq!(log.of("a"), ["open", "timeout", "close: aborted"]);
    }
}

/// A source of its own: records, whose bytes are inside it already when they are put back.
#[test]
fn what_is_put_back_comes_before_what_is_inside_a_source() {
    for kind in record_kinds() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let got = Rc::new(RefCell::new(Vec::new()));
        let (seen, mut turn) = (got.clone(), 0);
        // It takes three bytes and puts back two, again and again.
        let dispatcher = Recorder::new("a", &log).quiet().on("read", move |ch| {
            turn += 1;
            let mut buffer = [0; 3000];
            let read = ch.recv(&mut buffer)?;
            let kept = read - read / 3 * usize::from(turn % 5 != 0);
            seen.borrow_mut().extend_from_slice(&buffer[..kept]);
            let (last, first) = buffer[kept..read].split_at((read - kept) / 2);
            ch.unread(first);
            ch.unread(last);
            Ok(())
        });
        let bytes = pattern(150_000);
        let sent = bytes.clone();
        let (_, far) = kind.open(&mut map, dispatcher, move |far| {
            far.write(&sent)?;
            far.finish()?;
            far.read_to_end()
        });
        turn_until(&mut map, &log, |map| map.is_empty());
        assert!(*got.borrow() == bytes, "{kind:?}");
        assert_eq!(log.of("a"), ["open", "eof", "close: end of stream"]);
        far.join().unwrap().unwrap();
    }
}

/// A paused channel with records keeps both apart: what was put back, then what is in the source.
#[test]
fn a_pause_keeps_what_was_put_back_and_what_is_inside_a_source() {
    for kind in record_kinds() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (handle, far) = kind.open(&mut map, put_back(true, &log), |far| {
            far.write(b"one ")?;
            far.write(b"two ")?;
            far.read_to_end()
        });
        let token = handle.token();
        turn_until(&mut map, &log, |map| view(map, token).is_paused());
        assert!(comes_to_rest(&mut map), "{kind:?}");
        view(&mut map, token).resume_reading();
        turn_until(&mut map, &log, |_| input(&log) == "one two ");
        view(&mut map, token).close();
        turn_until(&mut map, &log, |map| map.is_empty());
        assert_eq!(far.join().unwrap().unwrap(), b"");
    }
}

/// An error that is kept leaves it where it is.
#[test]
fn an_error_that_is_kept_keeps_what_was_put_back() {
    let log = Log::new();
    let (mut first, seen) = (true, log.clone());
    let dispatcher = Recorder::new("a", &log).on_error(OnError::Keep).on("read", move |ch| {
        ch.read_with(|ch, data| {
            if std::mem::replace(&mut first, false) {
                ch.unread(data);
                return Err(io::Error::other("not now"));
            }
            seen.add(format!("input {}", data.escape_ascii()));
            Ok(())
        })
    });
    let (mut map, token, mut far) = opened(loopbacks()[0], dispatcher);
    far.write_all(b"back").unwrap();
    arrive(&mut map, token);
    assert_eq!(log.of("a"), ["open", "read", "error: not now", "read"]);
    assert_eq!(input(&log), "back");
}

// Against a queue that one can see through.

/// What a hook does.
#[derive(Clone, Debug)]
enum Act {
    Recv(usize),
    PutBack(usize),
    PutMore(Vec<u8>),
    Pause,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (1..40usize).prop_map(Act::Recv),
        3 => (1..40usize).prop_map(Act::PutBack),
        1 => prop::collection::vec(any::<u8>(), 0..30).prop_map(Act::PutMore),
        1 => Just(Act::Pause),
    ]
}

/// All that is there to be read, and the end of what was read, which can be put back.
#[derive(Default)]
struct Model {
    there: VecDeque<u8>,
    read: Vec<u8>,
    acts: VecDeque<Act>,
    wrong: Option<String>,
}

impl Model {
    fn act(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        for _ in 0..3 {
            match self.acts.pop_front().unwrap_or(Act::Recv(7)) {
                Act::Recv(most) => {
                    let mut buffer = vec![0; most];
                    let read = ch.recv(&mut buffer)?;
                    let wanted: Vec<u8> = self.there.drain(..read.min(self.there.len())).collect();
                    if buffer[..read] != wanted || read == 0 {
                        self.wrong = Some(format!("read {:?} instead of {wanted:?}", &buffer[..read]));
                    }
                    self.read.extend(wanted);
                }
                Act::PutBack(len) => {
                    let back = self.read.split_off(self.read.len().saturating_sub(len));
                    ch.unread(&back);
                    back.into_iter().rev().for_each(|byte| self.there.push_front(byte));
                }
                Act::PutMore(more) => {
                    ch.unread(&more);
                    more.into_iter().rev().for_each(|byte| self.there.push_front(byte));
                }
                Act::Pause => ch.pause_reading(),
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_reading_and_putting_back_gives_the_stream(
        acts in prop::collection::vec(act(), 0..60),
        sent in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..60), 1..8),
    ) {
        let log = Log::new();
        let model = Rc::new(RefCell::new(Model { acts: acts.into(), ..Model::default() }));
        let shared = model.clone();
        let dispatcher =
            Recorder::new("a", &log).quiet().on("read", move |ch| shared.borrow_mut().act(ch));
        let (near, mut far) = unix_pair();
        let mut map = ChannelMap::new().unwrap();
        let token = map.add(near, dispatcher).unwrap().token();
        let go_on = |map: &mut ChannelMap| {
            turn_quiet(map);
            while view(map, token).is_paused() {
                view(map, token).resume_reading();
                turn_quiet(map);
            }
        };
        for bytes in sent {
            model.borrow_mut().there.extend(&bytes);
            far.write_all(&bytes).unwrap();
            go_on(&mut map);
        }
        turns_at_once(&mut map, 500, |map| {
            view(map, token).resume_reading();
            model.borrow().there.is_empty()
        });
        let model = model.borrow();
        prop_assert_eq!(&model.wrong, &None);
        prop_assert!(model.there.is_empty(), "{} bytes never came", model.there.len());
    }
}
