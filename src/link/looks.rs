//! A look at the counters of one channel, for its deadlines.

use crate::clock::Time;
use crate::link::deadlines::{Deadline, Deadlines};
use crate::link::running::{Look, Running, Seen};
use crate::link::state::{Link, Work};
use crate::timers::TimerKey;

impl Link {
    /// Replace the deadlines; returns the timer of those before. They count from now.
    pub(crate) fn set_deadlines(&mut self, set: &Deadlines, now: Time) -> Option<TimerKey> {
        let is_over = *set == Deadlines::default() || self.is_over() || self.is_told();
        let mut running = (!is_over).then(|| Box::new(Running::new(set, self.received, now)));
        if let Some(running) = &mut running {
            running.count_input(self.counts_input(), now);
            if self.has_message_begun() {
                running.begin_message(self.received, now);
            }
        }
        if running.is_none() && self.rare.is_none() {
            return None;
        }
        let before = std::mem::replace(&mut self.rare().deadlines, running);
        before.and_then(|before| before.timer).map(|(key, _)| key)
    }

    fn running(&mut self) -> Option<&mut Running> {
        self.rare.as_mut()?.deadlines.as_deref_mut()
    }

    /// Its timer, and for when that is set.
    pub(crate) fn deadline_timer(&self) -> Option<(TimerKey, Time)> {
        self.rare.as_ref()?.deadlines.as_ref()?.timer
    }

    pub(crate) fn set_deadline_timer(&mut self, timer: Option<(TimerKey, Time)>) {
        if let Some(running) = self.running() {
            running.timer = timer;
        }
    }

    /// A message has begun; `true` if there are deadlines for which that is news.
    #[inline]
    pub(crate) fn begin_message(&mut self) -> bool {
        let begun = self.input.work.set(Work::MESSAGE, true);
        !begun && self.rare.as_ref().is_some_and(|rare| rare.deadlines.is_some())
    }

    /// The same, for the deadlines. Returns when to look at it, if ever.
    pub(crate) fn time_message(&mut self, now: Time) -> Option<Time> {
        let received = self.received;
        self.running()?.begin_message(received, now)
    }

    /// The message is complete.
    #[inline]
    pub(crate) fn end_message(&mut self) {
        if self.input.work.set(Work::MESSAGE, false) {
            if let Some(running) = self.running() {
                running.end_message();
            }
        }
    }

    pub(crate) fn has_message_begun(&self) -> bool {
        self.input.work.has(Work::MESSAGE)
    }

    /// Whether input counts: reading is not paused, or a handshake is under way.
    fn counts_input(&self) -> bool {
        self.is_opening() || self.shakes_hands() || self.reads()
    }

    /// Bytes that are queued for the peer. What is behind a producer of ours that has nothing waits for that; and
    /// before there is a connection there is no peer.
    fn queued_for_peer(&self) -> usize {
        match self.output.queue.as_ref().is_some_and(|queue| queue.is_due()) && !self.is_connecting() {
            true => self.queued(),
            false => 0,
        }
    }

    /// The settle has looked at the channel: whether the deadlines are to look at it, too, because reading was
    /// paused or resumed, or output has begun to wait.
    pub(crate) fn has_news_for_deadlines(&self) -> bool {
        let Some(running) = self.rare.as_ref().and_then(|rare| rare.deadlines.as_ref()) else {
            return false;
        };
        let paused = running.paused.is_none() != self.counts_input();
        paused || (running.has_not_noticed_output() && (self.queued_for_peer() > 0 || self.output_pending()))
    }

    /// The deadline has passed, and counts anew.
    pub(crate) fn count_anew(&mut self, deadline: Deadline, now: Time) {
        if let Some(running) = self.running() {
            running.count_anew(deadline, now);
        }
    }

    /// The poller says that there is room. What is inside the source, with nothing queued behind it, leaves in
    /// steps that no counter shows, and there is no such event while the peer takes nothing.
    pub(crate) fn has_room_for_its_source(&mut self, now: Time) {
        if self.queue_is_empty() && self.output_pending() {
            if let Some(running) = self.running() {
                running.count_output_anew(now);
            }
        }
    }

    /// Look what has passed, or when to look again.
    pub(crate) fn look_at_deadlines(&mut self, now: Time) -> Look {
        let ending = self.is_ending();
        let counts = self.counts_input();
        let is_over = self.is_over() || self.is_told();
        let Some(running) = self.running().filter(|_| !is_over) else { return Look::Nothing };
        running.count_input(counts, now);
        let held = match running.looks_at_output() {
            true => self.held().max(usize::from(self.output_pending())),
            false => 0,
        };
        let (sent, over_ip) = (self.sent, self.can_be_reset_by_input());
        let Some(running) = self.running() else { return Look::Nothing };
        let left = match over_ip {
            true => sent as i64 - held as i64,
            false => running.left_at_least(sent, held),
        };
        let seen = Seen {
            now,
            received: self.received,
            active: self.active(),
            left,
            unsent: (self.queued_for_peer() + held) as u64,
            ending,
        };
        let (held_back, waits) = (self.output_is_held_back(), self.waits_to_send());
        let Some(running) = self.running() else { return Look::Nothing };
        if running.has_waited(waits) || held_back {
            // That is not the peer's fault.
            running.count_output_anew(now);
        }
        running.look(seen)
    }
}
