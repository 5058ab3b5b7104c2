//! A user's source, before its channel reads and writes.

use crate::core::map::ChannelMap;
#[cfg(feature = "proxy-protocol")]
use crate::event_loop::preface;
use crate::link::due::Step;
use crate::sys::errno::{is_shortage, would_block};
use crate::sys::poll::{Interest, Ready};
use crate::token::Token;

/// As [`drive`], because the poller says so.
pub(crate) fn drive_ready(map: &mut ChannelMap, token: Token, ready: Ready) -> bool {
    let now = map.turn.time;
    if let Some(link) = map.link_mut(token).filter(|_| ready.write) {
        link.has_room_for_its_source(now);
    }
    drive(map, token, ready)
}

/// Let a user's source do what it needs the socket for; `false` if it failed.
pub(crate) fn drive(map: &mut ChannelMap, token: Token, ready: Ready) -> bool {
    let turn = map.turn;
    let Some(link) = map.link_mut(token) else { return false };
    let unasked = ready.hup || ready.err;
    let interest = Interest { read: ready.read || unasked, write: ready.write || unasked };
    let Some(source) = link.source_mut() else { return true };
    let driven = source.drive(interest);
    // A handshake may have finished, or buffered output been sent.
    if link.is_opening() {
        link.set_due(Step::Open);
    } else if link.is_upgrading() {
        link.set_due(Step::Wrapped);
    }
    link.set_due(Step::Flush);
    link.note_drained();
    link.note_marks();
    match driven {
        Ok(moved) => {
            if moved {
                link.moved(turn);
            }
            #[cfg(feature = "proxy-protocol")]
            preface::driven(map, token);
            true
        }
        Err(error) if would_block(&error) || is_shortage(&error) => true,
        Err(error) => {
            match link.shakes_hands() {
                true => link.wrap_failed(error),
                false => drop(link.read_lost(error)),
            }
            false
        }
    }
}
