//! Instructions in user space, counted by callgrind: with few exceptions the same in every run to within a
//! per cent, whatever else the machine does.
//!
//! The counter is read with `vgdb` while the server is at rest: before and after a run of messages, and after
//! a second run of twice that length. Starting and connecting are outside of both; subtracting one run from
//! the other also removes what happens once per run, such as the disturbance by reading the counter. Under
//! callgrind a server is slow, so with 64 connections each of its waits returns a full batch.

use std::io;
use std::process::{Command, Stdio};

use super::{Figures, Results, say};
use crate::load::{self, Load};
use crate::plan::{COUNTED, Plan, Scenario};
use crate::process::{Process, Under};
use crate::servers::{Server, VARIANTS};

pub(super) fn count(results: &mut Results, plan: &Plan, is_asked_for: &dyn Fn(&Server) -> bool) {
    for server in results.servers.clone() {
        let figures = instructions(results, server, plan, &COUNTED);
        results.instructions.push(Figures { server, figures });
    }
    for server in VARIANTS.iter().filter(|server| is_asked_for(server)) {
        let figures = instructions(results, server, plan, &COUNTED[..2]);
        results.variants.push(Figures { server, figures });
    }
}

fn instructions(
    results: &mut Results,
    server: &Server,
    plan: &Plan,
    scenarios: &[&Scenario],
) -> Vec<Option<f64>> {
    let what = format!("instructions of {}", server.name);
    say(&what);
    let process = Process::start(server, Under::Callgrind, results.processors);
    let Some(mut process) = results.keep(&what, process) else {
        return vec![None; scenarios.len()];
    };
    let mut count = |scenario: &Scenario| {
        let mut load = load::open(scenario, process.address)?;
        let count = per_message(&process, &mut *load, plan.counted)?;
        load.finish()?;
        process.check()?;
        Ok(count)
    };
    let mut figures = Vec::new();
    for scenario in scenarios {
        let figure = count(scenario);
        figures.push(results.keep(&format!("{what}, {}", scenario.name), figure));
    }
    figures
}

/// The instructions per message or connection.
pub(crate) fn per_message(process: &Process, load: &mut dyn Load, count: u64) -> io::Result<f64> {
    load.exactly(count / 4)?;
    let start = counter(process)?;
    load.exactly(count)?;
    let once = counter(process)?;
    load.exactly(2 * count)?;
    let twice = counter(process)?;
    Ok(((twice - once) - (once - start)) / count as f64)
}

/// The instructions of all threads so far.
fn counter(process: &Process) -> io::Result<f64> {
    let output = Command::new("vgdb")
        .args([&format!("--pid={}", process.id()), "--max-invoke-ms=1", "status", "internal"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let threads = text.lines().filter_map(|line| {
        let (thread, count) = line.strip_prefix("events-")?.split_once(": ")?;
        thread.parse::<u32>().ok()?;
        count.trim().parse::<f64>().ok()
    });
    let total = threads.sum();
    if total == 0.0 {
        return Err(io::Error::other("vgdb did not read the counter"));
    }
    Ok(total)
}
