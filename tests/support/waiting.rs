//! Waiting, beside the loop and always with a deadline, for what is to happen.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

/// No test waits longer than this for anything.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Wait, on another thread than the loop's, until `done`.
#[track_caller]
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Wait until this socket has something to say: input, its end, an error.
pub fn wait_for_input(socket: impl AsFd) {
    let mut fds = [PollFd::new(&socket, PollFlags::IN)];
    let limit = Timespec { tv_sec: DEADLINE.as_secs() as _, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut fds, Some(&limit)).unwrap(), 1);
}

/// Wait until a reset, or FIN of both ends, has arrived at this socket.
pub fn wait_for_hang_up(socket: impl AsFd) {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    wait_until("the hang-up", || {
        let mut fds = [PollFd::new(&socket, PollFlags::empty())];
        rustix::event::poll(&mut fds, Some(&now)).unwrap() == 1
    });
}
