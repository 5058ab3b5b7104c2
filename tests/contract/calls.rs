//! Rule 17: how many calls to send one channel makes in a turn.

use std::cell::Cell;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::time::Duration;

use dispatch_loop::faults::{Call, count};
use dispatch_loop::{ChannelMap, More, OnError, OnLimit, Source};

use crate::support::opened::{opened, opened_on, view};
use crate::support::peers::{cut_short, loopbacks, pattern, read_exactly, reads_to_end, unix_pair};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{run_out, turn_until};

/// Turn until the map is empty; the most calls to send in one turn, and all of them.
fn calls(map: &mut ChannelMap, log: &Log) -> (u64, u64) {
    let (begin, mut most, mut before) = (count(Call::Send), 0, count(Call::Send));
    turn_until(map, log, |map| {
        let now = count(Call::Send);
        most = most.max(now - before);
        before = now;
        map.is_empty()
    });
    (most, before - begin)
}

/// EDGE_CASES 73. What producers make byte by byte, and what many of them make, leaves together.
#[test]
fn what_producers_make_byte_by_byte_leaves_in_few_calls() {
    const BYTES: usize = 200_000;
    for producers in [1, 2000] {
        let log = Log::new();
        let (near, far) = unix_pair();
        let (mut map, token) = opened_on(near, Recorder::new("a", &log));
        let far = reads_to_end(far);
        let bytes = pattern(BYTES);
        let mut ch = view(&mut map, token);
        for part in bytes.chunks(BYTES / producers) {
            let mut part = Vec::from(part).into_iter();
            ch.push_producer(move |buffer: &mut Vec<u8>| {
                assert!(buffer.is_empty());
                buffer.extend(part.next());
                Ok(if part.len() > 0 { More::Again } else { More::Done })
            })
            .unwrap();
        }
        ch.close();
        let (most, all) = calls(&mut map, &log);
        assert!(far.join().unwrap() == bytes);
        assert!(most <= 64 && all <= 200, "{most} calls in one turn, {all} in all");
    }
}

/// EDGE_CASES 73. However little each call sends, by whichever way.
#[test]
fn a_channel_sends_at_most_64_times_a_turn() {
    for way in ["handle_write", "a hook", "push"] {
        let log = Log::new();
        let sent = Rc::new(Cell::new(0));
        let more = sent.clone();
        let send = move |ch: &mut dispatch_loop::Channel<'_>| -> io::Result<()> {
            while more.get() < 10_000 && ch.send(b"x")? > 0 {
                more.set(more.get() + 1);
            }
            if more.get() == 10_000 {
                ch.close();
            }
            Ok(())
        };
        let open = send.clone();
        let (near, far) = unix_pair();
        let sender = Recorder::new("a", &log).quiet().writable(|_| true);
        let (mut map, token) = match way {
            "handle_write" => opened_on(near, sender.on("write", send)),
            "a hook" => opened_on(near, sender.on("open", open).on("write", send)),
            _ => opened_on(near, Recorder::new("a", &log)),
        };
        let far = reads_to_end(far);
        if way == "push" {
            let before = count(Call::Send);
            for _ in 0..10_000 {
                view(&mut map, token).push(b"x").unwrap();
                assert_eq!(view(&mut map, token).send(b"").unwrap(), 0);
            }
            view(&mut map, token).close();
            assert_eq!(count(Call::Send), before);
        }
        let (most, _) = calls(&mut map, &log);
        assert!(most <= 64, "{most} calls in one turn by {way}");
        assert_eq!(far.join().unwrap(), [b'x'; 10_000]);
    }
}

/// Takes all that it is sent, and counts it.
struct Sink(Rc<Cell<usize>>);

impl Source for Sink {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn recv(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.set(self.0.get() + bytes.len());
        Ok(bytes.len())
    }
    fn shutdown_write(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// EDGE_CASES 73. Producers that never end, so many that they use up the limit, for a peer that takes all at
/// once: a turn ends.
#[test]
fn producers_without_end_do_not_hold_up_the_turn() {
    let log = Log::new();
    let taken = Rc::new(Cell::new(0));
    let mut map = ChannelMap::new().unwrap();
    let token = map.add_source(Sink(taken.clone()), Recorder::new("a", &log)).unwrap().token();
    view(&mut map, token).set_limit(100_000, OnLimit::End);
    for _ in 0..20 {
        let endless = |buffer: &mut Vec<u8>| {
            buffer.extend([7; 5000]);
            Ok(More::Again)
        };
        view(&mut map, token).push_producer(endless).unwrap();
    }
    for _ in 0..3 {
        let before = taken.get();
        map.turn(Some(Duration::ZERO)).unwrap();
        let sent = taken.get() - before;
        assert!((64 * 1024..4 << 20).contains(&sent), "{sent} bytes in one turn");
    }
    view(&mut map, token).abort();
    run_out(&mut map, &log);
}

/// EDGE_CASES 73. A producer is asked before what it made last is sent. If it fails then, that is sent all the
/// same.
#[test]
fn what_was_made_before_a_producer_failed_is_sent() {
    for keep in [true, false] {
        let log = Log::new();
        let on_error = if keep { OnError::Keep } else { OnError::End };
        let (mut map, token, mut far) = opened(loopbacks()[0], Recorder::new("a", &log).on_error(on_error));
        let mut left = 3;
        let mut ch = view(&mut map, token);
        ch.push(b"head ").unwrap();
        ch.push_producer(move |buffer: &mut Vec<u8>| {
            buffer.extend(b"made ");
            left -= 1;
            if left == 0 { Err(io::Error::other("the disk")) } else { Ok(More::Again) }
        })
        .unwrap();
        ch.push(b"tail").unwrap();
        turn_until(&mut map, &log, |_| log.count("a error: the disk") == 1);
        if keep {
            assert_eq!(read_exactly(&mut far, 24), b"head made made made tail");
            view(&mut map, token).close();
            run_out(&mut map, &log);
        } else {
            map.turn(Some(Duration::ZERO)).unwrap();
            assert_eq!(cut_short(far), b"head made made ");
        }
        assert_eq!(log.count("a close"), 1);
    }
}
