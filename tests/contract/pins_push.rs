//! Pushes of kinds that are seldom used, on channels of kinds that seldom take them.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
#[cfg(debug_assertions)]
use std::os::unix::net::UnixDatagram;
#[cfg(debug_assertions)]
use std::rc::Rc;
use std::time::Duration;

#[cfg(debug_assertions)]
use dispatch_loop::faults::{Call, Fault, count, inject};
use dispatch_loop::{Channel, ChannelMap, Dispatcher, More, OnLimit, Reason};

use crate::support::opened::{opened_on, view};
#[cfg(debug_assertions)]
use crate::support::peers::pattern;
use crate::support::peers::{read_exactly, unix_pair};
use crate::support::recorder::{Log, Recorder, text};
#[cfg(debug_assertions)]
use crate::support::turning::{run_out, turn_until};
use crate::support::turning::{turn_quiet, turns_at_once};
use crate::support::waiting::wait_for_input;

/// Slices that the system takes a part of go on from there, within one of them or between two; and so they
/// do when something was pushed before them.
#[cfg(debug_assertions)]
#[test]
fn slices_that_go_out_in_part_go_on_from_there() {
    for before in [0, 10] {
        for taken in [0, 1, 10, 11, 2500, 2510, 2511, 5009] {
            let log = Log::new();
            let (near, mut far) = unix_pair();
            let bytes = pattern(before + 5000);
            let pushed = bytes.clone();
            let (mut map, token) = opened_on(
                near,
                Recorder::new("a", &log).on("read", move |ch| {
                    ch.recv(&mut [0; 10])?;
                    let (first, rest) = pushed.split_at(before);
                    ch.push(first)?;
                    inject(Call::Send, 0, 1, Fault::Short(taken));
                    ch.push_vectored(&[&rest[..2500], &[], &rest[2500..]].map(IoSlice::new))
                }),
            );
            far.write_all(b"x").unwrap();
            wait_for_input(view(&mut map, token).socket().unwrap());
            turn_quiet(&mut map);
            assert!(read_exactly(&mut far, bytes.len()) == bytes, "{taken} taken after {before}");
            assert_eq!(log.of("a"), ["open", "read"]);
        }
    }
}

/// An echo whose `readable` and `writable` are the defaults, so that its messages take the short way.
#[cfg(debug_assertions)]
struct Echo(Log);

#[cfg(debug_assertions)]
impl Dispatcher for Echo {
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, data| ch.push(data))
    }
    fn handle_close(&mut self, _: &mut Channel<'_>, reason: &Reason) {
        self.0.add(format!("close: {reason}"));
    }
}

/// EDGE_CASES 43: a small answer, on the short way. And one that fails is the reason of the end, though a
/// second try would not.
#[cfg(debug_assertions)]
#[test]
fn an_interrupted_send_of_a_small_answer_is_made_again_and_a_failed_one_is_not() {
    let log = Log::new();
    let (near, mut far) = unix_pair();
    far.set_nonblocking(true).unwrap();
    let mut map = ChannelMap::new().unwrap();
    let token = map.add(near, Echo(log.clone())).unwrap().token();
    for message in [*b"first ", *b"second", *b"third "] {
        turn_quiet(&mut map);
        far.write_all(&message).unwrap();
        wait_for_input(view(&mut map, token).socket().unwrap());
        inject(Call::Send, 0, 1, Fault::Errno(libc::EINTR));
        let mut got = [0; 6];
        turn_until(&mut map, &log, |_| far.read_exact(&mut got).is_ok());
        assert_eq!(got, message);
    }
    turn_quiet(&mut map);
    far.write_all(b"fourth").unwrap();
    wait_for_input(view(&mut map, token).socket().unwrap());
    inject(Call::Send, 0, 1, Fault::Errno(libc::ECONNRESET));
    drop(far);
    run_out(&mut map, &log);
    assert_eq!(log.events(), [format!("close: {}", text(libc::ECONNRESET))]);
}

/// A small answer of which the socket took a part: the rest waits until the system says that there is room.
#[cfg(debug_assertions)]
#[test]
fn the_rest_of_a_small_answer_waits_for_room() {
    let log = Log::new();
    let (near, mut far) = unix_pair();
    let mut map = ChannelMap::new().unwrap();
    let token = map.add(near, Echo(log.clone())).unwrap().token();
    for (message, in_part) in [(*b"first ", false), (*b"second", true), (*b"third ", true)] {
        turn_quiet(&mut map);
        far.write_all(&message).unwrap();
        wait_for_input(view(&mut map, token).socket().unwrap());
        if in_part {
            inject(Call::Send, 0, 1, Fault::Short(2));
            let sends = count(Call::Send);
            map.turn(Some(Duration::ZERO)).unwrap();
            assert_eq!((count(Call::Send) - sends, view(&mut map, token).queued()), (1, 4));
        }
        turn_quiet(&mut map);
        assert_eq!(read_exactly(&mut far, 6), message);
    }
}

/// Rule 7: as any push to a peer that is gone; and over the limit it ends the channel, if that is wanted.
#[cfg(debug_assertions)]
#[test]
fn a_producer_for_a_peer_that_is_gone_or_over_the_limit_is_dropped_unasked() {
    for gone in [true, false] {
        let log = Log::new();
        let (near, _far) = unix_pair();
        let (mut map, token) = opened_on(near, Recorder::new("a", &log));
        let held = Rc::new(());
        let kept = held.clone();
        let producer = move |_: &mut Vec<u8>| -> io::Result<More> { panic!("nobody is to ask {kept:?}") };
        let mut ch = view(&mut map, token);
        if gone {
            inject(Call::Send, 0, 1, Fault::Errno(libc::EPIPE));
            ch.push(&[0; 5000]).unwrap();
        } else {
            ch.set_limit(1000, OnLimit::End);
            // Already over it: a producer is refused only then.
            ch.push_producer(|_: &mut Vec<u8>| Ok(More::Later)).unwrap();
        }
        ch.push_producer(producer).unwrap();
        assert_eq!(Rc::strong_count(&held), 1, "gone: {gone}");
        turn_quiet(&mut map);
        assert_eq!(map.is_empty(), !gone, "a broken channel is read to its end");
        let end = if gone { String::from("open") } else { format!("close: {}", Reason::Limit) };
        assert_eq!(log.of("a").last(), Some(&end));
    }
}

/// Notes the errors of the network.
#[cfg(debug_assertions)]
struct Sender(Log);
#[cfg(debug_assertions)]
impl Dispatcher for Sender {
    fn handle_network_error(&mut self, _: &mut Channel<'_>, error: &io::Error) -> io::Result<()> {
        self.0.add(format!("network: {:?}", error.kind()));
        Ok(())
    }
}

/// EDGE_CASES 47: an error that a datagram meets after it was queued is told, and the next one goes.
#[cfg(debug_assertions)]
#[test]
fn a_queued_datagram_that_fails_is_told_and_the_next_one_goes() {
    let log = Log::new();
    let (near, far) = UnixDatagram::pair().unwrap();
    far.set_nonblocking(true).unwrap();
    let mut map = ChannelMap::new().unwrap();
    let token = map.add(near, Sender(log.clone())).unwrap().token();
    turn_quiet(&mut map);
    inject(Call::Send, 0, 1, Fault::Errno(libc::EAGAIN));
    inject(Call::Send, 0, 1, Fault::Errno(libc::EACCES));
    view(&mut map, token).push(b"one").unwrap();
    view(&mut map, token).push(b"two").unwrap();
    assert_eq!(view(&mut map, token).queued(), 6);
    turn_quiet(&mut map);
    assert_eq!(log.events(), ["network: PermissionDenied"]);
    let mut buffer = [0; 10];
    assert_eq!((far.recv(&mut buffer).unwrap(), &buffer[..3]), (3, &b"two"[..]));
    assert!(far.recv(&mut buffer).is_err());
    assert_eq!(view(&mut map, token).queued(), 0);
}

/// EDGE_CASES 47: the error of an earlier datagram waits on the socket, and the next call returns it; that
/// datagram goes all the same.
#[cfg(debug_assertions)]
#[test]
fn an_error_of_an_earlier_datagram_is_told_and_costs_no_other() {
    let log = Log::new();
    let (near, far) = UnixDatagram::pair().unwrap();
    far.set_nonblocking(true).unwrap();
    let mut map = ChannelMap::new().unwrap();
    let token = map.add(near, Sender(log.clone())).unwrap().token();
    turn_quiet(&mut map);
    inject(Call::Send, 0, 1, Fault::Errno(libc::ECONNREFUSED));
    view(&mut map, token).push(b"one").unwrap();
    turn_quiet(&mut map);
    assert_eq!(log.events(), ["network: ConnectionRefused"]);
    let mut buffer = [0; 10];
    assert_eq!((far.recv(&mut buffer).unwrap(), &buffer[..3]), (3, &b"one"[..]));
    assert!(far.recv(&mut buffer).is_err());
}

/// Slices are one datagram; a producer makes none.
#[test]
fn a_datagram_channel_takes_slices_as_one_datagram_and_no_producer() {
    let log = Log::new();
    let (near, far) = std::os::unix::net::UnixDatagram::pair().unwrap();
    far.set_nonblocking(true).unwrap();
    let (mut map, token) = opened_on(near, Recorder::new("a", &log));
    let mut ch = view(&mut map, token);
    ch.push_vectored(&[&b"two "[..], b"", b"slices"].map(IoSlice::new)).unwrap();
    let producer = |_: &mut Vec<u8>| -> io::Result<More> { panic!("nobody is to ask") };
    assert_eq!(ch.push_producer(producer).unwrap_err().kind(), ErrorKind::InvalidInput);
    turn_quiet(&mut map);
    let mut buffer = [0; 20];
    assert_eq!((far.recv(&mut buffer).unwrap(), &buffer[..10]), (10, &b"two slices"[..]));
    assert!(far.recv(&mut buffer).is_err());
    assert_eq!(log.of("a"), ["open"]);
}

/// Rule 15: what an outlet has taken is never refused by the hard limit.
#[test]
fn a_datagram_that_an_outlet_has_taken_is_sent_whatever_the_limit() {
    let log = Log::new();
    let (near, far) = std::os::unix::net::UnixDatagram::pair().unwrap();
    far.set_nonblocking(true).unwrap();
    let (mut map, token) = opened_on(near, Recorder::new("a", &log));
    let mut ch = view(&mut map, token);
    ch.set_limit(10, OnLimit::Refuse);
    let outlet = ch.outlet().unwrap();
    assert_eq!(ch.push(&[0; 100]).unwrap_err().kind(), ErrorKind::QuotaExceeded);
    outlet.try_send(vec![7; 100]).unwrap();
    turn_quiet(&mut map);
    let mut buffer = [0; 200];
    assert_eq!(far.recv(&mut buffer).unwrap(), 100);
    assert_eq!(log.of("a"), ["open"]);
}

/// Rule 7: a listener carries no data, of whatever kind.
#[test]
fn a_listener_has_nothing_to_read() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let listener = map.listen("127.0.0.1:0", Recorder::new("listener", &log)).unwrap().token();
    map.turn(Some(Duration::ZERO)).unwrap();
    let mut ch = view(&mut map, listener);
    assert_eq!(ch.recv(&mut [0; 1]).unwrap_err().kind(), ErrorKind::NotConnected);
    assert_eq!(ch.recv_urgent(&mut [0; 1]).unwrap_err().kind(), ErrorKind::NotConnected);
    assert_eq!(ch.send(b"x").unwrap_err().kind(), ErrorKind::NotConnected);
    assert_eq!(ch.push(b"x").unwrap_err().kind(), ErrorKind::NotConnected);
    turn_quiet(&mut map);
    assert!(map.contains(listener));
}

/// Rule 7: reading the end, also before `handle_open`, brings `handle_eof`, after it.
#[test]
fn an_end_that_was_read_before_the_channel_opened_is_told_after_that() {
    let log = Log::new();
    let (near, mut far) = unix_pair();
    far.write_all(b"all").unwrap();
    drop(far);
    let mut map = ChannelMap::new().unwrap();
    let token = map.add(near, Recorder::new("a", &log)).unwrap().token();
    let mut ch = view(&mut map, token);
    // A read that does not fill its buffer would be the last of its turn.
    let mut all = [0; 3];
    assert_eq!((ch.recv(&mut all).unwrap(), &all), (3, b"all"));
    assert_eq!(ch.recv(&mut all).unwrap(), 0);
    assert!(turns_at_once(&mut map, 10, |map| map.is_empty()));
    assert_eq!(log.of("a"), ["open", "eof", "close: end of stream"]);
}
