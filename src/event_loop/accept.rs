//! Accepting connections, a bounded number a turn. Shortages of descriptors and connections that died in
//! the backlog do not end the listener.

use std::io;

use crate::core::dispatcher::Dispatcher;
use crate::core::map::ChannelMap;
use crate::event_loop::{accepted, admission, backoff, hooks};
use crate::net::full::AcceptLimit;
use crate::sys;
use crate::sys::errno::would_block;
use crate::token::Token;

/// Connections accepted per listener and turn.
const ACCEPTS: u32 = 16;

pub(crate) fn accept_ready(map: &mut ChannelMap, token: Token) {
    let Some(seat) = map.slots.get_mut(token).filter(|seat| seat.link.accepts()) else { return };
    // It is called for one connection after the other.
    let Some(mut dispatcher) = seat.dispatcher.take() else { return };
    map.out += 1;
    let accepted = accept_some(map, token, &mut *dispatcher);
    hooks::put_back(map, token, dispatcher, false);
    match accepted {
        Ok(taken) if map.drain.is_some() => map.drain_accepted(token, taken),
        Ok(_) => {}
        Err(error) if sys::errno::out_of_resources(&error) => starve(map, token, &error),
        Err(error) => hooks::failed(map, token, "accept", error, false),
    }
}

/// Returns how many it has taken out of the backlog.
fn accept_some(map: &mut ChannelMap, token: Token, dispatcher: &mut dyn Dispatcher) -> io::Result<u32> {
    let mut taken = 0;
    while taken < ACCEPTS {
        // The last hook may have paused or closed the listener, or replaced its dispatcher.
        let Some(seat) = map.slots.get_mut(token).filter(|seat| seat.dispatcher.is_none()) else { break };
        let link = &mut seat.link;
        let Some(fd) = link.fd().filter(|_| link.accepts()) else { break };
        if link.is_limited() {
            if !admission::accept_one(map, token, dispatcher, taken == 0)? {
                break;
            }
            taken += 1;
            continue;
        }
        match sys::stream::accept(fd) {
            Ok(connection) => {
                link.moved(map.turn);
                link.forget_rests();
                accepted::let_in(map, token, dispatcher, connection, None);
            }
            Err(error) if would_block(&error) => break,
            Err(error) => accepted::not_accepted(map, token, dispatcher, error)?,
        }
        taken += 1;
    }
    Ok(taken)
}

fn starve(map: &mut ChannelMap, token: Token, error: &io::Error) {
    map.counters.rests[AcceptLimit::Descriptors as usize] += 1;
    backoff::starve(map, token, "cannot accept", error);
    let turn = map.turn;
    if let Some(link) = map.link_mut(token) {
        // It is suspended already.
        link.moved(turn);
    }
}
