//! What is logged, kept for each thread; and what threads of the library log, kept for all.

use std::cell::RefCell;
use std::sync::{Mutex, Once, PoisonError};
use std::thread;

thread_local! {
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// What the thread that watches for slow hooks has logged, of whatever map.
static WATCHER: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Capture;

impl log::Log for Capture {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{} {}: {}", record.level(), record.target(), record.args());
        if thread::current().name() == Some("slow hooks") {
            return WATCHER.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
        let _ = LINES.try_with(|lines| lines.borrow_mut().push(line));
    }
    fn flush(&self) {}
}

/// From now on keep what this thread logs, at `info` and above.
pub fn capture_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| log::set_logger(&Capture).unwrap());
    log::set_max_level(log::LevelFilter::Info);
    LINES.with_borrow_mut(Vec::clear);
}

/// The lines that this thread has logged with this text in them.
pub fn logged(text: &str) -> Vec<String> {
    LINES.with_borrow(|lines| lines.iter().filter(|line| line.contains(text)).cloned().collect())
}

/// The lines about slow hooks, of all maps, with this text in them.
#[allow(dead_code)]
pub fn logged_of_slow_hooks(text: &str) -> Vec<String> {
    let lines = WATCHER.lock().unwrap_or_else(PoisonError::into_inner);
    lines.iter().filter(|line| line.contains(text)).cloned().collect()
}
