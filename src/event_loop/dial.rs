//! Connecting to a name: its addresses are tried as RFC 8305 ("happy eyeballs") says, as one channel with
//! one outcome. Each attempt is an internal channel; the first that connects passes its socket to the
//! user's channel, and the others are closed.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use crate::core::action::Action;
use crate::core::channel::Channel;
use crate::core::dispatcher::{Dispatcher, OnError};
use crate::core::map::ChannelMap;
use crate::error::clone_error;
use crate::link::dial::Dial;
use crate::link::held::Held;
use crate::link::source::Plain;
use crate::link::state::{Connecting, Link};
use crate::net::address::Address;
use crate::reason::Reason;
use crate::sys;
use crate::token::Token;

/// RFC 8305's Connection Attempt Delay.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

pub(crate) fn dial_of(map: &mut ChannelMap, token: Token) -> Option<&mut Dial> {
    map.link_mut(token)?.dial()
}

pub(crate) fn resolved(map: &mut ChannelMap, token: Token, found: io::Result<Vec<SocketAddr>>) {
    let Some(dial) = dial_of(map, token) else { return };
    match found {
        Ok(found) => {
            dial.left = interleaved(found, dial.options.local.as_ref());
            if dial.left.is_empty() {
                let why = format!("cannot connect to {}: no address of the local one's family", dial.name);
                return fail(map, token, io::Error::new(ErrorKind::AddrNotAvailable, why));
            }
            try_next(map, token);
        }
        Err(error) => {
            let why = format!("cannot look up {}: {error}", dial.name);
            fail(map, token, io::Error::new(error.kind(), why));
        }
    }
}

/// Alternates the families, beginning with that of the first address; each address once.
fn interleaved(found: Vec<SocketAddr>, local: Option<&Address>) -> VecDeque<SocketAddr> {
    let local = local.and_then(Address::ip);
    let mut unique = Vec::new();
    for address in found {
        let reachable = local.is_none_or(|local| local.is_ipv4() == address.is_ipv4());
        if reachable && !unique.contains(&address) {
            unique.push(address);
        }
    }
    let first_is_v4 = unique.first().is_some_and(SocketAddr::is_ipv4);
    let (first, second): (Vec<_>, Vec<_>) =
        unique.into_iter().partition(|address| address.is_ipv4() == first_is_v4);
    let mut second = second.into_iter();
    let mut order = VecDeque::new();
    for address in first {
        order.push_back(address);
        order.extend(second.next());
    }
    order.extend(second);
    order
}

/// Begin attempts until one is in progress, or none is left.
fn try_next(map: &mut ChannelMap, token: Token) {
    loop {
        let Some(dial) = dial_of(map, token) else { return };
        let attempt_delay = dial.attempt_delay.take();
        let Some(address) = dial.left.pop_front() else { break };
        let begun = sys::stream::connect(&Address::Ip(address), &dial.options);
        let more = !dial.left.is_empty();
        if let Some(attempt_delay) = attempt_delay {
            map.timers.cancel(attempt_delay);
        }
        let child = match begun {
            Ok((fd, _, begun)) => {
                let attempt = Attempt { parent: token, address };
                let mut child = Link::connecting(Some(Held::Plain(Plain(fd))), Connecting::InProgress);
                child.set_peer(Some(Address::Ip(address)));
                child.connect_began(begun);
                map.insert_internal(child, attempt)
            }
            Err(error) => Err(error),
        };
        let child = match child {
            Ok(child) => child,
            Err(error) => {
                if let Some(dial) = dial_of(map, token) {
                    dial.failures.push((address, error));
                }
                continue;
            }
        };
        let attempt_delay = more.then(|| map.set_timer(Some(token), ATTEMPT_DELAY, Action::DialNext(token)));
        if let Some(dial) = dial_of(map, token) {
            dial.attempts.push((child, address));
            dial.attempt_delay = attempt_delay;
        }
        return;
    }
    let Some(dial) = dial_of(map, token) else { return };
    if dial.attempts.is_empty() {
        let error = dial.error(None);
        fail(map, token, error);
    }
}

/// The previous attempt's head start is over.
pub(crate) fn attempt_delay_over(map: &mut ChannelMap, token: Token) {
    if let Some(dial) = dial_of(map, token) {
        dial.attempt_delay = None;
        try_next(map, token);
    }
}

pub(crate) fn timed_out(map: &mut ChannelMap, token: Token) {
    if let Some(dial) = dial_of(map, token) {
        let error = dial.error(Some(ErrorKind::TimedOut));
        fail(map, token, error);
    }
}

fn fail(map: &mut ChannelMap, token: Token, error: io::Error) {
    call_off(map, token);
    if let Some(link) = map.link_mut(token) {
        link.connect_is(Connecting::Failed(error));
    }
    map.touch(token);
}

/// End the attempts that are under way.
pub(crate) fn call_off(map: &mut ChannelMap, token: Token) {
    let Some(dial) = map.link_mut(token).and_then(|link| link.take_dial()) else { return };
    for timer in [dial.attempt_delay, dial.deadline].into_iter().flatten() {
        map.timers.cancel(timer);
    }
    for &(attempt, _) in &dial.attempts {
        if let Some(link) = map.link_mut(attempt) {
            link.end(Reason::Aborted);
        }
        map.touch(attempt);
    }
}

/// The dispatcher of one attempt.
pub(crate) struct Attempt {
    parent: Token,
    address: SocketAddr,
}

impl Dispatcher for Attempt {
    fn handle_connect(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        let token = ch.token();
        won(ch.map_mut(), self.parent, token, self.address);
        Ok(())
    }

    fn handle_error(&mut self, ch: &mut Channel<'_>, error: &io::Error) -> OnError {
        let token = ch.token();
        lost(ch.map_mut(), self.parent, token, self.address, error);
        OnError::End
    }

    /// The attempt ended in another way: the poller rejected its socket.
    fn handle_close(&mut self, ch: &mut Channel<'_>, reason: &Reason) {
        let Reason::Error(error) = reason else { return };
        let token = ch.token();
        let is_under_way = |dial: &mut Dial| dial.attempts.iter().any(|(attempt, _)| *attempt == token);
        if dial_of(ch.map_mut(), self.parent).is_some_and(is_under_way) {
            lost(ch.map_mut(), self.parent, token, self.address, error);
        }
    }
}

fn won(map: &mut ChannelMap, parent: Token, attempt: Token, address: SocketAddr) {
    let Some(child) = map.slots.get_mut(attempt).map(|seat| &mut seat.link) else { return };
    if let Some(error) = child.lost_error().map(clone_error) {
        // Connected, but broken since.
        child.end(Reason::Aborted);
        return lost(map, parent, attempt, address, &error);
    }
    let source = child.take_source();
    if let (Some(fd), Some(_)) = (source.as_ref().and_then(Held::descriptor), child.registered()) {
        let _ = map.poll.delete(fd);
    }
    child.set_registered(None);
    child.end(Reason::Detached);
    if dial_of(map, parent).is_none() {
        return;
    }
    call_off(map, parent);
    if let Some(link) = map.link_mut(parent) {
        link.set_source(source);
        link.set_peer(Some(Address::Ip(address)));
        link.connect_is(Connecting::Done);
    }
    map.touch(parent);
}

fn lost(map: &mut ChannelMap, parent: Token, attempt: Token, address: SocketAddr, error: &io::Error) {
    let Some(dial) = dial_of(map, parent) else { return };
    dial.attempts.retain(|(token, _)| *token != attempt);
    dial.failures.push((address, clone_error(error)));
    try_next(map, parent);
}
