//! What keeps `run` going, and what does not: timers in the background, and `until_stopped`.

use std::cell::Cell;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use dispatch_loop::{ChannelMap, LoopOptions, run, run_with};

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_timer_in_the_background_runs_and_keeps_nothing_going() {
    let mut map = ChannelMap::new().unwrap();
    let ran = Rc::new(Cell::new(0));
    let count = ran.clone();
    let every = map.call_every(Duration::from_millis(1), move |_| count.set(count.get() + 1));
    let once = map.call_later(HOUR, |_| unreachable!("nobody waits for it"));
    assert!(!map.is_idle());
    assert!(map.set_timer_background(every, true));
    assert!(map.set_timer_background(once, true));
    assert!(map.is_idle());
    run(&mut map).unwrap();
    assert_eq!(ran.get(), 0);

    // While something else keeps it going, it runs, each time in the background.
    map.call_later(Duration::from_millis(20), |_| ());
    run(&mut map).unwrap();
    assert!(ran.get() >= 2, "{} times", ran.get());
    assert!(map.is_idle());

    // Back in the foreground.
    assert!(map.set_timer_background(every, false));
    assert!(!map.is_idle());
    map.call_later(Duration::from_millis(10), move |map| {
        assert!(map.cancel(every));
    });
    run(&mut map).unwrap();
    assert!(!map.set_timer_background(every, true), "it was cancelled");
    assert!(map.cancel(once));
}

#[test]
fn a_timer_goes_into_the_background_from_within_itself() {
    let mut map = ChannelMap::new().unwrap();
    let id = Rc::new(Cell::new(None));
    let own = id.clone();
    let every = map.call_every(Duration::from_millis(1), move |map| {
        assert!(map.set_timer_background(own.get().unwrap(), true));
    });
    id.set(Some(every));
    run(&mut map).unwrap();
    assert_eq!(map.numbers().timers, 1);
}

#[test]
fn a_timer_of_another_map_is_not_touched() {
    let mut map = ChannelMap::new().unwrap();
    let mut other = ChannelMap::new().unwrap();
    let timer = map.call_later(HOUR, |_| ());
    other.call_later(HOUR, |_| ());
    assert!(!other.set_timer_background(timer, true));
    assert!(!map.is_idle() && !other.is_idle());
}

/// An empty map sleeps, takes what comes from other threads, and ends by `stop` alone.
#[test]
fn a_map_without_channels_runs_until_it_is_stopped() {
    let mut map = ChannelMap::new().unwrap();
    let remote = map.remote();
    let (ask, answer) = std::sync::mpsc::channel();
    let other = thread::spawn(move || {
        for round in 0..3 {
            let ask = ask.clone();
            remote.call(move |map| ask.send((round, map.numbers().turns)).unwrap()).unwrap();
        }
        remote.call(|map| map.stop()).unwrap();
    });
    run_with(&mut map, &LoopOptions::default().with_until_stopped(true)).unwrap();
    other.join().unwrap();
    let answers: Vec<_> = answer.iter().collect();
    assert_eq!(answers.iter().map(|(round, _)| *round).collect::<Vec<_>>(), [0, 1, 2]);
    let turns = map.numbers().turns;
    assert!(turns < 20, "{turns} turns for four calls");
}

/// What is left ends, and the loop goes on.
#[test]
fn with_a_timer_and_a_count_it_ends_as_ever() {
    let mut map = ChannelMap::new().unwrap();
    let options = LoopOptions::default().with_until_stopped(true);
    map.call_later(Duration::from_millis(1), |map| {
        map.call_later(Duration::from_millis(1), |map| map.stop());
    });
    run_with(&mut map, &options).unwrap();
    run_with(&mut map, &options.with_timeout(Duration::from_millis(1)).with_count(3)).unwrap();
}
