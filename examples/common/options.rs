//! The options that all servers have, parsed in one place.
//!
//! To add one: a line in `HELP`, an arm in `take`, a field if it has a value that is used later, and where
//! it is used: `listen` and `serve` in `mod.rs` are given the whole.

use std::time::Duration;

use dispatch_loop::{Channel, ListenOptions};

use super::{Exit, parse, set_log_level};

/// How long the orderly end of a program may take, unless an option says otherwise.
pub const DRAIN: Duration = Duration::from_secs(3);

/// What the command lines of all servers have in common.
#[derive(Clone, Copy, Default)]
pub struct ServerOptions {
    threads: Option<usize>,
    drain: Option<Duration>,
    idle: Option<Duration>,
}

impl ServerOptions {
    /// Goes below the help of each server.
    pub const HELP: &str = "
Of every server:
  --threads N        on how many loops, each with a thread of its own (1); 0: one for each core
  --drain SECONDS    how long Ctrl-C or SIGTERM waits for what was begun, at most (3); a second one ends the
                     program at once
  --idle SECONDS     a connection on which nothing comes or goes for so long is closed";

    /// What a server does not know itself is one of these options, or a mistake.
    pub fn take(&mut self, unknown: lexopt::Error, args: &mut lexopt::Parser) -> Result<(), Exit> {
        let lexopt::Error::UnexpectedOption(option) = &unknown else { return Err(unknown.into()) };
        match option.as_str() {
            "--threads" => {
                self.threads = Some(parse(option, args.value()?, "a number; 0: one for each core")?)
            }
            "--drain" => self.drain = Some(seconds_or_none(option, args)?),
            "--idle" => self.idle = Some(seconds(option, args)?),
            "--log" => set_log_level(args.value()?)?,
            "--help" | "-h" => return Err(Exit::Help),
            _ => return Err(unknown.into()),
        }
        Ok(())
    }

    /// How many loops.
    pub fn threads(&self) -> usize {
        match self.threads.unwrap_or(1) {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        }
    }

    /// How long the orderly end may take.
    pub fn drain(&self) -> Duration {
        self.drain.unwrap_or(DRAIN)
    }

    /// The server is to end, and the conversation has no messages after which it could: if it does not
    /// pause, close it after half of the time, so that what was taken in is passed on.
    pub fn close_in_time(&self, ch: &mut Channel<'_>) {
        ch.call_later(self.drain() / 2, |ch| {
            ch.close();
            Ok(())
        });
    }

    /// How a listener listens.
    pub fn listening(&self) -> ListenOptions {
        ListenOptions::default()
    }

    /// How long a connection may be idle.
    pub fn idle(&self) -> Option<Duration> {
        self.idle
    }

    /// Let a new connection have what is said of it here.
    pub fn set_on(&self, ch: &mut Channel<'_>) {
        if let Some(idle) = self.idle {
            ch.set_timeout(Some(idle));
        }
    }
}

/// A number of seconds, which may have a fraction but is not 0.
fn seconds(option: &str, args: &mut lexopt::Parser) -> Result<Duration, Exit> {
    match seconds_or_none(option, args)? {
        Duration::ZERO => Err(Exit::Usage(format!("{option} 0: wanted seconds, more than 0"))),
        time => Ok(time),
    }
}

/// A number of seconds, which may have a fraction.
fn seconds_or_none(option: &str, args: &mut lexopt::Parser) -> Result<Duration, Exit> {
    let text = args.value()?;
    let number: f64 = parse(option, text.clone(), "seconds")?;
    Duration::try_from_secs_f64(number).map_err(|_| Exit::Usage(format!("{option} {text:?}: wanted seconds")))
}
