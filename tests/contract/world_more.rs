//! What else there is in the world of `model.rs`: timers, and messages of other threads.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use dispatch_loop::{ChannelMap, TimerId};

use super::world::*;

/// What is known of one timer.
pub struct Timer {
    id: TimerId,
    owner: Option<usize>,
    every: bool,
    due: Instant,
    /// It has run, unless it repeats, or was cancelled.
    over: bool,
    /// Held by its closure, too.
    held: Rc<()>,
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Timer { owner, every, over, .. } = self;
        write!(f, "timer of {owner:?}, every: {every}, over: {over}")
    }
}

/// Calls of the loop through a `Remote`: how many were accepted and have run.
#[derive(Default)]
pub struct Messages {
    accepted: usize,
    ran: usize,
    held: Arc<()>,
}

thread_local! {
    /// For messages, which may come from any thread but run on this one.
    static HERE: RefCell<Option<Shared>> = const { RefCell::new(None) };
}

/// This is the world in which messages run.
pub fn here(shared: &Shared) {
    HERE.set(Some(shared.clone()));
}

pub fn set_timer(
    map: &mut ChannelMap,
    shared: &Shared,
    world: &mut World,
    owner: Option<usize>,
    millis: u64,
    every: bool,
) {
    let owner = owner.filter(|_| !world.lives.is_empty()).map(|owner| owner % world.lives.len());
    let number = world.timers.len();
    // What repeats leaves the loop time to be idle.
    let delay = Duration::from_millis(if every { 10 * (millis + 1) } else { millis });
    let held = Rc::new(());
    let due = Instant::now() + delay;
    let (shared, holds) = (shared.clone(), held.clone());
    let runs = move |map: &mut ChannelMap| {
        let _ = &holds;
        run(map, &shared, number);
    };
    let id = match owner {
        None if every => map.call_every(delay, runs),
        None => map.call_later(delay, runs),
        Some(owner) => {
            let Some(handle) = world.lives[owner].handle else { return };
            let Ok(mut ch) = map.channel(handle.token()) else { return };
            match every {
                true => ch.call_every(delay, move |ch| {
                    runs(ch.map_mut());
                    Ok(())
                }),
                false => ch.call_later(delay, move |ch| {
                    runs(ch.map_mut());
                    Ok(())
                }),
            }
        }
    };
    world.timers.push(Timer { id, owner, every, due, over: false, held });
}

fn run(map: &mut ChannelMap, shared: &Shared, number: usize) {
    {
        let world = &mut *shared.borrow_mut();
        let timer = &mut world.timers[number];
        must(!timer.over, "a timer that has run or was cancelled runs");
        must(timer.due <= Instant::now(), "a timer is early");
        timer.over = !timer.every;
        if let Some(owner) = timer.owner {
            must(world.lives[owner].closes == 0, "a timer after handle_close");
        }
    }
    next(map, shared);
}

pub fn cancel(map: &mut ChannelMap, world: &mut World, number: usize) {
    let Some(timer) = world.timers.get_mut(number) else { return };
    let was_set = map.cancel(timer.id);
    must(!(was_set && timer.over), "a timer that is over was still set");
    match timer.owner.map(|owner| &world.lives[owner]) {
        None => must(was_set != timer.over, "a timer is lost"),
        Some(owner) if owner.closes > 0 => must(!was_set, "a timer has outlived its channel"),
        // One that ends may have dropped its timers.
        Some(owner) => must(was_set != timer.over || owner.ended || owner.far_ended, "a timer is lost"),
    }
    timer.over = true;
}

/// Repeating timers have run often enough.
pub fn stop_repeating(map: &mut ChannelMap, world: &mut World) {
    for number in 0..world.timers.len() {
        if world.timers[number].every && !world.timers[number].over {
            cancel(map, world, number);
        }
    }
}

type Call = Box<dyn FnOnce() -> bool + Send>;

/// Have `map` called, by `who`.
pub fn tell(map: &mut ChannelMap, world: &mut World, who: impl FnOnce(Call) -> bool) {
    let (number, held, remote) = (world.messages.accepted, world.messages.held.clone(), map.remote());
    let call = move |map: &mut ChannelMap| {
        let _ = &held;
        let shared = HERE.with_borrow(|here| here.clone().unwrap());
        {
            let messages = &mut shared.borrow_mut().messages;
            must(messages.ran == number, format!("message {number} after {}", messages.ran));
            messages.ran += 1;
        }
        next(map, &shared);
    };
    let accepted = who(Box::new(move || remote.call(call).is_ok()));
    world.messages.accepted += usize::from(accepted);
    must(accepted || world.dropping, "a message is refused");
}

pub fn from_another_thread(call: Call) -> bool {
    thread::spawn(call).join().unwrap()
}

impl World {
    /// A timer that lives on is still to run, or a message.
    pub fn is_owed_a_call(&self) -> bool {
        let lives = |owner: usize| {
            let life = &self.lives[owner];
            life.closes == 0 && !life.ended && !life.far_ended
        };
        let owed = |timer: &Timer| !timer.over && timer.owner.is_none_or(lives);
        self.messages.ran < self.messages.accepted || self.timers.iter().any(owed)
    }

    /// The map is gone, and with it what it held.
    pub fn end_of_calls(&self) {
        let left = self.timers.iter().filter(|timer| Rc::strong_count(&timer.held) > 1).count();
        must(left == 0, format!("{left} timers are held"));
        must(Arc::strong_count(&self.messages.held) == 1, "a message is held");
    }
}
