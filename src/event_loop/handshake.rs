//! Handshakes of users' sources: how long one may take, and how many go on in a turn.

use std::io;
use std::time::Duration;

use crate::core::action::Action;
use crate::core::channel::Channel;
use crate::core::map::ChannelMap;
use crate::link::state::Link;
use crate::reason::Reason;
use crate::token::Token;

/// The most channels that go on with their handshakes in one turn. A step may cost a millisecond, which the
/// others wait for.
const STEPS: u32 = 16;

/// Whether the channel is in a handshake that is to go on in the next turn.
pub(crate) fn has_to_wait(map: &mut ChannelMap, token: Token) -> bool {
    if !map.link(token).is_some_and(Link::shakes_hands) {
        return false;
    }
    if map.handshakes.0 != map.turn.number {
        map.handshakes = (map.turn.number, 0);
    }
    map.handshakes.1 += 1;
    map.handshakes.1 > STEPS
}

/// The settle has looked at a channel with a source: set the timer of a handshake that has begun, and end that of
/// one that is done.
pub(crate) fn watch(map: &mut ChannelMap, token: Token) {
    let Some(link) = map.link_mut(token) else { return };
    if !link.shakes_hands() {
        let timer = link.rare_mut_if_any().and_then(|rare| rare.handshake_timer.take());
        timer.map(|timer| map.timers.cancel(timer));
        return;
    }
    if link.rare().handshake_timer.is_some() {
        return;
    }
    let timeout = link.handshake_timeout();
    let timer = map.set_timer(Some(token), timeout, Action::Handshake(token));
    if let Some(link) = map.link_mut(token) {
        link.rare().handshake_timer = Some(timer);
    }
}

/// The time of a handshake is over, unless that is done.
pub(crate) fn overdue(map: &mut ChannelMap, token: Token) {
    let Some(link) = map.link_mut(token) else { return };
    link.rare().handshake_timer = None;
    if !link.shakes_hands() {
        return;
    }
    match link.is_ending() {
        true => link.end(Reason::TimedOut),
        false => {
            let why = format!("{} was not done after {:?}", link.handshake_name(), link.handshake_timeout());
            link.wrap_failed(io::Error::new(io::ErrorKind::TimedOut, why));
        }
    }
    map.touch(token);
}

impl Channel<'_> {
    /// How long a handshake of the channel's [`Source`](crate::Source) may take (default 10 s), from when that is
    /// in place: then it has failed with `TimedOut`. While closing, the
    /// [close timeout](Channel::set_close_timeout) may be over earlier.
    pub fn set_handshake_timeout(&mut self, timeout: Duration) {
        self.change(|link| link.rare().handshake_timeout = timeout);
        let timer = self.link_mut().ok().and_then(|link| link.rare().handshake_timer.take());
        // The settle begins another, if it is still needed.
        timer.map(|timer| self.map_mut().timers.cancel(timer));
    }
}
