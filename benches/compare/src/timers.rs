//! Many timers set, pushed forward, cancelled and fired through the public API, in alternation with a plain
//! binary heap that does the same with the same delays.
//!
//! The heap is the obvious solution: closures in a table and deadlines in a `BinaryHeap`, in which a
//! cancelled timer stays until it is due.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use dispatch_loop::{ChannelMap, TimerId};

use crate::measure::Spread;
use crate::random::Random;

/// The upper bound of all delays.
const LATEST: Duration = Duration::from_secs(1);

/// The steps that are timed, in order.
pub const STEPS: [&str; 4] = ["set", "pushed forward", "cancelled", "fired"];

/// The figures of each step, then of all steps together.
pub struct Outcome {
    pub timers: usize,
    pub rounds: usize,
    /// Our time divided by the heap's in the same round.
    pub ratios: [Spread; STEPS.len() + 1],
    /// Nanoseconds per timer.
    pub ours: [Spread; STEPS.len() + 1],
    pub heap: [Spread; STEPS.len() + 1],
}

/// # Errors
/// A timer did not fire, or one that was cancelled did.
pub fn compare(timers: usize, rounds: usize) -> io::Result<Outcome> {
    let mut ours = Vec::new();
    let mut heap = Vec::new();
    for round in 0..rounds.max(1) {
        let seed = round as u64;
        // The order alternates.
        if round % 2 == 0 {
            ours.push(work(&mut ChannelMap::new()?, timers, seed)?);
            heap.push(work(&mut Heap::default(), timers, seed)?);
        } else {
            heap.push(work(&mut Heap::default(), timers, seed)?);
            ours.push(work(&mut ChannelMap::new()?, timers, seed)?);
        }
    }
    let spread = |value: &dyn Fn(usize, usize) -> f64| {
        std::array::from_fn(|step| {
            Spread::of((0..ours.len()).map(|round| value(round, step))).expect("there is a round")
        })
    };
    Ok(Outcome {
        timers,
        rounds: ours.len(),
        ratios: spread(&|round, step| ours[round][step] / heap[round][step]),
        ours: spread(&|round, step| ours[round][step]),
        heap: spread(&|round, step| heap[round][step]),
    })
}

/// A collection of timers.
trait Timers {
    type Id: Copy;

    fn set(&mut self, delay: Duration, fired: Rc<Cell<usize>>) -> Self::Id;
    /// Returns whether it had yet to fire.
    fn cancel(&mut self, id: Self::Id) -> bool;
    /// Fires timers until none is left.
    fn fire(&mut self) -> io::Result<()>;
}

/// Nanoseconds per timer, for each step and for all together.
fn work<T: Timers>(timers: &mut T, count: usize, seed: u64) -> io::Result<[f64; STEPS.len() + 1]> {
    let mut random = Random::new(seed);
    let delays: Vec<[Duration; 2]> = (0..count)
        .map(|_| [0; 2].map(|_| Duration::from_nanos(random.next() % LATEST.as_nanos() as u64)))
        .collect();
    let fired = Rc::new(Cell::new(0));
    let mut ids = Vec::with_capacity(count);

    let begun = Instant::now();
    for [delay, _] in &delays {
        ids.push(timers.set(*delay, fired.clone()));
    }
    let set = begun.elapsed();

    let mut living = 0;
    let begun = Instant::now();
    for (id, [_, delay]) in ids.iter_mut().zip(&delays) {
        living += usize::from(timers.cancel(*id));
        *id = timers.set(*delay, fired.clone());
    }
    let pushed = begun.elapsed();

    let begun = Instant::now();
    for id in ids.iter().step_by(2) {
        living += usize::from(timers.cancel(*id));
    }
    let cancelled = begun.elapsed();

    // By then all are due, so that no waiting is timed.
    thread::sleep(LATEST);
    let begun = Instant::now();
    timers.fire()?;
    let fire = begun.elapsed();

    let half = count.div_ceil(2);
    if (fired.get(), living) != (count - half, count + half) {
        return Err(io::Error::other(format!("{} timers of {} fired", fired.get(), count - half)));
    }
    let each = |time: Duration, count: usize| time.as_nanos() as f64 / count.max(1) as f64;
    Ok([
        each(set, count),
        each(pushed, count),
        each(cancelled, half),
        each(fire, count - half),
        each(set + pushed + cancelled + fire, count),
    ])
}

impl Timers for ChannelMap {
    type Id = TimerId;

    fn set(&mut self, delay: Duration, fired: Rc<Cell<usize>>) -> TimerId {
        self.call_later(delay, move |_| fired.set(fired.get() + 1))
    }

    fn cancel(&mut self, id: TimerId) -> bool {
        ChannelMap::cancel(self, id)
    }

    fn fire(&mut self) -> io::Result<()> {
        dispatch_loop::run(self)
    }
}

#[derive(Default)]
struct Heap {
    deadlines: BinaryHeap<Reverse<(Instant, usize)>>,
    calls: Vec<Option<Box<dyn FnOnce()>>>,
}

impl Timers for Heap {
    type Id = usize;

    fn set(&mut self, delay: Duration, fired: Rc<Cell<usize>>) -> usize {
        let id = self.calls.len();
        self.calls.push(Some(Box::new(move || fired.set(fired.get() + 1))));
        self.deadlines.push(Reverse((Instant::now() + delay, id)));
        id
    }

    fn cancel(&mut self, id: usize) -> bool {
        self.calls[id].take().is_some()
    }

    fn fire(&mut self) -> io::Result<()> {
        let mut now = Instant::now();
        while let Some(Reverse((deadline, id))) = self.deadlines.pop() {
            if let Some(call) = self.calls[id].take() {
                if deadline > now {
                    thread::sleep(deadline - now);
                    now = Instant::now();
                }
                call();
            }
        }
        Ok(())
    }
}
