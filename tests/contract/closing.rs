//! Closing, second edition: EDGE_CASES 54 to 63. Slow readers, lingering, what is cut short, what closing
//! waits for. (29 to 34 are in `close.rs`.)

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use dispatch_loop::{ChannelMap, More, Source, Token};
use socket2::SockRef;

use crate::support::opened::{opened, opened_on, view};
use crate::support::peers::{
    cut_short, loopbacks, narrow_pair, pair, pattern, read_all, read_exactly, reads_all, refusing, reset,
    unix_pair,
};
use crate::support::recorder::{Log, Recorder, text};
use crate::support::turning::{arrive, run_out, turn_quiet, turn_until, waits_in};
use crate::support::waiting::wait_for_input;

const MILLISECOND: Duration = Duration::from_millis(1);

/// A pair in whose near end much waits that the far one cannot take yet: bytes leave all the time, but
/// there is room for more only when a third of the buffer is free.
fn deep_pair(buffer: usize) -> (TcpStream, TcpStream) {
    let (near, far) = pair(loopbacks()[0]);
    SockRef::from(&near).set_send_buffer_size(buffer).unwrap();
    SockRef::from(&far).set_recv_buffer_size(16 * 1024).unwrap();
    (near, far)
}

/// Reads 80 bytes a millisecond for `slow`, and then all the rest.
fn reads_slowly(mut far: TcpStream, slow: Duration) -> JoinHandle<(Vec<u8>, io::Result<()>)> {
    thread::spawn(move || {
        let begun = Instant::now();
        let mut got = Vec::new();
        while begun.elapsed() < slow {
            thread::sleep(25 * MILLISECOND);
            // On a busy machine as much as on a free one.
            let due = 80 * begun.elapsed().as_millis() as usize - got.len();
            let mut chunk = vec![0; due];
            match far.read(&mut chunk) {
                Ok(0) => return (got, Ok(())),
                Ok(read) => got.extend_from_slice(&chunk[..read]),
                Err(error) => return (got, Err(error)),
            }
        }
        let (rest, end) = read_all(&mut far);
        got.extend(rest);
        (got, end)
    })
}

#[track_caller]
fn got_all(reader: JoinHandle<(Vec<u8>, io::Result<()>)>, all: &[u8]) {
    let (got, end) = reader.join().unwrap();
    end.unwrap_or_else(|error| panic!("{error} after {} bytes of {}", got.len(), all.len()));
    assert!(got == all, "{} bytes of {}", got.len(), all.len());
}

/// A source that takes everything at once and passes it on when there is room.
struct Greedy {
    wire: TcpStream,
    inside: Vec<u8>,
}

impl Source for Greedy {
    fn descriptor(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        use std::os::fd::AsFd;
        Some(self.wire.as_fd())
    }
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wire.read(buffer)
    }
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inside.extend_from_slice(bytes);
        match self.wire.write(&self.inside) {
            Ok(sent) => drop(self.inside.drain(..sent)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(bytes.len())
    }
    fn shutdown_write(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn output_pending(&self) -> bool {
        !self.inside.is_empty()
    }
}

fn greedy(on: std::net::SocketAddr) -> (Greedy, TcpStream) {
    let (wire, far) = narrow_pair(on);
    wire.set_nonblocking(true).unwrap();
    (Greedy { wire, inside: Vec::new() }, far)
}

/// EDGE_CASES 54.
#[test]
fn close_waits_for_a_slow_reader_as_long_as_bytes_leave() {
    let log = Log::new();
    let (near, far) = deep_pair(1 << 20);
    let all = pattern(8_000_000);
    let (mut map, token) = opened_on(near, Recorder::new("a", &log));
    let mut ch = view(&mut map, token);
    ch.set_close_timeout(1000 * MILLISECOND);
    ch.push(&all).unwrap();
    ch.close();
    let reader = reads_slowly(far, 3500 * MILLISECOND);
    run_out(&mut map, &log);
    got_all(reader, &all);
    assert_eq!(log.of("a"), ["open", "close: closed"]);
}

/// EDGE_CASES 55: what waits is in the queue, or with the system alone.
#[test]
fn an_idle_time_is_not_over_as_long_as_bytes_leave() {
    for len in [8_000_000, 400_000] {
        let log = Log::new();
        let (near, far) = deep_pair(1 << 20);
        let all = pattern(len);
        let (mut map, token) = opened_on(near, Recorder::new("a", &log));
        let mut ch = view(&mut map, token);
        ch.push(&all).unwrap();
        ch.set_timeout(Some(1000 * MILLISECOND));
        let reader = reads_slowly(far, 3500 * MILLISECOND);
        // The peer has it all, and asks for nothing more: now the channel is idle.
        turn_until(&mut map, &log, |_| log.has("a timeout"));
        let (got, _) = reader.join().unwrap();
        assert!(got == all, "{} bytes of {}", got.len(), all.len());
    }
}

/// EDGE_CASES 55: the system holds bytes that the peer never takes.
#[test]
fn an_idle_time_is_over_when_no_byte_leaves() {
    for len in [8_000_000, 400_000] {
        let log = Log::new();
        let (near, _far) = deep_pair(1 << 20);
        let (mut map, token) = opened_on(near, Recorder::new("a", &log));
        view(&mut map, token).push(&pattern(len)).unwrap();
        view(&mut map, token).set_timeout(Some(40 * MILLISECOND));
        run_out(&mut map, &log);
        let end = log.of("a").split_off(log.of("a").len() - 2);
        assert_eq!(end, ["timeout", "close: aborted"]);
    }
}

/// EDGE_CASES 56: the peer goes on sending after all was passed to the system, and reads later.
#[test]
fn input_after_close_destroys_nothing_that_was_sent() {
    let log = Log::new();
    let (near, mut far) = deep_pair(4 << 20);
    let all = pattern(1_000_000);
    let (mut map, token) = opened_on(near, Recorder::new("a", &log));
    view(&mut map, token).push(&all).unwrap();
    view(&mut map, token).close();
    turn_quiet(&mut map);
    for _ in 0..50 {
        far.write_all(b"by the way").unwrap();
        turn_quiet(&mut map);
    }
    got_all(reads_all(far), &all);
    run_out(&mut map, &log);
    assert_eq!(log.of("a"), ["open", "close: closed"], "no input is delivered after close");
}

/// EDGE_CASES 56: it reads for longer than the 2 s, and speaks then.
#[test]
fn what_a_slow_reader_has_not_yet_taken_is_not_destroyed() {
    let log = Log::new();
    let (near, far) = deep_pair(4 << 20);
    let all = pattern(1_000_000);
    let (mut map, token) = opened_on(near, Recorder::new("a", &log));
    view(&mut map, token).push(&all).unwrap();
    view(&mut map, token).close();
    let mut speaks = far.try_clone().unwrap();
    let reader = reads_slowly(far, 3500 * MILLISECOND);
    let begun = Instant::now();
    turn_until(&mut map, &log, |_| begun.elapsed() > 3000 * MILLISECOND);
    assert!(!log.closed("a"), "the system still holds something");
    speaks.write_all(b"by the way").unwrap();
    turn_until(&mut map, &log, |_| reader.is_finished());
    drop(speaks);
    got_all(reader, &all);
    run_out(&mut map, &log);
    assert_eq!(log.of("a"), ["open", "close: closed"]);
}

/// EDGE_CASES 59: nothing is queued, but the source has not passed on what it took.
#[test]
fn what_a_source_still_holds_is_cut_short_with_a_reset() {
    for on in loopbacks() {
        for closing in [false, true] {
            for how in ["drop", "error", "timeout"] {
                let log = Log::new();
                let (source, far) = greedy(on);
                let mut map = ChannelMap::new().unwrap();
                let recorder = Recorder::new("a", &log).on("timeout", |ch| {
                    ch.time_out();
                    Ok(())
                });
                let handle = map.add_source(source, recorder).unwrap();
                let token = handle.token();
                turn_until(&mut map, &log, |_| log.has("a open"));
                view(&mut map, token).push(&pattern(4_000_000)).unwrap();
                turn_quiet(&mut map);
                assert_eq!(view(&mut map, token).queued(), 0, "the source has it all");
                match how {
                    _ if closing => {
                        view(&mut map, token).set_close_timeout(20 * MILLISECOND);
                        view(&mut map, token).close();
                        turn_quiet(&mut map);
                    }
                    "error" => {
                        let _ =
                            map.with(handle, |_, _| -> io::Result<()> { Err(io::Error::other("no more")) });
                    }
                    "timeout" => view(&mut map, token).set_timeout(Some(20 * MILLISECOND)),
                    _ => {}
                }
                if how != "drop" {
                    run_out(&mut map, &log);
                }
                drop(map);
                let got = cut_short(far);
                assert!(got.len() < 4_000_000, "{how}");
            }
        }
    }
}

/// EDGE_CASES 59: the map goes while a hook of the channel runs.
#[test]
fn a_map_that_is_dropped_inside_a_hook_resets_what_is_cut_short() {
    for on in loopbacks() {
        for own in [false, true] {
            let log = Log::new();
            let mut map = ChannelMap::new().unwrap();
            let recorder = Recorder::new("a", &log).on("open", |ch| {
                ch.push(&pattern(4_000_000))?;
                drop(std::mem::replace(ch.map_mut(), ChannelMap::new()?));
                Ok(())
            });
            let mut far = match own {
                true => {
                    let (source, far) = greedy(on);
                    map.add_source(source, recorder).unwrap();
                    far
                }
                false => {
                    let (near, far) = narrow_pair(on);
                    map.add(near, recorder).unwrap();
                    far
                }
            };
            map.turn(Some(Duration::ZERO)).unwrap();
            assert!(log.closed("a"));
            let (got, end) = read_all(&mut far);
            assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset, "after {} bytes", got.len());
        }
    }
}

/// EDGE_CASES 61.
#[test]
fn a_closing_channel_with_a_producer_that_waits_notices_that_its_peer_is_gone() {
    let waits = |map: &mut ChannelMap, token: Token| {
        let mut ch = view(map, token);
        ch.push_producer(|_: &mut Vec<u8>| Ok(More::Later)).unwrap();
        ch.close();
        turn_quiet(map);
        assert!(map.contains(token));
    };
    for on in loopbacks() {
        let log = Log::new();
        let (mut map, token, far) = opened(on, Recorder::new("a", &log));
        waits(&mut map, token);
        reset(far);
        run_out(&mut map, &log);
        assert_eq!(log.of("a"), ["open".to_owned(), format!("close: {}", text(libc::ECONNRESET))]);
    }
    let log = Log::new();
    let (near, far) = unix_pair();
    let (mut map, token) = opened_on(near, Recorder::new("a", &log));
    waits(&mut map, token);
    drop(far);
    run_out(&mut map, &log);
    assert_eq!(log.of("a"), ["open".to_owned(), format!("close: {}", text(libc::EPIPE))]);
}

/// EDGE_CASES 61: whoever reconnects learns from the reason that it was refused.
#[test]
fn close_inside_handle_error_keeps_the_error_as_the_reason() {
    for on in loopbacks() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (_socket, address) = refusing(on);
        let recorder = || {
            Recorder::new("a", &log).on("error", |ch| {
                ch.close();
                Ok(())
            })
        };
        map.connect(address, recorder()).unwrap();
        run_out(&mut map, &log);
        assert_eq!(log.of("a").last().unwrap(), &format!("close: {}", text(libc::ECONNREFUSED)));

        let (mut map, token, _far) = opened(on, recorder());
        let _ = map.with(token.typed::<Recorder>(), |_, _| -> io::Result<()> { Err(io::Error::other("no")) });
        run_out(&mut map, &log);
        assert_eq!(log.of("a").last().unwrap(), "close: no");
    }
}

/// EDGE_CASES 61: also while it waits for a handshake, or for its producer.
#[test]
fn set_close_timeout_counts_from_when_it_is_called_whatever_closing_waits_for() {
    let log = Log::new();
    let (mut map, token, far) = opened(loopbacks()[0], Recorder::new("a", &log));
    let mut ch = view(&mut map, token);
    ch.push_producer(|_: &mut Vec<u8>| Ok(More::Later)).unwrap();
    ch.close();
    turn_quiet(&mut map);
    let mut set = Instant::now();
    for patience in [60_000, 100] {
        set = Instant::now();
        view(&mut map, token).set_close_timeout(patience * MILLISECOND);
        let waits = waits_in(&mut map, 20 * MILLISECOND);
        assert!(waits <= 5, "{waits} waits");
    }
    run_out(&mut map, &log);
    assert!(set.elapsed() >= 100 * MILLISECOND);
    assert_eq!(log.of("a"), ["open", "close: timed out"]);
    cut_short(far);
}

/// EDGE_CASES 62.
#[test]
fn a_background_channel_that_is_closing_keeps_run_going() {
    for from in ["outside", "hook", "all", "eof"] {
        let log = Log::new();
        let (near, far) = narrow_pair(loopbacks()[0]);
        let all = pattern(2_000_000);
        let (mut map, token) = opened_on(near, Recorder::new("a", &log));
        let mut ch = view(&mut map, token);
        ch.set_background(true);
        ch.push(&all).unwrap();
        let stays = far.try_clone().unwrap();
        match from {
            "outside" => ch.close(),
            "hook" => drop(map.call_soon(move |map| map.channel(token).unwrap().close())),
            "all" => map.close_all(),
            _ => {
                stays.shutdown(Shutdown::Write).unwrap();
                turn_until(&mut map, &log, |_| log.has("a eof"));
            }
        }
        let reader = reads_all(far);
        dispatch_loop::run(&mut map).unwrap();
        assert!(map.is_empty(), "{from}");
        got_all(reader, &all);
        drop(stays);
    }
}

/// EDGE_CASES 57: it ends with the peer's end, after the longest time though the peer goes on, or, with a
/// time of zero, at once.
#[test]
fn a_closing_channel_waits_for_its_peers_end_but_not_for_ever() {
    for how in ["end", "talk", "zero", "zero later"] {
        for on in loopbacks() {
            let log = Log::new();
            let (mut map, token, mut far) = opened(on, Recorder::new("a", &log));
            let mut ch = view(&mut map, token);
            match how {
                "talk" => ch.set_linger(100 * MILLISECOND),
                "zero" => ch.set_linger(Duration::ZERO),
                _ => {}
            }
            ch.push(b"goodbye").unwrap();
            ch.close();
            let begun = Instant::now();
            turn_quiet(&mut map);
            assert_eq!(map.is_empty(), how == "zero");
            let (got, end) = (read_exactly(&mut far, 7), far.read(&mut [0]));
            assert_eq!((got.as_slice(), end.unwrap()), (&b"goodbye"[..], 0), "FIN comes at once");
            match how {
                "end" => {
                    far.shutdown(Shutdown::Write).unwrap();
                    arrive(&mut map, token);
                }
                "talk" => {
                    turn_until(&mut map, &log, |map| far.write_all(b"and").is_err() || map.is_empty());
                    assert!(begun.elapsed() >= 100 * MILLISECOND);
                }
                "zero later" => {
                    view(&mut map, token).set_linger(Duration::ZERO);
                    turn_quiet(&mut map);
                }
                _ => {}
            }
            assert!(map.is_empty(), "{how}");
            assert_eq!(log.of("a"), ["open", "close: closed"]);
        }
    }
}

/// EDGE_CASES 57: all is done for the user, and his timers with it.
#[test]
fn a_lingering_channel_runs_no_timer_of_the_users() {
    let log = Log::new();
    let (mut map, token, far) = opened(loopbacks()[0], Recorder::new("a", &log));
    let mut ch = view(&mut map, token);
    let seen = log.clone();
    ch.call_every(MILLISECOND, move |_| {
        seen.add("a tick");
        Ok(())
    });
    ch.close();
    turn_quiet(&mut map);
    let before = log.count("a tick");
    waits_in(&mut map, 20 * MILLISECOND);
    assert_eq!(log.count("a tick"), before);
    drop(far);
    run_out(&mut map, &log);
}

/// EDGE_CASES 58.
#[test]
fn of_too_many_lingering_channels_the_oldest_gives_way() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    map.set_linger_limit(2);
    let names = ["a", "b", "c", "d", "e"];
    let mut ends: Vec<_> = (names.iter())
        .map(|name| {
            let (near, far) = pair(loopbacks()[0]);
            (map.add(near, Recorder::new(name, &log)).unwrap().token(), Some(far))
        })
        .collect();
    let close = |map: &mut ChannelMap, token: Token| {
        view(map, token).close();
        turn_quiet(map);
        names.iter().filter(|name| log.closed(name)).copied().collect::<String>()
    };
    assert_eq!(close(&mut map, ends[0].0), "");
    assert_eq!(close(&mut map, ends[1].0), "");
    assert_eq!(close(&mut map, ends[2].0), "a", "the oldest gives way");
    ends[2].1 = None;
    arrive(&mut map, ends[2].0);
    assert_eq!(close(&mut map, ends[3].0), "ac", "there was room again");
    map.set_linger_limit(0);
    assert_eq!(close(&mut map, ends[4].0), "abcde");
    drop(ends);
    run_out(&mut map, &log);
}

/// EDGE_CASES 63: what a relay asks before it passes on a reset.
#[test]
fn unsent_counts_what_the_system_holds_and_what_is_still_to_come() {
    let log = Log::new();
    let (near, far) = deep_pair(1 << 20);
    let all = pattern(400_000);
    let (mut map, token) = opened_on(near, Recorder::new("a", &log));
    assert_eq!(view(&mut map, token).unsent(), 0);
    view(&mut map, token).push(&all).unwrap();
    turn_quiet(&mut map);
    assert_eq!(view(&mut map, token).queued(), 0);
    let unsent = view(&mut map, token).unsent();
    assert!(unsent > 0 && unsent <= all.len(), "{unsent}");
    let reader = reads_all(far);
    turn_until(&mut map, &log, |map| view(map, token).unsent() == 0);
    view(&mut map, token).abort();
    run_out(&mut map, &log);
    let (got, end) = reader.join().unwrap();
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(got == all, "{} bytes of {}", got.len(), all.len());

    let (mut map, token, _far) = opened(loopbacks()[0], Recorder::new("b", &log));
    view(&mut map, token).push_producer(|_: &mut Vec<u8>| Ok(More::Later)).unwrap();
    turn_quiet(&mut map);
    assert_eq!(view(&mut map, token).unsent(), 1, "a producer that is unfinished is not done");
    let (source, _far) = greedy(loopbacks()[0]);
    let token = map.add_source(source, Recorder::new("c", &log)).unwrap().token();
    turn_quiet(&mut map);
    view(&mut map, token).push(&pattern(4_000_000)).unwrap();
    turn_quiet(&mut map);
    assert!(view(&mut map, token).unsent() > 0);
}

/// EDGE_CASES 56: the map goes while the channel lingers, and input is there that nobody has read.
#[test]
fn a_map_that_is_dropped_while_a_channel_lingers_destroys_nothing_that_was_sent() {
    let log = Log::new();
    let (near, mut far) = deep_pair(4 << 20);
    let all = pattern(1_000_000);
    let (mut map, token) = opened_on(near, Recorder::new("a", &log));
    view(&mut map, token).push(&all).unwrap();
    view(&mut map, token).close();
    turn_quiet(&mut map);
    far.write_all(b"by the way").unwrap();
    wait_for_input(view(&mut map, token).socket().unwrap());
    drop(map);
    assert_eq!(log.of("a"), ["open", "close: closed"]);
    got_all(reads_all(far), &all);
}

/// EDGE_CASES 59: an outlet has taken bytes, and the map goes before they reach the channel.
#[test]
fn a_dropped_map_resets_a_channel_that_an_outlet_has_given_bytes() {
    for on in loopbacks() {
        let log = Log::new();
        let (mut map, token, far) = opened(on, Recorder::new("a", &log));
        let outlet = view(&mut map, token).outlet().unwrap();
        outlet.try_send("first").unwrap();
        turn_quiet(&mut map);
        outlet.try_send("second").unwrap();
        drop(map);
        assert_eq!(cut_short(far), b"first");
    }
}
