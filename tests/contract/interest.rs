//! What the loop waits for: rules 5 and 6 of the contract. When `readable` and `writable` are asked,
//! and that a map in which nothing happens costs nothing.

use std::cell::Cell;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use dispatch_loop::{ChannelMap, Eof, LoopOptions};

use crate::support::logging::{capture_log, logged};
use crate::support::opened::opened;
use crate::support::peers::{loopbacks, pair, unix_pair};
use crate::support::recorder::{Log, Recorder, text};
use crate::support::turning::{assert_calm, run_out, turn_idle, turn_until, turns_at_once, waits_in};
use crate::support::waiting::DEADLINE;

/// Rule 5: asked when it opens, after each hook, and after it was reached; not every turn.
#[test]
fn readable_and_writable_are_asked_after_hooks_and_not_every_turn() {
    for on in loopbacks() {
        let log = Log::new();
        let asked = Rc::new(Cell::new(0));
        let answers = asked.clone();
        let dispatcher = Recorder::new("a", &log).readable(move |_| {
            answers.set(answers.get() + 1);
            true
        });
        let (mut map, token, mut far) = opened(on, dispatcher);
        let since = {
            let asked = asked.clone();
            move || asked.replace(0)
        };
        turn_idle(&mut map);
        assert_eq!(since(), 1, "when it opens");
        turn_idle(&mut map);
        assert_eq!(since(), 0, "nothing happened");
        far.write_all(b"x").unwrap();
        turn_until(&mut map, &log, |_| log.has("a read"));
        turn_idle(&mut map);
        assert_eq!(since(), 1, "after a hook");
        map.channel(token).unwrap();
        turn_idle(&mut map);
        assert_eq!(since(), 1, "after it was reached");
        map.get_mut(token.typed::<Recorder>()).unwrap();
        turn_idle(&mut map);
        assert_eq!(since(), 1, "after its dispatcher was reached");
        map.broadcast([token], b"x");
        turn_idle(&mut map);
        assert_eq!(since(), 1, "after a broadcast");
        let options = LoopOptions::default().with_rescan(true).with_count(5).with_timeout(Duration::ZERO);
        dispatch_loop::run_with(&mut map, &options).unwrap();
        assert_eq!(since(), 5, "every turn, as Python does");
    }
}

/// Rule 5: an answer that changes behind the loop's back is seen with `rescan`, as in Python.
#[test]
fn an_answer_that_changes_by_itself_is_seen_with_rescan() {
    let log = Log::new();
    let open = Rc::new(Cell::new(false));
    let readable = open.clone();
    let (mut map, _, mut far) =
        opened(loopbacks()[0], Recorder::new("a", &log).readable(move |_| readable.get()));
    far.write_all(b"x").unwrap();
    turn_idle(&mut map);
    open.set(true);
    turn_idle(&mut map);
    assert_eq!(log.of("a"), ["open"], "nobody said that it had changed");
    let options = LoopOptions::default().with_rescan(true).with_count(1).with_timeout(DEADLINE);
    dispatch_loop::run_with(&mut map, &options).unwrap();
    assert_eq!(log.of("a"), ["open", "read"]);
}

/// Rule 6: a hook that does nothing with its input does not keep the loop busy, and the input is
/// not lost.
#[test]
fn input_that_nobody_reads_keeps_nobody_busy_and_is_not_lost() {
    for on in loopbacks() {
        let log = Log::new();
        capture_log();
        let lazy = Rc::new(Cell::new(true));
        let is_lazy = lazy.clone();
        let dispatcher = Recorder::new("a", &log).on("read", move |ch| match is_lazy.get() {
            true => Ok(()),
            false => ch.recv(&mut [0; 10]).map(drop),
        });
        let (mut map, _, mut far) = opened(on, dispatcher);
        far.write_all(b"unread").unwrap();
        let waits = waits_in(&mut map, Duration::from_millis(300));
        let reads = log.count("a read");
        assert!((64..90).contains(&reads), "{reads} hooks");
        assert!(waits < 120, "{waits} waits");
        assert_eq!(logged("64 turns").len(), 1);
        // An idle map again, between the attempts; and these go on.
        turn_until(&mut map, &log, |_| log.count("a read") > reads);
        lazy.set(false);
        let reads = log.count("a read");
        turn_until(&mut map, &log, |_| log.count("a read") > reads);
        assert_calm(&mut map);
        assert_eq!(log.count("a read"), reads + 1);
        // And now it is watched as before.
        far.write_all(b"read").unwrap();
        assert!(turns_at_once(&mut map, 10, |_| log.count("a read") == reads + 2));
        assert_eq!(logged("64 turns").len(), 1, "logged once");
    }
}

/// Rule 6: the same for output, when `writable` says yes and `handle_write` does nothing; input is
/// still read.
#[test]
fn room_that_nobody_uses_keeps_nobody_busy() {
    for on in loopbacks() {
        let log = Log::new();
        capture_log();
        let (mut map, _, mut far) = opened(on, Recorder::new("a", &log).writable(|_| true));
        let waits = waits_in(&mut map, Duration::from_millis(300));
        let writes = log.count("a write");
        assert!((64..90).contains(&writes) && waits < 120, "{writes} hooks, {waits} waits");
        assert_eq!(logged("64 turns").len(), 1);
        // Only `handle_write` is suspended: input does not wait for it.
        far.write_all(b"hello").unwrap();
        assert!(turns_at_once(&mut map, 50, |_| log.input("a") == b"hello"));
    }
}

/// Rule 6: a channel that does something now and then is never taken for one that does nothing.
#[test]
fn a_slow_reader_is_no_idler() {
    for on in loopbacks() {
        let log = Log::new();
        capture_log();
        let mut turn = 0;
        let dispatcher = Recorder::new("a", &log).on("read", move |ch| {
            turn += 1;
            if turn % 60 > 0 { Ok(()) } else { ch.recv(&mut [0]).map(drop) }
        });
        let (mut map, _, mut far) = opened(on, dispatcher);
        far.write_all(b"12345").unwrap();
        assert!(turns_at_once(&mut map, 320, |_| log.count("a read") == 300), "{}", log.count("a read"));
        assert_eq!(logged("64 turns"), [""; 0]);
    }
}

/// Rule 6: hang-ups that cannot be masked, on a channel that has read its end and goes on writing.
/// FIN both ways ends it; a Unix-domain peer that is gone ends it as well.
#[test]
fn a_half_closed_channel_costs_nothing() {
    for unix in [false, true] {
        let log = Log::new();
        let dispatcher = Recorder::new("a", &log).eof(Eof::KeepWriting);
        let mut map = ChannelMap::new().unwrap();
        let near: dispatch_loop::Socket;
        let far: Box<dyn std::any::Any>;
        if unix {
            let (one, other) = UnixStream::pair().unwrap();
            other.shutdown(std::net::Shutdown::Write).unwrap();
            (near, far) = (one.into(), Box::new(other));
        } else {
            let (one, other) = pair(loopbacks()[0]);
            other.shutdown(std::net::Shutdown::Write).unwrap();
            (near, far) = (one.into(), Box::new(other));
        }
        let token = map.add(near, dispatcher).unwrap().token();
        turn_until(&mut map, &log, |_| log.has("a eof"));
        turn_idle(&mut map);
        assert_calm(&mut map);
        assert_eq!(log.of("a"), ["open", "read", "eof"]);
        map.channel(token).unwrap().push(b"still here").unwrap();
        map.channel(token).unwrap().shutdown_write();
        run_out(&mut map, &log);
        assert_eq!(log.of("a").last().unwrap(), "close: end of stream");
        drop(far);
    }
}

/// Rule 6: paused by `set_auto_pause` when its Unix-domain peer is gone: the output is lost, and
/// what had come is read.
#[test]
fn a_hang_up_while_paused_by_its_own_output_loses_no_input() {
    let log = Log::new();
    let (near, mut far) = unix_pair();
    far.write_all(b"last words").unwrap();
    let dispatcher = Recorder::new("a", &log).on("open", |ch| {
        ch.set_auto_pause(true);
        ch.push(&[0; 4 << 20])
    });
    let mut map = ChannelMap::new().unwrap();
    let token = map.add(near, dispatcher).unwrap().token();
    turn_idle(&mut map);
    assert_calm(&mut map);
    assert!(map.channel(token).unwrap().is_paused());
    assert_eq!(log.input("a"), b"");
    // A hang-up without a reset.
    far.shutdown(std::net::Shutdown::Both).unwrap();
    run_out(&mut map, &log);
    assert_eq!(log.of("a").last().unwrap(), &format!("close: {}", text(libc::EPIPE)));
    assert_eq!(log.input("a"), b"last words");
}

/// Rule 6: an idle map waits, and once.
#[test]
fn an_idle_map_costs_nothing() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let mut fars = Vec::new();
    for on in loopbacks() {
        map.listen(on, Recorder::new("listener", &log)).unwrap();
        for _ in 0..20 {
            let (near, far) = pair(on);
            map.add(near, Recorder::new("a", &log)).unwrap();
            fars.push(far);
        }
    }
    turn_idle(&mut map);
    assert_calm(&mut map);
    assert_eq!(map.wait_limit(), None);
}

/// Rules 5 and 6: a suspended channel still sends, and it is resumed when another does what its
/// own hook did not.
#[test]
fn a_suspended_channel_still_sends() {
    let log = Log::new();
    let (near, mut far) = unix_pair();
    far.write_all(b"unread").unwrap();
    let mut map = ChannelMap::new().unwrap();
    let token = map.add(near, Recorder::new("a", &log).on("read", |_| Ok(()))).unwrap().token();
    // Until its pauses are long.
    turn_until(&mut map, &log, |map| {
        log.count("a read") >= 69 && map.wait_limit() > Some(Duration::from_millis(300))
    });
    map.channel(token).unwrap().push(&[0; 1 << 20]).unwrap();
    far.set_nonblocking(true).unwrap();
    // The socket is full now; from here on the peer reads.
    turns_at_once(&mut map, 20, |_| false);
    assert!(map.channel(token).unwrap().queued() > 0);
    let sent = turns_at_once(&mut map, 2000, |map| {
        let _ = std::io::Read::read(&mut far, &mut [0; 64 * 1024]);
        map.channel(token).unwrap().queued() == 0
    });
    assert!(sent, "{} bytes left", map.channel(token).unwrap().queued());
    let reads = log.count("a read");
    assert_eq!(map.channel(token).unwrap().recv(&mut [0; 100]).unwrap(), 6);
    std::io::Write::write_all(&mut far, b"more").unwrap();
    assert!(turns_at_once(&mut map, 10, |_| log.count("a read") > reads));
}
