//! The measurements, in the order in which they are made, and their results.
//!
//! If a server fails, its figure is left out, the failure is noted, and the rest continues.

mod calls;
mod growth;
mod instructions;
mod memory;
mod rounds;

use std::io;

use crate::plan::{Plan, SCENARIOS, Scenario};
use crate::process;
use crate::servers::{BASE, SERVERS, Server};
use crate::system::{self, Processors};
use crate::timers;

pub use calls::Calls;
pub use growth::Growth;
#[cfg(feature = "tls")]
pub(crate) use instructions::per_message;
pub use memory::Memory;
pub use rounds::{Run, Spread};

/// Descriptors that are left for the busy connections beside the idle ones, and for what is no connection.
const SPARE: u64 = 150;

/// What was measured.
pub struct Results {
    pub servers: Vec<&'static Server>,
    pub processors: Option<Processors>,
    /// What was left out, and why.
    pub skipped: Vec<String>,
    /// What went wrong.
    pub failures: Vec<String>,
    pub rounds: Vec<Rounds>,
    pub calls: Vec<Figures<Calls>>,
    pub instructions: Vec<Figures<f64>>,
    /// Like `instructions`, for our variants.
    pub variants: Vec<Figures<f64>>,
    pub growth: Vec<Growth>,
    pub memory: Vec<(&'static Server, Memory)>,
    pub timers: Option<timers::Outcome>,
}

/// The runs of one scenario: for each server, one per round.
pub struct Rounds {
    pub scenario: &'static Scenario,
    pub runs: Vec<Vec<Option<Run>>>,
}

/// A server's figures: one per scenario of [`COUNTED`](crate::plan::COUNTED), or of the first of these.
pub struct Figures<T> {
    pub server: &'static Server,
    pub figures: Vec<Option<T>>,
}

impl Results {
    /// The index of the server with that name.
    pub fn place(&self, name: &str) -> Option<usize> {
        self.servers.iter().position(|server| server.name == name)
    }

    /// Takes the value, or notes what went wrong.
    fn keep<T>(&mut self, what: &str, result: io::Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                say(&format!("{what}: FAILED: {error}"));
                self.failures.push(format!("{what}: {error}"));
                None
            }
        }
    }

    fn skip(&mut self, what: String) {
        say(&format!("skipped: {what}"));
        self.skipped.push(what);
    }
}

/// Measures the servers with these names, or all of them, and [`BASE`] in any case.
pub fn everything(plan: &Plan, only: Option<&[String]>) -> Results {
    let is_asked_for = |server: &Server| {
        server.name == BASE || only.is_none_or(|only| only.iter().any(|name| name == server.name))
    };
    let limit = system::raise_descriptor_limit().saturating_sub(SPARE) as usize;
    let mut results = prepare(&is_asked_for);
    for scenario in SCENARIOS {
        if scenario.connections <= limit {
            let rounds = rounds::take_turns(&mut results, scenario, plan);
            results.rounds.push(rounds);
        } else {
            results.skip(format!("{}: only {limit} connections may be open", scenario.name));
        }
    }
    let idle = plan.idle.min(limit);
    if idle < plan.idle {
        results.skip(format!("{} idle connections: only {idle} may be open, and are", plan.idle));
    }
    memory::measure(&mut results, idle);
    if system::is_installed("strace") {
        calls::count(&mut results, plan);
    } else {
        results.skip("system calls: strace is not installed".to_owned());
    }
    if system::is_installed("valgrind") && system::is_installed("vgdb") {
        instructions::count(&mut results, plan, &is_asked_for);
        growth::measure(&mut results, plan, idle, &is_asked_for);
    } else {
        results.skip("instructions, and growth: valgrind is not installed".to_owned());
    }
    if results.servers.iter().any(|server| server.name.starts_with("ours")) {
        say("timers");
        let timers = timers::compare(plan.timers, plan.timer_rounds);
        results.timers = results.keep("timers", timers);
    }
    results
}

/// Finds the servers that can run here, and pins the load generator.
fn prepare(is_asked_for: &dyn Fn(&Server) -> bool) -> Results {
    let mut results = Results {
        servers: Vec::new(),
        processors: Processors::choose(),
        skipped: Vec::new(),
        failures: Vec::new(),
        rounds: Vec::new(),
        calls: Vec::new(),
        instructions: Vec::new(),
        variants: Vec::new(),
        growth: Vec::new(),
        memory: Vec::new(),
        timers: None,
    };
    for server in SERVERS.iter().filter(|server| is_asked_for(server)) {
        match process::is_available(server) {
            Ok(()) => results.servers.push(server),
            Err(reason) => results.skip(format!("{}: {reason}", server.name)),
        }
    }
    if let Some(processors) = results.processors {
        if let Err(error) = system::pin(None, processors.load) {
            results.skip(format!("pinning: {error}"));
            results.processors = None;
        }
    } else {
        results.skip("pinning: there is only one processor".to_owned());
    }
    results
}

/// Reports progress.
fn say(what: &str) {
    eprintln!("{what}");
}
