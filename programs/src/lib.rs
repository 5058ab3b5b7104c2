//! What the larger programs share: how one is called, how a server runs, how it ends, and what a terminal may be
//! shown.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use dispatch_loop::{ChannelMap, Dispatcher, DrainOptions, ListenOptions, LoopGroup};

/// How long the orderly end of a server may take.
const DRAIN: Duration = Duration::from_secs(3);

/// Why a program ends without having done its work.
#[derive(Debug)]
pub enum Exit {
    /// `--help`: status 0.
    Help,
    /// Wrong usage: status 2, and how it should be called.
    Usage(String),
    /// Anything else: status 1, and one line that says what, where and why.
    Failure(String),
}

impl From<lexopt::Error> for Exit {
    fn from(error: lexopt::Error) -> Exit {
        Exit::Usage(error.to_string())
    }
}

impl From<io::Error> for Exit {
    fn from(error: io::Error) -> Exit {
        Exit::Failure(error.to_string())
    }
}

/// Run a program. The first line of `help` is how it is called.
pub fn main(help: &str, program: impl FnOnce(lexopt::Parser) -> Result<(), Exit>) -> ExitCode {
    match program(lexopt::Parser::from_env()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Exit::Help) => {
            // Somebody who reads no further (`| head`) has seen enough.
            let _ = writeln!(io::stdout(), "{help}");
            ExitCode::SUCCESS
        }
        Err(Exit::Usage(why)) => {
            eprintln!("error: {why}\n{}", help.lines().next().unwrap_or_default());
            ExitCode::from(2)
        }
        Err(Exit::Failure(why)) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The text with what could steer a terminal, or turn its lines around, escaped; tabs stay.
pub fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => shown.push(c),
            c if c.is_control() || turns_around(c) => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown
}

/// Unicode's marks for writing from right to left.
fn turns_around(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The value of `--threads`.
pub fn threads(value: OsString) -> Result<usize, Exit> {
    let number = value.to_str().and_then(|value| value.parse().ok());
    match number {
        Some(0) => Ok(thread::available_parallelism().map_or(1, usize::from)),
        Some(number) => Ok(number),
        None => Err(Exit::Usage(format!("--threads {value:?}: wanted a number; 0: one for each core"))),
    }
}

/// Listen, say where, and serve until a signal: on this thread, or on so many loops with a thread each. What `make`
/// makes is each loop's own.
pub fn serve<D: Dispatcher>(
    threads: usize,
    address: &str,
    make: impl Fn() -> D + Send + Sync + 'static,
) -> Result<(), Exit> {
    let drain = DrainOptions::default().with_deadline(DRAIN);
    if threads > 1 {
        let group = LoopGroup::start(threads, |_, _| Ok(()))?;
        group.drain_on_signals(&drain)?;
        for address in group.listen_each(address, &ListenOptions::default(), move |_, _| Ok(make()))? {
            writeln!(io::stdout(), "listening on {address}")?;
        }
        return Ok(group.join()?);
    }
    let mut map = ChannelMap::new()?;
    map.drain_on_signals(&drain)?;
    let listener = map.listen(address, make())?;
    if let Ok(address) = map.channel(listener).map_err(io::Error::from).and_then(|ch| ch.local_addr()) {
        writeln!(io::stdout(), "listening on {address}")?;
    }
    Ok(dispatch_loop::run(&mut map)?)
}
