//! A server on this library, with few descriptors, under clients that behave and many that do not, for as
//! long as one likes. Every byte of the good ones is checked. The server has the limits of a public one, or
//! none on connections, so that it is short of descriptors nearly all the time.
//!
//! ```sh
//! cargo run --release --manifest-path benches/soak/Cargo.toml                # a minute
//! cargo run --release --manifest-path benches/soak/Cargo.toml -- --hours 1
//! cargo run --release --manifest-path benches/soak/Cargo.toml -- --no-limits
//! ```
//!
//! The server is a process of its own, and so are the clients, which do not use the library. All traffic
//! stays on the loopback interface. It ends by itself with a table, and with status 1 if a byte was wrong,
//! if a good client was lost or left waiting, if the server died, if its descriptors or its memory did not
//! come back, or if its loop spins while nothing goes on.

#[cfg(not(target_os = "linux"))]
compile_error!("the soak reads /proc, and waits with epoll: it needs Linux");

mod afterwards;
mod from;
mod good;
mod hostile;
mod plan;
mod ports;
mod process;
mod random;
mod report;
mod server;
mod shared;
mod system;
mod waits;

use std::collections::BTreeMap;
use std::io;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use lexopt::prelude::*;

use good::{Crowd, Seen};
use hostile::Made;
use plan::{HANDS, Plan};
use process::{SERVE, Server};
use report::Results;
use shared::{Addresses, Shared};
use system::Holds;

const HELP: &str = "\
usage: soak [--seconds N | --hours N | --quick] [--no-limits] [--good N] [--hostile N]
            [--descriptors N] [--log]

  --seconds N        how long the load lasts (60), after a first wave of a quarter of that, or 20 s
  --hours N          the same in hours
  --quick            with fewer clients and descriptors, for CI: 10 s with limits, and 4 s without
  --no-limits        without limits on connections: shortage of descriptors is the rule
  --good N           clients that behave (2000)
  --hostile N        connections of clients that do not (2000)
  --descriptors N    how many the server may have (1024)
  --log              show what the server logs";

/// How long the server may take to be rid of all connections, once the clients are gone.
const SETTLING: Duration = Duration::from_secs(60);

/// What memory may grow by between the first wave and the end, in bytes: allocators keep some.
const GROWTH: u64 = 4 << 20;

/// Turns of an idle second, and their processor time.
const IDLE_TURNS: u64 = 2;
const IDLE_CPU: Duration = Duration::from_millis(20);

enum Task {
    /// One after the other.
    Soak(Vec<Plan>),
    Serve(u64, bool, bool),
    Help,
}

fn main() -> ExitCode {
    let result = arguments().map_err(|error| error.to_string()).and_then(|task| match task {
        Task::Help => {
            println!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        Task::Serve(descriptors, is_limited, shows_log) => server::serve(descriptors, is_limited, shows_log)
            .map(|()| ExitCode::SUCCESS)
            .map_err(|error| format!("server: {error}")),
        Task::Soak(plans) => plans
            .into_iter()
            .map(soak)
            .try_fold(ExitCode::SUCCESS, |before, code| {
                code.map(|code| if before == ExitCode::SUCCESS { code } else { before })
            })
            .map_err(|error| error.to_string()),
    });
    result.unwrap_or_else(|error| {
        eprintln!("soak: {error}");
        ExitCode::FAILURE
    })
}

fn arguments() -> Result<Task, lexopt::Error> {
    let mut plans = vec![Plan::whole()];
    let mut has_limits = true;
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("quick") => plans = Plan::quick(),
            Long("no-limits") => has_limits = false,
            Long("help") | Short('h') => return Ok(Task::Help),
            Value(role) if role == SERVE => {
                let descriptors = arguments.value()?.parse()?;
                let flags: Vec<_> = arguments.raw_args()?.collect();
                let has = |flag: &str| flags.iter().any(|given| given == flag);
                return Ok(Task::Serve(descriptors, !has("--no-limits"), has("--log")));
            }
            Long("log") => plans.iter_mut().for_each(|plan| plan.shows_log = true),
            Long("seconds") => {
                set(&mut plans, |plan| &mut plan.time, Duration::from_secs(arguments.value()?.parse()?))
            }
            Long("hours") => set(
                &mut plans,
                |plan| &mut plan.time,
                Duration::from_secs(3600) * arguments.value()?.parse()?,
            ),
            Long("good") => set(&mut plans, |plan| &mut plan.good, arguments.value()?.parse()?),
            Long("hostile") => set(&mut plans, |plan| &mut plan.hostile, arguments.value()?.parse()?),
            Long("descriptors") => set(&mut plans, |plan| &mut plan.descriptors, arguments.value()?.parse()?),
            other => return Err(other.unexpected()),
        }
    }
    if !has_limits {
        plans.truncate(1);
        set(&mut plans, |plan| &mut plan.is_limited, false);
    }
    Ok(Task::Soak(plans))
}

fn set<T: Clone>(plans: &mut [Plan], field: fn(&mut Plan) -> &mut T, value: T) {
    plans.iter_mut().for_each(|plan| *field(plan) = value.clone());
}

fn soak(mut plan: Plan) -> io::Result<ExitCode> {
    let load = system::load();
    plan.fit(system::raise_descriptor_limit());
    let (mut server, addresses) = Server::start(&plan)?;
    let shared = Shared::default();
    let id = server.id();
    let start = Holds::of(id)?;
    let mut most = 0;

    let unmeasured = Made::default();
    wave(&plan, 1, plan.first_wave(), &mut server, &addresses, &shared, &unmeasured, &mut most)?;
    let before = settled(id, start, &shared)?;
    let made = Made::default();
    let seen = wave(&plan, 2, plan.time, &mut server, &addresses, &shared, &made, &mut most)?;
    let after = settled(id, start, &shared)?;
    if after.memory > before.memory + GROWTH {
        shared.fault("the memory of the server did not come back");
    }

    let cpu = system::cpu_time(id)?;
    let turns = server.ask(server::IDLE)?;
    let idle_cpu = system::cpu_time(id)?.saturating_sub(cpu);
    let idle_turns: u64 =
        turns.parse().map_err(|_| io::Error::other(format!("the server said {turns:?}")))?;
    if idle_turns > IDLE_TURNS || idle_cpu > IDLE_CPU {
        shared.fault("the loop spins while nothing goes on");
    }
    let mut tally = tally(&server.ask(server::TELL)?);
    let load = (load, system::load());
    let staying = afterwards::ask_each(&addresses).map_err(|what| shared.fault(&what)).ok();
    let watching = staying.map(|staying| thread::spawn(|| staying.watch_end()));
    let peak_memory = system::peak_memory(id)?;
    let (said, status) = server.end()?;
    tally.extend(self::tally(&said));
    if let Some(Ok(Err(what))) = watching.map(thread::JoinHandle::join) {
        shared.fault(&what);
    }
    match status {
        Some(status) if status.success() => {}
        Some(status) => shared.fault(&format!("the server did not end in order: {status}")),
        None => shared.fault("the server did not end when it was told to"),
    }

    let (faults, _) = shared.faults();
    let results = Results {
        load,
        seen,
        made,
        tally,
        start,
        before,
        after,
        most_descriptors: most,
        peak_memory,
        idle_turns,
        idle_cpu,
    };
    report::print(&results, &plan, faults);
    match faults {
        0 => {
            println!("\nall is well");
            Ok(ExitCode::SUCCESS)
        }
        faults => {
            eprintln!("\nsoak: faults: {faults} (each is named above)");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Load for so long. First the hostile clients leave, then the good ones finish what they have begun.
#[allow(clippy::too_many_arguments)]
fn wave(
    plan: &Plan,
    seed: u64,
    time: Duration,
    server: &mut Server,
    addresses: &Addresses,
    shared: &Shared,
    made: &Made,
    most: &mut usize,
) -> io::Result<Seen> {
    shared.is_over.store(false, Ordering::Relaxed);
    shared.leave.store(false, Ordering::Relaxed);
    let crowd = Crowd::new(plan.good, seed, addresses, shared)?;
    thread::scope(|scope| {
        let good = scope.spawn(|| crowd.run());
        let threads = plan.hostile.div_ceil(HANDS);
        for thread in 0..threads {
            let hands = HANDS.min(plan.hostile - thread * HANDS);
            thread::Builder::new()
                .stack_size(256 * 1024)
                .spawn_scoped(scope, move || hostile::run(thread, seed, hands, addresses, shared, made))?;
        }
        let begun = Instant::now();
        let mut outcome = Ok(());
        while outcome.is_ok() && begun.elapsed() < time {
            thread::sleep(Duration::from_millis(200).min(time.saturating_sub(begun.elapsed())));
            outcome = server.check();
            *most = (*most).max(Holds::of(server.id()).map_or(0, |holds| holds.descriptors));
        }
        shared.leave.store(true, Ordering::Relaxed);
        shared.is_over.store(true, Ordering::Relaxed);
        if let Err(what) = &outcome {
            shared.fault(what);
        }
        let seen = good.join().map_err(|_| io::Error::other("the good clients panicked"))??;
        outcome.map_err(io::Error::other)?;
        Ok(seen)
    })
}

/// What the server holds once it is rid of all connections.
fn settled(id: u32, start: Holds, shared: &Shared) -> io::Result<Holds> {
    let begun = Instant::now();
    loop {
        let holds = Holds::of(id)?;
        if holds.descriptors <= start.descriptors {
            return Ok(holds);
        }
        if begun.elapsed() > SETTLING {
            shared.fault(&format!(
                "the descriptors of the server did not come back: {} at the start, {} now",
                start.descriptors, holds.descriptors
            ));
            return Ok(holds);
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn tally(line: &str) -> BTreeMap<String, u64> {
    let pairs = line.split(' ').filter_map(|pair| pair.split_once('='));
    pairs.filter_map(|(name, number)| Some((name.to_owned(), number.parse().ok()?))).collect()
}
