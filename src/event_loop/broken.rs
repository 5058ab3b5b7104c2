//! Output that cannot be sent: for now, because the system is short of memory; or for good, while the peer's
//! input is still read.

use std::time::Duration;

use crate::core::action::Action;
use crate::core::map::ChannelMap;
use crate::link::state::Link;
use crate::reason::Reason;
use crate::token::Token;

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The settle has looked at the channel: set the timer that it needs, if any.
pub(crate) fn watch(map: &mut ChannelMap, token: Token) {
    let Some(link) = map.link_mut(token) else { return };
    if let Some(before) = link.begins_pause() {
        let pause = (FIRST_PAUSE * (1 << before.min(7))).min(LONGEST_PAUSE);
        if before == 0 {
            let why =
                "the system is short of buffers or memory; what is queued is offered again after a pause";
            map.report(token, "cannot send now", &why);
        }
        map.set_timer(Some(token), pause, Action::Resend(token));
    }
    if map.link(token).is_some_and(Link::needs_end_timer) {
        // The time counts from now, or from the last byte that comes.
        let now = map.clock.now();
        if let Some(link) = map.link_mut(token) {
            link.stamp(now);
        }
        wait_for_the_end(map, token);
    }
}

/// The pause of a shortage is over.
pub(crate) fn resend(map: &mut ChannelMap, token: Token) {
    if let Some(link) = map.link_mut(token) {
        link.ends_pause();
    }
    map.touch(token);
}

/// Nothing can be sent any more, and the peer's input is read to its end, unless nothing comes for the
/// close timeout.
fn wait_for_the_end(map: &mut ChannelMap, token: Token) {
    let now = map.clock.now();
    let Some(link) = map.link_mut(token) else { return };
    let last = if link.waits_for_its_turn_to_read() { now } else { link.active().unwrap_or(now) };
    let deadline = last.after(link.rare().close_timeout);
    if deadline <= now {
        link.end(Reason::Closed);
        map.touch(token);
        return;
    }
    let timer = map.set_timer(Some(token), deadline.since(now), Action::Broken(token));
    if let Some(link) = map.link_mut(token) {
        link.rare().end_timer = Some(timer);
    }
}

/// The end of a broken connection may be overdue.
pub(crate) fn overdue(map: &mut ChannelMap, token: Token) {
    let Some(link) = map.link_mut(token).filter(|link| link.is_broken() && !link.is_ending()) else { return };
    link.rare().end_timer = None;
    wait_for_the_end(map, token);
}
