//! What every example program needs and none is about: how it ends, what it prints, addresses with
//! names in them, signals. What a program shows stands in its own file.

// No program needs all of it.
#![allow(dead_code, unused_imports)]

mod access;
mod front;
mod lines;
mod options;
mod places;
mod server;
mod shown;
mod stats;
mod stdout;
mod take_over;
mod tls;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, BufRead, ErrorKind, Write};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use dispatch_loop::{Address, ChannelMap, Dispatcher, DrainOptions, Handle, ToAddress};
use simplelog::{ConfigBuilder, LevelFilter, WriteLogger};

pub use access::disconnected;
pub use front::inherited;
pub use lines::Lines;
pub use options::{DRAIN, ServerOptions};
pub use places::Places;
pub use server::Server;
pub use shown::shown;
pub use stdout::{flush, is_behind, print, print_received, say_received};
pub use tls::ClientTls;

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
    main_with(help, "", program)
}

/// Run a server, which also has the options that all have.
pub fn server(help: &str, program: impl FnOnce(lexopt::Parser) -> Result<(), Exit>) -> ExitCode {
    main_with(help, ServerOptions::HELP, program)
}

/// The same, of one that can speak TLS.
pub fn tls_server(help: &str, program: impl FnOnce(lexopt::Parser) -> Result<(), Exit>) -> ExitCode {
    main_with(&format!("{help}{}", ServerOptions::HELP_OF_TLS), ServerOptions::HELP, program)
}

/// The same, of one that can be taken over by a successor, too.
pub fn lasting_server(help: &str, program: impl FnOnce(lexopt::Parser) -> Result<(), Exit>) -> ExitCode {
    let help = format!("{help}{}{}", ServerOptions::HELP_OF_TLS, ServerOptions::HELP_OF_TAKE_OVER);
    main_with(&help, ServerOptions::HELP, program)
}

/// Run a client that can speak TLS.
pub fn tls_client(help: &str, program: impl FnOnce(lexopt::Parser) -> Result<(), Exit>) -> ExitCode {
    main_with(&format!("{help}{}", ClientTls::HELP), "", program)
}

fn main_with(help: &str, more: &str, program: impl FnOnce(lexopt::Parser) -> Result<(), Exit>) -> ExitCode {
    let config = ConfigBuilder::new().set_target_level(LevelFilter::Error).build();
    // Fails only if there is a log already.
    let _ = WriteLogger::init(LevelFilter::Trace, config, io::stderr());
    log::set_max_level(LevelFilter::Warn);
    let status = match program(lexopt::Parser::from_env()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Exit::Help) => {
            say(help);
            if !more.is_empty() {
                say(more);
            }
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
    };
    stdout::flush();
    status
}

/// Print a line to stdout.
pub fn say(line: impl Display) {
    print(format!("{line}\n").as_bytes());
}

/// All that was printed is out; it is a failure if a signal was in the way.
pub fn all_is_printed() -> Result<(), Exit> {
    match stdout::flush() {
        true => Ok(()),
        false => Err(Exit::Failure("interrupted: nobody read stdout".to_owned())),
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

/// A listener listens there: with port 0, only now is it known.
fn announce(address: &Address) {
    LISTENING.lock().unwrap_or_else(PoisonError::into_inner).push(address.to_string());
}

/// Say where the listeners listen, and the one for the numbers, if there is one.
fn say_where(stats: Option<Address>) {
    for address in LISTENING.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        say(format_args!("listening on {address}"));
    }
    if let Some(address) = stats {
        say(format_args!("stats on {address}"));
    }
}

/// Where a server listens, or did.
static LISTENING: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// There was a signal, perhaps a moment ago.
static SIGNALLED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

fn is_signalled() -> bool {
    SIGNALLED.load(Ordering::Relaxed)
}

/// Let Ctrl-C and SIGTERM end a client: what was queued is sent, and `run` returns. A second one ends the
/// program at once.
pub fn close_on_signal(map: &mut ChannelMap) -> io::Result<()> {
    map.on_drain(|map, _| map.close_all());
    drain_within(map, DRAIN)
}

#[cfg(feature = "signals")]
fn drain_within(map: &mut ChannelMap, time: Duration) -> io::Result<()> {
    map.drain_on_signals(&DrainOptions::default().with_deadline(time))?;
    end_on_second_signal()
}

/// A second signal also ends a program whose loop is not at work.
#[cfg(feature = "signals")]
fn end_on_second_signal() -> io::Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    // In this order: the first signal finds the flag unset, and sets it.
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, SIGNALLED.clone())?;
        signal_hook::flag::register(signal, SIGNALLED.clone())?;
    }
    Ok(())
}

/// Without the feature `signals`, the first one ends the program at once. (This repository's own
/// `cargo run --example` turns the feature on.)
#[cfg(not(feature = "signals"))]
fn drain_within(_: &mut ChannelMap, _: Duration) -> io::Result<()> {
    Ok(())
}

/// What becomes of stdin.
pub enum Stdin {
    /// It is not empty.
    Begun,
    /// All of it was given to the channel, or it cannot be read.
    Ended(io::Result<()>),
}

/// Send all of stdin to a channel, and then half-close it; `tell` is called with its dispatcher. A thread
/// of its own does the reading, because terminals and files cannot be polled everywhere, and its outlet
/// makes it wait while the peer is slow. If the channel ends first, so does the thread.
pub fn send_stdin<T: Dispatcher>(
    map: &mut ChannelMap,
    handle: Handle<T>,
    tell: fn(&mut T, Stdin),
) -> io::Result<()> {
    let remote = map.remote();
    let mut outlet = map.channel(handle)?.outlet()?;
    thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut stdin = io::stdin().lock();
        if stdin.fill_buf().is_ok_and(|first| !first.is_empty()) {
            let _ = remote.with(handle, move |dispatcher, _| {
                tell(dispatcher, Stdin::Begun);
                Ok(())
            });
        }
        let result = match io::copy(&mut stdin, &mut outlet) {
            // Reading has no such error, only an outlet whose channel has ended.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return,
            result => result.map(drop),
        };
        // It comes after what the outlet was given: both use one queue.
        let _ = remote.with(handle, move |dispatcher, ch| {
            tell(dispatcher, Stdin::Ended(result));
            ch.shutdown_write();
            Ok(())
        });
    })?;
    Ok(())
}
