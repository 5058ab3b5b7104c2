//! What the server counts: connections, how they ended, and what the library logs.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use dispatch_loop::Reason;
use log::{Level, LevelFilter, Log, Metadata, Record};

#[derive(Default)]
pub struct Tally {
    pub accepted: Cell<u64>,
    /// By the peer, by us, aborted, broken, too slow, over a limit.
    ends: [Cell<u64>; 6],
}

const ENDS: [&str; 6] = ["ended", "closed", "aborted", "broken", "timed-out", "other"];

impl Tally {
    pub fn ended(&self, reason: &Reason) {
        let end = match reason {
            Reason::EndOfStream => 0,
            Reason::Closed => 1,
            Reason::Aborted => 2,
            Reason::Error(_) => 3,
            Reason::TimedOut => 4,
            _ => 5,
        };
        self.ends[end].set(self.ends[end].get() + 1);
    }

    /// `name=number` for each, with spaces between.
    pub fn line(&self) -> String {
        let mut line = format!("accepted={}", self.accepted.get());
        for (name, end) in ENDS.iter().zip(&self.ends) {
            line += &format!(" {name}={}", end.get());
        }
        for (name, lines) in [("shortages", &SHORTAGES), ("suspensions", &SUSPENSIONS), ("lines", &LINES)] {
            line += &format!(" {name}={}", lines.load(Ordering::Relaxed));
        }
        line
    }
}

static LINES: AtomicU64 = AtomicU64::new(0);
static SHORTAGES: AtomicU64 = AtomicU64::new(0);
static SUSPENSIONS: AtomicU64 = AtomicU64::new(0);

/// Counts what is logged, and shows it on standard error.
struct Counting {
    shows: bool,
}

pub fn start_log(shows: bool) {
    let counting: &'static Counting = Box::leak(Box::new(Counting { shows }));
    // Fails only if there is a log already.
    let _ = log::set_logger(counting);
    log::set_max_level(LevelFilter::Warn);
}

impl Log for Counting {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        let text = record.args().to_string();
        LINES.fetch_add(1, Ordering::Relaxed);
        if text.contains("cannot accept") {
            SHORTAGES.fetch_add(1, Ordering::Relaxed);
        }
        if text.contains("suspended") {
            SUSPENSIONS.fetch_add(1, Ordering::Relaxed);
        }
        if self.shows {
            eprintln!("{} {text}", record.level());
        }
    }

    fn flush(&self) {}
}
