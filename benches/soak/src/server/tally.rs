//! What the server tells: what the library counts, how long good newcomers wait, and what is logged.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dispatch_loop::{Deadline, Numbers};
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::from;
use crate::waits::Waits;

#[derive(Default)]
pub struct Tally {
    deadlines: RefCell<BTreeMap<String, u64>>,
    /// Of good clients, from the head of the backlog to the first answer.
    newcomers: RefCell<Waits>,
    /// Connections of each hostile address, and the most that there were of one.
    hostile: RefCell<HashMap<IpAddr, u64>>,
    most: Cell<u64>,
}

/// A connection, which waits for its first answer.
pub struct Newcomer {
    at_head: Cell<Option<Instant>>,
    hostile: Option<IpAddr>,
    pub tally: Rc<Tally>,
}

impl Newcomer {
    /// `at_head`: since when it was the first in the backlog.
    pub fn new(peer: Option<IpAddr>, at_head: Instant, tally: &Rc<Tally>) -> Newcomer {
        let is_good = peer.is_some_and(from::is_good);
        let hostile = peer.filter(|ip| from::is_hostile(*ip));
        if let Some(ip) = hostile {
            let mut all = tally.hostile.borrow_mut();
            let of_peer = all.entry(ip).or_default();
            *of_peer += 1;
            tally.most.set(tally.most.get().max(*of_peer));
        }
        Newcomer { at_head: Cell::new(is_good.then_some(at_head)), hostile, tally: tally.clone() }
    }

    pub fn is_answered(&self) {
        if let Some(at_head) = self.at_head.take() {
            self.tally.newcomers.borrow_mut().add(at_head.elapsed());
        }
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        if let Some(ip) = self.hostile {
            *self.tally.hostile.borrow_mut().entry(ip).or_default() -= 1;
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
        add("", "most-of-one", self.most.get());
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
