//! The deadlines of a channel that count: what its counters have shown so far, and what is due next. Nothing
//! in here is touched when a byte comes or goes; a look at the counters shows whether they moved.

use std::time::Duration;

use crate::chance;
use crate::clock::Time;
use crate::link::deadlines::{Deadline, Deadlines, MinRate};
use crate::timers::TimerKey;

/// How often in the time of a deadline to look whether the counters moved.
const LOOKS: u32 = 4;

/// What a look at a channel has shown.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// There is nothing to look for.
    Nothing,
    /// Look again then.
    Again(Time),
    Passed(Deadline),
}

/// The counters of a channel when it is looked at.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    pub(super) now: Time,
    pub(super) received: u64,
    /// When a byte was last received or sent.
    pub(super) active: Option<Time>,
    /// Bytes that have left for the peer; only differences count.
    pub(super) left: i64,
    /// Bytes that have not.
    pub(super) unsent: u64,
    /// Only output is looked at.
    pub(super) ending: bool,
}

/// The deadlines that count.
pub(crate) struct Running {
    set: Deadlines,
    /// Its timer, and for when that is set.
    pub(crate) timer: Option<(TimerKey, Time)>,
    /// Since when input does not count.
    pub(super) paused: Option<Time>,
    /// From when each counts.
    opened: Time,
    read: Time,
    message: Option<Time>,
    ends: Option<Time>,
    /// How much was received when that was last looked at.
    received: u64,
    message_rate: Samples,
    output_rate: Samples,
    /// How often output had waited for its bandwidth.
    waits: u32,
    /// How much was sent, and held, when that was last looked at; and what has left by then.
    output: (u64, usize),
    left: i64,
}

impl Running {
    pub(super) fn new(set: &Deadlines, received: u64, now: Time) -> Running {
        Running {
            timer: None,
            paused: Some(now),
            opened: now,
            read: now,
            message: None,
            ends: set.lifetime.map(|time| now.after(about(time))),
            received,
            message_rate: Samples::new(now),
            output_rate: Samples::new(now),
            waits: 0,
            output: (0, 0),
            left: 0,
            set: set.clone(),
        }
    }

    /// From now on input counts, or does not.
    pub(super) fn count_input(&mut self, counts: bool, now: Time) {
        match self.paused {
            Some(since) if counts => {
                let paused = now.since(since);
                for from in [&mut self.opened, &mut self.read].into_iter().chain(&mut self.message) {
                    *from = from.after(paused).min(now);
                }
                self.message_rate = Samples::new(now);
                self.paused = None;
            }
            None if !counts => self.paused = Some(now),
            _ => {}
        }
    }

    /// Returns when to look at the message, if ever.
    pub(super) fn begin_message(&mut self, received: u64, now: Time) -> Option<Time> {
        // A pause that has begun is subtracted when it is over.
        self.message = Some(self.paused.unwrap_or(now));
        self.message_rate = Samples::new(now);
        let rate = self.set.read_rate;
        let sampled = rate.and_then(|rate| self.message_rate.look(rate, counted(received), u64::MAX, now));
        let complete = self.set.message.map(|time| now.after(time));
        sampled.into_iter().chain(complete).min()
    }

    pub(super) fn end_message(&mut self) {
        self.message = None;
    }

    pub(super) fn count_output_anew(&mut self, now: Time) {
        self.output_rate = Samples::new(now);
    }

    /// How much has left, where what is held includes what the system needs to keep it: a peer that takes little
    /// of much that is small must not look as if it took nothing. One that takes nothing does when the system
    /// takes no more, or nothing more is sent.
    pub(super) fn left_at_least(&mut self, sent: u64, held: usize) -> i64 {
        let (sent_before, held_before) = std::mem::replace(&mut self.output, (sent, held));
        let left = match sent - sent_before {
            0 => held_before.saturating_sub(held) as i64,
            sent => counted(sent),
        };
        self.left = self.left.saturating_add(left);
        self.left
    }

    /// Whether output has waited for its bandwidth since the last look.
    pub(super) fn has_waited(&mut self, waits: u32) -> bool {
        std::mem::replace(&mut self.waits, waits) != waits
    }

    /// Whether output is to be looked at that was not there when it was last looked at.
    pub(super) fn has_not_noticed_output(&self) -> bool {
        self.set.write_rate.is_some() && self.output_rate.count == 0
    }

    /// Whether the write rate is to be looked at.
    pub(super) fn looks_at_output(&self) -> bool {
        self.set.write_rate.is_some()
    }

    /// It has passed, and counts anew.
    pub(super) fn count_anew(&mut self, deadline: Deadline, now: Time) {
        match deadline {
            Deadline::Read => self.read = now,
            Deadline::FirstByte => self.opened = now,
            Deadline::Message => self.message = self.message.and(Some(now)),
            Deadline::ReadRate => self.message_rate = Samples::new(now),
            Deadline::WriteRate => self.output_rate = Samples::new(now),
            Deadline::Lifetime => self.ends = None,
        }
    }

    /// What has passed, or when to look again.
    pub(super) fn look(&mut self, seen: Seen) -> Look {
        let mut next = Next { now: seen.now, at: None };
        let passed = match seen.ending {
            true => None,
            false => self.look_at_life(&mut next).or_else(|| self.look_at_input(seen, &mut next)),
        };
        let passed = passed.or_else(|| {
            let rate = self.set.write_rate?;
            let again = self.output_rate.look(rate, seen.left, seen.unsent, seen.now);
            next.is_missed(again).then_some(Deadline::WriteRate)
        });
        match (passed, next.at) {
            (Some(passed), _) => Look::Passed(passed),
            (None, Some(at)) => Look::Again(at),
            (None, None) => Look::Nothing,
        }
    }

    fn look_at_life(&self, next: &mut Next) -> Option<Deadline> {
        next.is_passed(self.ends?).then_some(Deadline::Lifetime)
    }

    fn look_at_input(&mut self, seen: Seen, next: &mut Next) -> Option<Deadline> {
        if self.received != seen.received {
            self.received = seen.received;
            // Perhaps sooner, if something was sent since.
            self.read = seen.active.unwrap_or(seen.now).max(self.read).min(seen.now);
        }
        if self.paused.is_some() {
            return None;
        }
        if let Some(time) = self.set.first_byte.filter(|_| seen.received == 0) {
            if next.is_passed(self.opened.after(time)) {
                return Some(Deadline::FirstByte);
            }
        }
        if let Some((begun, time)) = self.message.zip(self.set.message) {
            if next.is_passed(begun.after(time)) {
                return Some(Deadline::Message);
            }
        }
        if let Some(rate) = self.set.read_rate.filter(|_| self.message.is_some()) {
            let again = self.message_rate.look(rate, counted(seen.received), u64::MAX, seen.now);
            if next.is_missed(again) {
                return Some(Deadline::ReadRate);
            }
        }
        if let Some(time) = self.set.read {
            if next.is_passed(self.read.after(time)) {
                return Some(Deadline::Read);
            }
            next.is_passed(seen.now.after(step(time)));
        }
        None
    }
}

/// When to look again.
struct Next {
    now: Time,
    at: Option<Time>,
}

impl Next {
    /// If it has not passed, it is looked at then.
    fn is_passed(&mut self, deadline: Time) -> bool {
        if deadline > self.now {
            self.at = Some(self.at.map_or(deadline, |at| at.min(deadline)));
        }
        deadline <= self.now
    }

    /// Whether a rate was, which is looked at `again` otherwise.
    fn is_missed(&mut self, again: Option<Time>) -> bool {
        again.is_none_or(|again| self.is_passed(again))
    }
}

/// How far a direction was, a quarter of a window apart.
struct Samples {
    /// Of which so many are filled, the oldest first.
    taken: [Sample; LOOKS as usize],
    count: usize,
    /// When the next is due.
    next: Time,
}

#[derive(Clone, Copy, Default)]
struct Sample {
    moved: i64,
    /// How much was there to be moved.
    there: u64,
}

impl Samples {
    fn new(now: Time) -> Samples {
        Samples { taken: Default::default(), count: 0, next: now }
    }

    /// When to look again; `None` if in the last window less has moved than must, and than was there.
    fn look(&mut self, rate: MinRate, moved: i64, there: u64, now: Time) -> Option<Time> {
        if there == 0 {
            *self = Samples::new(now);
            return Some(now.after(step(rate.window()) * LOOKS));
        }
        if self.next > now {
            return Some(self.next);
        }
        if self.count == self.taken.len() {
            let oldest = self.taken[0];
            let since = u64::try_from(moved.saturating_sub(oldest.moved)).unwrap_or(0);
            if since < rate.least().min(oldest.there) {
                return None;
            }
            self.taken.rotate_left(1);
            self.count -= 1;
        }
        self.taken[self.count] = Sample { moved, there };
        self.count += 1;
        self.next = now.after(step(rate.window()));
        Some(self.next)
    }
}

fn counted(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A quarter of a time, but not nothing.
fn step(time: Duration) -> Duration {
    (time / LOOKS).max(Duration::from_millis(1))
}

/// Between nine and eleven tenths of `time`.
fn about(time: Duration) -> Duration {
    let part = (chance::random() >> 32) as u32 as f64 / f64::from(u32::MAX);
    let tenth = time / 10;
    (time - tenth).saturating_add(tenth.mul_f64(2.0 * part))
}
