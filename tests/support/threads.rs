//! Loops that wait for other threads, and threads that wait for a loop.

use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use dispatch_loop::{ChannelMap, run};

use super::waiting::{DEADLINE, wait_until};

/// A map that stays in its loop until it is stopped, for lack of anything better at the deadline.
pub fn held() -> ChannelMap {
    held_for(DEADLINE)
}

/// The same with another deadline.
pub fn held_for(deadline: Duration) -> ChannelMap {
    let mut map = ChannelMap::new().unwrap();
    map.call_later(deadline, |map| map.stop());
    map
}

/// `run`, which is to end by itself.
#[track_caller]
pub fn run_to_its_end(map: &mut ChannelMap) {
    let remote = map.remote();
    let (ended, has_ended) = mpsc::channel::<()>();
    let watchdog = thread::spawn(move || {
        let late = has_ended.recv_timeout(DEADLINE) == Err(mpsc::RecvTimeoutError::Timeout);
        if late {
            remote.stop();
        }
        late
    });
    run(map).unwrap();
    drop(ended);
    assert!(!watchdog.join().unwrap(), "it did not end by itself");
}

/// Start a thread that is to wait in `f`; goes on when it does, where the system can tell.
pub fn waiting<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        tell.send(std::fs::read_link("/proc/thread-self").ok()).unwrap();
        f()
    });
    if let Some(task) = told.recv().unwrap() {
        let stat = std::path::Path::new("/proc").join(task).join("stat");
        wait_until("the thread waits", || {
            std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") S "))
        });
    }
    assert!(!thread.is_finished(), "it did not wait");
    thread
}

#[track_caller]
pub fn joined<T>(thread: JoinHandle<T>) -> T {
    wait_until("the thread ends", || thread.is_finished());
    thread.join().unwrap()
}
