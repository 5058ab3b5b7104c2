//! Timers of the map: calling something later, by the map's clock.

use std::time::Duration;

use crate::core::action::Action;
use crate::core::map::ChannelMap;
use crate::guard::drop_guarded;
use crate::timers::{TimerId, TimerKey};
use crate::token::Token;

impl ChannelMap {
    /// Call `f` in the next turn, after the ready channels were served. asyncio's `call_soon`.
    pub fn call_soon(&mut self, f: impl FnOnce(&mut ChannelMap) + 'static) -> TimerId {
        self.call_later(Duration::ZERO, f)
    }

    /// Call `f` after `delay`, measured by a monotonic clock: never earlier, and later if other hooks
    /// take long. Timers for the same time run in the order in which they were set. A `delay` beyond
    /// the range of the clock is shortened to it. A panic is caught and logged.
    pub fn call_later(&mut self, delay: Duration, f: impl FnOnce(&mut ChannelMap) + 'static) -> TimerId {
        let key = self.set_timer(None, delay, Action::Call(Box::new(f)));
        self.timer_id(key)
    }

    /// Call `f` every `interval`, the first time after one `interval`. A late call runs once for all
    /// that were missed, and the rhythm stays. With an `interval` of zero it runs every turn, and the
    /// loop never sleeps.
    pub fn call_every(&mut self, interval: Duration, f: impl FnMut(&mut ChannelMap) + 'static) -> TimerId {
        let key = self.set_timer(None, interval, Action::CallEvery(interval, Box::new(f)));
        self.timer_id(key)
    }

    /// Cancel a timer, even from within itself; `false` if it has run or was cancelled already.
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

    /// Set a timer, which is cancelled when its `owner`, if any, ends.
    pub(crate) fn set_timer(&mut self, owner: Option<Token>, delay: Duration, action: Action) -> TimerKey {
        let now = self.clock.now();
        // The turn's time is updated only while there are timers; from here on there is one.
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

    /// Start the timer of `set_timeout`.
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
