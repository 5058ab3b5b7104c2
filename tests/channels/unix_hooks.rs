//! The hooks over Unix-domain stream sockets, where these differ from TCP: no reset and no linger, a
//! connect that is done at once, a hang-up that cannot be masked, and `ECONNRESET` where a peer closes
//! with input unread.

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

#[cfg(debug_assertions)]
use dispatch_loop::faults::{Call, Fault, inject};
use dispatch_loop::{ChannelMap, Eof, Handle, Token};

use crate::support::dirs::Dir;
use crate::support::opened::{opened_on, view};
use crate::support::peers::{limit_time, pattern, reads_all, reads_to_end, unix_pair};
use crate::support::provoke::{bring_about, hooks, willing};
use crate::support::recorder::{Log, Recorder, text};
use crate::support::turning::{assert_calm, run_out, turn_idle, turn_until};

/// More than the socket has room for.
const MUCH: usize = 4 << 20;

/// A map with one open channel, and the blocking other end.
fn opened(dispatcher: Recorder) -> (ChannelMap, Token, UnixStream) {
    let (near, far) = unix_pair();
    let (map, token) = opened_on(near, dispatcher);
    (map, token, far)
}

/// A listener on a path of its own, gone with it.
struct Server {
    listener: UnixListener,
    path: PathBuf,
    _dir: Dir,
}

impl Server {
    fn new() -> Server {
        let dir = Dir::new();
        let path = dir.join("server.sock");
        Server { listener: UnixListener::bind(&path).unwrap(), path, _dir: dir }
    }

    fn accept(&self) -> UnixStream {
        let far = self.listener.accept().unwrap().0;
        limit_time(&far);
        far
    }

    fn connect(&self, map: &mut ChannelMap, dispatcher: Recorder) -> Handle<Recorder> {
        map.connect(&self.path, dispatcher).unwrap()
    }
}

fn reason(log: &Log, name: &str) -> String {
    let last = log.of(name).pop().unwrap_or_default();
    last.strip_prefix("close: ").unwrap_or_else(|| panic!("{last:?} is the last")).to_owned()
}

#[track_caller]
fn assert_reset(log: &Log, name: &str) {
    let reason = reason(log, name);
    assert!(reason.contains("reset"), "{reason}");
    assert_eq!(log.count(&format!("{name} close: ")), 1, "{:?}", log.events());
}

// Connect.

/// EDGE_CASES 1, 6: nobody is there. That is an outcome, not an error of `connect`, and it says what
/// was not to be had.
#[test]
fn a_connect_refused_at_once_is_an_outcome_of_the_next_turn() {
    let server = Server::new();
    let path = server.path.clone();
    let stale = UnixListener::bind(path.with_extension("stale")).unwrap();
    drop(stale);
    for (path, why) in
        [(path.with_extension("stale"), libc::ECONNREFUSED), (path.with_extension("none"), libc::ENOENT)]
    {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let token = map.connect(&path, Recorder::new("a", &log)).unwrap().token();
        view(&mut map, token).push(b"for nobody").unwrap();
        assert!(log.events().is_empty() && view(&mut map, token).is_connecting());
        map.turn(Some(Duration::ZERO)).unwrap();
        let events = log.of("a");
        assert_eq!(events.len(), 2, "{events:?}");
        assert!(events[0].starts_with("error: ") && events[0].contains(&text(why)), "{events:?}");
        assert!(events[1].starts_with("close: ") && events[1].contains(&text(why)), "{events:?}");
        assert!(map.is_empty());
        let _ = std::fs::remove_file(&path);
    }
}

/// EDGE_CASES 1: the listener goes while a client waits for room in its backlog.
#[test]
fn a_client_in_a_full_backlog_hears_that_the_listener_has_gone() {
    let full = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    let server = Server::new();
    let path = server.path.with_extension("full");
    full.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    full.listen(0).unwrap();
    let _waiting = UnixStream::connect(&path).unwrap();
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let token = map.connect(&path, Recorder::new("a", &log)).unwrap().token();
    map.turn(Some(Duration::ZERO)).unwrap();
    assert!(view(&mut map, token).is_connecting());
    drop(full);
    run_out(&mut map, &log);
    let events = log.of("a");
    assert_eq!(events.len(), 2, "{events:?}");
    assert!(events[0].starts_with("error: ") && events[0].contains(&text(libc::ECONNREFUSED)), "{events:?}");
    assert!(map.wait_limit().is_none(), "a timer is left");
    std::fs::remove_file(&path).unwrap();
}

/// EDGE_CASES 2: what was pushed before goes first, and in order; also what one shuts down before.
#[test]
fn what_was_pushed_before_the_connect_goes_first() {
    let server = Server::new();
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let a = Recorder::new("a", &log).on("connect", |ch| ch.push(b"2")).on("open", |ch| {
        ch.push(b"3")?;
        ch.shutdown_write();
        Ok(())
    });
    let token = server.connect(&mut map, a).token();
    view(&mut map, token).push(b"1").unwrap();
    let far = reads_to_end(server.accept());
    turn_until(&mut map, &log, |_| far.is_finished());
    assert_eq!(far.join().unwrap(), b"123");
    assert_eq!(log.of("a")[..2], ["connect", "open"]);
    run_out(&mut map, &log);
}

/// EDGE_CASES 3: it is connected already, but nobody was told so.
#[test]
fn close_while_connecting_runs_no_connect_hook() {
    for abort in [false, true] {
        let server = Server::new();
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let token = server.connect(&mut map, Recorder::new("a", &log)).token();
        let mut ch = view(&mut map, token);
        ch.push(b"dropped").unwrap();
        if abort {
            ch.abort()
        } else {
            ch.close()
        }
        run_out(&mut map, &log);
        assert_eq!(log.of("a").len(), 1, "{:?}", log.events());
        let mut got = Vec::new();
        server.accept().read_to_end(&mut got).unwrap();
        assert_eq!(got, b"");
    }
}

/// EDGE_CASES 4: the peer is gone before the first event; one that has read nothing of what it was
/// sent, is gone with a reset.
#[test]
fn a_peer_gone_before_the_first_event_is_a_connect_and_an_end() {
    for sends in [false, true] {
        let server = Server::new();
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let a =
            Recorder::new("a", &log).on("connect", move |ch| ch.push(if sends { b"unread" } else { b"" }));
        let token = server.connect(&mut map, a).token();
        let far = server.accept();
        if sends {
            // `handle_connect` runs, its bytes are on their way, and no event has been served.
            turn_until(&mut map, &log, |_| log.has("a open"));
        }
        drop(far);
        run_out(&mut map, &log);
        let events = log.of("a");
        assert_eq!(events[..2], ["connect", "open"]);
        match sends {
            true => assert_reset(&log, "a"),
            false => assert_eq!(events[2..], ["read", "eof", "close: end of stream"]),
        }
        assert!(!map.contains(token));
    }
}

// Read.

/// EDGE_CASES 15
#[test]
fn a_paused_channel_gets_all_its_data_on_resume() {
    let log = Log::new();
    let (mut map, token, mut far) = opened(Recorder::new("a", &log));
    view(&mut map, token).pause_reading();
    far.write_all(&pattern(100_000)).unwrap();
    turn_idle(&mut map);
    assert_calm(&mut map);
    assert_eq!(log.of("a"), ["open"]);
    view(&mut map, token).resume_reading();
    turn_until(&mut map, &log, |_| log.input("a").len() == 100_000);
    assert!(log.input("a") == pattern(100_000));
}

/// EDGE_CASES 16, 33: the peer writes and closes meanwhile; only resuming brings its data, then the
/// end. One that half-closes is not even noticed.
#[test]
fn an_end_while_paused_is_told_on_resume_after_the_data() {
    for half in [false, true] {
        let log = Log::new();
        let (mut map, token, mut far) = opened(Recorder::new("a", &log));
        view(&mut map, token).pause_reading();
        far.write_all(b"last words").unwrap();
        let half_closed = half.then(|| far.try_clone().unwrap());
        far.shutdown(Shutdown::Write).unwrap();
        drop(far);
        turn_idle(&mut map);
        assert_calm(&mut map);
        assert_eq!(log.of("a"), ["open"]);
        view(&mut map, token).resume_reading();
        run_out(&mut map, &log);
        assert_eq!(log.input("a"), b"last words");
        assert_eq!(log.of("a")[log.of("a").len() - 2..], ["eof", "close: end of stream"]);
        drop(half_closed);
    }
}

/// EDGE_CASES 16: it closes with input unread, which is a reset: the end comes at once.
#[test]
fn a_reset_while_paused_ends_at_once() {
    let log = Log::new();
    let (mut map, token, mut far) = opened(Recorder::new("a", &log));
    let mut ch = view(&mut map, token);
    ch.pause_reading();
    ch.push(b"never read").unwrap();
    turn_idle(&mut map);
    far.write_all(b"dropped").unwrap();
    drop(far);
    run_out(&mut map, &log);
    assert_reset(&log, "a");
    assert_eq!(log.of("a").len(), 2, "{:?}", log.events());
}

/// EDGE_CASES 17: with most of it unread.
#[test]
fn pause_and_resume_inside_handle_read_lose_nothing() {
    let log = Log::new();
    let got = Rc::new(Cell::new(0));
    let sum = got.clone();
    let a = Recorder::new("a", &log).quiet().on("read", move |ch| {
        sum.set(sum.get() + ch.recv(&mut [0; 100])?);
        ch.pause_reading();
        ch.resume_reading();
        Ok(())
    });
    let (mut map, _, mut far) = opened(a);
    far.write_all(&[0; 10_000]).unwrap();
    turn_until(&mut map, &log, |_| got.get() == 10_000);
}

/// EDGE_CASES 18: all of it, then exactly one end.
#[test]
fn data_and_end_at_once_are_data_and_then_one_end() {
    for eof in [Eof::Close, Eof::KeepWriting] {
        let log = Log::new();
        let (mut map, token, mut far) = opened(Recorder::new("a", &log).eof(eof).quiet());
        far.write_all(&pattern(150_000)).unwrap();
        far.shutdown(Shutdown::Write).unwrap();
        turn_until(&mut map, &log, |_| log.has("a eof"));
        turn_idle(&mut map);
        assert_calm(&mut map);
        assert!(log.input("a") == pattern(150_000));
        assert_eq!(log.count("a eof"), 1);
        assert_eq!(map.contains(token), eof == Eof::KeepWriting);
        drop(far);
        run_out(&mut map, &log);
        assert_eq!((log.count("a eof"), reason(&log, "a").as_str()), (1, "end of stream"));
    }
}

/// EDGE_CASES 19: what the peer has sent before it closed with input unread comes first; also when a
/// send has failed before, which here says broken pipe.
#[test]
fn data_before_a_reset_is_offered_before_the_end() {
    for sends in [false, true] {
        let log = Log::new();
        let (mut map, token, mut far) = opened(Recorder::new("a", &log));
        view(&mut map, token).push(b"never read").unwrap();
        turn_idle(&mut map);
        far.write_all(b"last words").unwrap();
        drop(far);
        if sends {
            view(&mut map, token).push(b"too late").unwrap();
        }
        run_out(&mut map, &log);
        assert_eq!(log.input("a"), b"last words");
        match sends {
            true => assert!(reason(&log, "a").to_lowercase().contains("broken pipe"), "{:?}", log.events()),
            false => assert_reset(&log, "a"),
        }
        assert_eq!(log.count("a eof") + log.count("a error"), 0, "{:?}", log.events());
    }
}

/// EDGE_CASES 20: readable, but nothing is there.
#[cfg(debug_assertions)]
#[test]
fn a_false_alarm_is_no_data_and_no_end() {
    let log = Log::new();
    let (mut map, token, mut far) = opened(Recorder::new("a", &log));
    far.write_all(b"later").unwrap();
    inject(Call::Recv, 0, 3, Fault::Errno(libc::EAGAIN));
    turn_until(&mut map, &log, |_| log.count("a read") == 3);
    assert_eq!((log.input("a"), map.contains(token)), (Vec::new(), true));
    turn_until(&mut map, &log, |_| log.input("a") == b"later");
    assert_eq!(log.count("a error") + log.count("a eof"), 0);
}

/// EDGE_CASES 21: others have their turn meanwhile, a timer and a remote included.
#[test]
fn a_sender_that_never_stops_leaves_others_their_turn() {
    let log = Log::new();
    let (mut map, token, far) = opened(Recorder::new("flood", &log).quiet().on("read", |ch| {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            ch.recv(&mut buffer)?;
        }
    }));
    let flood = std::thread::spawn(move || while (&far).write_all(&[0; 64 * 1024]).is_ok() {});
    let (near, mut other) = UnixStream::pair().unwrap();
    map.add(near, Recorder::new("other", &log)).unwrap();
    let messages = Arc::new(AtomicUsize::new(0));
    let remote = map.remote();
    for round in 1..=20 {
        let (timer, message) = (log.clone(), messages.clone());
        map.call_later(Duration::ZERO, move |_| timer.add("timer"));
        remote
            .call(move |_| {
                message.fetch_add(1, SeqCst);
            })
            .unwrap();
        other.write_all(b"x").unwrap();
        turn_until(&mut map, &log, |_| {
            let served = [log.count("timer"), messages.load(SeqCst), log.input("other").len()];
            served.iter().all(|served| *served == round)
        });
    }
    view(&mut map, token).abort();
    turn_until(&mut map, &log, |map| !map.contains(token));
    flood.join().unwrap();
    assert_eq!(reason(&log, "flood"), "aborted");
}

/// EDGE_CASES 22: Linux has the urgent byte of Unix-domain sockets since 5.15. Left alone, it is taken.
#[cfg(target_os = "linux")]
#[test]
fn an_urgent_byte_comes_before_the_data_and_once() {
    for takes in [false, true] {
        let log = Log::new();
        let a = Recorder::new("a", &log).on("expt", move |ch| match takes {
            true => ch.recv_urgent(&mut [0]).map(drop),
            false => Ok(()),
        });
        let (mut map, _, far) = opened(a);
        if socket2::SockRef::from(&far).send_out_of_band(b"!").is_err() {
            return; // a kernel without it
        }
        turn_until(&mut map, &log, |_| log.has("a expt"));
        turn_idle(&mut map);
        assert_calm(&mut map);
        assert_eq!(log.count("a expt"), 1);
        (&far).write_all(b"after").unwrap();
        turn_until(&mut map, &log, |_| log.input("a") == b"after");
        drop(far);
        run_out(&mut map, &log);
        assert_eq!(reason(&log, "a"), "end of stream");
    }
}

// Write.

/// EDGE_CASES 24
#[test]
fn ten_thousand_small_pushes_keep_their_order() {
    let log = Log::new();
    let (mut map, token, far) = opened(Recorder::new("a", &log));
    let wanted: Vec<u8> = (0..10_000_u32).flat_map(|number| [number.to_be_bytes(); 20].concat()).collect();
    for piece in wanted.chunks(80) {
        view(&mut map, token).push(piece).unwrap();
    }
    turn_idle(&mut map);
    assert!(view(&mut map, token).queued() > 0, "it all fits in: this tests nothing");
    let far = reads_to_end(far);
    turn_until(&mut map, &log, |map| view(map, token).queued() == 0);
    view(&mut map, token).close();
    run_out(&mut map, &log);
    assert!(far.join().unwrap() == wanted);
}

/// EDGE_CASES 25: gone with everything read, and gone with input unread.
#[test]
fn a_push_to_a_peer_that_is_gone_ends_with_broken_pipe_or_reset() {
    for unread in [false, true] {
        let log = Log::new();
        let (mut map, token, far) = opened(Recorder::new("a", &log).readable(|_| false));
        if unread {
            view(&mut map, token).push(b"unread").unwrap();
        }
        drop(far);
        for _ in 0..3 {
            view(&mut map, token).push(b"for nobody").unwrap();
        }
        run_out(&mut map, &log);
        let reason = reason(&log, "a");
        let expected = text(if unread { libc::ECONNRESET } else { libc::EPIPE });
        assert!(reason.contains(&expected) || reason.to_lowercase().contains("broken pipe"), "{reason}");
        assert_eq!(log.of("a").len(), 2, "{:?}", log.events());
    }
}

/// EDGE_CASES 25, as only Unix-domain sockets have it: the peer reads no more, and says so. What it
/// sends is still read.
#[test]
fn a_peer_that_reads_no_more_is_still_read() {
    let log = Log::new();
    let (mut map, token, mut far) = opened(Recorder::new("a", &log));
    far.shutdown(Shutdown::Read).unwrap();
    turn_idle(&mut map);
    assert_calm(&mut map);
    assert_eq!(log.of("a"), ["open"]);
    view(&mut map, token).push(b"for nobody").unwrap();
    far.write_all(b"still talking").unwrap();
    turn_until(&mut map, &log, |_| log.input("a") == b"still talking");
    drop(far);
    run_out(&mut map, &log);
    let reason = reason(&log, "a").to_lowercase();
    assert!(reason.contains("broken pipe"), "{reason}");
    assert_eq!(log.count("a eof"), 0);
}

/// EDGE_CASES 26: the peer reads faster than a turn may write; no wake-up is lost.
#[test]
fn more_than_a_turn_may_write_is_flushed_without_a_lost_wake_up() {
    let log = Log::new();
    let (mut map, token, far) = opened(Recorder::new("a", &log));
    let far = reads_to_end(far);
    let bytes = pattern(12 << 20);
    view(&mut map, token).push(&bytes).unwrap();
    view(&mut map, token).close();
    run_out(&mut map, &log);
    assert!(far.join().unwrap() == bytes);
    assert_eq!(reason(&log, "a"), "closed");
}

// Close.

/// EDGE_CASES 29: twice, one after the other, from every hook.
#[test]
fn ending_twice_from_every_hook_is_one_handle_close() {
    let ends = [["close", "close"], ["close", "abort"], ["abort", "close"], ["abort", "abort"]];
    for (hook, ends) in hooks().flat_map(|hook| ends.map(|ends| (hook, ends))) {
        let server = Server::new();
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let a = Recorder::new("a", &log).on(hook, move |ch| {
            for end in ends {
                if end == "close" { ch.close() } else { ch.abort() }
            }
            Ok(())
        });
        let token = server.connect(&mut map, willing(hook, a)).token();
        let mut far = server.accept();
        match bring_about(hook, &mut view(&mut map, token), &mut far) {
            // A kernel without it.
            Err(_) if hook == "expt" => continue,
            done => done.unwrap(),
        }
        run_out(&mut map, &log);
        assert!(log.has(&format!("a {hook}")) || hook == "error", "{hook} was not reached");
        assert_eq!(log.count("a close: "), 1, "{hook} {ends:?}: {:?}", log.events());
        let last = log.of("a").pop().unwrap();
        assert!(last.starts_with("close: "), "{hook} {ends:?}: {:?}", log.events());
    }
}

/// EDGE_CASES 30: all that is queued arrives, then the end and no reset, also when the peer has sent
/// what nobody read.
#[test]
fn close_with_a_full_queue_sends_all_and_then_the_end() {
    for unread in [false, true] {
        let log = Log::new();
        let (mut map, token, mut far) = opened(Recorder::new("a", &log));
        let bytes = pattern(MUCH);
        view(&mut map, token).pause_reading();
        view(&mut map, token).push(&bytes).unwrap();
        if unread {
            far.write_all(b"never read").unwrap();
        }
        turn_idle(&mut map);
        assert!(view(&mut map, token).queued() > 0);
        view(&mut map, token).close();
        let far = reads_to_end(far);
        run_out(&mut map, &log);
        assert!(far.join().unwrap() == bytes);
        assert_eq!(log.of("a").last().unwrap(), "close: closed");
        assert!(!log.has("a read"));
    }
}

/// EDGE_CASES 30: the peer never reads.
#[test]
fn close_to_a_peer_that_never_reads_times_out() {
    let log = Log::new();
    let (mut map, token, far) = opened(Recorder::new("a", &log));
    view(&mut map, token).push(&vec![0; MUCH]).unwrap();
    turn_idle(&mut map);
    let mut ch = view(&mut map, token);
    ch.set_close_timeout(Duration::from_millis(50));
    ch.close();
    run_out(&mut map, &log);
    assert_eq!(reason(&log, "a"), "timed out");
    let (got, end) = reads_all(far).join().unwrap();
    assert!(got.len() < MUCH && end.is_ok());
}

/// EDGE_CASES 31: there is no reset to be had, so the peer sees the end after what it has got; but a
/// reset if something it sent was not read.
#[test]
fn abort_with_a_full_queue_ends_after_what_the_peer_has() {
    for unread in [false, true] {
        let log = Log::new();
        let (mut map, token, mut far) = opened(Recorder::new("a", &log));
        view(&mut map, token).pause_reading();
        view(&mut map, token).push(&pattern(MUCH)).unwrap();
        if unread {
            far.write_all(b"never read").unwrap();
        }
        turn_idle(&mut map);
        view(&mut map, token).abort();
        run_out(&mut map, &log);
        assert_eq!(reason(&log, "a"), "aborted");
        let (got, end) = reads_all(far).join().unwrap();
        assert!(!got.is_empty() && got.len() < MUCH && pattern(MUCH).starts_with(&got));
        assert_eq!(end.err().map(|error| error.kind()), unread.then_some(ErrorKind::ConnectionReset));
    }
}

/// EDGE_CASES 32: the peer goes for good after its half-close, and there is nothing to write. With
/// something unread at it, that is a reset.
#[test]
fn a_half_closed_peer_that_goes_ends_the_channel() {
    for unread in [false, true] {
        for paused in [false, true] {
            let log = Log::new();
            let (mut map, token, far) = opened(Recorder::new("a", &log).eof(Eof::KeepWriting));
            if unread {
                view(&mut map, token).push(b"unread").unwrap();
            }
            far.shutdown(Shutdown::Write).unwrap();
            turn_until(&mut map, &log, |_| log.has("a eof"));
            if paused {
                view(&mut map, token).pause_reading();
            }
            turn_idle(&mut map);
            assert_calm(&mut map);
            drop(far);
            run_out(&mut map, &log);
            match unread {
                true => assert_reset(&log, "a"),
                false => assert_eq!(reason(&log, "a"), "end of stream"),
            }
            assert_eq!(log.count("a eof"), 1);
        }
    }
}

/// The same with a queue that the peer did not take: it ends with what the send says.
#[test]
fn a_half_closed_peer_that_goes_ends_a_queue_with_the_sends_error() {
    let log = Log::new();
    let (mut map, token, far) = opened(Recorder::new("a", &log).eof(Eof::KeepWriting));
    view(&mut map, token).push(&vec![0; MUCH]).unwrap();
    far.shutdown(Shutdown::Write).unwrap();
    turn_until(&mut map, &log, |_| log.has("a eof"));
    turn_idle(&mut map);
    assert_calm(&mut map);
    drop(far);
    run_out(&mut map, &log);
    assert_reset(&log, "a");
}

/// Half-close the other way: the peer still sends after ours, and ends when it likes.
#[test]
fn data_still_comes_after_our_half_close() {
    let log = Log::new();
    let (mut map, token, mut far) = opened(Recorder::new("a", &log).eof(Eof::KeepWriting));
    view(&mut map, token).shutdown_write();
    let mut got = Vec::new();
    turn_idle(&mut map);
    far.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"");
    for round in 1..=3 {
        far.write_all(b"answer").unwrap();
        turn_until(&mut map, &log, |_| log.input("a").len() == 6 * round);
    }
    assert_calm(&mut map);
    drop(far);
    run_out(&mut map, &log);
    assert_eq!(reason(&log, "a"), "end of stream");
}

/// EDGE_CASES 34: FIN only after the last byte, nothing after it.
#[test]
fn shutdown_write_sends_the_end_after_the_last_byte() {
    let log = Log::new();
    let (mut map, token, far) = opened(Recorder::new("a", &log));
    let bytes = pattern(MUCH);
    let mut ch = view(&mut map, token);
    ch.push(&bytes).unwrap();
    ch.shutdown_write();
    ch.shutdown_write();
    assert_eq!(ch.push(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    let far_too = far.try_clone().unwrap();
    let far = reads_to_end(far);
    turn_until(&mut map, &log, |_| far.is_finished());
    assert!(far.join().unwrap() == bytes);
    turn_idle(&mut map);
    assert_calm(&mut map);
    assert!(map.contains(token), "its reading side is open");
    (&far_too).write_all(b"answer").unwrap();
    turn_until(&mut map, &log, |_| log.input("a") == b"answer");
    drop(far_too);
    run_out(&mut map, &log);
    assert_eq!(reason(&log, "a"), "end of stream");
}

/// EDGE_CASES 34: both sides at once, in one map.
#[test]
fn both_sides_shut_down_and_both_end() {
    for eof in [Eof::Close, Eof::KeepWriting] {
        let (one, other) = UnixStream::pair().unwrap();
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        for (name, near) in [("a", one), ("b", other)] {
            let end = Recorder::new(name, &log).eof(eof).on("open", |ch| {
                ch.push(b"bye")?;
                ch.shutdown_write();
                Ok(())
            });
            map.add(near, end).unwrap();
        }
        run_out(&mut map, &log);
        for name in ["a", "b"] {
            assert_eq!(log.input(name), b"bye");
            assert_eq!(log.count(&format!("{name} eof")), 1);
            assert_eq!(reason(&log, name), "end of stream");
        }
    }
}

// Time.

/// A silent peer times out; the timers of a channel die with it.
#[test]
fn a_silent_peer_times_out_and_timers_die_with_the_channel() {
    let log = Log::new();
    let (mut map, token, _far) = opened(Recorder::new("a", &log));
    let (early, never) = (log.clone(), log.clone());
    let mut ch = view(&mut map, token);
    ch.set_timeout(Some(Duration::from_millis(30)));
    ch.call_later(Duration::from_millis(1), move |_| {
        early.add("early");
        Ok(())
    });
    ch.call_every(Duration::from_secs(3600), move |_| {
        never.add("never");
        Ok(())
    });
    run_out(&mut map, &log);
    assert_eq!(log.events(), ["a open", "early", "a timeout", "a close: aborted"]);
    assert!(map.wait_limit().is_none(), "a timer is left");
}

/// The time is over although the peer has hung up, and nobody reads.
#[test]
fn a_timeout_comes_while_paused_and_hung_up() {
    for (half, resets) in [(true, false), (false, false), (false, true)] {
        let log = Log::new();
        let (mut map, token, far) = opened(Recorder::new("a", &log));
        let mut ch = view(&mut map, token);
        ch.pause_reading();
        if resets {
            ch.push(b"unread").unwrap();
        }
        turn_idle(&mut map);
        view(&mut map, token).set_timeout(Some(Duration::from_millis(30)));
        let half_closed = half.then(|| far.try_clone().unwrap());
        far.shutdown(Shutdown::Write).unwrap();
        drop(far);
        run_out(&mut map, &log);
        match resets {
            true => assert_reset(&log, "a"),
            false => assert_eq!(log.of("a"), ["open", "timeout", "close: aborted"]),
        }
        assert!(map.wait_limit().is_none(), "a timer is left");
        drop(half_closed);
    }
}
