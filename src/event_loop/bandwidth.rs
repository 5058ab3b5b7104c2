//! Channels that wait for their bandwidth: the timers that end that.

use crate::clock::Time;
use crate::core::action::Action;
use crate::core::map::ChannelMap;
use crate::token::Token;

/// The settle has looked at the channel: set the timers for what begins to wait.
pub(crate) fn watch(map: &mut ChannelMap, token: Token) {
    let Some(link) = map.link_mut(token) else { return };
    for until in link.begin_to_wait().into_iter().flatten() {
        let now = map.clock.now();
        map.set_timer(Some(token), until.since(now), Action::Bandwidth(token));
    }
}

/// What has waited may go on.
pub(crate) fn resume(map: &mut ChannelMap, token: Token, now: Time) {
    if let Some(link) = map.link_mut(token) {
        link.end_to_wait(now);
    }
    map.touch(token);
}
