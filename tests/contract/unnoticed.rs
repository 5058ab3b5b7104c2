//! What nobody noticed when a line of the loop was taken out or turned round.

use std::io::Write;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use dispatch_loop::{ChannelMap, Dispatcher};

use crate::support::heap;
use crate::support::peers::unix_pair;
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{arrive, turns_at_once};

struct Quiet;

impl Dispatcher for Quiet {}

/// Close a channel with input unread; its far end.
fn lingering(map: &mut ChannelMap) -> UnixStream {
    let (near, mut far) = unix_pair();
    far.write_all(b"unread").unwrap();
    let handle = map.add(near, Quiet).unwrap();
    let mut ch = map.channel(handle).unwrap();
    ch.pause_reading();
    ch.set_linger(Duration::from_secs(3600));
    ch.close();
    map.turn(Some(Duration::ZERO)).unwrap();
    assert!(map.contains(handle), "it lingers");
    far
}

/// EDGE_CASES 336 and rule 16: one channel lingers for long, and thousands beside it for a moment.
#[test]
fn what_has_lingered_leaves_nothing_behind_while_another_lingers_on() {
    let mut map = ChannelMap::new().unwrap();
    let mut long = lingering(&mut map);
    drop(lingering(&mut map));
    assert!(turns_at_once(&mut map, 10, |map| map.len() == 1));
    let before = heap::live();
    for n in 0..1500 {
        // Input shows that the peer is still there.
        if n % 8 == 0 {
            long.write_all(b".").unwrap();
        }
        drop(lingering(&mut map));
        assert!(turns_at_once(&mut map, 10, |map| map.len() == 1));
    }
    let held = heap::live() - before;
    assert!(held < 10_000, "{held} bytes are held for channels that have ended");
}

/// EDGE_CASES 337 and rule 6: a datagram that comes is something that is done with the channel, and counts.
#[test]
fn a_channel_with_a_datagram_in_every_turn_is_not_suspended() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, far) = UnixDatagram::pair().unwrap();
    let handle = map.add(near, Recorder::new("a", &log)).unwrap();
    for n in 1..=200 {
        far.send(b"datagram").unwrap();
        arrive(&mut map, handle);
        assert_eq!(log.count("a datagram"), n, "it is suspended");
    }
    assert_eq!(map.channel(handle).unwrap().bytes_in(), 200 * 8);
}
