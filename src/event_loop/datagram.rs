//! Receiving datagrams: one hook for each.

use std::io;

use crate::core::map::ChannelMap;
use crate::event_loop::hooks;
use crate::net::address::Address;
use crate::net::datagram::Datagram;
use crate::sys;
use crate::sys::errno::would_block;
use crate::threads::pulse::Work;
use crate::token::Token;

/// Datagrams that one channel may receive in one turn, in addition to the budget of bytes.
const DATAGRAMS: usize = 64;

/// There are datagrams, or an error waits on the socket.
pub(crate) fn receive(map: &mut ChannelMap, token: Token) {
    let mut buffer = map.buffers.take();
    for _ in 0..DATAGRAMS {
        let turn = map.turn;
        let Some(link) = map.link_mut(token) else { break };
        if !link.reads() || *link.read_budget(turn) == 0 || link.admit_input(1) == 0 {
            break;
        }
        let Some(fd) = link.fd() else { break };
        match sys::datagram::recv(fd, &mut buffer[..]) {
            Ok((read, from, truncated)) => {
                link.has_received(turn, read);
                link.input_passed(read, false);
                let left = link.read_budget(turn);
                *left = left.saturating_sub(read as u32);
                let from = from.or_else(|| link.peer()).unwrap_or(Address::Unnamed);
                let datagram = Datagram { data: &buffer[..read], from, truncated };
                hooks::run(map, token, Work::Datagram, |dispatcher, ch| {
                    dispatcher.handle_datagram(ch, &datagram)
                });
            }
            Err(error) if would_block(&error) => break,
            Err(error) => {
                tell(map, token, &error);
                break;
            }
        }
    }
    map.buffers.give_back(buffer);
}

/// Report an error of the network.
pub(crate) fn tell(map: &mut ChannelMap, token: Token, error: &io::Error) {
    if map.link(token).is_some_and(|link| link.is_open()) {
        hooks::run(map, token, Work::NetworkError, |dispatcher, ch| {
            dispatcher.handle_network_error(ch, error)
        });
    }
}

/// Report the error that a send met since the last settle.
pub(crate) fn tell_noted(map: &mut ChannelMap, token: Token) {
    let noted = map.link_mut(token).and_then(|link| link.rare_mut_if_any()?.network_error.take());
    let Some(error) = noted else { return };
    // Also while it closes: what was pushed before that is lost.
    if map.link(token).is_some_and(|link| !link.is_told()) {
        hooks::run(map, token, Work::NetworkError, |dispatcher, ch| {
            dispatcher.handle_network_error(ch, &error)
        });
    }
}
