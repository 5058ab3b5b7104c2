//! Name look-ups, on a few worker threads: the system's call blocks, and would block every channel of
//! the loop with it. What is done with the addresses is in `event_loop/dial.rs`.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::error::{clone_error, panicked};
use crate::guard::drop_caught;

/// The most worker threads, for the whole process.
const THREADS: usize = 4;

/// How long an idle worker waits for another job before it ends.
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks names up for a map.
pub(crate) type Resolver = Arc<dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync>;

/// The system's resolver: `getaddrinfo`.
pub(crate) fn system() -> Resolver {
    Arc::new(|host, port| Ok((host, port).to_socket_addrs()?.collect()))
}

/// Look `host` up; a panic of the resolver becomes an error.
pub(crate) fn look_up(resolver: &Resolver, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    match catch_unwind(AssertUnwindSafe(|| resolver(host, port))) {
        Ok(Ok(found)) if found.is_empty() => {
            Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
        }
        Ok(Ok(found)) => Ok(found),
        // What it says and how it is dropped is the resolver's, and may panic.
        Ok(Err(error)) => {
            let copy = clone_error(&error);
            drop_caught("an error", error);
            Err(copy)
        }
        Err(payload) => Err(panicked(payload)),
    }
}

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

static JOBS: Mutex<Jobs> = Mutex::new(Jobs { waiting: VecDeque::new(), threads: 0, idle: 0 });
static MORE: Condvar = Condvar::new();

fn jobs() -> MutexGuard<'static, Jobs> {
    JOBS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Have a worker do `job`, which must not panic.
///
/// # Errors
/// No worker is running and none can be started.
pub(crate) fn run_elsewhere(job: Job) -> io::Result<()> {
    let mut jobs = jobs();
    jobs.waiting.push_back(job);
    if jobs.waiting.len() <= jobs.idle || jobs.threads == THREADS {
        MORE.notify_one();
        return Ok(());
    }
    match thread::Builder::new().name("dispatch-loop names".into()).spawn(work) {
        Ok(_) => jobs.threads += 1,
        Err(error) if jobs.threads == 0 => {
            jobs.waiting.pop_back();
            return Err(error);
        }
        // A running worker takes it.
        Err(_) => {}
    }
    Ok(())
}

fn work() {
    let mut jobs = jobs();
    loop {
        if let Some(job) = jobs.waiting.pop_front() {
            drop(jobs);
            // What can panic is the drop of a resolver.
            let _ = catch_unwind(AssertUnwindSafe(job));
            jobs = self::jobs();
            continue;
        }
        jobs.idle += 1;
        let waited = MORE.wait_timeout(jobs, PATIENCE).unwrap_or_else(PoisonError::into_inner);
        jobs = waited.0;
        jobs.idle -= 1;
        if waited.1.timed_out() && jobs.waiting.is_empty() {
            jobs.threads -= 1;
            return;
        }
    }
}
