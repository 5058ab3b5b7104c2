//! Threads for work that blocks: a bounded number, started as they are needed, with a bounded queue. What is done
//! with the results is in `blocking.rs`.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::error::panicked;
use crate::guard::drop_caught;
use crate::sys::faults::{self, Call};
use crate::token::Token;

/// The most that run at once, and that wait, unless the map says otherwise.
const THREADS: usize = 8;
const WAITING: usize = 1024;

/// The most look-ups of names that are awaited.
const LOOK_UPS: usize = 1024;

/// How long a thread without work stays.
const PATIENCE: Duration = Duration::from_secs(10);

struct Job {
    number: u64,
    work: Work,
}

type Work = Box<dyn FnOnce(Busy<'_>) + Send>;

struct Jobs {
    waiting: VecDeque<Job>,
    threads: usize,
    /// How many threads there may be.
    most: usize,
    /// Of them, those that have nothing to do but to take the next job.
    idle: usize,
    /// The map has gone.
    ended: bool,
}

impl Jobs {
    /// How many jobs have a thread that is about to take them; there may be more threads than there should be.
    fn free(&self) -> usize {
        self.idle.saturating_sub(self.threads.saturating_sub(self.most))
    }
}

struct Shared {
    jobs: Mutex<Jobs>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job; `None` if this thread is to end.
    fn next(&self) -> Option<Job> {
        let mut jobs = self.lock();
        loop {
            let is_one_too_many = jobs.threads > jobs.most;
            if jobs.ended || is_one_too_many {
                break;
            }
            if let Some(job) = jobs.waiting.pop_front() {
                jobs.idle -= 1;
                return Some(job);
            }
            let (kept, waited) =
                self.changed.wait_timeout(jobs, PATIENCE).unwrap_or_else(PoisonError::into_inner);
            jobs = kept;
            if waited.timed_out() && jobs.waiting.is_empty() {
                break;
            }
        }
        jobs.idle -= 1;
        jobs.threads -= 1;
        drop(jobs);
        // What it was woken for is for another one.
        self.changed.notify_one();
        None
    }

    fn work_off(&self) {
        while let Some(job) = self.next() {
            // It catches the panics of the work itself.
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| (job.work)(Busy(self)))) {
                drop(panicked(payload));
            }
        }
    }
}

/// While this lives, its thread is at work.
pub(crate) struct Busy<'a>(&'a Shared);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.lock().idle += 1;
    }
}

/// A result that is awaited.
struct Due<D> {
    /// Whose it is.
    owner: Option<Token>,
    /// What is to be done with it.
    done: D,
    is_look_up: bool,
}

/// A map's work that blocks: what is to be done with each result, and the threads.
pub(crate) struct Pool<D> {
    shared: Arc<Shared>,
    due: HashMap<u64, Due<D>>,
    look_ups: usize,
    last: u64,
    most_waiting: usize,
}

impl<D> Pool<D> {
    pub(crate) fn new() -> Pool<D> {
        let jobs = Jobs { waiting: VecDeque::new(), threads: 0, most: THREADS, idle: 0, ended: false };
        Pool {
            shared: Arc::new(Shared { jobs: Mutex::new(jobs), changed: Condvar::new() }),
            due: HashMap::new(),
            look_ups: 0,
            last: 0,
            most_waiting: WAITING,
        }
    }

    pub(crate) fn set_limits(&mut self, threads: usize, waiting: usize) {
        self.most_waiting = waiting;
        self.shared.lock().most = threads.max(1);
        self.shared.changed.notify_all();
    }

    /// Whether no result is awaited.
    pub(crate) fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    /// How much work waits, and how much is being done, of that whose result is awaited.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let waiting = self.shared.lock().waiting.len();
        let running = self.due.len().saturating_sub(waiting);
        (waiting, running)
    }

    /// Have a thread do what `make` makes of its number, when there is one.
    pub(crate) fn add(
        &mut self,
        owner: Option<Token>,
        done: D,
        make: impl FnOnce(u64) -> Work,
    ) -> io::Result<()> {
        let mut jobs = self.shared.lock();
        let free = jobs.free();
        let mut is_new = jobs.waiting.len() >= free && jobs.threads < jobs.most;
        if is_new {
            let shared = self.shared.clone();
            let started = faults::pass(Call::Thread).and_then(|()| {
                let named = thread::Builder::new().name("dispatch-loop work".into());
                named.spawn(move || shared.work_off()).map(drop)
            });
            match started {
                Ok(()) => {
                    jobs.threads += 1;
                    jobs.idle += 1;
                }
                Err(error) if jobs.threads == 0 => return Err(error),
                // Those that run take it.
                Err(_) => is_new = false,
            }
        }
        if !is_new && jobs.waiting.len() >= free.saturating_add(self.most_waiting) {
            let why = format!(
                "{} calls that block are under way on {} threads, and {} wait: no more are taken",
                jobs.threads, jobs.threads, self.most_waiting
            );
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, why));
        }
        self.last += 1;
        let number = self.last;
        self.due.insert(number, Due { owner, done, is_look_up: false });
        jobs.waiting.push_back(Job { number, work: make(number) });
        drop(jobs);
        self.shared.changed.notify_one();
        Ok(())
    }

    /// Something is to be done when a look-up has been answered, which is not done here.
    pub(crate) fn expect(&mut self, done: D) -> io::Result<u64> {
        if self.look_ups >= LOOK_UPS {
            let why = format!("{LOOK_UPS} look-ups of names are not answered yet: no more are taken");
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, why));
        }
        self.look_ups += 1;
        self.last += 1;
        self.due.insert(self.last, Due { owner: None, done, is_look_up: true });
        Ok(self.last)
    }

    /// The result is there: whose it is, and what is to be done with it.
    pub(crate) fn take(&mut self, number: u64) -> Option<(Option<Token>, D)> {
        let Due { owner, done, is_look_up } = self.due.remove(&number)?;
        self.look_ups -= usize::from(is_look_up);
        Some((owner, done))
    }

    /// The channel has ended: its work is not begun any more, and its results are not awaited. Takes O(results
    /// that are awaited).
    pub(crate) fn cancel(&mut self, owner: Token) {
        let numbers: Vec<u64> =
            self.due.iter().filter(|(_, due)| due.owner == Some(owner)).map(|(number, _)| *number).collect();
        if numbers.is_empty() {
            return;
        }
        let mut jobs = self.shared.lock();
        let (gone, left) = jobs.waiting.drain(..).partition(|job| numbers.contains(&job.number));
        jobs.waiting = left;
        drop(jobs);
        let gone: VecDeque<Job> = gone;
        for number in numbers {
            drop_caught("a call that blocks", self.due.remove(&number).map(|due| due.done));
        }
        for job in gone {
            drop_caught("a call that blocks", job.work);
        }
    }
}

impl<D> Drop for Pool<D> {
    fn drop(&mut self) {
        let mut jobs = self.shared.lock();
        jobs.ended = true;
        let waiting = std::mem::take(&mut jobs.waiting);
        drop(jobs);
        self.shared.changed.notify_all();
        for job in waiting {
            drop_caught("a call that blocks", job.work);
        }
        for (_, due) in self.due.drain() {
            drop_caught("a call that blocks", due.done);
        }
    }
}
