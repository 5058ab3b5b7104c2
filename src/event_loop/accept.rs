//! Accepting connections, a bounded number a turn. Shortages of descriptors and connections that died in
//! the backlog do not end the listener.

use std::io;
use std::time::Duration;

use crate::core::map::ChannelMap;
use crate::event_loop::backoff;
use crate::event_loop::hooks::{self, Ran};
use crate::guard::drop_guarded;
use crate::link::peer::Peer;
use crate::net::address::Address;
use crate::net::socket::Socket;
use crate::sys;
use crate::sys::errno::would_block;
use crate::token::Token;

/// Connections accepted per listener and turn.
const ACCEPTS: usize = 16;

/// How long to wait for a descriptor: the first time, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

pub(crate) fn accept_ready(map: &mut ChannelMap, token: Token) {
    for _ in 0..ACCEPTS {
        let turn = map.turn;
        let Some(link) = map.link_mut(token).filter(|link| link.accepts()) else { return };
        let Some(fd) = link.fd() else { return };
        match sys::stream::accept(fd) {
            Ok((fd, peer)) => {
                link.moved(turn);
                link.forget_rests();
                // If the listener is bound to one address, that is the local one of each connection.
                let local = link.local().filter(|local| !is_wildcard(local)).cloned();
                let peer_of = Some(peer.clone());
                let socket = Socket { nonblocking: true, local, peer: peer_of, ..Socket::stream(fd) };
                map.counters.accepts += 1;
                hand_over(map, token, socket, peer);
            }
            Err(error) if would_block(&error) => return,
            Err(error) => {
                map.counters.accept_errors += 1;
                if sys::errno::out_of_resources(&error) {
                    return starve(map, token, &error);
                }
                if sys::errno::listener_is_broken(&error) {
                    return hooks::failed(map, token, "accept", error, false);
                }
                // Only this connection failed, while it waited.
                log::debug!("channel {token}: a connection died in the backlog: {error}");
            }
        }
    }
}

fn is_wildcard(address: &Address) -> bool {
    address.ip().is_none_or(|ip| ip.ip().is_unspecified())
}

/// An error here concerns this connection, not the listener: `handle_error` does not run.
fn hand_over(map: &mut ChannelMap, token: Token, socket: Socket, peer: Address) {
    let from = Peer::new(&peer);
    let error = match hooks::call(map, token, |dispatcher, ch| dispatcher.handle_accept(ch, socket, peer)) {
        Ran::Returned(Ok(())) | Ran::Absent => return,
        Ran::Returned(Err(error)) | Ran::Panicked(error) => error,
    };
    match from.address() {
        Some(from) => map.report(token, "handle_accept", &format_args!("connection from {from}: {error}")),
        None => map.report(token, "handle_accept", &error),
    }
    drop_guarded(&mut map.throttle, "an error", error);
}

fn starve(map: &mut ChannelMap, token: Token, error: &io::Error) {
    let turn = map.turn;
    let Some(link) = map.link_mut(token) else { return };
    let pause = (FIRST_PAUSE * (1 << link.count_rest().min(4))).min(LONGEST_PAUSE);
    link.moved(turn);
    let why = format_args!(
        "{error}; clients wait until a channel closes, or for {pause:?} (raise `ulimit -n`, or serve fewer)"
    );
    map.report(token, "cannot accept", &why);
    if !map.starved.contains(&token) {
        map.starved.push(token);
    }
    backoff::suspend(map, token, pause);
}
