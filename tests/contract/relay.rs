//! Two channels that pass on to each other what they read.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use dispatch_loop::{Channel, ChannelMap, Dispatcher, Eof, LookupError, OnLimit, Reason, Token};

use crate::support::logging::{capture_log, logged};
use crate::support::opened::view;
use crate::support::peers::{
    cut_short, loopbacks, narrow_pair, pair, pattern, read_exactly, read_to_end, reads_to_end, unix_pair,
};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{assert_calm, run_out, turn_quiet, turn_until};

/// As on the crate's first page.
struct Half {
    other: Option<Token>,
}

impl Dispatcher for Half {
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        let Some(other) = self.other else { return Ok(()) };
        ch.read_with(|ch, data| ch.map_mut().channel(other)?.push(data))
    }
    fn handle_eof(&mut self, ch: &mut Channel<'_>) -> io::Result<Eof> {
        let Some(other) = self.other else { return Ok(Eof::Close) };
        ch.map_mut().channel(other)?.shutdown_write();
        Ok(Eof::KeepWriting)
    }
    fn handle_close(&mut self, ch: &mut Channel<'_>, reason: &Reason) {
        let Some(Ok(mut other)) = self.other.map(|other| ch.map_mut().channel(other)) else { return };
        match reason {
            Reason::EndOfStream => other.close(),
            _ => other.abort(),
        }
    }
}

/// The two channels of a relay, and the far ends of both.
fn relay(near: [TcpStream; 2]) -> (ChannelMap, [Token; 2]) {
    let mut map = ChannelMap::new().unwrap();
    let [a, b] = near;
    let a = map.add(a, Half { other: None }).unwrap();
    let b = map.add(b, Half { other: Some(a.token()) }).unwrap();
    map.get_mut(a).unwrap().other = Some(b.token());
    view(&mut map, a.token()).auto_pause_with(b).unwrap();
    (map, [a.token(), b.token()])
}

/// Turn until what is queued here has not changed for a while.
fn turn_until_stuck(map: &mut ChannelMap, token: Token) -> usize {
    let (mut before, mut stuck) = (0, 0);
    turn_until(map, &Log::new(), |map| {
        let queued = view(map, token).queued();
        stuck = if queued == before && queued > 0 { stuck + 1 } else { 0 };
        before = queued;
        stuck == 20
    });
    before
}

/// EDGE_CASES 64. More than the hard limit, in either direction: it stops where it was read, at no cost,
/// and all of it arrives.
#[test]
fn a_relay_whose_reader_starts_late_loses_no_byte() {
    for on in loopbacks() {
        for back in [false, true] {
            let (near_a, far_a) = narrow_pair(on);
            let (near_b, far_b) = narrow_pair(on);
            let (mut map, [a, b]) = relay([near_a, near_b]);
            let (mut from, to, into) = if back { (far_b, far_a, a) } else { (far_a, far_b, b) };
            let bytes = pattern(20 << 20);
            let sent = bytes.clone();
            let sender = thread::spawn(move || {
                from.write_all(&sent).unwrap();
                from.shutdown(Shutdown::Write).unwrap();
                from
            });
            let queued = turn_until_stuck(&mut map, into);
            assert!(queued <= 256 * 1024, "{queued} bytes are queued");
            assert!(view(&mut map, if back { b } else { a }).is_paused());
            assert!(!view(&mut map, into).is_paused());
            assert_calm(&mut map);
            let mut answers = to.try_clone().unwrap();
            let reader = reads_to_end(to);
            turn_until(&mut map, &Log::new(), |_| reader.is_finished());
            // The other direction is still open, and has its own end.
            let mut from = sender.join().unwrap();
            answers.write_all(b"thanks").unwrap();
            answers.shutdown(Shutdown::Write).unwrap();
            run_out(&mut map, &Log::new());
            assert_eq!(read_to_end(&mut from), b"thanks");
            assert!(reader.join().unwrap() == bytes, "some bytes are missing");
        }
    }
}

/// EDGE_CASES 65. Without that call a push to the other channel is refused in the end. A hook that hands
/// the refusal back does not make the stream whole: it ends by a reset, and says so.
#[test]
fn a_refused_push_to_another_channel_ends_that_stream_with_a_reset() {
    capture_log();
    for place in ["read_with", "timer", "accept"] {
        let log = Log::new();
        let (near_b, far_b) = pair(loopbacks()[0]);
        let mut map = ChannelMap::new().unwrap();
        let b = map.add(near_b, Recorder::new("b", &log)).unwrap().token();
        view(&mut map, b).set_limit(10_000, OnLimit::Refuse);
        let too_much = move |ch: &mut Channel<'_>| ch.map_mut().channel(b)?.push(&[7; 10_001]);
        let (near_a, mut far_a) = unix_pair();
        let a = Recorder::new("a", &log).on("read", move |ch| {
            ch.read_with(|ch, data| match data {
                b"read_with" => too_much(ch),
                _ => Ok(()),
            })
        });
        let a = map.add(near_a, a).unwrap().token();
        let l = Recorder::new("l", &log).on_accept(move |ch, _, _| too_much(ch));
        let l = map.listen(loopbacks()[0], l).unwrap().token();
        let address = view(&mut map, l).local_addr().unwrap().ip().unwrap();
        turn_quiet(&mut map);
        view(&mut map, b).push(b"before").unwrap();
        let mut client = None;
        match place {
            "read_with" => far_a.write_all(b"read_with").unwrap(),
            "accept" => client = Some(TcpStream::connect(address).unwrap()),
            _ => drop(view(&mut map, a).call_later(Duration::ZERO, move |ch| too_much(ch))),
        }
        turn_until(&mut map, &log, |_| log.closed("b"));
        assert_eq!(log.of("b"), ["open", &format!("close: {}", Reason::Limit)], "{place}");
        assert_eq!(cut_short(far_b), b"before");
        assert!(map.contains(a) && map.contains(l), "{place}");
        assert_eq!(log.count("a error") + log.count("l error"), 0, "{place}");
        drop(client);
    }
    assert_eq!(logged("would be over the limit").len(), 3);
}

/// A refusal that the hook deals with itself is none of the loop's business, and neither is another error.
#[test]
fn a_refused_push_that_is_dealt_with_ends_nothing() {
    let log = Log::new();
    let (near_a, mut far_a) = unix_pair();
    let (near_b, mut far_b) = unix_pair();
    let mut map = ChannelMap::new().unwrap();
    let b = map.add(near_b, Recorder::new("b", &log)).unwrap().token();
    view(&mut map, b).set_limit(10, OnLimit::Refuse);
    let a = Recorder::new("a", &log).on("read", move |ch| {
        ch.read_with(|ch, _| {
            let refused = ch.map_mut().channel(b)?.push(&[7; 11]).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::QuotaExceeded);
            ch.map_mut().channel(b)?.push(b"too much")
        })
    });
    let a = map.add(near_a, a).unwrap().token();
    far_a.write_all(b"?").unwrap();
    turn_until(&mut map, &log, |_| log.has("a read"));
    turn_quiet(&mut map);
    assert!(map.contains(a) && map.contains(b));
    assert_eq!(read_exactly(&mut far_b, 8), b"too much");
}

/// EDGE_CASES 66. With either channel the partnership ends: who was paused for it reads on.
#[test]
fn who_pauses_for_a_partner_reads_on_when_that_ends() {
    for end in ["abort", "peer", "detach", "discard_queued", "set_watermarks"] {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (near_a, mut far_a) = unix_pair();
        let (near_b, far_b) = unix_pair();
        let a = map.add(near_a, Recorder::new("a", &log)).unwrap().token();
        let b = map.add(near_b, Recorder::new("b", &log)).unwrap().token();
        // From whichever side, and however often.
        for (one, other) in [(a, b), (b, a), (a, b)] {
            view(&mut map, one).auto_pause_with(other).unwrap();
        }
        view(&mut map, b).push(&vec![0; 4 << 20]).unwrap();
        turn_quiet(&mut map);
        far_a.write_all(b"now").unwrap();
        turn_quiet(&mut map);
        assert_calm(&mut map);
        assert!(view(&mut map, a).is_paused() && !view(&mut map, b).is_paused());
        assert_eq!(log.input("a"), b"");
        match end {
            "abort" => view(&mut map, b).abort(),
            "peer" => drop(far_b),
            "detach" => drop(view(&mut map, b).detach().unwrap()),
            "discard_queued" => view(&mut map, b).discard_queued(),
            _ => view(&mut map, b).set_watermarks(usize::MAX, usize::MAX),
        }
        turn_until(&mut map, &log, |_| log.input("a") == b"now");
        assert!(!view(&mut map, a).is_paused(), "{end}");
    }
}

/// EDGE_CASES 66. One that reads for several pauses while any of them is high; a new partner of one whose
/// queue is high already pauses, too.
#[test]
fn with_several_partners_it_pauses_for_each() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let mut fars = Vec::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| {
        let (near, far) = unix_pair();
        fars.push(far);
        map.add(near, Recorder::new(name, &log)).unwrap().token()
    });
    view(&mut map, a).auto_pause_with(b).unwrap();
    view(&mut map, b).push(&vec![0; 4 << 20]).unwrap();
    turn_quiet(&mut map);
    view(&mut map, c).auto_pause_with(b).unwrap();
    view(&mut map, a).auto_pause_with(c).unwrap();
    view(&mut map, c).push(&vec![0; 4 << 20]).unwrap();
    turn_quiet(&mut map);
    let paused = |map: &mut ChannelMap| [a, b, c].map(|token| view(map, token).is_paused());
    assert_eq!(paused(&mut map), [true, true, true]);
    view(&mut map, b).discard_queued();
    turn_quiet(&mut map);
    assert_eq!(paused(&mut map), [true, true, false]);
    view(&mut map, c).abort();
    turn_quiet(&mut map);
    assert_eq!([a, b].map(|token| view(&mut map, token).is_paused()), [false, false]);
    for far in &mut fars[..2] {
        far.write_all(b"on").unwrap();
    }
    turn_until(&mut map, &log, |_| log.input("a") == b"on" && log.input("b") == b"on");
}

/// A listener and a channel that is gone are no partners.
#[test]
fn a_partner_is_a_living_channel_with_data() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, mut far) = unix_pair();
    let a = map.add(near, Recorder::new("a", &log)).unwrap().token();
    let (near, _far) = unix_pair();
    let gone = map.add(near, Recorder::new("gone", &log)).unwrap().token();
    let listener = map.listen(loopbacks()[0], Recorder::new("l", &log)).unwrap().token();
    view(&mut map, gone).abort();
    turn_quiet(&mut map);
    let error = view(&mut map, a).auto_pause_with(gone).unwrap_err();
    let inner = error.get_ref().unwrap();
    assert!(inner.to_string().contains(&LookupError::Gone(gone).to_string()), "{error}");
    assert!(view(&mut map, a).auto_pause_with(listener).is_err());
    assert!(view(&mut map, listener).auto_pause_with(a).is_err());
    // With itself it is as `set_auto_pause`.
    view(&mut map, a).auto_pause_with(a).unwrap();
    view(&mut map, a).push(&vec![0; 4 << 20]).unwrap();
    turn_quiet(&mut map);
    assert!(view(&mut map, a).is_paused());
    let mut buffer = vec![0; 64 * 1024];
    turn_until(&mut map, &log, |map| {
        far.set_nonblocking(true).unwrap();
        let _ = far.read(&mut buffer);
        view(map, a).queued() == 0
    });
    assert!(!view(&mut map, a).is_paused());
}
