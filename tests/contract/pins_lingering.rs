//! A channel that has sent everything and waits for its peer's end, while what the peer sends is dropped.

use std::io::Write;
use std::net::TcpStream;

use dispatch_loop::ChannelMap;
#[cfg(debug_assertions)]
use dispatch_loop::faults::{Call, Fault, inject};

use crate::support::opened::{opened, view};
use crate::support::peers::{loopbacks, read_to_end, reset};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{turn_quiet, turns_at_once};
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
