//! Time: what is called later, by the map's one clock.

use std::time::Duration;

use crate::core::action::Action;
use crate::core::map::ChannelMap;
use crate::guard::drop_guarded;
use crate::timers::{TimerId, TimerKey};
use crate::token::Token;

impl ChannelMap {
    /// Call `f` in the next turn, after the channels that are ready. asyncio's `call_soon`.
    pub fn call_soon(&mut self, f: impl FnOnce(&mut ChannelMap) + 'static) -> TimerId {
        self.call_later(Duration::ZERO, f)
    }

    /// Call `f` after `delay`, by a clock that never jumps; not earlier, and later by what the
    /// hooks before it take. Equal times run in the order they were set. A `delay` too long for
    /// the clock is as long as it can be. A panic is caught and logged.
    pub fn call_later(&mut self, delay: Duration, f: impl FnOnce(&mut ChannelMap) + 'static) -> TimerId {
        let key = self.set_timer(None, delay, Action::Call(Box::new(f)));
        self.timer_id(key)
    }

    /// Call `f` every `interval`, for the first time after one. When it is late, it runs once for
    /// all that it missed, and goes on in the old rhythm. An `interval` of zero is every turn, and
    /// keeps the loop from sleeping.
    pub fn call_every(&mut self, interval: Duration, f: impl FnMut(&mut ChannelMap) + 'static) -> TimerId {
        let key = self.set_timer(None, interval, Action::CallEvery(interval, Box::new(f)));
        self.timer_id(key)
    }

    /// Cancel a timer, also from within itself; `false` if there is no such timer any more.
    pub fn cancel(&mut self, timer: TimerId) -> bool {
        if timer.map != self.id {
            return false;
        }
        match self.timers.cancel(timer.key) {
            Some(action) => {
                drop_guarded(&mut self.throttle, "a timer", action);
                true
            }
            None => false,
        }
    }

    /// Set a timer, which dies with its `owner` if it has one.
    pub(crate) fn set_timer(&mut self, owner: Option<Token>, delay: Duration, action: Action) -> TimerKey {
        let now = self.clock.now();
        // The turn's time is kept up from here on: there is a timer.
        self.turn.time = now;
        self.timers.set(now.after(delay), owner.map(|token| token.slot), action)
    }

    /// Code that runs outside the hooks may come long after the last turn, and what is sent for it is
    /// stamped with the turn's time.
    #[inline]
    pub(crate) fn keep_time(&mut self) {
        if !self.timers.is_empty() && self.out == 0 && self.gather.is_free() {
            self.turn.time = self.clock.now();
        }
    }

    pub(crate) fn timer_id(&self, key: TimerKey) -> TimerId {
        TimerId { map: self.id, key }
    }

    /// Begin to watch whether the channel is idle for as long as it may be.
    pub(crate) fn start_idle_timer(&mut self, token: Token) {
        let now = self.clock.now();
        let Some(link) = self.link_mut(token) else { return };
        let idle_for = link.active().map_or(Duration::ZERO, |active| now.since(active));
        let Some(timeout) = link.rare_if_any().and_then(|rare| rare.timeout) else { return };
        let timer = self.set_timer(Some(token), timeout.saturating_sub(idle_for), Action::Idle(token));
        if let Some(link) = self.link_mut(token) {
            link.rare().idle_timer = Some(timer);
        }
    }
}
