//! A channel that has sent everything: its own end, and the wait for its peer's, while what the peer sends
//! is dropped.

use std::io::{self, ErrorKind, Write};
use std::net::TcpStream;
use std::os::fd::BorrowedFd;
use std::thread;
use std::time::{Duration, Instant};

#[cfg(debug_assertions)]
use dispatch_loop::faults::{Call, Fault, inject};
use dispatch_loop::{ChannelMap, Interest, More, Source};

use crate::support::ends::Wire;
use crate::support::opened::{opened, view};
use crate::support::peers::{loopbacks, pipe, read_to_end, reset, unix_pair};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{run_out, turn_quiet, turn_until, turns_at_once};
use crate::support::waiting::{wait_for_hang_up, wait_for_input};

/// A channel that was closed with input unread; the peer has got what was sent, and its end.
fn lingering(log: &Log) -> (ChannelMap, socket2::Socket, TcpStream) {
    let recorder = Recorder::new("a", log).on("open", |ch| {
        ch.pause_reading();
        Ok(())
    });
    let (mut map, token, mut far) = opened(loopbacks()[0], recorder);
    let mut ch = view(&mut map, token);
    let near = socket2::SockRef::from(&ch.socket().unwrap()).try_clone().unwrap();
    far.write_all(b"unread").unwrap();
    wait_for_input(&near);
    ch.push(b"answer").unwrap();
    ch.close();
    turn_quiet(&mut map);
    assert_eq!(log.of("a"), ["open"]);
    assert_eq!(read_to_end(&mut far), b"answer");
    (map, near, far)
}

/// Rule 10: as soon as the peer ends, so does the channel, also when it has sent more.
#[test]
fn a_lingering_channel_ends_with_its_peer() {
    let log = Log::new();
    let (mut map, near, mut far) = lingering(&log);
    far.write_all(&[0; 1000]).unwrap();
    wait_for_input(&near);
    turn_quiet(&mut map);
    assert_eq!(log.of("a"), ["open"], "the peer has not ended");
    drop(far);
    wait_for_hang_up(&near);
    assert!(turns_at_once(&mut map, 10, |map| map.is_empty()));
    assert_eq!(log.of("a"), ["open", "close: closed"]);
}

/// Rule 10: the peer may have much to send before it ends, and waits for nothing.
#[test]
fn a_lingering_channel_takes_all_that_its_peer_sends() {
    const MUCH: usize = 16 << 20;
    let log = Log::new();
    let (mut map, _, mut far) = lingering(&log);
    let writing = thread::spawn(move || far.write_all(&vec![0; MUCH]).map(|()| far));
    turn_until(&mut map, &log, |_| writing.is_finished());
    drop(writing.join().unwrap().unwrap());
    run_out(&mut map, &log);
    assert_eq!(log.of("a"), ["open", "close: closed"]);
}

/// Rule 10: a reset is an end.
#[test]
fn a_lingering_channel_ends_when_its_peer_resets() {
    let log = Log::new();
    let (mut map, near, far) = lingering(&log);
    reset(far);
    wait_for_hang_up(&near);
    assert!(turns_at_once(&mut map, 10, |map| map.is_empty()));
    assert_eq!(log.of("a"), ["open", "close: closed"]);
}

/// EDGE_CASES 123: it need not wait for the 2 s without input, which it was to wait for.
#[test]
fn a_lingering_channel_may_be_given_less_time() {
    let log = Log::new();
    let (mut map, _near, far) = lingering(&log);
    let begun = Instant::now();
    for less in [60, 20] {
        let token = map.tokens().next().unwrap();
        view(&mut map, token).set_linger(Duration::from_millis(less));
    }
    run_out(&mut map, &log);
    let took = begun.elapsed();
    assert!(took < Duration::from_millis(1500), "after {took:?}");
    assert_eq!(log.of("a"), ["open", "close: closed"]);
    drop(far);
}

/// EDGE_CASES 20: ready, but nothing is there; that is no end.
#[cfg(debug_assertions)]
#[test]
fn a_lingering_channel_whose_socket_says_would_block_goes_on() {
    let log = Log::new();
    let (mut map, near, mut far) = lingering(&log);
    far.write_all(b"more").unwrap();
    wait_for_input(&near);
    inject(Call::Recv, 0, 1, Fault::Errno(libc::EAGAIN));
    turn_quiet(&mut map);
    assert_eq!(log.of("a"), ["open"]);
    drop(far);
    wait_for_hang_up(&near);
    assert!(turns_at_once(&mut map, 10, |map| map.is_empty()));
}

/// Rule 10: a closing pipe that has nothing to send now notices that nobody reads it.
#[test]
fn a_closing_pipe_whose_producer_waits_notices_that_its_reader_has_gone() {
    let log = Log::new();
    let (reader, writer) = pipe();
    let mut map = ChannelMap::new().unwrap();
    let token = map.add_file(writer, Recorder::new("a", &log)).unwrap().token();
    turn_quiet(&mut map);
    let mut ch = view(&mut map, token);
    ch.push_producer(|_: &mut Vec<u8>| Ok(More::Later)).unwrap();
    ch.close();
    turn_quiet(&mut map);
    assert_eq!(log.of("a"), ["open"]);
    drop(reader);
    run_out(&mut map, &log);
    assert_eq!(log.of("a"), ["open", "close: broken pipe"]);
}

/// A source whose own end cannot be sent at once.
struct Reluctant {
    wire: Wire,
    ending: bool,
}

impl Source for Reluctant {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.wire.descriptor()
    }
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wire.recv(buffer)
    }
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.wire.send(bytes)
    }
    fn shutdown_write(&mut self) -> io::Result<()> {
        self.ending = true;
        Err(ErrorKind::WouldBlock.into())
    }
    fn output_pending(&self) -> bool {
        self.ending
    }
    fn interest(&self, wanted: Interest) -> Interest {
        Interest { write: wanted.write || self.ending, ..wanted }
    }
    fn drive(&mut self, ready: Interest) -> io::Result<bool> {
        let ends = self.ending && ready.write;
        if ends {
            self.ending = false;
            self.wire.shutdown_write()?;
        }
        Ok(ends)
    }
}

/// `Source::shutdown_write`: what cannot be sent now is no error; it is sent by `drive`.
#[test]
fn a_source_whose_end_must_wait_ends_in_order() {
    for closes in [true, false] {
        let log = Log::new();
        let (near, mut far) = unix_pair();
        near.set_nonblocking(true).unwrap();
        let mut map = ChannelMap::new().unwrap();
        let source = Reluctant { wire: Wire(near.into()), ending: false };
        let token = map.add_source(source, Recorder::new("a", &log)).unwrap().token();
        turn_quiet(&mut map);
        let mut ch = view(&mut map, token);
        ch.push(b"all").unwrap();
        if closes {
            ch.close();
        } else {
            ch.shutdown_write();
        }
        turn_quiet(&mut map);
        assert_eq!(read_to_end(&mut far), b"all");
        drop(far);
        run_out(&mut map, &log);
        assert_eq!(log.count("a error"), 0);
        let reason = if closes { "close: closed" } else { "close: end of stream" };
        assert_eq!(log.of("a").last().unwrap(), reason);
    }
}
