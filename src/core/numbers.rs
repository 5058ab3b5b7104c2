//! The numbers of a map, and what its loop does for readers of them.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::ages::UNIT;
use crate::core::channel::Channel;
use crate::core::map::ChannelMap;
use crate::link::state::Role;
use crate::numbers::Numbers;
use crate::threads::queue::Queue;
use crate::threads::readers::{Readers, Reading};
use crate::threads::watcher::Watcher;
use crate::token::Token;

impl ChannelMap {
    /// What the loop has done, and what the map holds. Takes O(channels).
    pub fn numbers(&self) -> Numbers {
        let mut numbers = self.counters.snapshot(Instant::now(), self.pulse.turns());
        let links = self.slots.tokens().filter_map(|token| self.link(token));
        for link in links.filter(|link| link.role() != Role::Internal) {
            link.add_to(&mut numbers);
        }
        numbers.timers = self.timers.len();
        numbers.messages = self.queue.as_ref().map_or(0, Queue::len);
        if let Some(pool) = &self.work {
            (numbers.blocking_waiting, numbers.blocking_running) = pool.counts();
        }
        numbers.slow = self.pulse.slow();
        numbers
    }

    /// Warn, through `log`, of each hook, timer, remote call and signal's callback that runs longer than
    /// `threshold`, while it runs: with its name and its channel, and how long it took when it has ended. Also
    /// of a turn that takes longer though no hook does, for example with thousands of hooks. `None`, the
    /// default: never. At least 2 ms; 100 ms is a good value for a server. asyncio's `slow_callback_duration`,
    /// which tells only afterwards.
    ///
    /// A thread looks every half `threshold` at what the loop is at, so what is slow is found when it has taken
    /// one to one and a half times that. The loop itself does nothing for it, and reads no clock. The thread
    /// ends with the map.
    ///
    /// ```
    /// use dispatch_loop::ChannelMap;
    /// use std::thread;
    /// use std::time::Duration;
    ///
    /// let mut map = ChannelMap::new()?;
    /// map.watch_slow_hooks(Some(Duration::from_millis(100)))?;
    /// map.call_soon(|_| thread::sleep(Duration::from_millis(200)));    // a warning: a timer …
    /// dispatch_loop::run(&mut map)?;
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn watch_slow_hooks(&mut self, threshold: Option<Duration>) -> io::Result<()> {
        self.watcher = None;
        self.watcher =
            threshold.map(|threshold| Watcher::start(self.pulse.clone(), threshold)).transpose()?;
        Ok(())
    }

    pub(crate) fn open_readers(&mut self) -> &Arc<Readers> {
        if !self.is_timed() {
            self.pulse.see(self.clock.now().instant());
        }
        let readers = self.open_quiet_readers();
        readers.begin_timing();
        readers
    }

    /// Whether turns are timed.
    #[inline(always)]
    pub(crate) fn is_timed(&self) -> bool {
        self.reading.as_ref().is_some_and(|reading| reading.readers.is_timed())
    }

    /// For somebody who may never read: then turns are not timed.
    pub(crate) fn open_quiet_readers(&mut self) -> &Arc<Readers> {
        let (numbers, pulse) = (self.numbers(), self.pulse.clone());
        let waker = self.poll.waker();
        let new = || Reading { readers: Arc::new(Readers::new(waker, numbers, pulse)), begun: None };
        &self.reading.get_or_insert_with(new).readers
    }

    /// The wait is over. `timed`: the turn needs to know the time.
    pub(crate) fn waited(&mut self, timed: bool) {
        if self.is_timed() {
            self.begin_to_measure();
        }
        self.woke(timed);
    }

    /// As `waited`, where turns are not timed, or what that needs was done.
    #[inline(always)]
    pub(crate) fn woke(&mut self, timed: bool) {
        self.counters.events += self.poll.len() as u64;
        if timed {
            self.turn.time = self.clock.now();
            self.ages.timed(self.turn.number);
        }
        // After it was seen, so that nobody takes the wait for work.
        self.pulse.waited();
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn begin_to_measure(&mut self) {
        self.turn.time = self.clock.now();
        if let Some(reading) = &mut self.reading {
            reading.begun = Some(self.turn.time);
            self.pulse.see(self.turn.time.instant());
        }
    }

    /// All that the turn had to do after its wait is done.
    #[inline(always)]
    pub(crate) fn turn_is_over(&mut self) {
        if self.is_timed() {
            self.measure_turn();
        }
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn measure_turn(&mut self) {
        let Some(reading) = &mut self.reading else { return };
        if let Some(begun) = reading.begun.take() {
            let now = self.clock.now();
            self.counters.turn_time.record(now.since(begun));
            self.pulse.see(now.instant());
        }
        let readers = reading.readers.clone();
        if readers.is_asked() {
            readers.publish(self.numbers());
        }
    }
}

impl ChannelMap {
    /// When a channel that is added now begins, in units. One reading of the clock is enough for a turn.
    #[inline]
    pub(crate) fn birth(&mut self) -> u32 {
        if self.ages.born_in != self.turn.number || self.pulse.is_at_rest() {
            self.ages.born_in = self.turn.number;
            self.ages.born = self.units();
        }
        self.ages.born
    }

    #[cold]
    #[inline(never)]
    fn units(&self) -> u32 {
        // An age is a difference, so it does not matter that this wraps.
        (self.pulse.age().as_millis() / UNIT.as_millis()) as u32
    }

    pub(crate) fn age_of(&self, token: Token) -> Duration {
        let born = self.ages.births.get(token.slot as usize).filter(|_| self.contains(token));
        born.map_or(Duration::ZERO, |born| UNIT * self.units().wrapping_sub(*born))
    }
}

impl Channel<'_> {
    /// How long ago the channel was added to the map, accepted, or begun to connect: to 10 ms, and to the
    /// length of the turn in which that was. Right up to 497 days.
    pub fn age(&self) -> Duration {
        self.map.age_of(self.token)
    }

    /// How long ago a byte was last received or sent on this channel, to the length of a turn; its
    /// [age](Channel::age) if none ever was. `None` if that is not known: the loop keeps the time of its turns
    /// only while it has a timer, be it the [`set_timeout`](Channel::set_timeout) of any channel, because
    /// nothing else needs it. `None` for a listener.
    pub fn last_activity(&self) -> Option<Duration> {
        let link = self.link().filter(|link| !link.is_listening())?;
        if link.traffic() == (0, 0) {
            return Some(self.age());
        }
        if self.map.timers.is_empty() || !self.map.ages.knows(link.last_turn()) {
            return None;
        }
        Some(self.map.clock.now().since(link.active()?))
    }
}
