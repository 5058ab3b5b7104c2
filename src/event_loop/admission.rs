//! Accepting within limits: who is let in, who waits, who is refused with a last word; and what is told and
//! logged about it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use log::Level;

use crate::core::action::Action;
use crate::core::dispatcher::Dispatcher;
use crate::core::map::ChannelMap;
use crate::event_loop::{accepted, backoff};
use crate::link::admission::{Holding, InHand};
use crate::link::held::Held;
use crate::link::pushed::Pushed;
use crate::link::source::Plain;
use crate::link::state::Link;
use crate::net::address::Address;
use crate::net::full::{AcceptLimitError, Full};
use crate::net::peer::Peer;
use crate::reason::Reason;
use crate::sys::errno::would_block;
use crate::sys::stream::Accepted;
use crate::sys::{self, Kind};
use crate::token::Token;

/// How long a refused connection is kept so that its last word arrives.
const LAST: Duration = Duration::from_secs(1);

/// A limit that has held nobody up for so long is over. Longer than a listener rests before it tries again.
const LATELY: Duration = Duration::from_secs(2);

/// How many are kept at a time.
const REFUSED: usize = 64;

/// Accept one connection on a listener with limits. `first`: of this event, so somebody waits. `false` if
/// no other is to be accepted now.
#[inline(never)]
pub(crate) fn accept_one(
    map: &mut ChannelMap,
    token: Token,
    dispatcher: &mut dyn Dispatcher,
    first: bool,
) -> io::Result<bool> {
    let now = map.clock.now();
    let Some(admission) = map.link_mut(token).and_then(Link::admission) else { return Ok(false) };
    if let Some(in_hand) = admission.take_in_hand() {
        return Ok(hand_over_from_hand(map, token, dispatcher, in_hand));
    }
    let limits = admission.limits().clone();
    let place = limits.take_place(now, Some(admission.waiter()).filter(|_| first && limits.lets_wait()));
    match &place {
        Err(full) if limits.lets_wait() => {
            if first {
                rest(map, token, dispatcher, full.clone());
            }
            return Ok(false);
        }
        _ => {}
    }
    let Some(fd) = map.link(token).and_then(Link::fd) else { return Ok(false) };
    let accepted = match sys::stream::accept(fd) {
        Ok(accepted) => accepted,
        Err(error) if would_block(&error) => {
            drop(place);
            return Ok(false);
        }
        Err(error) => {
            drop(place);
            return accepted::not_accepted(map, token, dispatcher, error).map(|()| true);
        }
    };
    let (turn, is_held_back) = (map.turn, is_held_back(map, token, &accepted));
    if let Some(link) = map.link_mut(token) {
        link.moved(turn);
        link.forget_rests();
    }
    let ip = || address_of(&accepted).and_then(|address| address.ip()).map(|ip| ip.ip());
    let admitted = place.and_then(|mut permit| limits.count_for(&mut permit, ip()).map(|()| permit));
    match admitted {
        Err(full) => refuse(map, token, dispatcher, accepted, full),
        Ok(permit) => {
            limits.take_token(now);
            if is_held_back {
                keep_in_hand(map, token, dispatcher, InHand { accepted, permit });
                return Ok(false);
            }
            accepted::let_in(map, token, dispatcher, accepted, Some(permit));
        }
    }
    Ok(true)
}

fn address_of(accepted: &Accepted) -> Option<Address> {
    let (_, peer, far) = accepted;
    peer.address().or_else(|| far.as_deref().cloned())
}

// Descriptors that are held back.

fn is_held_back(map: &mut ChannelMap, token: Token, accepted: &Accepted) -> bool {
    let number = accepted.0.as_raw_fd();
    let admission = map.link_mut(token).and_then(Link::admission);
    admission.is_some_and(|admission| admission.is_held_back(number))
}

/// The connection has taken one of the last descriptors: the listener rests until there are others.
#[cold]
fn keep_in_hand(map: &mut ChannelMap, token: Token, dispatcher: &mut dyn Dispatcher, in_hand: InHand) {
    let Some(admission) = map.link_mut(token).and_then(Link::admission) else { return };
    let full = Full::Descriptors(admission.limits().reserve());
    admission.keep_in_hand(in_hand.accepted, in_hand.permit);
    rest(map, token, dispatcher, full);
}

/// The rest is over. The system gives the lowest number that is free: if that is not one of the last, the
/// connection moves there, and is let in.
#[cold]
fn hand_over_from_hand(
    map: &mut ChannelMap,
    token: Token,
    dispatcher: &mut dyn Dispatcher,
    in_hand: InHand,
) -> bool {
    let InHand { accepted: (fd, peer, far), permit } = in_hand;
    let accepted = match sys::stream::lowest(&fd) {
        Ok(lower) if lower.as_raw_fd() < fd.as_raw_fd() => (lower, peer, far),
        _ => (fd, peer, far),
    };
    if is_held_back(map, token, &accepted) {
        keep_in_hand(map, token, dispatcher, InHand { accepted, permit });
        return false;
    }
    let turn = map.turn;
    if let Some(link) = map.link_mut(token) {
        link.moved(turn);
        link.forget_rests();
    }
    accepted::let_in(map, token, dispatcher, accepted, Some(permit));
    true
}

// Rests.

/// Somebody waits, and must wait on.
#[cold]
fn rest(map: &mut ChannelMap, token: Token, dispatcher: &mut dyn Dispatcher, full: Full) {
    map.counters.rests[full.limit() as usize] += 1;
    match full {
        // Nothing that ends makes it shorter.
        Full::Rate(_, wait) => backoff::suspend(map, token, wait),
        _ => backoff::rest(map, token),
    }
    let turn = map.turn;
    if let Some(link) = map.link_mut(token) {
        // It is suspended already.
        link.moved(turn);
    }
    tell(map, token, dispatcher, full, None);
}

// Refusals.

#[cold]
fn refuse(
    map: &mut ChannelMap,
    token: Token,
    dispatcher: &mut dyn Dispatcher,
    accepted: Accepted,
    full: Full,
) {
    map.counters.refusals[full.limit() as usize] += 1;
    let address = address_of(&accepted);
    // There is no time for words with one of the last descriptors.
    let is_short = is_held_back(map, token, &accepted);
    let (fd, peer, _) = accepted;
    let word = map.link(token).and_then(Link::accept_limits).and_then(|limits| limits.last_word());
    if let Some(word) = word.cloned().filter(|_| !is_short) {
        say_last_word(map, fd, peer, word);
    }
    tell(map, token, dispatcher, full, Some(address.unwrap_or(Address::Unnamed)));
}

struct Refused;

impl Dispatcher for Refused {}

/// Send the last word, and close in order. If there are many, the oldest give way.
fn say_last_word(map: &mut ChannelMap, fd: OwnedFd, peer: Peer, word: Arc<[u8]>) {
    let mut link = Link::new(Held::Plain(Plain(fd)), Kind::Stream, peer, None, false);
    link.rare().linger = LAST;
    link.rare().close_timeout = LAST;
    let Ok(refused) = map.insert_internal(link, Refused) else { return };
    // It fails if the word is longer than a queue may be: then it is left out.
    let _ = map.put(refused, Pushed::Shared(word), true);
    map.begin_close(refused, Reason::Closed);
    map.refused.push_back(refused);
    if map.refused.len() > REFUSED {
        let oldest = map.refused.pop_front();
        if let Some(link) = oldest.and_then(|oldest| map.touch_link(oldest)) {
            link.end(Reason::Closed);
        }
    }
}

// What is told.

/// A limit holds somebody up: say so to the hook, and once to the log.
fn tell(
    map: &mut ChannelMap,
    token: Token,
    dispatcher: &mut dyn Dispatcher,
    full: Full,
    refused: Option<Address>,
) {
    let refuses = refused.is_some();
    let Some(admission) = map.link_mut(token).and_then(Link::admission) else { return };
    let is_only_one = !admission.holds_any();
    if admission.holds(&full, refuses) {
        if is_only_one {
            map.set_timer(Some(token), LATELY, Action::Limits(token));
        }
        let (level, outcome) = match refuses {
            true => (Level::Warn, "connections are refused"),
            false => (Level::Info, "connections wait"),
        };
        map.report_at(level, token, "limit", &format_args!("{outcome} at {full}"));
    }
    accepted::tell_error(map, token, dispatcher, &AcceptLimitError::error(full, refused));
}

/// Look which limits have held nobody up lately, and say so to the log.
pub(crate) fn look_what_is_over(map: &mut ChannelMap, token: Token) {
    let Some(admission) = map.link_mut(token).and_then(Link::admission) else { return };
    let over = admission.take_over();
    if admission.holds_any() {
        map.set_timer(Some(token), LATELY, Action::Limits(token));
    }
    for Holding { full, refused, .. } in over {
        let why = match refused {
            0 => format!("nobody waits any more at {full}"),
            _ => format!("nobody is refused any more at {full}; {refused} were"),
        };
        map.report_at(Level::Info, token, "limit", &why);
    }
}
