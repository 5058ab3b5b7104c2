//! System calls that fail, are short, or are interrupted: each made so through the door that the
//! library keeps for this.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use dispatch_loop::faults::{self, Call, Fault, inject};
use dispatch_loop::{ChannelMap, OnError, Reason};

use crate::support::opened::address_of;
use crate::support::peers::{loopbacks, pair, pattern, unix_pair};
use crate::support::recorder::{Log, Recorder, text};
use crate::support::turning::{run_out, turn_idle, turn_until};

/// A recorder that sends back what it gets.
fn echo(name: &'static str, log: &Log) -> Recorder {
    Recorder::new(name, log).quiet().on("read", |ch| ch.read_with(|ch, data| ch.push(data)))
}

/// Send `pattern(len)` through an echo channel and back, under whatever was injected.
fn echoes(len: usize) {
    for on in loopbacks() {
        let log = Log::new();
        let (near, mut far) = pair(on);
        let mut map = ChannelMap::new().unwrap();
        map.add(near, echo("a", &log)).unwrap();
        let mut writer = far.try_clone().unwrap();
        let writing = thread::spawn(move || {
            writer.write_all(&pattern(len)).unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let reading = thread::spawn(move || {
            let mut got = Vec::new();
            far.read_to_end(&mut got).unwrap();
            got
        });
        run_out(&mut map, &log);
        writing.join().unwrap();
        let got = reading.join().unwrap();
        assert!(got == pattern(len), "{} bytes came back for {len}", got.len());
        assert_eq!(log.of("a").last().unwrap(), "close: end of stream");
        assert_eq!(log.count("a error"), 0);
    }
}

#[test]
fn interrupted_calls_are_made_again() {
    for call in [Call::Recv, Call::Send, Call::Wait] {
        for at in 0..20 {
            inject(call, at * 3, 2, Fault::Errno(libc::EINTR));
        }
        echoes(300_000);
        faults::clear();
    }
}

#[test]
fn short_calls_keep_the_order() {
    for (call, most) in [(Call::Recv, 1), (Call::Recv, 777), (Call::Send, 1), (Call::Send, 777)] {
        inject(call, 0, 500, Fault::Short(most));
        inject(call, 50, 500, Fault::Short(most * 3));
        echoes(200_000);
        faults::clear();
    }
}

/// EDGE_CASES 20: the poller says ready, and the call says no.
#[test]
fn would_block_in_spite_of_readiness_loses_nothing() {
    for call in [Call::Recv, Call::Send] {
        for _ in 0..100 {
            inject(call, 2, 1, Fault::Errno(libc::EAGAIN));
        }
        echoes(1 << 20);
        faults::clear();
    }
}

/// The last send of several, queued and gathered, says would-block: nothing wakes up the queue but
/// the loop's own care.
#[test]
fn would_block_on_a_queue_that_has_room_is_tried_again() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, mut far) = unix_pair();
    let handle = map.add(near, Recorder::new("a", &log)).unwrap();
    inject(Call::Send, 0, 3, Fault::Errno(libc::EAGAIN));
    let mut ch = map.channel(handle).unwrap();
    for part in pattern(30_000).chunks(1000) {
        ch.push(part).unwrap();
    }
    ch.close();
    run_out(&mut map, &log);
    let mut got = Vec::new();
    far.read_to_end(&mut got).unwrap();
    assert!(got == pattern(30_000));
    assert_eq!(log.of("a").last().unwrap(), "close: closed");
}

#[test]
fn an_accept_that_fails_in_passing_is_made_again() {
    let passing = [
        libc::EINTR,
        libc::EAGAIN,
        libc::ECONNABORTED,
        libc::EPERM,
        libc::EPROTO,
        libc::EMFILE,
        libc::ENFILE,
        libc::ENOBUFS,
        libc::ENOMEM,
    ];
    for (on, errno) in loopbacks().into_iter().flat_map(|on| passing.map(|errno| (on, errno))) {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let accepted = log.clone();
        let listener = Recorder::new("l", &log).on_accept(move |ch, socket, _| {
            ch.map_mut().add(socket, Recorder::new("a", &accepted)).map(drop)
        });
        let listener = map.listen(on, listener).unwrap();
        let address = address_of(&mut map, listener);
        inject(Call::Accept, 0, 2, Fault::Errno(errno));
        let clients: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        turn_until(&mut map, &log, |_| log.count("a open") == 3);
        assert_eq!(log.of("l"), ["accept", "accept", "accept"], "{}", text(errno));
        drop(clients);
        turn_until(&mut map, &log, |_| log.count("a close: end of stream") == 3);
        faults::clear();
    }
}

/// EDGE_CASES 12: out of descriptors, the listener does not spin, others are served, and the end
/// of a channel wakes it.
#[test]
fn a_listener_out_of_descriptors_does_not_spin_and_a_close_wakes_it() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, mut far) = unix_pair();
    map.add(near, echo("a", &log)).unwrap();
    let accepts = Recorder::new("l", &log).on_accept(|_, _, _| Ok(()));
    let listener = map.listen(loopbacks()[0], accepts).unwrap();
    let address = address_of(&mut map, listener);
    turn_idle(&mut map);
    inject(Call::Accept, 0, u64::MAX, Fault::Errno(libc::EMFILE));
    let _client = TcpStream::connect(address).unwrap();
    let before = faults::count(Call::Accept);
    turn_until(&mut map, &log, |_| faults::count(Call::Accept) > before);
    far.write_all(b"still there?").unwrap();
    let mut answer = [0; 12];
    let reading = thread::spawn(move || {
        far.read_exact(&mut answer).unwrap();
        (answer, far)
    });
    let begun = Instant::now();
    turn_until(&mut map, &log, |_| reading.is_finished());
    let (answer, far) = reading.join().unwrap();
    assert_eq!(&answer, b"still there?");
    // A pause is 100 ms, then 200, at most 1 s.
    let tries = u128::from(faults::count(Call::Accept) - before);
    assert!(tries <= 2 + begun.elapsed().as_millis() / 100, "{tries} tries");
    faults::clear();
    drop(far);
    turn_until(&mut map, &log, |_| log.closed("a"));
    for _ in 0..3 {
        map.turn(Some(Duration::ZERO)).unwrap();
    }
    assert!(log.has("l accept"), "the end of a channel has not woken the listener");
}

/// The listener is unusable: its own `handle_error` hears of it.
#[test]
fn a_broken_listener_hears_of_it_and_ends() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let listener = map.listen(loopbacks()[0], Recorder::new("l", &log)).unwrap();
    let address = address_of(&mut map, listener);
    inject(Call::Accept, 0, 1, Fault::Errno(libc::EINVAL));
    let _client = TcpStream::connect(address).unwrap();
    turn_until(&mut map, &log, |map| map.is_empty());
    let why = text(libc::EINVAL);
    assert_eq!(log.of("l"), [format!("error: {why}"), format!("close: {why}")]);
}

#[test]
fn a_reset_of_recv_ends_the_channel() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, mut far) = unix_pair();
    map.add(near, Recorder::new("a", &log)).unwrap();
    far.write_all(b"never seen").unwrap();
    inject(Call::Recv, 0, 1, Fault::Errno(libc::ECONNRESET));
    run_out(&mut map, &log);
    assert_eq!(log.of("a"), ["open".into(), "read".into(), format!("close: {}", text(libc::ECONNRESET))]);
}

/// EDGE_CASES 19: the write fails, and what has come is read to its end; the reason stays.
#[test]
fn a_send_that_fails_leaves_the_data_to_be_read() {
    for queued in [false, true] {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (near, mut far) = unix_pair();
        let handle = map.add(near, Recorder::new("a", &log)).unwrap();
        turn_until(&mut map, &log, |_| log.has("a open"));
        far.write_all(&pattern(100_000)).unwrap();
        let mut ch = map.channel(handle).unwrap();
        if queued {
            inject(Call::Send, 0, 1, Fault::Errno(libc::EAGAIN));
        }
        inject(Call::Send, 0, 1, Fault::Errno(libc::EPIPE));
        ch.push(b"nobody there").unwrap();
        // What is pushed from outside a hook leaves at the settle.
        assert_eq!(ch.queued(), 12);
        turn_until(&mut map, &log, |_| log.input("a").len() == 100_000);
        assert!(!log.closed("a"));
        map.channel(handle).unwrap().push(b"nor now").unwrap();
        drop(far);
        run_out(&mut map, &log);
        assert!(log.input("a") == pattern(100_000));
        assert_eq!(log.of("a").last().unwrap(), &format!("close: {}", text(libc::EPIPE)));
        assert_eq!(log.count("a eof") + log.count("a error"), 0);
    }
}

/// What cannot be sent need not be waited for.
#[test]
fn close_after_a_send_that_failed_waits_for_nothing() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, _far) = unix_pair();
    let handle = map.add(near, Recorder::new("a", &log)).unwrap();
    turn_until(&mut map, &log, |_| log.has("a open"));
    inject(Call::Send, 0, 1, Fault::Errno(libc::EPIPE));
    map.channel(handle).unwrap().push(b"nobody there").unwrap();
    turn_idle(&mut map);
    assert!(!log.closed("a"), "there may be input yet");
    map.channel(handle).unwrap().close();
    for _ in 0..3 {
        map.turn(Some(Duration::ZERO)).unwrap();
    }
    assert_eq!(log.of("a"), ["open".into(), format!("close: {}", text(libc::EPIPE))]);
}

#[test]
fn a_shutdown_that_fails_is_the_reason_after_the_last_data() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, mut far) = unix_pair();
    let handle = map.add(near, Recorder::new("a", &log)).unwrap();
    far.write_all(b"last words").unwrap();
    inject(Call::Shutdown, 0, 1, Fault::Errno(libc::ENOTCONN));
    map.channel(handle).unwrap().shutdown_write();
    turn_until(&mut map, &log, |_| log.input("a") == b"last words");
    drop(far);
    run_out(&mut map, &log);
    assert_eq!(log.of("a").last().unwrap(), &format!("close: {}", text(libc::ENOTCONN)));
}

/// EDGE_CASES 6 and rule 8: refused at once, or told later by `SO_ERROR`.
#[test]
fn a_connect_that_fails_is_an_error_and_the_end() {
    for call in [Call::Connect, Call::TakeError] {
        for errno in [libc::ECONNREFUSED, libc::ENETUNREACH, libc::EACCES, libc::ETIMEDOUT] {
            let log = Log::new();
            let mut map = ChannelMap::new().unwrap();
            let server = map.listen(loopbacks()[0], Recorder::new("l", &log)).unwrap();
            let address = address_of(&mut map, server);
            inject(call, 0, 1, Fault::Errno(errno));
            let client = Recorder::new("a", &log).on_error(OnError::Keep);
            let handle = map.connect(address, client).unwrap();
            map.channel(handle).unwrap().push(b"dropped").unwrap();
            assert_eq!(log.events(), [""; 0], "a hook ran inside connect");
            turn_until(&mut map, &log, |_| log.closed("a"));
            let why = text(errno);
            assert_eq!(log.of("a"), [format!("error: {why}"), format!("close: {why}")], "{call:?}");
            assert!(map.channel(handle).is_err());
        }
    }
}

/// An interrupted connect goes on by itself. (Injected, it does not even begin: that it is not taken
/// for a failed one is all that shows.)
#[test]
fn an_interrupted_connect_is_under_way() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let server = map.listen(loopbacks()[0], Recorder::new("l", &log)).unwrap();
    let address = address_of(&mut map, server);
    inject(Call::Connect, 0, 1, Fault::Errno(libc::EINTR));
    let handle = map.connect(address, Recorder::new("a", &log)).unwrap();
    assert!(map.channel(handle).unwrap().is_connecting());
    turn_idle(&mut map);
    assert_eq!(log.count("a error"), 0);
}

#[test]
fn a_socket_that_cannot_be_had_is_an_error_that_names_the_address() {
    for on in loopbacks() {
        for (call, errno) in [
            (Call::Socket, libc::EMFILE),
            (Call::Bind, libc::EADDRINUSE),
            (Call::Bind, libc::EACCES),
            (Call::Listen, libc::EADDRINUSE),
            (Call::Option, libc::ENOMEM),
        ] {
            let log = Log::new();
            let mut map = ChannelMap::new().unwrap();
            inject(call, 0, 1, Fault::Errno(errno));
            let error = map.listen(on, Recorder::new("l", &log)).unwrap_err();
            assert_eq!(error.kind(), std::io::Error::from_raw_os_error(errno).kind());
            assert!(error.to_string().contains(&on.to_string()), "{call:?}: {error}");
            assert!(map.is_empty());
        }
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        inject(Call::Socket, 0, 1, Fault::Errno(libc::EMFILE));
        let error = map.connect(on, Recorder::new("a", &log)).unwrap_err();
        assert!(error.to_string().contains(&on.to_string()), "{error}");
        turn_idle(&mut map);
        assert_eq!(log.events(), [""; 0]);
    }
}

/// The poller refuses one channel, when it is added or when it changes: that one ends.
#[test]
fn a_channel_that_the_poller_refuses_ends_alone() {
    for later in [false, true] {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (near, _far) = unix_pair();
        let (other, mut peer) = unix_pair();
        let a = map.add(near, Recorder::new("a", &log)).unwrap();
        if later {
            turn_until(&mut map, &log, |_| log.has("a open"));
            map.channel(a).unwrap().pause_reading();
        }
        map.add(other, echo("b", &log)).unwrap();
        inject(Call::Control, 0, 1, Fault::Errno(libc::EPERM));
        turn_until(&mut map, &log, |map| !map.contains(a));
        assert_eq!(log.of("a"), ["open".into(), format!("close: {}", text(libc::EPERM))]);
        peer.write_all(b"others live").unwrap();
        let reading = thread::spawn(move || {
            let mut answer = [0; 11];
            peer.read_exact(&mut answer).unwrap();
            answer
        });
        turn_until(&mut map, &log, |_| reading.is_finished());
        assert_eq!(&reading.join().unwrap(), b"others live");
    }
}

/// Only a failing poller ends the loop; what is in the map stays, and ends with it.
#[test]
fn a_wait_that_fails_ends_the_loop_and_no_channel() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, _far) = unix_pair();
    map.add(near, Recorder::new("a", &log)).unwrap();
    inject(Call::Wait, 1, 1, Fault::Errno(libc::EBADF));
    map.call_every(Duration::from_millis(1), |_| ());
    assert_eq!(dispatch_loop::run(&mut map).unwrap_err().raw_os_error(), Some(libc::EBADF));
    assert_eq!(log.of("a"), ["open"]);
    // The next try may do better.
    map.turn(Some(Duration::ZERO)).unwrap();
    drop(map);
    assert_eq!(log.of("a"), ["open".into(), format!("close: {}", Reason::MapEnded)]);
}

/// The linger option cannot be set: the channel ends all the same.
#[test]
fn abort_ends_the_channel_also_without_its_option() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, mut far) = pair(loopbacks()[0]);
    let handle = map.add(near, Recorder::new("a", &log)).unwrap();
    turn_until(&mut map, &log, |_| log.has("a open"));
    inject(Call::Option, 0, 1, Fault::Errno(libc::EINVAL));
    map.channel(handle).unwrap().abort();
    run_out(&mut map, &log);
    assert_eq!(log.of("a"), ["open", "close: aborted"]);
    assert_eq!(far.read(&mut [0]).unwrap(), 0);
}

#[test]
fn an_address_may_be_missing_and_a_needed_option_may_not() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    inject(Call::Address, 0, u64::MAX, Fault::Errno(libc::ENOTCONN));
    let (near, far) = pair(loopbacks()[0]);
    let handle = map.add(near, Recorder::new("a", &log)).unwrap();
    turn_until(&mut map, &log, |_| log.has("a open"));
    let mut ch = map.channel(handle).unwrap();
    assert!(ch.local_addr().is_err() && ch.peer_addr().is_err());
    ch.close();
    run_out(&mut map, &log);
    assert_eq!(log.of("a"), ["open", "close: closed"]);
    drop(far);
    // A listener must know where it listens.
    let error = map.listen(loopbacks()[0], Recorder::new("l", &log)).unwrap_err();
    assert!(error.to_string().contains("127.0.0.1"), "{error}");
    faults::clear();
    inject(Call::Option, 0, 1, Fault::Errno(libc::EBADF));
    let (near, _far) = unix_pair();
    let error = map.add(near, Recorder::new("b", &log)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    assert_eq!(log.count("b "), 0);
}
