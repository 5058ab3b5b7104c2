//! Reading: EDGE_CASES 13 to 22, and the rules 7 and 17 of the contract as far as they are about
//! input.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

#[cfg(debug_assertions)]
use dispatch_loop::faults::{Call, Fault, inject};
use dispatch_loop::{Channel, ChannelMap, Token};

use crate::support::logging::{capture_log, logged};
use crate::support::opened::opened;
use crate::support::peers::{loopbacks, pair, reset, unix_pair};
use crate::support::process::alone;
use crate::support::recorder::{Log, Recorder, text};
use crate::support::turning::{assert_calm, run_out, turn_idle, turn_until};
use crate::support::waiting::wait_for_hang_up;

/// The events but for `read`, of which there may be more or less.
fn but_reads(log: &Log, name: &str) -> Vec<String> {
    log.of(name).into_iter().filter(|event| event != "read").collect()
}

/// EDGE_CASES 13: B has an event in the batch in which A closes it and opens C.
#[test]
fn an_event_of_a_closed_channel_reaches_no_other() {
    for on in loopbacks() {
        for abort in [false, true] {
            let log = Log::new();
            let mut map = ChannelMap::new().unwrap();
            let twins = Rc::new(RefCell::new(Vec::<Token>::new()));
            let (near_c, mut far_c) = pair(on);
            let spare = Rc::new(RefCell::new(Some(near_c)));
            let mut fars = Vec::new();
            // Whichever comes first in the batch closes the other.
            for name in ["a", "b"] {
                let (near, mut far) = pair(on);
                far.write_all(b"now").unwrap();
                let (twins_of, spare, c_log) = (twins.clone(), spare.clone(), log.clone());
                let dispatcher = Recorder::new(name, &log).on("read", move |ch| {
                    let Some(socket) = spare.borrow_mut().take() else { return ch.recv(&mut [0]).map(drop) };
                    let own = ch.token();
                    let other = *twins_of.borrow().iter().find(|token| **token != own).unwrap();
                    let mut twin = ch.map_mut().channel(other)?;
                    if abort {
                        twin.abort()
                    } else {
                        twin.close()
                    }
                    ch.map_mut().add(socket, Recorder::new("c", &c_log))?;
                    ch.recv(&mut [0; 10]).map(drop)
                });
                twins.borrow_mut().push(map.add(near, dispatcher).unwrap().token());
                fars.push(far);
            }
            turn_until(&mut map, &log, |_| log.has("c open"));
            turn_idle(&mut map);
            assert_eq!(log.count("a read") + log.count("b read"), 1, "{:?}", log.events());
            assert_eq!(log.of("c"), ["open"]);
            far_c.write_all(b"for c").unwrap();
            turn_until(&mut map, &log, |_| log.input("c") == b"for c");
            drop(fars);
            turn_until(&mut map, &log, |map| map.len() == 1);
            assert_eq!(log.count("a close: ") + log.count("b close: "), 2);
            assert_eq!(
                log.count(if abort { "a close: aborted" } else { "a close: closed" })
                    + log.count(if abort { "b close: aborted" } else { "b close: closed" }),
                1
            );
        }
    }
}

/// EDGE_CASES 13: C is given the very descriptor of B, in B's `handle_close`.
#[test]
fn a_descriptor_used_again_at_once_gets_no_old_event() {
    use std::os::fd::{AsRawFd, RawFd};
    alone(None, || {
        let log = Log::new();
        let (near, mut far) = unix_pair();
        let old: RawFd = near.as_raw_fd();
        far.write_all(b"for b").unwrap();
        let mut map = ChannelMap::new().unwrap();
        let (c_log, kept) = (log.clone(), Rc::new(RefCell::new(None)));
        let keep = kept.clone();
        let dispatcher = Recorder::new("b", &log)
            .on("read", |ch| {
                let end = ch.recv(&mut [0; 9]).map(drop);
                ch.close();
                end
            })
            .on("close", move |ch| {
                let (near, far) = UnixStream::pair()?;
                assert_eq!(near.as_raw_fd(), old, "the lowest free descriptor");
                *keep.borrow_mut() = Some(far);
                ch.map_mut().add(near, Recorder::new("c", &c_log)).map(drop)
            });
        map.add(near, dispatcher).unwrap();
        turn_until(&mut map, &log, |_| log.has("c open"));
        turn_idle(&mut map);
        assert_eq!(log.events(), ["b open", "b read", "b close: closed", "c open"]);
        kept.borrow_mut().as_mut().unwrap().write_all(b"for c").unwrap();
        turn_until(&mut map, &log, |_| log.input("c") == b"for c");
    });
}

/// EDGE_CASES 14.
#[test]
fn channels_closed_by_another_of_the_batch_run_no_hook_but_the_last() {
    for on in loopbacks() {
        for abort in [false, true] {
            let log = Log::new();
            let mut map = ChannelMap::new().unwrap();
            let mut fars = Vec::new();
            for _ in 0..50 {
                let (near, mut far) = pair(on);
                far.write_all(b"now").unwrap();
                let dispatcher = Recorder::new("a", &log).on("read", move |ch| {
                    let own = ch.token();
                    let others: Vec<Token> = ch.map().tokens().filter(|&token| token != own).collect();
                    for token in others {
                        let mut other = ch.map_mut().channel(token)?;
                        if abort { other.abort() } else { other.close() }
                    }
                    ch.recv(&mut [0; 10]).map(drop)
                });
                map.add(near, dispatcher).unwrap();
                fars.push(far);
            }
            turn_until(&mut map, &log, |_| log.has("a read"));
            // Those that were reset are not connected any more.
            fars.iter().for_each(|far| drop(far.shutdown(Shutdown::Write)));
            run_out(&mut map, &log);
            let closed = if abort { "a close: aborted" } else { "a close: closed" };
            let wanted =
                [("a open", 50), (closed, 49), ("a read", 2), ("a eof", 1), ("a close: end of stream", 1)];
            for (event, times) in wanted {
                assert_eq!(log.count(event), times, "{event}");
            }
            assert_eq!(log.events().len(), 103);
        }
    }
}

/// EDGE_CASES 15.
#[test]
fn data_while_reading_is_paused_waits() {
    for on in loopbacks() {
        let log = Log::new();
        let (mut map, token, mut far) = opened(on, Recorder::new("a", &log));
        map.channel(token).unwrap().pause_reading();
        far.write_all(&[1; 100_000]).unwrap();
        turn_idle(&mut map);
        assert_calm(&mut map);
        assert!(map.channel(token).unwrap().is_paused());
        assert_eq!(log.of("a"), ["open"]);
        map.channel(token).unwrap().resume_reading();
        turn_until(&mut map, &log, |_| log.input("a").len() == 100_000);
        assert!(!map.channel(token).unwrap().is_paused());
    }
}

/// EDGE_CASES 16 and 33: FIN, or the HUP of a Unix-domain pair, which cannot be masked. Paused by
/// a call, and by what `readable` says.
#[test]
fn data_and_the_end_while_reading_is_paused_wait() {
    for by_readable in [false, true] {
        for unix in [false, true] {
            let log = Log::new();
            let open = Rc::new(Cell::new(!by_readable));
            let readable = open.clone();
            let dispatcher = Recorder::new("a", &log).readable(move |_| readable.get());
            let mut map = ChannelMap::new().unwrap();
            let token = match unix {
                true => {
                    let (near, mut far) = unix_pair();
                    far.write_all(b"last words").unwrap();
                    map.add(near, dispatcher).unwrap().token()
                }
                false => {
                    let (near, mut far) = pair(loopbacks()[0]);
                    far.write_all(b"last words").unwrap();
                    map.add(near, dispatcher).unwrap().token()
                }
            };
            if !by_readable {
                map.channel(token).unwrap().pause_reading();
            }
            turn_idle(&mut map);
            assert_calm(&mut map);
            assert_eq!(log.of("a"), ["open"]);
            open.set(true);
            map.channel(token).unwrap().resume_reading();
            run_out(&mut map, &log);
            assert_eq!(log.input("a"), b"last words");
            assert_eq!(but_reads(&log, "a"), ["open", "eof", "close: end of stream"]);
        }
    }
}

/// EDGE_CASES 16: a reset ends a paused channel at once, and what it has not read is dropped.
#[test]
fn a_reset_while_reading_is_paused_is_the_end() {
    for on in loopbacks() {
        for by_readable in [false, true] {
            let log = Log::new();
            let dispatcher = Recorder::new("a", &log).readable(move |_| !by_readable);
            let (mut map, token, mut far) = opened(on, dispatcher);
            map.channel(token).unwrap().pause_reading();
            far.write_all(b"never read").unwrap();
            turn_idle(&mut map);
            reset(far);
            run_out(&mut map, &log);
            assert_eq!(log.of("a"), ["open", &format!("close: {}", text(libc::ECONNRESET))]);
        }
    }
}

/// EDGE_CASES 17.
#[test]
fn pause_and_resume_inside_the_hook_lose_nothing() {
    for on in loopbacks() {
        let log = Log::new();
        let got = log.clone();
        let dispatcher = Recorder::new("a", &log).on("read", move |ch| {
            let mut byte = [0];
            ch.pause_reading();
            let n = ch.recv(&mut byte)?;
            got.add(format!("got {}", String::from_utf8_lossy(&byte[..n])));
            ch.resume_reading();
            Ok(())
        });
        let (mut map, _, mut far) = opened(on, dispatcher);
        far.write_all(b"abc").unwrap();
        drop(far);
        run_out(&mut map, &log);
        assert_eq!(log.of("got"), ["a", "b", "c", ""]);
        assert_eq!(but_reads(&log, "a"), ["open", "eof", "close: end of stream"]);
    }
}

/// EDGE_CASES 18.
#[test]
fn data_and_fin_in_one_segment_are_data_and_then_one_end() {
    for on in loopbacks() {
        let log = Log::new();
        let (mut map, _, mut far) = opened(on, Recorder::new("a", &log));
        far.write_all(b"all of it").unwrap();
        drop(far);
        run_out(&mut map, &log);
        assert_eq!(log.input("a"), b"all of it");
        assert_eq!(but_reads(&log, "a"), ["open", "eof", "close: end of stream"]);
    }
}

/// EDGE_CASES 18: more than the budget of a turn, read to the end in whatever way; and the end
/// met more than once in one hook is told once.
#[test]
fn a_lot_of_data_and_fin_are_all_data_and_then_one_end() {
    for on in loopbacks() {
        for greedy in [false, true] {
            let log = Log::new();
            let mut dispatcher = Recorder::new("a", &log);
            let total = Rc::new(Cell::new(0));
            if greedy {
                let total = total.clone();
                dispatcher = dispatcher.on("read", move |ch| {
                    let mut buffer = [0; 5000];
                    loop {
                        let n = ch.recv(&mut buffer)?;
                        total.set(total.get() + n);
                        if n == 0 {
                            assert_eq!(ch.recv(&mut buffer)?, 0, "and it stays the end");
                            return ch.read_with(|_, _| panic!("there is nothing"));
                        }
                    }
                });
            }
            let (mut map, _, mut far) = opened(on, dispatcher);
            let sender = std::thread::spawn(move || far.write_all(&[1; 700_000]).unwrap());
            run_out(&mut map, &log);
            sender.join().unwrap();
            assert_eq!(total.get() + log.input("a").len(), 700_000);
            assert_eq!(but_reads(&log, "a"), ["open", "eof", "close: end of stream"]);
        }
    }
}

/// EDGE_CASES 19.
#[test]
fn data_before_a_reset_is_offered_before_the_end() {
    for on in loopbacks() {
        // 0: reading meets it. 1: a `send` meets it first. 2: a `push` does.
        for first in 0..3 {
            let log = Log::new();
            let dispatcher = Recorder::new("a", &log).on("open", move |ch| match first {
                0 => Ok(()),
                1 => match ch.send(b"x") {
                    Err(error) => {
                        assert_eq!(ch.send(b"x").unwrap_err().kind(), error.kind());
                        ch.push(b"y").expect("a push to a lost peer is Ok");
                        Err(error)
                    }
                    Ok(sent) => panic!("sent {sent}"),
                },
                _ => ch.push(b"x"),
            });
            let (near, mut far) = pair(on);
            far.write_all(b"before").unwrap();
            reset(far);
            wait_for_hang_up(&near);
            let mut map = ChannelMap::new().unwrap();
            map.add(near, dispatcher).unwrap();
            capture_log();
            run_out(&mut map, &log);
            assert_eq!(logged("channel"), [""; 0], "a lost peer is no error");
            if cfg!(target_os = "linux") {
                assert_eq!(log.input("a"), b"before", "case {first}");
            }
            let reset = format!("close: {}", text(libc::ECONNRESET));
            assert_eq!(but_reads(&log, "a"), ["open", &reset], "case {first}");
        }
    }
}

/// EDGE_CASES 20, and an interrupted `recv`, which is made again.
#[cfg(debug_assertions)]
#[test]
fn readable_with_nothing_there_is_no_data_and_no_end() {
    for on in loopbacks() {
        for errno in [libc::EAGAIN, libc::EINTR] {
            for plain in [false, true] {
                let log = Log::new();
                let mut dispatcher = Recorder::new("a", &log);
                let total = Rc::new(Cell::new(0));
                if plain {
                    let total = total.clone();
                    // `WouldBlock`, handed back with `?`.
                    dispatcher = dispatcher.on("read", move |ch| {
                        loop {
                            total.set(total.get() + ch.recv(&mut [0; 2])?);
                        }
                    });
                }
                let (mut map, _, mut far) = opened(on, dispatcher);
                far.write_all(b"hello").unwrap();
                inject(Call::Recv, 0, 3, Fault::Errno(errno));
                turn_until(&mut map, &log, |_| total.get() + log.input("a").len() == 5);
                turn_idle(&mut map);
                assert_eq!(but_reads(&log, "a"), ["open"]);
            }
        }
    }
}

/// EDGE_CASES 21 and rule 17.
#[test]
fn a_sender_that_never_stops_leaves_others_their_turn() {
    for on in loopbacks() {
        let log = Log::new();
        let most = Rc::new(Cell::new(0));
        let largest = most.clone();
        let greedy = Recorder::new("greedy", &log).quiet().on("read", move |ch| {
            let mut read = 0;
            let result = loop {
                match ch.recv(&mut [0; 4096]) {
                    Ok(n) => read += n,
                    Err(error) => break error,
                }
            };
            largest.set(largest.get().max(read));
            Err(result)
        });
        let (mut map, token, mut far) = opened(on, greedy);
        let sender = std::thread::spawn(move || while far.write_all(&[1; 100_000]).is_ok() {});
        let (near, mut client) = pair(on);
        map.add(near, Recorder::new("echo", &log).on("read", |ch| ch.read_with(|ch, data| ch.push(data))))
            .unwrap();
        let timer = log.clone();
        map.call_every(Duration::from_millis(1), move |_| timer.add("timer"));
        let rounds = std::thread::spawn(move || {
            for n in 0..50 {
                client.write_all(&[n]).unwrap();
                client.read_exact(&mut [0]).unwrap();
            }
        });
        turn_until(&mut map, &log, |_| {
            log.count("timer") > 20 && most.get() > 10_000 && rounds.is_finished()
        });
        rounds.join().unwrap();
        assert!(most.get() <= 64 * 1024, "{} bytes in one turn", most.get());
        map.channel(token).unwrap().abort();
        turn_until(&mut map, &log, |_| log.closed("greedy"));
        sender.join().unwrap();
        assert_eq!(log.of("greedy"), ["open", "close: aborted"]);
    }
}

/// EDGE_CASES 22. The hook takes the byte, or leaves it to the loop.
#[test]
#[cfg(target_os = "linux")]
fn urgent_data_comes_first_and_once() {
    for on in loopbacks() {
        for take in [true, false] {
            let log = Log::new();
            let taken = log.clone();
            let dispatcher = Recorder::new("a", &log).on("expt", move |ch| {
                if !take {
                    return Ok(());
                }
                let mut byte = [0];
                assert_eq!(ch.recv_urgent(&mut byte)?, 1);
                taken.add(format!("took {}", byte[0]));
                ch.recv_urgent(&mut byte).map(drop)
            });
            let (mut map, _, mut far) = opened(on, dispatcher);
            for n in 1..=3 {
                far.write_all(b"be").unwrap();
                assert_eq!(socket2::SockRef::from(&far).send_out_of_band(&[n]).unwrap(), 1);
                far.write_all(b"hind").unwrap();
                turn_until(&mut map, &log, |_| log.input("a").len() == 6 * usize::from(n));
                turn_idle(&mut map);
                assert_eq!(log.count("a expt"), usize::from(n));
                let took: Vec<_> = (1..=n).map(|n| n.to_string()).collect();
                assert_eq!(log.of("took"), if take { took } else { vec![] });
                assert_calm(&mut map);
            }
            assert_eq!(log.of("a")[..3], ["open", "expt", "read"]);
            assert_eq!(log.input("a"), b"behind".repeat(3));
        }
    }
}

/// Rule 7: what `recv` says that is neither data nor an error.
#[test]
fn recv_says_would_block_where_there_is_nothing_to_read() {
    for on in loopbacks() {
        let log = Log::new();
        let would_block = |ch: &mut Channel<'_>| {
            assert_eq!(ch.recv(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
            assert_eq!(ch.recv_urgent(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
            ch.read_with(|_, _| panic!("nothing is there"))
        };
        let dispatcher =
            Recorder::new("a", &log).on("open", would_block).on("close", would_block).on("read", move |ch| {
                assert_eq!(ch.recv(&mut []).unwrap(), 0, "that is not the end of the stream");
                ch.read_with(|ch, data| {
                    assert_eq!(data, b"hi");
                    ch.close();
                    would_block(ch)
                })
            });
        let (mut map, _, mut far) = opened(on, dispatcher);
        turn_idle(&mut map);
        far.write_all(b"hi").unwrap();
        run_out(&mut map, &log);
        assert_eq!(log.events(), ["a open", "a read", "a close: closed"]);
    }
}

/// Rule 7: `WouldBlock` is no error of a read hook, but it is one of `handle_open`; and a system
/// call that fails in some other way ends the channel with that.
#[cfg(debug_assertions)]
#[test]
fn an_error_of_recv_ends_the_channel_and_so_does_would_block_in_handle_open() {
    for on in loopbacks() {
        let log = Log::new();
        let (mut map, _, mut far) = opened(on, Recorder::new("a", &log));
        map.turn(Some(Duration::ZERO)).unwrap();
        far.write_all(b"x").unwrap();
        inject(Call::Recv, 0, 1, Fault::Errno(libc::ETIMEDOUT));
        run_out(&mut map, &log);
        assert_eq!(log.of("a"), ["open", "read", &format!("close: {}", text(libc::ETIMEDOUT))]);

        let early = |ch: &mut Channel<'_>| -> io::Result<()> { ch.recv(&mut [0]).map(drop) };
        let (mut map, _, _far) = opened(on, Recorder::new("b", &log).on("open", early));
        run_out(&mut map, &log);
        assert_eq!((log.count("b error: "), log.count("b close: ")), (1, 1));
    }
}
