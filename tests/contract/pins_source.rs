//! Sources around sockets with input that was put back.

use std::cell::Cell;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::Duration;

use dispatch_loop::{ChannelMap, Eof, Source};

use crate::support::ends::{Wire, record_kinds};
use crate::support::logging::{capture_log, logged};
use crate::support::opened::{opened, opened_on, view};
use crate::support::peers::{loopbacks, pattern, read_to_end, reads_to_end, unix_pair};
use crate::support::recorder::{Log, Recorder};
use crate::support::through::Through;
use crate::support::turning::{arrive, assert_calm, run_out, turn_quiet, turn_until};
use crate::support::waiting::DEADLINE;

/// `discard_unread`: what was put back is gone, and nothing else.
#[test]
fn what_was_put_back_and_discarded_is_not_read() {
    let log = Log::new();
    let (near, mut far) = unix_pair();
    let (mut map, token) = opened_on(near, Recorder::new("a", &log));
    let mut ch = view(&mut map, token);
    ch.unread(b"put back");
    ch.discard_unread();
    turn_quiet(&mut map);
    far.write_all(b"sent").unwrap();
    arrive(&mut map, token);
    assert_eq!(log.input("a"), b"sent");
    assert_eq!(log.of("a"), ["open", "read"]);
}

/// Rule 7: the end was read, and then input was put back; when that is gone, the end is told.
#[test]
fn an_end_that_was_read_before_input_was_put_back_is_told_when_that_is_discarded() {
    let log = Log::new();
    let (near, mut far) = unix_pair();
    let recorder = Recorder::new("a", &log).on("read", |ch| {
        let mut all = [0; 3];
        assert_eq!(ch.recv(&mut all)?, 3);
        assert_eq!(ch.recv(&mut [0; 3])?, 0);
        ch.unread(&all);
        ch.pause_reading();
        Ok(())
    });
    let (mut map, token) = opened_on(near, recorder);
    far.write_all(b"all").unwrap();
    drop(far);
    arrive(&mut map, token);
    assert_eq!(log.of("a"), ["open", "read"]);
    view(&mut map, token).discard_unread();
    run_out(&mut map, &log);
    assert_eq!(log.of("a"), ["open", "read", "eof", "close: end of stream"]);
}

/// Sources within sources: what was put back is read first, once, and costs nothing afterwards; everything
/// else goes through.
#[test]
fn a_source_around_input_that_was_put_back_reads_that_first_and_then_as_ever() {
    for layers in 1..3 {
        let log = Log::new();
        let (near, mut far) = unix_pair();
        let (mut map, token) = opened_on(near, Recorder::new("a", &log).eof(Eof::KeepWriting));
        let mut ch = view(&mut map, token);
        ch.unread(b"put back, ");
        ch.wrap_source(move |inside| {
            Ok((0..layers).fold(inside, |inside, _| Box::new(Through(inside)) as Box<dyn Source>))
        })
        .unwrap();
        turn_quiet(&mut map);
        assert_eq!(log.input("a"), b"put back, ");
        assert_calm(&mut map);
        far.write_all(b"sent").unwrap();
        arrive(&mut map, token);
        assert_eq!(log.input("a"), b"put back, sent");
        assert_calm(&mut map);
        // More than the socket takes at once, in pieces.
        let bytes = pattern(1 << 20);
        let (first, rest) = bytes.split_at(100_000);
        let mut ch = view(&mut map, token);
        ch.push_vectored(&[&first[..50_000], &first[50_000..]].map(IoSlice::new)).unwrap();
        ch.push(rest).unwrap();
        ch.shutdown_write();
        let got = reads_to_end(far.try_clone().unwrap());
        turn_until(&mut map, &log, |_| got.is_finished());
        assert!(got.join().unwrap() == bytes);
        assert!(map.contains(token));
        far.shutdown(std::net::Shutdown::Write).unwrap();
        run_out(&mut map, &log);
        assert_eq!(read_to_end(&mut far), b"");
        assert_eq!(log.of("a").last().unwrap(), "close: end of stream");
        assert_eq!(log.count("a error"), 0);
    }
}

/// The same around records, which drive themselves and keep output inside.
#[test]
fn a_source_around_records_with_input_that_was_put_back_sends_all_that_they_keep() {
    for (kind, closes) in record_kinds().into_iter().flat_map(|kind| [(kind, false), (kind, true)]) {
        let log = Log::new();
        let bytes = pattern(1 << 20);
        let pushed = bytes.clone();
        let mut map = ChannelMap::new().unwrap();
        let recorder = Recorder::new("a", &log).eof(Eof::KeepWriting).on("open", move |ch| {
            ch.unread(b"put back, ");
            ch.wrap_source(|inside| Ok(Box::new(Through(inside))))?;
            ch.push(&pushed)?;
            if closes {
                ch.close();
            } else {
                ch.shutdown_write();
            }
            Ok(())
        });
        let (_, far) = kind.open(&mut map, recorder, move |far| {
            if !closes {
                far.write(b"sent").unwrap();
            }
            let got = far.read_to_end().unwrap();
            let _ = far.finish();
            got
        });
        run_out(&mut map, &log);
        assert!(far.join().unwrap() == bytes, "{kind:?}");
        let (input, reason) = match closes {
            true => ("", "close: closed"),
            false => ("put back, sent", "close: end of stream"),
        };
        assert_eq!(log.input("a"), input.as_bytes());
        assert_eq!(log.of("a").last().unwrap(), reason);
    }
}

/// Rule 6: who reads in each of many turns in a row makes progress, on the long way as on the short one, and
/// whatever else the hook does. A peer that sends now and then is not timed out either.
#[test]
fn a_hook_that_reads_in_each_of_many_turns_is_never_suspended() {
    for own_source in [false, true] {
        for reads_first in [false, true] {
            capture_log();
            let log = Log::new();
            let (near, mut far) = unix_pair();
            let seen = log.clone();
            let recorder = Recorder::new("a", &log).quiet().on("read", move |ch| {
                if !reads_first {
                    ch.set_timeout(Some(DEADLINE));
                }
                assert_eq!(ch.recv(&mut [0; 3])?, 1);
                ch.set_timeout(Some(DEADLINE));
                seen.add("message");
                Ok(())
            });
            let (mut map, token) = opened_on(near, recorder);
            if own_source {
                view(&mut map, token).wrap_source(|inside| Ok(Box::new(Through(inside)))).unwrap();
            }
            for _ in 0..200 {
                far.write_all(b"x").unwrap();
                map.turn(Some(DEADLINE)).unwrap();
            }
            turn_until(&mut map, &log, |_| log.count("message") == 200);
            assert_eq!(logged("64 turns"), [""; 0], "own source: {own_source}, reads first: {reads_first}");
            assert_eq!(log.count("a error") + log.count("a close"), 0);
        }
    }
}

/// Rule 6: taking an urgent byte is progress.
#[test]
fn a_hook_that_takes_an_urgent_byte_in_each_of_many_turns_is_never_suspended() {
    capture_log();
    let log = Log::new();
    let recorder = Recorder::new("a", &log).quiet().on("expt", |ch| ch.recv_urgent(&mut [0]).map(drop));
    let (mut map, _, far) = opened(loopbacks()[0], recorder);
    let far = socket2::Socket::from(far);
    for n in 1..=100 {
        far.send_out_of_band(b"!").unwrap();
        turn_until(&mut map, &log, |_| log.count("a expt") == n);
    }
    assert_eq!(logged("64 turns"), [""; 0]);
}

/// A source that takes nothing, though its socket has room: it is full, and is not asked again in that turn.
struct Full(Wire, Rc<Cell<usize>>);

impl Source for Full {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.0.descriptor()
    }
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.recv(buffer)
    }
    fn send(&mut self, _: &[u8]) -> io::Result<usize> {
        self.1.set(self.1.get() + 1);
        Ok(0)
    }
    fn shutdown_write(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_source_that_takes_nothing_is_asked_once_a_turn() {
    let log = Log::new();
    let (near, _far) = unix_pair();
    near.set_nonblocking(true).unwrap();
    let asked = Rc::new(Cell::new(0));
    let mut map = ChannelMap::new().unwrap();
    let source = Full(Wire(near.into()), asked.clone());
    let token = map.add_source(source, Recorder::new("a", &log)).unwrap().token();
    turn_quiet(&mut map);
    view(&mut map, token).push(b"never taken").unwrap();
    for _ in 0..3 {
        let before = asked.get();
        map.turn(Some(Duration::ZERO)).unwrap();
        assert!(asked.get() - before <= 2, "{} times", asked.get() - before);
    }
    assert!(asked.get() > 0);
    assert_eq!(view(&mut map, token).queued(), 11);
}

/// EDGE_CASES 44: what makes the source panics; that ends the channel, as after a failed handshake.
#[test]
fn a_panic_in_what_makes_a_source_ends_its_channel_alone() {
    let log = Log::new();
    let (near, _far) = unix_pair();
    let (mut map, token) = opened_on(near, Recorder::new("a", &log));
    let (other, mut other_far) = unix_pair();
    let other = map.add(other, Recorder::new("other", &log)).unwrap().token();
    view(&mut map, token).wrap_source(|_| panic!("boom")).unwrap();
    turn_until(&mut map, &log, |map| !map.contains(token));
    assert_eq!(log.of("a"), ["open", "error: panicked: boom", "close: panicked: boom"]);
    other_far.write_all(b"alive").unwrap();
    arrive(&mut map, other);
    assert_eq!(log.input("other"), b"alive");
}

/// `wrap_source`: once the end was told, input that is put back can be given to no new source.
#[test]
fn a_source_for_input_that_was_put_back_after_the_end_is_refused() {
    let log = Log::new();
    let (near, far) = unix_pair();
    let (mut map, token) = opened_on(near, Recorder::new("a", &log).eof(Eof::KeepWriting));
    far.shutdown(std::net::Shutdown::Write).unwrap();
    arrive(&mut map, token);
    assert_eq!(log.of("a").last().unwrap(), "eof");
    let mut ch = view(&mut map, token);
    ch.pause_reading();
    ch.unread(b"put back");
    let refused = ch.wrap_source(|inside| Ok(Box::new(Through(inside)))).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotConnected);
    assert!(map.contains(token));
}
