//! A channel and its peer, and output that the peer does not take.
#![allow(dead_code)]

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dispatch_loop::{Channel, ChannelMap, LoopOptions, Token, run_with};

use super::{DEADLINE, Log, Recorder, pair, turn_until};

/// A map with one open channel, and the blocking other end.
pub fn opened(on: SocketAddr, dispatcher: Recorder) -> (ChannelMap, Token, TcpStream) {
    let (near, far) = pair(on);
    let mut map = ChannelMap::new().unwrap();
    let token = map.add(near, dispatcher).unwrap().token();
    map.turn(Some(Duration::ZERO)).unwrap();
    (map, token, far)
}

pub fn view(map: &mut ChannelMap, token: Token) -> Channel<'_> {
    map.channel(token).unwrap()
}

/// Turn until the map is empty, as `run` does: a wake-up that is missing makes it fail.
#[track_caller]
pub fn run_out(map: &mut ChannelMap, log: &Log) {
    let deadline = Instant::now() + DEADLINE;
    while !map.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "it does not end; so far: {:#?}", log.events());
        let options = LoopOptions { timeout: Some(left), count: Some(1), rescan: false };
        run_with(map, &options).unwrap();
    }
}

/// All that comes until the end, read by a thread.
pub fn reader(mut far: TcpStream) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut got = Vec::new();
        far.read_to_end(&mut got).unwrap();
        got
    })
}

/// All that came before a reset.
#[track_caller]
pub fn cut_short(mut far: TcpStream) -> Vec<u8> {
    let mut got = Vec::new();
    let end = far.read_to_end(&mut got);
    assert_eq!(end.map_err(|error| error.kind()), Err(std::io::ErrorKind::ConnectionReset));
    got
}

/// Close the channel and turn until that is done; what the peer has got.
pub fn finish(map: &mut ChannelMap, log: &Log, token: Token, far: TcpStream) -> Vec<u8> {
    let far = reader(far);
    view(map, token).close();
    turn_until(map, log, |map| !map.contains(token));
    far.join().unwrap()
}

/// Push more than the system has room for while the peer does not read, and let it take what it
/// takes.
pub fn fill(map: &mut ChannelMap, log: &Log, token: Token) -> usize {
    const PUSHED: usize = 12 << 20;
    view(map, token).set_watermarks(usize::MAX, usize::MAX);
    view(map, token).push_vec(vec![b'f'; PUSHED]).unwrap();
    let (mut before, mut stuck) = (0, 0);
    turn_until(map, log, |map| {
        let queued = view(map, token).queued();
        stuck = if queued == before { stuck + 1 } else { 0 };
        before = queued;
        stuck == 20
    });
    assert!(before > 0);
    PUSHED
}
