//! The time limits of output: when the time without progress may be over, look whether there was some.

use std::time::Duration;

use crate::clock::Time;
use crate::core::action::Action;
use crate::core::map::ChannelMap;
use crate::event_loop::closing::LOOKS;
use crate::event_loop::{drive, output};
use crate::reason::Reason;
use crate::sys::poll::Ready;
use crate::timers::TimerKey;
use crate::token::Token;

/// When to look again: at the end of the time since the `last` progress, or sooner.
pub(crate) fn look_again(last: Time, timeout: Duration, now: Time) -> Time {
    last.after(timeout).min(now.after(timeout / LOOKS))
}

/// A closing channel's time without progress may be over.
pub(crate) fn closing(map: &mut ChannelMap, token: Token, key: TimerKey, now: Time) {
    let last = match map.link(token) {
        Some(link) if link.is_flushing() => last_left(map, token, now),
        _ => None,
    };
    let Some((link, last)) = map.link_mut(token).filter(|link| link.is_flushing()).zip(last) else {
        return map.timers.release(key);
    };
    let timeout = link.rare().close_timeout;
    let last = if link.waits_for_its_turn_to_send() { now } else { last };
    if last.after(timeout) > now {
        let _ = map.timers.put_back(key, look_again(last, timeout, now), Action::Flush(token));
        return;
    }
    link.end_by_reset(Reason::TimedOut);
    map.timers.release(key);
    map.touch(token);
}

/// A lingering channel's time may be over.
pub(crate) fn lingering(map: &mut ChannelMap, token: Token, key: TimerKey, now: Time) {
    let Some(link) = map.link_mut(token).filter(|link| link.is_lingering()) else {
        return map.timers.release(key);
    };
    if let Some(next) = link.lingers_until(now) {
        let _ = map.timers.put_back(key, next, Action::Linger(token));
        return;
    }
    link.end_of_ending();
    map.timers.release(key);
    map.touch(token);
}

/// Offer what is queued again, and ask the system what it still holds: when did a byte last leave?
pub(crate) fn last_left(map: &mut ChannelMap, token: Token, now: Time) -> Option<Time> {
    let link = map.link_mut(token)?;
    if link.has_unsent() {
        let room = Ready { write: true, ..Ready::default() };
        let lives = !link.has_own_source() || drive::drive(map, token, room);
        if let Some(link) = map.link_mut(token).filter(|_| lives) {
            link.unblock();
            output::flush(map, token);
        }
        map.touch(token);
    }
    Some(map.link_mut(token)?.ask_what_is_held(now).last)
}
