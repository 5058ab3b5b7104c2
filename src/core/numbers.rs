//! The numbers of a map, and what its loop does for readers of them.

use std::sync::Arc;
use std::time::Instant;

use crate::core::map::ChannelMap;
use crate::link::state::Role;
use crate::numbers::Numbers;
use crate::threads::queue::Queue;
use crate::threads::readers::{Readers, Reading};

impl ChannelMap {
    /// What the loop has done, and what the map holds. Takes O(channels).
    pub fn numbers(&self) -> Numbers {
        let mut numbers = self.counters.snapshot(Instant::now());
        let links = self.slots.tokens().filter_map(|token| self.link(token));
        for link in links.filter(|link| link.role() != Role::Internal) {
            link.add_to(&mut numbers);
        }
        numbers.timers = self.timers.len();
        numbers.messages = self.queue.as_ref().map_or(0, Queue::len);
        numbers
    }

    pub(crate) fn open_readers(&mut self) -> &Arc<Readers> {
        let numbers = self.numbers();
        let waker = self.poll.waker();
        let new = || Reading { readers: Arc::new(Readers::new(waker, numbers)), begun: None };
        &self.reading.get_or_insert_with(new).readers
    }

    /// The wait is over. `timed`: the turn needs to know the time.
    #[inline(always)]
    pub(crate) fn waited(&mut self, timed: bool) {
        self.counters.waited(self.poll.len());
        if self.reading.is_some() {
            self.begin_to_measure();
        } else if timed {
            self.turn.time = self.clock.now();
        }
    }

    #[cold]
    #[inline(never)]
    fn begin_to_measure(&mut self) {
        self.turn.time = self.clock.now();
        if let Some(reading) = &mut self.reading {
            reading.begun = Some(self.turn.time);
        }
    }

    /// All that the turn had to do after its wait is done.
    #[inline(always)]
    pub(crate) fn turn_is_over(&mut self) {
        if self.reading.is_some() {
            self.measure_turn();
        }
    }

    #[cold]
    #[inline(never)]
    fn measure_turn(&mut self) {
        let Some(reading) = &mut self.reading else { return };
        if let Some(begun) = reading.begun.take() {
            self.counters.turn_time.record(self.clock.now().since(begun));
        }
        let readers = reading.readers.clone();
        if readers.is_asked() {
            readers.publish(self.numbers());
        }
    }
}
