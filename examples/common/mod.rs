//! What every example program needs and none is about: how it ends, what it prints, addresses with
//! names in them, signals. What a program shows stands in its own file.

// No program needs all of it.
#![allow(dead_code, unused_imports)]

mod lines;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::process::{ExitCode, exit};
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use dispatch_loop::{ChannelMap, Dispatcher, Handle, ListenOptions, ToAddress};
use simplelog::{ConfigBuilder, LevelFilter, WriteLogger};

pub use lines::Lines;

/// How long a program that is told to end goes on sending what is queued.
const GRACE: Duration = Duration::from_secs(3);

/// Why a program ends without having done its work.
pub enum Exit {
    /// `--help`: status 0.
    Help,
    /// Wrong usage: status 2, and how it should be called.
    Usage(String),
    /// Anything else: status 1, and one line that says what, where and why.
    Failure(String),
    /// A failure that was printed when it happened.
    Reported,
}

impl From<lexopt::Error> for Exit {
    fn from(error: lexopt::Error) -> Self {
        Exit::Usage(error.to_string())
    }
}

impl From<io::Error> for Exit {
    fn from(error: io::Error) -> Self {
        Exit::Failure(error.to_string())
    }
}

/// Run a program. The first line of `help` is how it is called.
pub fn main(help: &str, program: impl FnOnce(lexopt::Parser) -> Result<(), Exit>) -> ExitCode {
    let config = ConfigBuilder::new().set_target_level(LevelFilter::Error).build();
    // Fails only if there is a log already.
    let _ = WriteLogger::init(LevelFilter::Trace, config, io::stderr());
    log::set_max_level(LevelFilter::Warn);
    match program(lexopt::Parser::from_env()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Exit::Help) => {
            say(help);
            say("  --log LEVEL        what is logged to stderr: off, error, warn, info, debug, trace (warn)");
            say("  --help             this text");
            ExitCode::SUCCESS
        }
        Err(Exit::Usage(why)) => {
            complain(format_args!("error: {why}"));
            complain(help.lines().next().unwrap_or_default());
            ExitCode::from(2)
        }
        Err(Exit::Failure(why)) => {
            complain(format_args!("error: {why}"));
            ExitCode::FAILURE
        }
        Err(Exit::Reported) => ExitCode::FAILURE,
    }
}

/// Print a line to stdout, at once.
pub fn say(line: impl Display) {
    print(format!("{line}\n").as_bytes());
}

/// Print a line that a peer has sent; what is no UTF-8 in it is replaced.
pub fn say_received(line: &[u8]) {
    say(format_args!("recv: {}", String::from_utf8_lossy(line)));
}

/// Print to stdout, at once. If nobody reads it (`| head`), the program has done its work.
pub fn print(bytes: &[u8]) {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => exit(0),
        Err(error) => {
            complain(format_args!("error: cannot write to stdout: {error}"));
            exit(1);
        }
    }
}

/// Print a line to stderr. If that fails, there is nobody left to be told.
pub fn complain(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Why there is no connection. The error of a name says which, and what was tried.
pub fn cannot_connect(address: &str, error: &io::Error) -> String {
    match error.to_string() {
        why if why.contains(address) => why,
        why => format!("cannot connect to {address}: {why}"),
    }
}

/// The value of an option, made into what is wanted.
pub fn parse<T: FromStr>(option: &str, value: OsString, wanted: &str) -> Result<T, Exit> {
    let parsed = value.to_str().and_then(|value| value.parse().ok());
    parsed.ok_or_else(|| Exit::Usage(format!("{option} {value:?}: wanted {wanted}")))
}

/// `--log LEVEL`.
pub fn set_log_level(level: OsString) -> Result<(), Exit> {
    log::set_max_level(parse("--log", level, "off, error, warn, info, debug or trace")?);
    Ok(())
}

/// `HOST:PORT` or `[IPV6]:PORT`. This may wait for a name server, so it is done before the loop
/// runs. Of a name with several addresses an IPv4 one is taken, if there is one: that is what
/// servers listen on by default.
pub fn resolve(text: OsString) -> Result<SocketAddr, Exit> {
    let wrong = || Exit::Usage(format!("{text:?} is no address: wanted HOST:PORT or [IPV6]:PORT"));
    let text = text.to_str().ok_or_else(wrong)?;
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if host.is_empty() || (bare.is_none() && host.contains(':')) {
        return Err(wrong());
    }
    let found = (bare.unwrap_or(host), port).to_socket_addrs();
    let cannot = |why: &dyn Display| Exit::Failure(format!("cannot resolve {}: {why}", text.escape_debug()));
    let all: Vec<SocketAddr> = found.map_err(|error| cannot(&error))?.collect();
    let first = all.iter().find(|address| address.is_ipv4()).or(all.first());
    first.copied().ok_or_else(|| cannot(&"the name has no address"))
}

/// An address of the command line: `HOST:PORT`, `[IPV6]:PORT` or `unix:PATH`. A name is looked up when
/// it is used.
pub fn address(text: OsString) -> Result<String, Exit> {
    let wrong = || Exit::Usage(format!("{text:?} is no address: wanted HOST:PORT, [IPV6]:PORT or unix:PATH"));
    let text = text.to_str().ok_or_else(wrong)?;
    let all = text.strip_prefix("*:").is_some_and(|port| port.parse::<u16>().is_ok());
    match all || text.to_address().is_ok() || text.to_name().is_some() {
        true => Ok(text.to_owned()),
        false => Err(wrong()),
    }
}

/// Listen on all that `address` stands for, and say so: with port 0, only now is it known where.
pub fn listen<D: Dispatcher>(
    map: &mut ChannelMap,
    address: &str,
    mut make: impl FnMut() -> D,
) -> io::Result<Vec<Handle<D>>> {
    let listeners = map.listen_all(address, &ListenOptions::default(), |_| make())?;
    for listener in &listeners {
        announce(map, *listener);
    }
    Ok(listeners)
}

/// Say where a listener listens: with port 0, only now is it known.
pub fn announce<T>(map: &mut ChannelMap, listener: Handle<T>) {
    if let Some(address) = map.channel(listener).ok().and_then(|ch| ch.local_addr().ok()) {
        say(format_args!("listening on {address}"));
    }
}

/// Let Ctrl-C and SIGTERM stop the loop; [`drain`] does the rest. A second one ends the program at
/// once.
#[cfg(feature = "signals")]
pub fn stop_on_signal(map: &mut ChannelMap) -> io::Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    use std::sync::{Arc, atomic::AtomicBool};
    let again = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        map.on_signal(signal, ChannelMap::stop)?;
        // In this order: the first signal finds the flag unset, and sets it.
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, again.clone())?;
        signal_hook::flag::register(signal, again.clone())?;
    }
    Ok(())
}

/// Without the feature `signals`, the first one ends the program at once. (This repository's own
/// `cargo run --example` turns the feature on.)
#[cfg(not(feature = "signals"))]
pub fn stop_on_signal(_: &mut ChannelMap) -> io::Result<()> {
    Ok(())
}

/// The orderly end: accept no more, send what is queued. What takes longer than three seconds is cut
/// off when the map is dropped.
pub fn drain(mut map: ChannelMap) -> io::Result<()> {
    map.close_all();
    let deadline = Instant::now() + GRACE;
    while !map.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            log::warn!("{} connections were cut off: they took too long", map.len());
            break;
        }
        // Where there is something to do at once, it may be the end of the last channel, and a turn
        // without channels waits for as long as it is told to.
        let wait = map.wait_limit().map_or(left, |limit| limit.min(left));
        map.turn(Some(wait))?;
    }
    Ok(())
}

/// Send all of stdin to a channel; then call `at_end` with its dispatcher and, after all that was
/// sent, half-close it. A thread of its own does the reading, because terminals and files cannot be
/// polled everywhere, and its outlet makes it wait while the peer is slow. If the channel ends
/// first, so does the thread.
pub fn send_stdin<T: Dispatcher>(
    map: &mut ChannelMap,
    handle: Handle<T>,
    at_end: fn(&mut T, io::Result<()>),
) -> io::Result<()> {
    let remote = map.remote();
    let mut outlet = map.channel(handle)?.outlet()?;
    thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let result = match io::copy(&mut io::stdin(), &mut outlet) {
            // Reading has no such error, only an outlet whose channel has ended.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return,
            result => result.map(drop),
        };
        // It comes after what the outlet was given: both use one queue.
        let _ = remote.with(handle, move |dispatcher, ch| {
            at_end(dispatcher, result);
            ch.shutdown_write();
            Ok(())
        });
    })?;
    Ok(())
}
