//! Timers of a map and of a channel: calling something later, by the map's clock.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::chance;
use crate::core::action::Action;
use crate::core::channel::Channel;
use crate::core::dispatcher::Dispatcher;
use crate::core::map::ChannelMap;
use crate::guard::drop_guarded;
use crate::reason::Reason;
use crate::timers::{TimerId, TimerKey};
use crate::token::Token;

impl ChannelMap {
    /// The time by the map's clock, which never jumps: `Instant::now()`, or in a map for testing the time of the
    /// test. A dispatcher that measures time by it can be tested without waiting. asyncio's `loop.time()`.
    ///
    /// ```
    /// use dispatch_loop::ChannelMap;
    ///
    /// let map = ChannelMap::new()?;
    /// let begun = map.now();
    /// assert!(map.now() >= begun);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn now(&self) -> Instant {
        self.clock.now().instant()
    }

    /// A random number, for jitter; not for secrets. In a map for testing it follows from the seed.
    ///
    /// ```
    /// use dispatch_loop::ChannelMap;
    /// use std::time::Duration;
    ///
    /// let mut map = ChannelMap::new()?;
    /// let jitter = Duration::from_millis(map.random() % 100);
    /// map.call_later(Duration::from_millis(900) + jitter, |map| println!("{} channels", map.len()));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn random(&self) -> u64 {
        chance::random()
    }

    /// Call `f` in the next turn, after the ready channels were served. asyncio's `call_soon`.
    pub fn call_soon(&mut self, f: impl FnOnce(&mut ChannelMap) + 'static) -> TimerId {
        self.wait_for_next_turn();
        self.call_later(Duration::ZERO, f)
    }

    /// Timers that are set from here on do not run in this turn.
    pub(crate) fn wait_for_next_turn(&mut self) {
        if self.soon.0 != self.turn.number {
            self.soon = (self.turn.number, self.timers.last_order());
        }
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
        let key = self.set_timer(None, interval, Action::CallEvery(interval, Rc::new(RefCell::new(f))));
        self.timer_id(key)
    }

    /// Put a timer in the background, or take it back: while it is there it does not keep
    /// [`run`](crate::run) going, as [`set_background`](Channel::set_background) does for a channel. For
    /// housekeeping. `false` if the timer has run or was cancelled. A timer is not in the background at
    /// first.
    ///
    /// ```
    /// use dispatch_loop::ChannelMap;
    /// use std::time::Duration;
    ///
    /// let mut map = ChannelMap::new()?;
    /// let sweep = map.call_every(Duration::from_secs(60), |map| println!("{} channels", map.len()));
    /// map.set_timer_background(sweep, true);
    /// dispatch_loop::run(&mut map)?;                  // there is nothing else to do
    /// # std::io::Result::Ok(())
    /// ```
    pub fn set_timer_background(&mut self, timer: TimerId, on: bool) -> bool {
        timer.map == self.id && self.timers.set_background(timer.key, on)
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

    /// How long it is until a timer is due; `None` if it has run or was cancelled. For one that repeats, its next
    /// time. Python's `TimerHandle.when`, which gives the time itself.
    ///
    /// ```
    /// use dispatch_loop::ChannelMap;
    /// use std::time::Duration;
    ///
    /// let mut map = ChannelMap::new()?;
    /// let timer = map.call_later(Duration::from_secs(60), |_| println!("a minute has passed"));
    /// assert!(map.due_in(timer).is_some_and(|left| left <= Duration::from_secs(60)));
    /// assert!(map.set_due_in(timer, Duration::from_secs(120)));
    /// assert!(map.due_in(timer).is_some_and(|left| left > Duration::from_secs(60)));
    /// map.cancel(timer);
    /// assert_eq!(map.due_in(timer), None);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn due_in(&self, timer: TimerId) -> Option<Duration> {
        let deadline = self.timers.deadline(timer.key).filter(|_| timer.map == self.id)?;
        Some(deadline.since(self.clock.now()))
    }

    /// Have a timer run `delay` from now instead of when it would; one that repeats goes on from there. Cheaper than
    /// cancelling it and setting another one. `false` if it has run or was cancelled.
    pub fn set_due_in(&mut self, timer: TimerId, delay: Duration) -> bool {
        let deadline = self.clock.now().after(delay);
        timer.map == self.id && self.timers.move_to(timer.key, deadline)
    }

    /// Set a timer, which is cancelled when its `owner`, if any, ends.
    pub(crate) fn set_timer(&mut self, owner: Option<Token>, delay: Duration, action: Action) -> TimerKey {
        let now = self.clock.now();
        // The turn's time is updated only while there are timers; from here on there is one.
        self.turn.time = now;
        if self.timers.is_empty() {
            self.ages.first_timer(self.turn.number);
        }
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

impl Channel<'_> {
    /// Call `handle_timeout` when no byte was received or sent for `timeout`; while connecting, when
    /// that has taken `timeout` since [`connect`](ChannelMap::connect). `None`, the default: never.
    ///
    /// While the system still holds bytes for a peer that reads slowly, each that leaves counts. If none
    /// does, this is known only after one more `timeout`.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        let token = self.token;
        self.touch();
        let now = self.map.clock.now();
        let Some(link) = self.map.link_mut(token).filter(|link| !link.is_told()) else { return };
        // Of a channel that is closing, this must not look like progress.
        if !link.is_connecting() && !link.is_ending() {
            link.stamp(now);
        }
        link.rare().timeout = timeout;
        if let Some(timer) = link.rare().idle_timer.take() {
            self.map.timers.cancel(timer);
        }
        if timeout.is_some() {
            self.map.start_idle_timer(token);
        }
    }

    /// What the default of [`handle_timeout`](crate::Dispatcher::handle_timeout) does: end the channel with
    /// [`Reason::TimedOut`]. If something was queued, the connection is reset; what the running hook has
    /// pushed is offered to it before.
    pub fn time_out(&mut self) {
        self.map.send_gathered(self.token);
        self.change(|link| link.end(Reason::TimedOut));
    }

    /// Call `f` after `delay`, unless the channel has ended by then. A channel can have any number of
    /// timers. An `Err` goes to `handle_error`; a panic ends the channel.
    pub fn call_later<F>(&mut self, delay: Duration, f: F) -> TimerId
    where
        F: FnOnce(&mut Channel<'_>) -> io::Result<()> + 'static,
    {
        self.set_timer(delay, Action::Channel(self.token, Box::new(f)))
    }

    /// Call `f` every `interval`, the first time after one `interval`; see [`ChannelMap::call_every`].
    pub fn call_every<F>(&mut self, interval: Duration, f: F) -> TimerId
    where
        F: FnMut(&mut Channel<'_>) -> io::Result<()> + 'static,
    {
        self.set_timer(interval, Action::ChannelEvery(self.token, interval, Rc::new(RefCell::new(f))))
    }

    /// As [`call_later`](Channel::call_later), and `f` is given the channel's dispatcher, too. If that is no `D` by
    /// then, because it was [replaced](Channel::replace_dispatcher), that is logged, and `f` is dropped.
    ///
    /// ```
    /// use dispatch_loop::{Channel, Dispatcher};
    /// use std::io;
    /// use std::time::Duration;
    ///
    /// struct Patient {
    ///     lines: u32,
    /// }
    ///
    /// impl Dispatcher for Patient {
    ///     fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
    ///         ch.call_later_with(Duration::from_secs(60), |me: &mut Patient, ch| {
    ///             let answer = format!("{} lines in the first minute\n", me.lines);
    ///             ch.push(answer.as_bytes())
    ///         });
    ///         Ok(())
    ///     }
    /// }
    /// ```
    pub fn call_later_with<D, F>(&mut self, delay: Duration, f: F) -> TimerId
    where
        D: Dispatcher,
        F: FnOnce(&mut D, &mut Channel<'_>) -> io::Result<()> + 'static,
    {
        let own = self.token.typed();
        self.call_later(delay, move |ch| ch.map.with(own, f))
    }

    /// As [`call_every`](Channel::call_every), and `f` is given the channel's dispatcher, too.
    pub fn call_every_with<D, F>(&mut self, interval: Duration, mut f: F) -> TimerId
    where
        D: Dispatcher,
        F: FnMut(&mut D, &mut Channel<'_>) -> io::Result<()> + 'static,
    {
        let own = self.token.typed();
        self.call_every(interval, move |ch| ch.map.with(own, &mut f))
    }

    fn set_timer(&mut self, delay: Duration, action: Action) -> TimerId {
        let key = match self.link() {
            Some(link) if !link.is_told() => self.map.set_timer(Some(self.token), delay, action),
            // The channel is gone, and its timers with it.
            _ => TimerKey::NONE,
        };
        self.map.timer_id(key)
    }

    /// Cancel a timer; `false` if it has run or was cancelled already.
    pub fn cancel(&mut self, timer: TimerId) -> bool {
        self.map.cancel(timer)
    }
}
