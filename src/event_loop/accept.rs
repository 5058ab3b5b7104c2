//! Accepting connections, a bounded number a turn. Shortages of descriptors and connections that died in
//! the backlog do not end the listener.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use crate::core::channel::Channel;
use crate::core::dispatcher::Dispatcher;
use crate::core::map::ChannelMap;
use crate::error::panicked;
use crate::event_loop::{backoff, hooks};
use crate::guard::drop_guarded;
use crate::net::address::Address;
use crate::net::peer::Peer;
use crate::net::socket::Socket;
use crate::sys;
use crate::sys::errno::would_block;
use crate::sys::stream::Accepted;
use crate::token::Token;

/// Connections accepted per listener and turn.
const ACCEPTS: usize = 16;

pub(crate) fn accept_ready(map: &mut ChannelMap, token: Token) {
    let Some(seat) = map.slots.get_mut(token).filter(|seat| seat.link.accepts()) else { return };
    // It is called for one connection after the other.
    let Some(mut dispatcher) = seat.dispatcher.take() else { return };
    map.out += 1;
    let accepted = accept_some(map, token, &mut *dispatcher);
    hooks::put_back(map, token, dispatcher, false);
    match accepted {
        Ok(()) if map.drain.is_some() => map.drain_accepted(token, ACCEPTS as u32),
        Ok(()) => {}
        Err(error) if sys::errno::out_of_resources(&error) => starve(map, token, &error),
        Err(error) => hooks::failed(map, token, "accept", error, false),
    }
}

fn accept_some(map: &mut ChannelMap, token: Token, dispatcher: &mut dyn Dispatcher) -> io::Result<()> {
    for _ in 0..ACCEPTS {
        // The last hook may have paused or closed the listener, or replaced its dispatcher.
        let Some(seat) = map.slots.get_mut(token).filter(|seat| seat.dispatcher.is_none()) else { break };
        let link = &mut seat.link;
        let Some(fd) = link.fd().filter(|_| link.accepts()) else { break };
        match sys::stream::accept(fd) {
            Ok(accepted) => {
                link.moved(map.turn);
                link.forget_rests();
                // If the listener is bound to one address, that is the local one of each connection.
                let local = link.local().filter(|local| is_one_address(local)).cloned();
                map.counters.accepts += 1;
                map.counters.hooks += 1;
                hand_over(map, token, dispatcher, accepted, local);
            }
            Err(error) if would_block(&error) => break,
            Err(error) => {
                map.counters.accept_errors += 1;
                if sys::errno::out_of_resources(&error) || sys::errno::listener_is_broken(&error) {
                    return Err(error);
                }
                // Only this connection failed, while it waited.
                log::debug!("channel {token}: a connection died in the backlog: {error}");
            }
        }
    }
    Ok(())
}

fn is_one_address(address: &Address) -> bool {
    matches!(address, Address::Ip(ip) if !ip.ip().is_unspecified())
}

/// An error here concerns this connection, not the listener: `handle_error` does not run.
#[inline(always)]
fn hand_over(
    map: &mut ChannelMap,
    token: Token,
    dispatcher: &mut dyn Dispatcher,
    accepted: Accepted,
    local: Option<Arc<Address>>,
) {
    let (fd, peer, far) = accepted;
    let mut ch = Channel::own(map, token);
    let result = catch_unwind(AssertUnwindSafe(|| {
        let mut socket = Socket { nonblocking: true, local, peer, ..Socket::stream(fd) };
        let address = peer.address().unwrap_or_else(|| socket.keep_peer(far));
        dispatcher.handle_accept(&mut ch, socket, address)
    }));
    if !matches!(result, Ok(Ok(()))) {
        not_taken(map, token, peer, result);
    }
}

#[cold]
#[inline(never)]
fn not_taken(map: &mut ChannelMap, token: Token, peer: Peer, result: thread::Result<io::Result<()>>) {
    let Err(error) = result.unwrap_or_else(|payload| Err(panicked(payload))) else { return };
    match peer.address() {
        Some(from) => map.report(token, "handle_accept", &format_args!("connection from {from}: {error}")),
        None => map.report(token, "handle_accept", &error),
    }
    hooks::cut_off_where_bytes_are_missing(map, token, &error);
    drop_guarded(&mut map.throttle, "an error", error);
}

fn starve(map: &mut ChannelMap, token: Token, error: &io::Error) {
    backoff::starve(map, token, "cannot accept", error);
    let turn = map.turn;
    if let Some(link) = map.link_mut(token) {
        // It is suspended already.
        link.moved(turn);
    }
}
