//! Channels that are suspended, and resumed after a pause that grows: those that are ready turn after turn
//! without progress, and those for which there is no descriptor or memory.

use std::cmp::Reverse;
use std::io;
use std::time::Duration;

use crate::core::action::Action;
use crate::core::map::ChannelMap;
use crate::link::rare::Rest;
use crate::link::state::Link;
use crate::sys;
use crate::sys::poll::Ready;
use crate::token::Token;

/// Turns in a row in which a channel may be ready without progress.
const IDLE_TURNS: u8 = 64;
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The first pause of a channel for which the system has no descriptor or memory.
const FIRST_SHORTAGE: Duration = Duration::from_millis(100);

/// An event of the channel has been served: suspend the channel if it was the last of too many without
/// progress.
pub(crate) fn guard(map: &mut ChannelMap, token: Token, ready: Ready) {
    let turn = map.turn;
    let Some(link) = map.link_mut(token) else { return };
    if !link.has_moved() && ready.read && has_taken_in(link) {
        link.moved(turn);
    }
    if link.has_moved() {
        return link.was_busy();
    }
    let is_told_of = link.fd().is_some() && link.interest() != link.registered();
    if link.is_over() || link.connect_is_in_progress() || is_told_of {
        return;
    }
    if !link.was_idle(IDLE_TURNS) {
        return;
    }
    let before = link.count_rest();
    let pause = (FIRST_PAUSE * (1 << before.min(7))).min(LONGEST_PAUSE);
    // A `writable` that is always true, as Python's, must not suspend input.
    let only_room = link.writes() && !(ready.read || ready.urgent || ready.hup || ready.err);
    if before == 0 && link.is_first_rest() {
        let why = format_args!(
            "ready for {IDLE_TURNS} turns, but its hooks made no progress; it is tried again after a pause"
        );
        map.report(token, "suspended", &why);
    }
    match only_room {
        true => suspend_write(map, token, pause),
        false => suspend(map, token, pause),
    }
}

/// Whether a source has read all that its socket had, perhaps a part of a record, and has nothing to give
/// yet. One that is stuck leaves the socket readable, or claims to have input.
fn has_taken_in(link: &Link) -> bool {
    let has_own = link.has_own_source() && !link.has_input_inside();
    has_own && link.fd().is_none_or(|fd| !sys::is_readable(fd))
}

/// Suspend the channel for `delay`: at first its input, the next time its output, too.
pub(crate) fn suspend(map: &mut ChannelMap, token: Token, delay: Duration) {
    let timer = map.set_timer(Some(token), delay, Action::Resume(token));
    let Some(link) = map.link_mut(token) else { return };
    let before = link.rest();
    link.set_rest(match before {
        Rest::No | Rest::Output(_) | Rest::HungUp if !link.is_listening() => Rest::Input(timer),
        _ => Rest::All(timer),
    });
    forget_timer(map, before);
    map.touch(token);
}

/// There is no descriptor for what the listener would accept, or no memory to watch the channel: suspend it
/// until a channel ends, or for a pause that grows.
#[cold]
pub(crate) fn starve(map: &mut ChannelMap, token: Token, what: &str, error: &io::Error) {
    let Some(pause) = map.link(token).map(next_pause) else { return };
    let why = format_args!(
        "{error}; it is tried again when a channel ends, or after {pause:?} (raise `ulimit -n`, or serve fewer)"
    );
    map.report(token, what, &why);
    rest(map, token);
}

/// Suspend a channel until one ends, or for a pause that grows.
pub(crate) fn rest(map: &mut ChannelMap, token: Token) {
    let Some(link) = map.link_mut(token) else { return };
    let pause = next_pause(link);
    link.count_rest();
    // What was done before does not resume it.
    link.begin_event();
    let before = link.rest();
    forget_timer(map, before);
    let timer = map.set_timer(Some(token), pause, Action::Resume(token));
    if let Some(link) = map.link_mut(token) {
        link.set_rest(Rest::All(timer));
    }
    if !map.starved.contains(&token) {
        map.starved.push(token);
    }
    map.touch(token);
}

fn next_pause(link: &Link) -> Duration {
    (FIRST_SHORTAGE * (1 << link.rests().min(4))).min(LONGEST_PAUSE)
}

/// Suspend its `handle_write` for `delay`.
fn suspend_write(map: &mut ChannelMap, token: Token, delay: Duration) {
    let timer = map.set_timer(Some(token), delay, Action::Resume(token));
    let Some(link) = map.link_mut(token) else { return };
    let before = link.rest();
    link.set_rest(Rest::Output(timer));
    forget_timer(map, before);
    map.touch(token);
}

fn forget_timer(map: &mut ChannelMap, rest: Rest) {
    if let Rest::Output(timer) | Rest::Input(timer) | Rest::All(timer) = rest {
        map.timers.cancel(timer);
    }
}

/// Whether there was progress on a suspended channel, or the user has changed it.
pub(crate) fn is_to_be_resumed(link: &Link) -> bool {
    let suspended = matches!(link.rest(), Rest::Output(_) | Rest::Input(_) | Rest::All(_));
    suspended && link.has_moved() && !link.is_listening()
}

/// Resume a suspended channel.
pub(crate) fn resume(map: &mut ChannelMap, token: Token) {
    let Some(link) = map.link_mut(token) else { return };
    let before = link.rest();
    if before != Rest::HungUp {
        link.set_rest(Rest::No);
    }
    if let Rest::Output(_) = before {
        link.tries_once(IDLE_TURNS);
    }
    forget_timer(map, before);
    map.touch(token);
}

/// A descriptor is free again: resume the channels that wait for one, those first that were in vain most
/// often. A listener that gets it begins to count anew, so listeners take turns.
pub(crate) fn wake_starved(map: &mut ChannelMap) {
    let mut starved = std::mem::take(&mut map.starved);
    starved.sort_by_key(|&token| Reverse(map.link(token).map_or(0, Link::rests)));
    for token in starved {
        resume(map, token);
    }
}
