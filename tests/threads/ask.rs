//! A call to the loop that brings its answer back: EDGE_CASES 523 to 525.

use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use dispatch_loop::{AskError, ChannelMap, run};

const LONG: Duration = Duration::from_secs(30);

/// EDGE_CASES 523: in the order of what the thread has called before, by value.
#[test]
fn an_answer_comes_back_to_the_thread_that_asked() {
    let mut map = ChannelMap::new().unwrap();
    let remote = map.remote();
    map.call_later(LONG, |_| ());
    let thread = thread::spawn(move || {
        for _ in 0..3 {
            remote
                .call(|map| {
                    map.call_later(LONG, |_| ());
                })
                .unwrap();
        }
        let answers: Vec<_> =
            (0..100).map(|n| remote.ask(LONG, move |map| (n, map.numbers().timers))).collect();
        // The last one is answered, though it stops the loop.
        let last = remote.ask(LONG, |map| {
            map.stop();
            "stopping"
        });
        (answers, last)
    });
    run(&mut map).unwrap();
    let (answers, last) = thread.join().unwrap();
    assert_eq!(answers, (0..100).map(|n| Ok((n, 4))).collect::<Vec<_>>());
    assert_eq!(last, Ok("stopping"));
}

/// EDGE_CASES 524: each way not to be answered, and none of them begins later.
#[test]
fn who_has_no_answer_is_told_why_and_nothing_is_done_afterwards() {
    let mut map = ChannelMap::new().unwrap();
    map.set_remote_capacity(1);
    let remote = map.remote();
    assert_eq!(remote.ask(LONG, |_| ()), Err(AskError::OnALoop));
    let (begun, begins) = mpsc::channel();
    let [of_late, of_full] = [begun.clone(), begun.clone()];
    let asks = remote.clone();
    let thread = thread::spawn(move || {
        // Nobody runs the loop.
        let late = asks.ask(Duration::from_millis(20), move |_| of_late.send("late"));
        let full = asks.ask(LONG, move |_| of_full.send("full"));
        (late, full)
    });
    let (late, full) = thread.join().unwrap();
    assert_eq!((late, full), (Err(AskError::TimedOut), Err(AskError::Full)));
    // Its message is still in the queue.
    map.turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(map.numbers().messages, 0);
    assert!(begins.try_recv().is_err(), "it must not begin after its time");

    // A panic is no answer, and is not waited for.
    map.call_later(LONG, |_| ());
    let asks = remote.clone();
    let thread = thread::spawn(move || {
        let asked = Instant::now();
        let panicked: Result<(), _> = asks.ask(LONG, |_| panic!("as asked"));
        // Too slow: it has begun.
        let slow = asks.ask(Duration::from_millis(20), |_| thread::sleep(Duration::from_millis(200)));
        asks.stop();
        (panicked, slow, asked.elapsed())
    });
    run(&mut map).unwrap();
    let (panicked, slow, took) = thread.join().unwrap();
    assert_eq!((panicked, slow), (Err(AskError::Unanswered), Err(AskError::Unanswered)));
    assert!(took < LONG);

    // The loop is stopped, and then gone.
    let asks = remote.clone();
    let stopped = thread::spawn(move || asks.ask(LONG, |_| ())).join().unwrap();
    assert_eq!(stopped, Err(AskError::Stopped));
    drop(map);
    let gone = thread::spawn(move || remote.ask(LONG, |_| ())).join().unwrap();
    assert_eq!(gone, Err(AskError::Stopped));
    let kinds =
        [AskError::TimedOut, AskError::Stopped, AskError::OnALoop].map(|error| io::Error::from(error).kind());
    assert_eq!(kinds, [io::ErrorKind::TimedOut, io::ErrorKind::BrokenPipe, io::ErrorKind::Deadlock]);
}

/// EDGE_CASES 525: whoever waits while the loop stops, or its map goes, does not wait to the end.
#[test]
fn who_waits_for_an_answer_learns_of_the_end_of_the_loop() {
    for is_dropped in [false, true] {
        let mut map = ChannelMap::new().unwrap();
        let remote = map.remote();
        let thread = thread::spawn(move || remote.ask(LONG, |_| ()));
        while map.numbers().messages == 0 {
            thread::yield_now();
        }
        let asked = Instant::now();
        match is_dropped {
            true => drop(map),
            false => {
                map.stop();
                run(&mut map).unwrap();
            }
        }
        let answer = thread.join().unwrap();
        // A stop lets what has come before run.
        assert!(answer == Err(AskError::Stopped) || (!is_dropped && answer == Ok(())), "{answer:?}");
        assert!(asked.elapsed() < LONG);
    }
}
