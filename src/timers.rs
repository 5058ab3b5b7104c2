//! Timers, ordered by deadline, and equal ones by when they were set. Generic in what is to happen.
//! Setting, moving and cancelling cost O(log n); a cancelled timer leaves nothing behind.

use crate::clock::Time;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerId {
    pub(crate) map: u32,
    pub(crate) key: TimerKey,
}

/// Names one timer of a map for ever, and never another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TimerKey {
    entry: u32,
    generation: u32,
}

impl TimerKey {
    /// The key of a timer that was never set.
    pub(crate) const NONE: TimerKey = TimerKey { entry: NONE, generation: 0 };
}

const NONE: u32 = u32::MAX;

/// The position of an entry that is not in the heap, because its action is running.
const RUNNING: u32 = u32::MAX;

struct Entry<A> {
    generation: u32,
    /// Its position in the heap, or `RUNNING`.
    place: u32,
    /// The slot of the channel that owns it, and its neighbours in that channel's list.
    owner: u32,
    before: u32,
    behind: u32,
    /// It does not keep the loop going, whatever its action.
    background: bool,
    action: Option<A>,
}

#[derive(Clone, Copy)]
struct Node {
    deadline: Time,
    order: u64,
    entry: u32,
    keeps: bool,
}

/// What a timer does.
pub(crate) trait Keeps {
    /// Whether it keeps the loop going until it has run.
    fn keeps(&self) -> bool;
}

impl Node {
    fn is_before(&self, other: &Node) -> bool {
        (self.deadline, self.order) < (other.deadline, other.order)
    }
}

/// A timer that is due. Its entry is kept, so that it can be cancelled while it runs, until
/// [`put_back`](Timers::put_back) or [`release`](Timers::release).
pub(crate) struct Due<A> {
    pub(crate) key: TimerKey,
    pub(crate) deadline: Time,
    pub(crate) action: A,
}

pub(crate) struct Timers<A> {
    heap: Vec<Node>,
    entries: Vec<Entry<A>>,
    free: Vec<u32>,
    /// The first timer of each channel, by slot.
    owned: Vec<u32>,
    /// The generation of new entries: above that of any key that was ever given out.
    first_generation: u32,
    last_order: u64,
    /// How many in the heap keep the loop going.
    keeping: usize,
}

/// Entries that are kept when there is no timer.
const KEPT: usize = 64;

impl<A: Keeps> Timers<A> {
    pub(crate) fn new() -> Timers<A> {
        Timers {
            heap: Vec::new(),
            entries: Vec::new(),
            free: Vec::new(),
            owned: Vec::new(),
            first_generation: 0,
            last_order: 0,
            keeping: 0,
        }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// Whether one of them keeps the loop going.
    pub(crate) fn keeps(&self) -> bool {
        self.keeping > 0
    }

    #[inline]
    pub(crate) fn first_deadline(&self) -> Option<Time> {
        self.heap.first().map(|node| node.deadline)
    }

    /// Set a timer; it is cancelled with its `owner`, the slot of a channel.
    pub(crate) fn set(&mut self, deadline: Time, owner: Option<u32>, action: A) -> TimerKey {
        let owner = owner.unwrap_or(NONE);
        let generation = self.first_generation;
        let new = Entry {
            generation,
            place: RUNNING,
            owner,
            before: NONE,
            behind: NONE,
            background: false,
            action: None,
        };
        let entry = match self.free.pop() {
            Some(entry) => {
                let generation = self.entries[entry as usize].generation;
                self.entries[entry as usize] = Entry { generation, ..new };
                entry
            }
            None => {
                self.entries.push(new);
                // Cancelling and firing must not need memory.
                self.free.reserve(self.entries.len());
                self.entries.len() as u32 - 1
            }
        };
        self.link(entry);
        self.insert(deadline, entry, action);
        TimerKey { entry, generation: self.entries[entry as usize].generation }
    }

    /// Cancel a timer that is to run, or to run again. Returns its action, which the caller drops, or
    /// `None` inside if it is running.
    pub(crate) fn cancel(&mut self, key: TimerKey) -> Option<Option<A>> {
        let place = self.entry(key)?.place;
        if place != RUNNING {
            self.take_out(place as usize);
        }
        Some(self.free(key.entry))
    }

    /// Whether the channel in `slot` has a timer.
    pub(crate) fn owns_any(&self, slot: u32) -> bool {
        self.owned.get(slot as usize).is_some_and(|entry| *entry != NONE)
    }

    /// Cancel every timer of the channel in `slot`.
    pub(crate) fn cancel_owned(&mut self, slot: u32) -> Vec<A> {
        let mut cancelled = Vec::new();
        while let Some(&entry) = self.owned.get(slot as usize).filter(|entry| **entry != NONE) {
            let key = TimerKey { entry, generation: self.entries[entry as usize].generation };
            cancelled.extend(self.cancel(key).flatten());
        }
        cancelled
    }

    /// An argument for [`take_due`](Timers::take_due), so that timers set from now on wait.
    pub(crate) fn last_order(&self) -> u64 {
        self.last_order
    }

    /// Take out the first timer that is due at `now` and was set no later than `last_order`.
    pub(crate) fn take_due(&mut self, now: Time, last_order: u64) -> Option<Due<A>> {
        let first = *self.heap.first()?;
        if first.deadline > now || first.order > last_order {
            return None;
        }
        self.take_out(0);
        let entry = &mut self.entries[first.entry as usize];
        entry.place = RUNNING;
        let action = entry.action.take()?;
        let key = TimerKey { entry: first.entry, generation: entry.generation };
        Some(Due { key, deadline: first.deadline, action })
    }

    /// Set a due timer again. `Err` if it was cancelled meanwhile.
    pub(crate) fn put_back(&mut self, key: TimerKey, deadline: Time, action: A) -> Result<(), A> {
        match self.entry(key) {
            Some(entry) if entry.place == RUNNING => {
                self.insert(deadline, key.entry, action);
                Ok(())
            }
            _ => Err(action),
        }
    }

    /// Free a due timer that is not to run again.
    pub(crate) fn release(&mut self, key: TimerKey) {
        if self.entry(key).is_some_and(|entry| entry.place == RUNNING) {
            self.free(key.entry);
        }
    }

    /// Take every action, in no order: the map is being dropped.
    pub(crate) fn take_all(&mut self) -> Vec<A> {
        let all = std::mem::replace(self, Timers::new());
        all.entries.into_iter().filter_map(|entry| entry.action).collect()
    }

    /// Whether a timer of a kind that keeps the loop going is not to do so. `false` if it is not set.
    pub(crate) fn set_background(&mut self, key: TimerKey, on: bool) -> bool {
        let Some(place) = self.entry(key).map(|entry| entry.place) else { return false };
        let entry = &mut self.entries[key.entry as usize];
        entry.background = on;
        let keeps = !on && entry.action.as_ref().is_some_and(A::keeps);
        if let Some(node) = self.heap.get_mut(place as usize) {
            self.keeping = self.keeping + usize::from(keeps) - usize::from(node.keeps);
            node.keeps = keeps;
        }
        true
    }

    /// When a timer is due; `None` if it is not set.
    pub(crate) fn deadline(&self, key: TimerKey) -> Option<Time> {
        let place = self.entry(key)?.place;
        self.heap.get(place as usize).map(|node| node.deadline)
    }

    /// Move a timer that is set, behind those that are due at the same time. `false` if it is not set.
    pub(crate) fn move_to(&mut self, key: TimerKey, deadline: Time) -> bool {
        let Some(place) = self.entry(key).map(|entry| entry.place as usize) else { return false };
        let Some(node) = self.heap.get_mut(place) else { return false };
        self.last_order += 1;
        (node.deadline, node.order) = (deadline, self.last_order);
        let place = self.rise(place);
        self.sink(place);
        true
    }

    fn entry(&self, key: TimerKey) -> Option<&Entry<A>> {
        self.entries.get(key.entry as usize).filter(|entry| entry.generation == key.generation)
    }

    fn free(&mut self, index: u32) -> Option<A> {
        self.unlink(index);
        let entry = &mut self.entries[index as usize];
        let action = entry.action.take();
        // A worn-out entry is not used again.
        if let Some(next) = entry.generation.checked_add(1) {
            entry.generation = next;
            self.free.push(index);
        }
        if self.free.len() == self.entries.len() && self.entries.len() > KEPT {
            self.shrink();
        }
        action
    }

    /// There is no timer: free the memory that many have used. No key is used again.
    #[cold]
    fn shrink(&mut self) {
        let next = self.entries.iter().map(|entry| entry.generation).max();
        self.first_generation = next.unwrap_or(self.first_generation);
        self.entries = Vec::new();
        self.free = Vec::new();
        self.heap = Vec::new();
        self.owned = Vec::new();
    }

    // The list of a channel's timers.

    fn link(&mut self, index: u32) {
        let owner = self.entries[index as usize].owner;
        if owner == NONE {
            return;
        }
        if self.owned.len() <= owner as usize {
            self.owned.resize(owner as usize + 1, NONE);
        }
        let behind = std::mem::replace(&mut self.owned[owner as usize], index);
        self.entries[index as usize].behind = behind;
        if behind != NONE {
            self.entries[behind as usize].before = index;
        }
    }

    fn unlink(&mut self, index: u32) {
        let Entry { owner, before, behind, .. } = self.entries[index as usize];
        if owner == NONE {
            return;
        }
        match before {
            NONE => self.owned[owner as usize] = behind,
            before => self.entries[before as usize].behind = behind,
        }
        if behind != NONE {
            self.entries[behind as usize].before = before;
        }
    }

    // The heap.

    fn insert(&mut self, deadline: Time, entry: u32, action: A) {
        self.last_order += 1;
        let keeps = action.keeps() && !self.entries[entry as usize].background;
        self.keeping += usize::from(keeps);
        self.entries[entry as usize].action = Some(action);
        self.heap.push(Node { deadline, order: self.last_order, entry, keeps });
        self.rise(self.heap.len() - 1);
    }

    fn take_out(&mut self, place: usize) {
        let Node { keeps, .. } = self.heap.swap_remove(place);
        self.keeping -= usize::from(keeps);
        if place < self.heap.len() {
            let place = self.rise(place);
            self.sink(place);
        }
    }

    fn rise(&mut self, mut place: usize) -> usize {
        let node = self.heap[place];
        while place > 0 {
            let parent = (place - 1) / 2;
            if !node.is_before(&self.heap[parent]) {
                break;
            }
            self.put(place, self.heap[parent]);
            place = parent;
        }
        self.put(place, node);
        place
    }

    fn sink(&mut self, mut place: usize) {
        let node = self.heap[place];
        loop {
            let mut child = 2 * place + 1;
            if child >= self.heap.len() {
                break;
            }
            if child + 1 < self.heap.len() && self.heap[child + 1].is_before(&self.heap[child]) {
                child += 1;
            }
            if !self.heap[child].is_before(&node) {
                break;
            }
            self.put(place, self.heap[child]);
            place = child;
        }
        self.put(place, node);
    }

    fn put(&mut self, place: usize, node: Node) {
        self.heap[place] = node;
        self.entries[node.entry as usize].place = place as u32;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;
    use std::time::Duration;

    use super::*;
    use crate::clock;

    impl Keeps for u32 {
        fn keeps(&self) -> bool {
            self % 2 == 0
        }
    }

    fn at(n: u64) -> Time {
        static START: OnceLock<Time> = OnceLock::new();
        START.get_or_init(clock::now).after(Duration::from_nanos(n))
    }

    fn fire_all(timers: &mut Timers<u32>, now: u64) -> Vec<u32> {
        let order = timers.last_order();
        let mut fired = Vec::new();
        while let Some(due) = timers.take_due(at(now), order) {
            timers.release(due.key);
            fired.push(due.action);
        }
        fired
    }

    #[test]
    fn timers_fire_by_deadline_and_then_by_the_order_in_which_they_were_set() {
        let mut timers = Timers::new();
        for (deadline, action) in [(3, 0), (1, 1), (2, 2), (1, 3), (9, 4)] {
            timers.set(at(deadline), None, action);
        }
        assert_eq!(fire_all(&mut timers, 5), [1, 3, 2, 0]);
        assert_eq!(timers.first_deadline(), Some(at(9)));
    }

    #[test]
    fn a_random_mix_of_set_move_and_cancel_keeps_the_order() {
        let mut timers = Timers::new();
        let mut keys = Vec::new();
        let mut random = 1_u64;
        for n in 0..10_000_u32 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let deadline = random >> 40 & !1;
            keys.push((timers.set(at(deadline), Some(n % 7), n), deadline, n));
            if n % 3 == 0 {
                let (key, _, action) = keys.swap_remove((random >> 20) as usize % keys.len());
                assert_eq!(timers.cancel(key), Some(Some(action)));
                assert_eq!(timers.cancel(key), None);
                assert!(!timers.move_to(key, at(0)));
            }
            if n % 5 == 1 {
                let (key, _, action) = keys.swap_remove((random >> 30) as usize % keys.len());
                let deadline = random >> 40 | 1;
                assert!(timers.move_to(key, at(deadline)));
                assert_eq!(timers.deadline(key), Some(at(deadline)));
                keys.push((key, deadline, action));
            }
        }
        let of_three = timers.cancel_owned(3);
        keys.retain(|(_, _, n)| n % 7 != 3 || !of_three.contains(n));
        assert!(keys.iter().all(|(_, _, n)| n % 7 != 3));
        keys.sort_by_key(|&(_, deadline, n)| (deadline, n));
        let expected: Vec<u32> = keys.iter().map(|&(_, _, n)| n).collect();
        assert!(timers.keeps());
        assert_eq!(fire_all(&mut timers, u64::MAX), expected);
        assert!(timers.is_empty() && !timers.keeps());
    }

    #[test]
    fn a_timer_cancelled_while_it_runs_does_not_come_back() {
        let mut timers = Timers::new();
        let key = timers.set(at(1), None, 7);
        let due = timers.take_due(at(1), timers.last_order()).unwrap();
        assert_eq!(timers.cancel(key), Some(None));
        assert_eq!(timers.put_back(due.key, at(2), due.action), Err(7));
        assert!(timers.is_empty());
    }

    #[test]
    fn the_name_of_a_timer_that_has_fired_names_no_other() {
        let mut timers = Timers::new();
        let old = timers.set(at(1), None, 1);
        assert_eq!(fire_all(&mut timers, 1), [1]);
        let new = timers.set(at(1), None, 2);
        assert_eq!(timers.cancel(old), None);
        assert_eq!(timers.cancel(new), Some(Some(2)));
        assert_eq!(timers.cancel(TimerKey::NONE), None);
    }
}
