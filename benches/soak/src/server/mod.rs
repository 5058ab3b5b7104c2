//! The server: a process of its own, with one loop on one thread and few descriptors. It is told what to
//! do by single bytes on standard input, and answers with lines on standard output.

mod guard;
mod hooks;
mod tally;

use std::cell::Cell;
use std::io::{self, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use dispatch_loop::{AcceptLimits, Channel, ChannelMap, Dispatcher, DrainOptions};

use crate::ports::PORTS;
use crate::system;
use tally::Tally;

/// Count the turns of a second, and answer with their number.
pub const IDLE: u8 = b'i';
/// Answer with what has been counted.
pub const TELL: u8 = b't';
/// Drain, answer with how that went, and end.
pub const END: u8 = b'e';

/// How long that may take.
const DRAIN: Duration = Duration::from_secs(10);

/// # Errors
/// A listener or the loop failed.
pub fn serve(descriptors: u64, is_limited: bool, shows_log: bool) -> io::Result<()> {
    system::limit_descriptors(descriptors)?;
    tally::start_log(shows_log);
    let tally = Rc::new(Tally::default());
    let mut map = ChannelMap::new()?;
    // So that turns are timed.
    let _meter = map.meter();
    // The listeners have them together.
    let limits = is_limited.then(AcceptLimits::public);
    let told = Rc::new(Cell::new(None));
    let control = map.add_file(io::stdin(), Control(told.clone()))?;
    for port in PORTS {
        let listener = guard::listen(&mut map, port, limits.clone(), &tally)?;
        say(&format!("listening on {}", map.channel(listener)?.local_addr()?))?;
    }
    loop {
        dispatch_loop::run(&mut map)?;
        match told.take() {
            Some(IDLE) => say(&turns_in(&mut map, Duration::from_secs(1))?.to_string())?,
            Some(TELL) => say(&tally.line(&map.numbers()))?,
            _ => break,
        }
    }
    map.channel(control)?.abort();
    map.turn(Some(Duration::ZERO))?;
    let begun = Instant::now();
    map.drain(&DrainOptions::default().with_deadline(DRAIN));
    dispatch_loop::run(&mut map)?;
    let took = begun.elapsed().as_micros();
    let end = map.drain_progress().unwrap_or_default();
    say(&format!(
        "closed-idle={} finished={} aborted={} took={took}",
        end.closed_idle, end.finished, end.aborted
    ))
}

fn say(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

/// How many turns the loop makes until this time is over.
fn turns_in(map: &mut ChannelMap, time: Duration) -> io::Result<u64> {
    let end = Instant::now() + time;
    let mut turns = 0;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        map.turn(Some(left))?;
        turns += 1;
    }
    // The last one waited to the end.
    Ok(turns - 1)
}

/// Stops the loop for each command, and when those who started us are gone.
struct Control(Rc<Cell<Option<u8>>>);

impl Dispatcher for Control {
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        let mut command = [0];
        if ch.recv(&mut command)? == 1 {
            self.0.set(Some(command[0]));
        }
        ch.map_mut().stop();
        Ok(())
    }
}
