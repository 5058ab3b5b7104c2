//! A server on this library, with few descriptors, under clients that behave and many that do not, for as
//! long as one likes. Every byte of the good ones is checked.
//!
//! ```sh
//! cargo run --release --manifest-path benches/soak/Cargo.toml                # a minute
//! cargo run --release --manifest-path benches/soak/Cargo.toml -- --hours 1
//! ```
//!
//! The server is a process of its own, and so are the clients, which do not use the library. All traffic
//! stays on the loopback interface. It ends by itself with a table, and with status 1 if a byte was wrong,
//! if a good client was lost or left waiting, if the server died, if its descriptors or its memory did not
//! come back, or if its loop spins while nothing goes on.

#[cfg(not(target_os = "linux"))]
compile_error!("the soak reads /proc, and waits with epoll: it needs Linux");

mod afterwards;
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
usage: soak [--seconds N | --hours N | --quick] [--good N] [--hostile N] [--descriptors N] [--log]

  --seconds N        how long the load lasts (60), after a first wave of a quarter of that, or 20 s
  --hours N          the same in hours
  --quick            20 s with fewer clients and descriptors, for CI
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
    Soak(Plan),
    Serve(u64, bool),
    Help,
}

fn main() -> ExitCode {
    let result = arguments().map_err(|error| error.to_string()).and_then(|task| match task {
        Task::Help => {
            println!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        Task::Serve(descriptors, shows_log) => server::serve(descriptors, shows_log)
            .map(|()| ExitCode::SUCCESS)
            .map_err(|error| format!("server: {error}")),
        Task::Soak(plan) => soak(plan).map_err(|error| error.to_string()),
    });
    result.unwrap_or_else(|error| {
        eprintln!("soak: {error}");
        ExitCode::FAILURE
    })
}

fn arguments() -> Result<Task, lexopt::Error> {
    let mut plan = Plan::whole();
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("seconds") => plan.time = Duration::from_secs(arguments.value()?.parse()?),
            Long("hours") => plan.time = Duration::from_secs(3600) * arguments.value()?.parse()?,
            Long("quick") => plan = Plan::quick(),
            Long("good") => plan.good = arguments.value()?.parse()?,
            Long("hostile") => plan.hostile = arguments.value()?.parse()?,
            Long("descriptors") => plan.descriptors = arguments.value()?.parse()?,
            Long("log") => plan.shows_log = true,
            Long("help") | Short('h') => return Ok(Task::Help),
            Value(role) if role == SERVE => {
                let descriptors = arguments.value()?.parse()?;
                return Ok(Task::Serve(descriptors, arguments.next()?.is_some()));
            }
            other => return Err(other.unexpected()),
        }
    }
    Ok(Task::Soak(plan))
}

fn soak(mut plan: Plan) -> io::Result<ExitCode> {
    let machine = system::machine();
    plan.fit(system::raise_descriptor_limit());
    let (mut server, addresses) = Server::start(plan.descriptors, plan.shows_log)?;
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
    if let Err(what) = afterwards::ask_each(&addresses) {
        shared.fault(&what);
    }
    let tally = tally(&server.ask(server::TELL)?);
    let peak_memory = system::peak_memory(id)?;
    match server.end()? {
        Some(status) if status.success() => {}
        Some(status) => shared.fault(&format!("the server did not end in order: {status}")),
        None => shared.fault("the server did not end when it was told to"),
    }

    let (faults, _) = shared.faults();
    let results = Results {
        machine,
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
            let seed = seed << 32 | thread as u64;
            let hands = HANDS.min(plan.hostile - thread * HANDS);
            thread::Builder::new()
                .stack_size(256 * 1024)
                .spawn_scoped(scope, move || hostile::run(seed, hands, addresses, shared, made))?;
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
