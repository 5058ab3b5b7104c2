//! System calls, counted by strace over a fixed number of messages. It is attached once the connections are
//! open. A traced server is slow, so with 64 connections each of its waits returns a full batch.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal};

use super::{Figures, Results, say};
use crate::load;
use crate::plan::{COUNTED, Plan, Scenario};
use crate::process::{Process, Under};
use crate::servers::Server;
use crate::system::Processors;

/// System calls by name, per message or connection.
pub type Calls = BTreeMap<String, f64>;

pub(super) fn count(results: &mut Results, plan: &Plan) {
    for server in results.servers.clone() {
        say(&format!("system calls: {}", server.name));
        let count = |scenario: &Scenario| {
            let calls = calls(server, scenario, plan, results.processors);
            results.keep(&format!("system calls of {}, {}", server.name, scenario.name), calls)
        };
        let figures = COUNTED.into_iter().map(count).collect();
        results.calls.push(Figures { server, figures });
    }
}

fn calls(
    server: &Server,
    scenario: &Scenario,
    plan: &Plan,
    processors: Option<Processors>,
) -> io::Result<Calls> {
    let mut process = Process::start(server, Under::Nothing, processors)?;
    let mut load = load::open(scenario, process.address)?;
    // What happens only once is not a cost of a message.
    load.exactly(plan.traced / 4)?;
    let tracer = Tracer::attach(process.id())?;
    load.exactly(plan.traced)?;
    let counts = tracer.finish()?;
    load.finish()?;
    process.check()?;
    Ok(counts.into_iter().map(|(name, count)| (name, count / plan.traced as f64)).collect())
}

struct Tracer {
    strace: Child,
}

impl Tracer {
    fn attach(process: u32) -> io::Result<Tracer> {
        let mut strace = Command::new("strace")
            .args(["-c", "-f", "-p", &process.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = strace.stderr.take().expect("it is piped");
        let mut tracer = Tracer { strace };
        let mut stderr = BufReader::new(stderr);
        let mut line = String::new();
        stderr.read_line(&mut line)?;
        if !line.contains("attached") {
            return Err(io::Error::other(line.trim().to_owned()));
        }
        // strace prints nothing more until it ends, so the buffer is empty.
        tracer.strace.stderr = Some(stderr.into_inner());
        Ok(tracer)
    }

    /// The calls since strace was attached.
    fn finish(mut self) -> io::Result<BTreeMap<String, f64>> {
        rustix::process::kill_process(Pid::from_child(&self.strace), Signal::INT)?;
        let mut table = String::new();
        self.strace.stderr.take().expect("it was put back").read_to_string(&mut table)?;
        Ok(parse(&table))
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // After `finish` it has ended by itself; after an error it has not.
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

/// Each line: % time, seconds, microseconds per call, calls, errors (may be missing), name.
fn parse(table: &str) -> BTreeMap<String, f64> {
    let mut calls = BTreeMap::new();
    for line in table.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [share, _, _, count, .., name] = words[..] else { continue };
        if share.parse::<f64>().is_err() || name == "total" {
            continue;
        }
        if let Ok(count) = count.parse() {
            calls.insert(name.to_owned(), count);
        }
    }
    calls
}
