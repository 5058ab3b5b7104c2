//! Turning the loop until something has happened; and telling that nothing more does.

use std::time::{Duration, Instant};

#[cfg(debug_assertions)]
use dispatch_loop::faults::{Call, count};
use dispatch_loop::{ChannelMap, Token};

use super::recorder::Log;
use super::waiting::{DEADLINE, wait_for_input};

/// Turn the loop until `done`, or fail at the deadline with what happened so far.
#[track_caller]
pub fn turn_until(map: &mut ChannelMap, log: &Log, mut done: impl FnMut(&mut ChannelMap) -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !done(map) {
        assert!(Instant::now() < deadline, "the condition never came true; so far: {:#?}", log.events());
        map.turn(Some(Duration::from_millis(5))).unwrap();
    }
}

/// Turn until the map is empty, as `run` does, but no longer than to the deadline: a wake-up that is
/// missing makes it fail.
#[track_caller]
pub fn run_out(map: &mut ChannelMap, log: &Log) {
    let deadline = Instant::now() + DEADLINE;
    while !map.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "it does not end; so far: {:#?}", log.events());
        map.turn(Some(left)).unwrap();
    }
}

/// Turn the loop for as long as there is something to do at once, and a few turns more.
pub fn turn_idle(map: &mut ChannelMap) {
    for _ in 0..20 {
        map.turn(Some(Duration::from_millis(2))).unwrap();
    }
}

/// Turn without ever waiting; at most `turns` times, until `done`.
pub fn turns_at_once(
    map: &mut ChannelMap,
    turns: usize,
    mut done: impl FnMut(&mut ChannelMap) -> bool,
) -> bool {
    for _ in 0..turns {
        if done(map) {
            return true;
        }
        map.turn(Some(Duration::ZERO)).unwrap();
    }
    done(map)
}

/// Turn until there is nothing more to be done at once. What is left in a socket by one turn comes
/// in the one after it, so a single calm turn says nothing.
#[track_caller]
pub fn turn_quiet(map: &mut ChannelMap) {
    let mut calm = 0;
    for _ in 0..10_000 {
        map.turn(Some(Duration::ZERO)).unwrap();
        calm = if map.wait_limit() == Some(Duration::ZERO) { 0 } else { calm + 1 };
        if calm > 3 {
            return;
        }
    }
    panic!("the loop spins");
}

/// The peer of this channel has sent something, or its end: wait until it is here, and serve it.
#[track_caller]
pub fn arrive(map: &mut ChannelMap, token: impl Into<Token>) {
    if let Ok(ch) = map.channel(token.into()) {
        wait_for_input(ch.socket().unwrap());
    }
    turn_quiet(map);
}

/// How many waits the loop needs to let `period` pass. Of a loop that does not spin: a few, the
/// fewer the busier the machine.
pub fn waits_in(map: &mut ChannelMap, period: Duration) -> u64 {
    #[cfg(debug_assertions)]
    let before = count(Call::Wait);
    let end = Instant::now() + period;
    let mut waits = 0;
    while Instant::now() < end {
        map.turn(Some(end.saturating_duration_since(Instant::now()))).unwrap();
        waits += 1;
    }
    // A release build counts no calls; a turn waits once.
    #[cfg(debug_assertions)]
    let waits = waits.max(count(Call::Wait) - before);
    waits
}

/// Nothing happens in this map, and that costs nothing.
#[track_caller]
pub fn assert_calm(map: &mut ChannelMap) {
    let waits = waits_in(map, Duration::from_millis(150));
    assert!(waits <= 5, "{waits} waits, and nothing to wait for");
}

/// Rule 6: whether the loop comes to a turn that takes all the time it was given. One that spins
/// never does.
pub fn comes_to_rest(map: &mut ChannelMap) -> bool {
    (0..300).any(|_| {
        let begun = Instant::now();
        map.turn(Some(Duration::from_millis(20))).unwrap();
        begun.elapsed() >= Duration::from_millis(19)
    })
}
