//! TLS: our hooks beside the same rustls driven by hand on epoll, with the same settings. Built with the feature
//! `tls`, so that the other servers are what they are without it:
//!
//! ```sh
//! cargo run --release --features tls --bin tls -- [--quick]
//! ```

mod epoll;
mod load;
mod ours;

use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::load::Load;
use crate::measure::{Spread, per_message};
use crate::process::{Process, Under};
use crate::servers::{Program, Server};
use crate::system::{self, Processors};

use load::Work;

/// The first is what the others are compared with.
pub const SERVERS: [Server; 2] = [
    Server {
        name: "epoll-tls",
        what: "rustls by hand on epoll, one shared buffer: one recv and one send a message",
        program: Program::Rust(epoll::serve),
    },
    Server {
        name: "ours-tls",
        what: "`add_tls`, and the echo of the README",
        program: Program::Rust(ours::serve),
    },
];

/// What is measured: its name, the size of a message; 0 bytes are a connection with a full handshake.
const SCENARIOS: [(&str, usize); 3] = [("64 × 64 B", 64), ("64 × 16 KiB", 16 * 1024), ("full handshakes", 0)];

/// Connections open at a time, or being made.
const CONNECTIONS: usize = 64;
const HANDSHAKES: usize = 16;

/// Idle connections.
const IDLE: usize = 1000;

/// The certificate's folder, named after the process that compares.
fn folder(process: Option<Pid>) -> PathBuf {
    std::env::temp_dir().join(format!("compare-tls-{}", process.map_or(0, |process| process.as_raw_pid())))
}

/// A server's process finds it by its parent.
fn served_folder() -> PathBuf {
    folder(rustix::process::getppid())
}

fn own_folder() -> PathBuf {
    folder(Some(rustix::process::getpid()))
}

fn make_certificate() -> io::Result<()> {
    const SCRIPT: &str = "
        key='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
        openssl req -x509 $key -days 2 -subj /CN=compare -keyout ca.key -out ca.pem &&
        openssl req $key -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout key.pem -out csr &&
        openssl x509 -req -in csr -copy_extensions copy -days 2 -CA ca.pem -CAkey ca.key -out cert.pem";
    std::fs::create_dir_all(own_folder())?;
    let output = Command::new("sh").args(["-c", SCRIPT]).current_dir(own_folder()).output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned())),
    }
}

/// Measure all, and print it.
///
/// # Errors
/// A server failed, or changed a byte.
pub fn compare(rounds: usize, measured: Duration, counted: u64) -> io::Result<()> {
    make_certificate()?;
    let result = compare_with_certificate(rounds, measured, counted);
    let _ = std::fs::remove_dir_all(own_folder());
    result
}

fn compare_with_certificate(rounds: usize, measured: Duration, counted: u64) -> io::Result<()> {
    system::raise_descriptor_limit();
    let processors = Processors::choose();
    if let Some(processors) = processors {
        system::pin(None, processors.load)?;
    }
    println!("medians of {rounds} rounds; the ratio is that of the same round (least to most)\n");
    println!("| scenario | by hand, µs of processor each | ours | ratio | a second by hand | ours |");
    println!("|---|---:|---:|---:|---:|---:|");
    for (name, size) in SCENARIOS {
        let mut runs = [Vec::new(), Vec::new()];
        for round in 0..rounds {
            for turn in 0..2 {
                let at = (turn + round) % 2;
                runs[at].push(run(&SERVERS[at], size, measured, processors)?);
            }
        }
        let figure = |at: usize, of: fn(&(f64, f64)) -> f64| Spread::of(runs[at].iter().map(of));
        let ratios = Spread::of(runs[1].iter().zip(&runs[0]).map(|(ours, base)| ours.0 / base.0));
        let ([base, ours], [base_rate, rate]) = (
            [0, 1].map(|at| figure(at, |run| run.0 * 1e6).map_or(0.0, |spread| spread.median)),
            [0, 1].map(|at| figure(at, |run| run.1).map_or(0.0, |spread| spread.median)),
        );
        let ratio =
            ratios.map_or(String::new(), |r| format!("{:.2} ({:.2} to {:.2})", r.median, r.min, r.max));
        println!("| {name} | {base:.2} | {ours:.2} | {ratio} | {base_rate:.0} | {rate:.0} |");
    }
    println!("\n| idle | by hand, bytes a connection | ours |\n|---|---:|---:|");
    let [base, ours] = [memory(&SERVERS[0], processors)?, memory(&SERVERS[1], processors)?];
    println!("| {IDLE} connections | {base} | {ours} |");
    if counted > 0 && system::is_installed("valgrind") {
        println!("\n| instructions | by hand | ours | ratio |\n|---|---:|---:|---:|");
        for (name, size) in SCENARIOS.into_iter().filter(|(_, size)| *size > 0) {
            let [base, ours] = [0, 1].map(|at| instructions(&SERVERS[at], size, counted, processors));
            let (base, ours) = (base?, ours?);
            println!("| {name} | {base:.0} | {ours:.0} | {:.2} |", ours / base);
        }
    }
    Ok(())
}

fn open(process: &Process, size: usize, connections: usize) -> io::Result<Work> {
    Work::open(process.address, connections, size)
}

/// Processor time for each, in seconds, and how many a second.
fn run(
    server: &Server,
    size: usize,
    measured: Duration,
    processors: Option<Processors>,
) -> io::Result<(f64, f64)> {
    let mut process = Process::start(server, Under::Nothing, processors)?;
    let mut work = open(&process, size, if size == 0 { HANDSHAKES } else { CONNECTIONS })?;
    work.keep_busy(measured / 5)?;
    let used = system::cpu_time(process.id())?;
    let begun = Instant::now();
    let count = work.keep_busy(measured)?.max(1) as f64;
    let elapsed = begun.elapsed().as_secs_f64();
    let used = (system::cpu_time(process.id())? - used).as_secs_f64();
    work.finish()?;
    process.check()?;
    Ok((used / count, count / elapsed))
}

/// Resident memory for each connection that was used once and is idle.
fn memory(server: &Server, processors: Option<Processors>) -> io::Result<u64> {
    let mut process = Process::start(server, Under::Nothing, processors)?;
    // What the first few need once.
    let mut first = open(&process, 64, 10)?;
    first.exactly(10)?;
    let before = system::resident(process.id())?;
    let mut work = open(&process, 64, IDLE)?;
    work.exactly(IDLE as u64)?;
    let after = system::resident(process.id())?;
    process.check()?;
    Ok(after.saturating_sub(before) / IDLE as u64)
}

fn instructions(
    server: &Server,
    size: usize,
    counted: u64,
    processors: Option<Processors>,
) -> io::Result<f64> {
    let process = Process::start(server, Under::Callgrind, processors)?;
    let mut work = open(&process, size, 4)?;
    per_message(&process, &mut work, counted)
}
