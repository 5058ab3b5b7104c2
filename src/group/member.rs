//! One loop of a group, on its thread, from its setup to its end.

use std::io;
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};

use crate::group::loops::{Loops, Seat, Shared};
use crate::{ChannelMap, LoopOptions};

/// The threads have ended.
pub(super) struct Joined;

/// Tells the others when this loop ends otherwise than in order, also by a panic.
struct Watch<'a> {
    index: usize,
    shared: &'a Shared,
    ended: bool,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.shared.fail(self.index, &io::Error::other("its thread panicked"));
        }
    }
}

/// The thread of a loop. It runs until it is stopped or drained, which all of them are, or until one fails.
pub(super) fn run(
    index: usize,
    shared: &Shared,
    setup: &dyn Fn(usize, &mut ChannelMap) -> io::Result<()>,
    ready: Sender<(usize, Seat)>,
) -> io::Result<()> {
    let mut watch = Watch { index, shared, ended: false };
    let result = ChannelMap::new().and_then(|mut map| {
        setup(index, &mut map)?;
        // The group may be gone; then the seat is dropped, and the loop was stopped.
        let _ = ready.send((index, Seat::new(&mut map)));
        drop(ready);
        match shared.wait_for_seats() {
            true => crate::run_with(&mut map, &LoopOptions::default().with_until_stopped(true)),
            false => Ok(()),
        }
    });
    watch.ended = true;
    match &result {
        Ok(()) => shared.has_ended(),
        Err(error) => shared.fail(index, error),
    }
    result
}

/// Wait for all threads; the error of the first that failed.
pub(super) fn join(threads: &mut Vec<JoinHandle<io::Result<()>>>, loops: &Loops) -> io::Result<Joined> {
    let own = thread::current().id();
    if threads.iter().any(|thread| thread.thread().id() == own) {
        threads.clear();
        let why = "a loop cannot wait for its own end; join the group on the thread that started it";
        return Err(io::Error::new(io::ErrorKind::Deadlock, why));
    }
    for thread in threads.drain(..) {
        // What it ended with is noted.
        let _ = thread.join();
    }
    loops.failure().map_or(Ok(Joined), Err)
}
