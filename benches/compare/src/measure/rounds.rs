//! Throughput and processor time, in rounds: in each round every server runs once, and is compared with the
//! base server of that round. A shared machine may be tens of per cent faster or slower a minute later;
//! runs that follow each other closely are affected alike.

use std::io;
use std::time::Instant;

use super::{Results, Rounds, say};
use crate::load;
use crate::plan::{Plan, Scenario};
use crate::process::{Process, Under};
use crate::servers::Server;
use crate::system::{self, Processors};

/// The result of one run of one server.
#[derive(Clone, Copy)]
pub struct Run {
    /// Messages or connections per second.
    pub rate: f64,
    /// The server's processor time for each of them, in seconds.
    pub cpu: f64,
    /// How busy the server and the load generator were; 1 is a whole processor.
    pub server_share: f64,
    pub load_share: f64,
}

pub(super) fn take_turns(results: &mut Results, scenario: &'static Scenario, plan: &Plan) -> Rounds {
    let servers = results.servers.clone();
    let mut runs: Vec<Vec<Option<Run>>> = vec![Vec::new(); servers.len()];
    for round in 0..plan.rounds {
        say(&format!("{}: round {} of {}", scenario.name, round + 1, plan.rounds));
        for turn in 0..servers.len() {
            // The order rotates, so that no server always comes first.
            let at = (turn + round) % servers.len();
            let run = run(servers[at], scenario, plan, results.processors);
            runs[at].push(results.keep(&format!("{}, {}", scenario.name, servers[at].name), run));
        }
    }
    Rounds { scenario, runs }
}

fn run(server: &Server, scenario: &Scenario, plan: &Plan, processors: Option<Processors>) -> io::Result<Run> {
    let mut process = Process::start(server, Under::Nothing, processors)?;
    let mut load = load::open(scenario, process.address)?;
    load.keep_busy(plan.warm_up)?;
    let used = |process: u32| Ok::<f64, io::Error>(system::cpu_time(process)?.as_secs_f64());
    let (server_used, load_used) = (used(process.id())?, used(std::process::id())?);
    let begun = Instant::now();
    let count = load.keep_busy(plan.measured)?.max(1) as f64;
    let elapsed = begun.elapsed().as_secs_f64();
    let server_used = used(process.id())? - server_used;
    let load_used = used(std::process::id())? - load_used;
    load.finish()?;
    process.check()?;
    Ok(Run {
        rate: count / elapsed,
        cpu: server_used / count,
        server_share: server_used / elapsed,
        load_share: load_used / elapsed,
    })
}

/// A figure over several rounds.
#[derive(Clone, Copy)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// `None` if there are none.
    pub fn of(values: impl Iterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            1 => values[middle],
            _ => (values.get(middle.checked_sub(1)?)? + values[middle]) / 2.0,
        };
        Some(Spread { median, min: values[0], max: *values.last()? })
    }
}

impl Rounds {
    /// A figure of one server, over the rounds.
    pub fn figure(&self, server: usize, figure: impl Fn(&Run) -> f64) -> Option<Spread> {
        Spread::of(self.runs[server].iter().flatten().map(figure))
    }

    /// A figure of one server divided by that of another in the same round.
    pub fn ratio(&self, server: usize, base: usize, figure: impl Fn(&Run) -> f64) -> Option<Spread> {
        let pairs = self.runs[server].iter().zip(&self.runs[base]);
        Spread::of(pairs.filter_map(|(run, base)| Some(figure(run.as_ref()?) / figure(base.as_ref()?))))
    }
}
