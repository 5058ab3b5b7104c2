//! Deadlines: what is to happen when, in the order of the deadlines, and for equal ones in the
//! order in which they were set. Setting and cancelling cost O(log n); a cancelled timer is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::core::action::Action;

/// Names one timer, to [`cancel`](crate::ChannelMap::cancel) it: Python's `TimerHandle`.
///
/// ```
/// use dispatch_loop::ChannelMap;
/// use std::time::Duration;
///
/// let mut map = ChannelMap::new()?;
/// let timer = map.call_later(Duration::from_secs(60), |_| println!("a minute has passed"));
/// assert!(map.cancel(timer));
/// assert!(!map.cancel(timer));
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerId {
    pub(crate) map: u64,
    pub(crate) id: u64,
}

pub(crate) struct Timer {
    pub(crate) id: u64,
    pub(crate) deadline: Instant,
    pub(crate) action: Action,
}

/// A deadline, and the order in which it was set.
type Place = (Instant, u64);

#[derive(Default)]
pub(crate) struct Timers {
    queue: BTreeMap<Place, Timer>,
    places: BTreeMap<u64, Place>,
    /// The timers of each channel, by slot.
    owned: BTreeSet<(u32, u64)>,
    last_id: u64,
    last_order: u64,
}

impl Timers {
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn set(&mut self, delay: Duration, action: Action) -> u64 {
        self.last_id += 1;
        self.put(Timer { id: self.last_id, deadline: after(Instant::now(), delay), action });
        self.last_id
    }

    /// Put a timer, new or taken out by [`take_due`](Timers::take_due), in its place.
    pub(crate) fn put(&mut self, timer: Timer) {
        self.last_order += 1;
        let place = (timer.deadline, self.last_order);
        if let Some(owner) = timer.action.owner() {
            self.owned.insert((owner.slot, timer.id));
        }
        self.places.insert(timer.id, place);
        self.queue.insert(place, timer);
    }

    /// The timer, if it was still to come. Its closure is the caller's to drop.
    pub(crate) fn cancel(&mut self, id: u64) -> Option<Timer> {
        let place = self.places.get(&id).copied()?;
        self.take(place)
    }

    /// All timers of the channel in `slot`.
    pub(crate) fn cancel_owned(&mut self, slot: u32) -> Vec<Timer> {
        let ids: Vec<u64> = self.owned.range((slot, 0)..=(slot, u64::MAX)).map(|&(_, id)| id).collect();
        ids.into_iter().filter_map(|id| self.cancel(id)).collect()
    }

    pub(crate) fn first_deadline(&self) -> Option<Instant> {
        self.queue.keys().next().map(|&(deadline, _)| deadline)
    }

    /// What [`take_due`](Timers::take_due) is given so that timers set from now on wait.
    pub(crate) fn last_order(&self) -> u64 {
        self.last_order
    }

    /// Take out the first timer that is due at `now` and was set no later than `last_order`.
    pub(crate) fn take_due(&mut self, now: Instant, last_order: u64) -> Option<Timer> {
        let (&place, _) = self.queue.first_key_value()?;
        let (deadline, order) = place;
        if deadline > now || order > last_order {
            return None;
        }
        self.take(place)
    }

    fn take(&mut self, place: Place) -> Option<Timer> {
        let timer = self.queue.remove(&place)?;
        self.places.remove(&timer.id);
        if let Some(owner) = timer.action.owner() {
            self.owned.remove(&(owner.slot, timer.id));
        }
        Some(timer)
    }
}

/// `delay` after `start`, or as late as can be told.
pub(crate) fn after(start: Instant, delay: Duration) -> Instant {
    const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    start.checked_add(delay).unwrap_or_else(|| start + FOREVER)
}

/// When a repeated call is next due: one that is late skips what it missed.
pub(crate) fn next_beat(deadline: Instant, interval: Duration, now: Instant) -> Instant {
    let next = after(deadline, interval);
    if next > now || interval.is_zero() {
        return next.max(now);
    }
    let late = (now - next).as_nanos() % interval.as_nanos();
    let late = Duration::new((late / 1_000_000_000) as u64, (late % 1_000_000_000) as u32);
    after(now, interval - late)
}
