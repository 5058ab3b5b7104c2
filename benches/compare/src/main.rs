//! Compares echo servers on this machine, and writes the results to a page with a picture.
//!
//! ```sh
//! cargo run --release --manifest-path benches/compare/Cargo.toml              # all: about 15 minutes
//! cargo run --release --manifest-path benches/compare/Cargo.toml -- --quick   # a glance
//! ```
//!
//! It needs Linux; `strace` and `valgrind` for the counts; a C compiler, `pkg-config` and libuv's headers for
//! libuv. What is missing is left out, and the page says so. All traffic stays on the loopback interface, and
//! the servers end with the command. The exit status is 1 if a server failed or changed a byte.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use compare::measure;
use compare::plan::Plan;
use compare::process::SERVE;
use compare::report::{self, Machine};
use compare::servers::{self, PAUSING, SERVERS, VARIANTS};
use lexopt::prelude::*;

const HELP: &str = "\
usage: compare [--quick] [--only NAME,...] [--out FILE]

Compares echo servers, and writes a page and, next to it, a picture.

  --quick            take a glance, in less than a minute
  --only NAME,...    compare only these servers (and epoll, with which they are compared)
  --out FILE         write the page here (docs/benchmarks.md of this project)";

enum Command {
    Compare { plan: Plan, only: Option<Vec<String>>, out: PathBuf },
    Serve(String),
    Help,
}

fn main() -> ExitCode {
    let result = arguments().map_err(|error| error.to_string()).and_then(|command| match command {
        Command::Help => {
            println!("{HELP}\n\nservers: {}", names().collect::<Vec<_>>().join(", "));
            Ok(ExitCode::SUCCESS)
        }
        Command::Serve(name) => {
            servers::serve(&name).map(|()| ExitCode::SUCCESS).map_err(|error| format!("{name}: {error}"))
        }
        Command::Compare { plan, only, out } => compare(&plan, only.as_deref(), &out),
    });
    result.unwrap_or_else(|error| {
        eprintln!("compare: {error}");
        ExitCode::FAILURE
    })
}

fn compare(plan: &Plan, only: Option<&[String]>, out: &Path) -> Result<ExitCode, String> {
    let machine = Machine::look();
    let results = measure::everything(plan, only);
    report::write(out, &results, plan, &machine).map_err(|error| format!("{}: {error}", out.display()))?;
    println!("{}", out.canonicalize().as_deref().unwrap_or(out).display());
    Ok(if results.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn arguments() -> Result<Command, lexopt::Error> {
    let mut plan = Plan::whole();
    let mut only = None;
    let mut out = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/benchmarks.md");
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("quick") => plan = Plan::quick(),
            Long("only") => {
                let list = arguments.value()?.string()?;
                let chosen: Vec<String> = list.split(',').map(str::to_owned).collect();
                if let Some(unknown) = chosen.iter().find(|name| !names().any(|known| known == *name)) {
                    let known = names().collect::<Vec<_>>().join(", ");
                    return Err(format!("there is no server {unknown}; there are {known}").into());
                }
                only = Some(chosen);
            }
            Long("out") => out = arguments.value()?.into(),
            Long("help") | Short('h') => return Ok(Command::Help),
            Value(word) if word == SERVE => return Ok(Command::Serve(arguments.value()?.string()?)),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Command::Compare { plan, only, out })
}

fn names() -> impl Iterator<Item = &'static str> {
    SERVERS.iter().chain(&VARIANTS).chain([&PAUSING]).map(|server| server.name)
}
