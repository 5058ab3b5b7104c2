//! Growth: the instructions per message when the map also holds many channels that do nothing, compared with
//! the same process before they are added.

use std::io;

use super::{Results, instructions, say};
use crate::load::{self, Echoes};
use crate::plan::{MANY, ONE, Plan};
use crate::process::{Process, Under};
use crate::report::number;
use crate::servers::{self, PAUSING, Server, TIMEOUT};

/// What the channels do that are not busy.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Others {
    Idle,
    /// They are paused, and input waits on each.
    Paused,
}

pub struct Growth {
    pub what: String,
    /// Instructions per message with one busy connection and with 64: without the other channels, and with
    /// them.
    pub one: [f64; 2],
    pub many: [f64; 2],
}

pub(super) fn measure(
    results: &mut Results,
    plan: &Plan,
    idle: usize,
    is_asked_for: &dyn Fn(&Server) -> bool,
) {
    let cases = [
        ("ours-hooks", idle, Others::Idle, "idle channels"),
        (TIMEOUT, idle, Others::Idle, "idle timeouts"),
        (PAUSING.name, plan.paused.min(idle), Others::Paused, "paused channels, with input waiting"),
    ];
    for (name, count, others, what) in cases {
        let server = servers::find(name).expect("it is one of them");
        if !is_asked_for(server) {
            continue;
        }
        let what = format!("{} {what}", number(count as f64));
        say(&format!("growth: {what}"));
        let growth = grow(results, server, plan, count, others);
        if let Some((one, many)) = results.keep(&format!("growth, {what}"), growth) {
            results.growth.push(Growth { what, one, many });
        }
    }
}

fn grow(
    results: &Results,
    server: &Server,
    plan: &Plan,
    count: usize,
    others: Others,
) -> io::Result<([f64; 2], [f64; 2])> {
    let mut process = Process::start(server, Under::Callgrind, results.processors)?;
    let mut one = load::open(&ONE, process.address)?;
    let mut many = load::open(&MANY, process.address)?;
    let mut costs = || {
        let one = instructions::per_message(&process, &mut *one, plan.counted)?;
        Ok::<_, io::Error>((one, instructions::per_message(&process, &mut *many, plan.counted)?))
    };
    let without = costs()?;
    let mut silent = Echoes::open(process.address, count, 64, 1)?;
    if others == Others::Paused {
        silent.send_unanswered()?;
    }
    let with = costs()?;
    silent.check_silence()?;
    one.finish()?;
    many.finish()?;
    process.check()?;
    Ok(([without.0, with.0], [without.1, with.1]))
}
