//! What the server tells: what the library counts, how long good newcomers wait, and what is logged.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dispatch_loop::{Deadline, Numbers};
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::waits::Waits;

#[derive(Default)]
pub struct Tally {
    deadlines: RefCell<BTreeMap<String, u64>>,
    /// Of good clients, from the head of the backlog to the first answer.
    newcomers: RefCell<Waits>,
}

/// Waits for its first answer.
pub struct Newcomer {
    at_head: Cell<Option<Instant>>,
    pub tally: Rc<Tally>,
}

impl Newcomer {
    /// `at_head`: since when it was the first in the backlog, if that is to be counted.
    pub fn new(at_head: Option<Instant>, tally: &Rc<Tally>) -> Newcomer {
        Newcomer { at_head: Cell::new(at_head), tally: tally.clone() }
    }

    pub fn is_answered(&self) {
        if let Some(at_head) = self.at_head.take() {
            self.tally.newcomers.borrow_mut().add(at_head.elapsed());
        }
    }
}

impl Tally {
    pub fn passed(&self, deadline: Deadline) {
        *self.deadlines.borrow_mut().entry(deadline.to_string()).or_default() += 1;
    }

    /// `name=number` for each, with spaces between. Times are in microseconds.
    pub fn line(&self, numbers: &Numbers) -> String {
        let mut line = format!("accepts={} accept-errors={}", numbers.accepts, numbers.accept_errors);
        let mut add = |kind: &str, name: &str, number: u64| {
            line += &format!(" {kind}{}={number}", name.replace(' ', "-"));
        };
        numbers.refusals().for_each(|(limit, count)| add("refused:", limit, count));
        numbers.rests().for_each(|(cause, count)| add("rest:", cause, count));
        numbers.closes().for_each(|(reason, count)| add("close:", reason, count));
        self.deadlines.borrow().iter().for_each(|(name, count)| add("deadline:", name, *count));
        let turns = [("turn-half", 0.5), ("turn-99", 0.99), ("turn-worst", 1.0)];
        for (name, q) in turns {
            add("", name, micros(numbers.turn_time.quantile(q).unwrap_or_default()));
        }
        let newcomers = self.newcomers.borrow();
        add("", "head-half", micros(newcomers.percentile(50)));
        add("", "head-99", micros(newcomers.percentile(99)));
        add("", "head-worst", micros(newcomers.worst));
        add("", "head-late", newcomers.later_than(Duration::from_secs(2)));
        add("", "suspensions", SUSPENSIONS.load(Ordering::Relaxed));
        add("", "lines", LINES.load(Ordering::Relaxed));
        line
    }
}

fn micros(time: Duration) -> u64 {
    time.as_micros() as u64
}

static LINES: AtomicU64 = AtomicU64::new(0);
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
        if text.contains("suspended") {
            SUSPENSIONS.fetch_add(1, Ordering::Relaxed);
        }
        if self.shows {
            eprintln!("{} {text}", record.level());
        }
    }

    fn flush(&self) {}
}
