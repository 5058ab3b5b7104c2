//! Name look-ups, on threads of their own: the system's call blocks, and would block every channel of the
//! loop with it. They are bounded in all, by map and by name, so that a server that does not answer leaves
//! room for others. What is done with the addresses is in `event_loop/dial.rs`.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::error::{clone_error, panicked};
use crate::guard::drop_caught;
use crate::sys::faults::{self, Call};

/// The most look-ups at once, and so the most threads: of the process, of one map, and of one name in it.
const IN_ALL: usize = 32;
const OF_MAP: usize = 8;
const OF_NAME: usize = 2;

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

struct Job {
    number: u64,
    of: Of,
    work: Box<dyn FnOnce() + Send>,
}

/// Whose look-up it is: the map's number, and the name.
#[derive(Clone, PartialEq, Eq)]
struct Of(u32, String);

struct Jobs {
    waiting: VecDeque<Job>,
    /// One for each thread.
    running: Vec<Of>,
    last: u64,
}

impl Jobs {
    fn has_room_for(&self, of: &Of) -> bool {
        let of_map = self.running.iter().filter(|other| other.0 == of.0).count();
        let of_name = self.running.iter().filter(|other| *other == of).count();
        self.running.len() < IN_ALL && of_map < OF_MAP && of_name < OF_NAME
    }

    /// A look-up has ended: the first that waits and for which there is room now.
    fn next(&mut self, ended: &Of) -> Option<Job> {
        let at = self.running.iter().position(|of| of == ended)?;
        self.running.swap_remove(at);
        let next = self.waiting.iter().position(|job| self.has_room_for(&job.of))?;
        let job = self.waiting.remove(next)?;
        self.running.push(job.of.clone());
        Some(job)
    }
}

static JOBS: Mutex<Jobs> = Mutex::new(Jobs { waiting: VecDeque::new(), running: Vec::new(), last: 0 });

fn jobs() -> MutexGuard<'static, Jobs> {
    JOBS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A look-up that was asked for. Dropping it takes it back if it has not begun.
pub(crate) struct Asked(u64);

impl Asked {
    /// Whether there was room for it.
    pub(crate) fn has_begun(&self) -> bool {
        jobs().waiting.iter().all(|job| job.number != self.0)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut jobs = jobs();
        let at = jobs.waiting.iter().position(|job| job.number == self.0);
        let job = at.and_then(|at| jobs.waiting.remove(at));
        drop(jobs);
        // It may hold the last of a resolver.
        drop_caught("a resolver", job.map(|job| job.work));
    }
}

/// Have another thread do `work`, which looks `host` up for a map, as soon as there is room for it.
///
/// # Errors
/// No thread can be started, and none is running.
pub(crate) fn ask(map: u32, host: &str, work: Box<dyn FnOnce() + Send>) -> io::Result<Asked> {
    let mut jobs = jobs();
    jobs.last += 1;
    let number = jobs.last;
    let of = Of(map, host.to_owned());
    let begins = jobs.has_room_for(&of);
    jobs.waiting.push_back(Job { number, of: of.clone(), work });
    if begins {
        let its = of.clone();
        let started = faults::pass(Call::Thread).and_then(|()| {
            thread::Builder::new().name("dispatch-loop names".into()).spawn(move || work_off(number, its))
        });
        match started {
            Ok(_) => jobs.running.push(of),
            Err(error) if jobs.running.is_empty() => {
                let job = jobs.waiting.pop_back();
                drop(jobs);
                drop_caught("a resolver", job.map(|job| job.work));
                return Err(error);
            }
            // Who runs takes it.
            Err(_) => {}
        }
    }
    Ok(Asked(number))
}

/// A thread: does the job of this number, unless it was taken back, and then those for which there is room.
fn work_off(number: u64, mut of: Of) {
    let mut all = jobs();
    let at = all.waiting.iter().position(|job| job.number == number);
    let mut job = at.and_then(|at| all.waiting.remove(at));
    drop(all);
    loop {
        if let Some(Job { work, .. }) = job {
            // What can panic is the drop of a resolver.
            if let Err(payload) = catch_unwind(AssertUnwindSafe(work)) {
                drop(panicked(payload));
            }
        }
        job = jobs().next(&of);
        match &job {
            Some(job) => of = job.of.clone(),
            None => return,
        }
    }
}
