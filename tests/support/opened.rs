//! A channel and its peer, and output that the peer does not take.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use dispatch_loop::{Channel, ChannelMap, Handle, OnLimit, Socket, Token};

use super::peers::{pair, reads_to_end};
use super::recorder::{Log, Recorder};
use super::turning::turn_until;

/// The real address of a listener or another channel of the map.
pub fn address_of<T>(map: &mut ChannelMap, handle: Handle<T>) -> SocketAddr {
    map.channel(handle).unwrap().local_addr().unwrap().ip().unwrap()
}

/// A map with one open channel.
pub fn opened_on(near: impl Into<Socket>, dispatcher: Recorder) -> (ChannelMap, Token) {
    let mut map = ChannelMap::new().unwrap();
    let token = map.add(near, dispatcher).unwrap().token();
    map.turn(Some(Duration::ZERO)).unwrap();
    (map, token)
}

/// The same, and the blocking other end.
pub fn opened(on: SocketAddr, dispatcher: Recorder) -> (ChannelMap, Token, TcpStream) {
    let (near, far) = pair(on);
    let (map, token) = opened_on(near, dispatcher);
    (map, token, far)
}

pub fn view(map: &mut ChannelMap, token: Token) -> Channel<'_> {
    map.channel(token).unwrap()
}

/// Push more than the system has room for while the peer does not read, and let it take what it
/// takes, down to the last byte: a push at its limit offers it more than the poller reports room for.
pub fn fill(map: &mut ChannelMap, log: &Log, token: Token) -> usize {
    const PUSHED: usize = 12 << 20;
    view(map, token).set_watermarks(usize::MAX, usize::MAX);
    view(map, token).push_vec(vec![b'f'; PUSHED]).unwrap();
    let (mut before, mut stuck) = (0, 0);
    turn_until(map, log, |map| {
        let mut ch = view(map, token);
        ch.set_limit(0, OnLimit::Refuse);
        ch.push(b"?").unwrap_err();
        ch.set_limit(16 << 20, OnLimit::Refuse);
        let queued = ch.queued();
        stuck = if queued == before { stuck + 1 } else { 0 };
        before = queued;
        stuck == 20
    });
    assert!(before > 0);
    PUSHED
}

/// Close the channel and turn until that is done; what the peer has got.
pub fn finish(map: &mut ChannelMap, log: &Log, token: Token, far: TcpStream) -> Vec<u8> {
    let far = reads_to_end(far);
    view(map, token).close();
    turn_until(map, log, |map| !map.contains(token));
    far.join().unwrap()
}
