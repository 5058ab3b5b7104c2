//! Handshakes of users' sources: how long one may take, and how many go on in a turn.

use std::io;
use std::time::Duration;

use crate::core::action::Action;
use crate::core::channel::Channel;
use crate::core::map::ChannelMap;
use crate::token::Token;

/// The most channels that go on with their handshakes in one turn. A step may cost a millisecond, which the
/// others wait for.
const STEPS: u32 = 16;

/// Whether one more may go on in this turn.
pub(crate) fn has_its_turn(map: &mut ChannelMap) -> bool {
    if map.handshakes.0 != map.turn.number {
        map.handshakes = (map.turn.number, 0);
    }
    map.handshakes.1 += 1;
    map.handshakes.1 <= STEPS
}

/// It goes on in the next turn: its socket is ready then, too, and what has input inside stays in the list.
#[cold]
pub(crate) fn put_off(map: &mut ChannelMap, token: Token) {
    if map.link(token).is_some_and(|link| link.is_pending()) {
        map.pending.push(token);
    }
}

/// The settle has looked at a channel with a source: set the timer of a handshake, if one has begun.
pub(crate) fn watch(map: &mut ChannelMap, token: Token) {
    let Some(link) = map.link_mut(token) else { return };
    if !link.shakes_hands() || link.is_ending() || link.rare().handshake_timer.is_some() {
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
    if link.shakes_hands() && !link.is_ending() {
        let why = format!("{} was not done after {:?}", link.handshake_name(), link.handshake_timeout());
        link.wrap_failed(io::Error::new(io::ErrorKind::TimedOut, why));
        map.touch(token);
    }
}

impl Channel<'_> {
    /// How long a handshake of the channel's [`Source`](crate::Source) may take (default 10 s), from when that is
    /// in place: then it has failed with `TimedOut`. (While closing, the
    /// [close timeout](Channel::set_close_timeout) counts.)
    pub fn set_handshake_timeout(&mut self, timeout: Duration) {
        self.change(|link| link.rare().handshake_timeout = timeout);
        let timer = self.link_mut().ok().and_then(|link| link.rare().handshake_timer.take());
        // The settle begins another, if it is still needed.
        timer.map(|timer| self.map_mut().timers.cancel(timer));
    }
}
