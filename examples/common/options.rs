//! The options that all servers have, parsed in one place.
//!
//! To add one: a line in `HELP`, an arm in `take`, a field if it has a value that is used later, and where
//! it is used: `Server` in `server.rs` is given the whole.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use dispatch_loop::{AcceptLimits, Channel, ChannelMap, Dispatcher, Handle, ListenOptions};
use dispatch_loop::{ProxyOptions, Socket};

use super::places::descriptors;
use super::tls::ServerTls;
use super::{Exit, address, parse, set_log_level};

/// How long a connection of a public server may be idle.
const PUBLIC_IDLE: Duration = Duration::from_secs(300);
/// How long the orderly end of a program may take, unless an option says otherwise.
pub const DRAIN: Duration = Duration::from_secs(3);

/// What the command lines of all servers have in common.
#[derive(Clone, Default)]
pub struct ServerOptions {
    threads: Option<usize>,
    public: bool,
    max_connections: Option<usize>,
    max_per_peer: Option<usize>,
    drain: Option<Duration>,
    idle: Option<Duration>,
    is_proxied: bool,
    trusted: Vec<String>,
    proxy: ProxyOptions,
    /// Where successors ask, of a server that has one.
    take_over: Option<PathBuf>,
    can_be_taken_over: bool,
    /// Of a server that can speak TLS.
    tls: Option<ServerTls>,
    stats: Option<String>,
    /// Made of these when it is needed, and shared by all listeners.
    limits: OnceLock<Option<AcceptLimits>>,
}

impl ServerOptions {
    /// Goes below the help of each server.
    pub const HELP: &str = "
Of every server:
  --threads N        on how many loops, each with a thread of its own (1); 0: one for each core
  --public           limits for a server that strangers reach: connections in total, of one
                     address, a second, and idle ones (300 seconds)
  --max-connections N  how many at a time; others wait
  --max-per-peer N   how many at a time from one address, or one IPv6 network of 64 bits; others
                     are refused
  --drain SECONDS    how long Ctrl-C or SIGTERM waits for what was begun, at most (3); a second one ends the
                     program at once
  --idle SECONDS     a connection on which nothing comes or goes for so long is closed
  --stats ADDR       numbers for Prometheus at http://ADDR/metrics, health at http://ADDR/healthz
  --proxy-protocol   each connection begins with a PROXY header, which says whose it is
  --proxy-from CIDR  from whom such a header is believed: an address or a network; may be repeated
                     (127.0.0.0/8 and ::1)";

    /// Goes below the help of a server that can be taken over.
    pub const HELP_OF_TAKE_OVER: &str = "
  --take-over PATH   take the listeners of the server that was started with the same option, which
                     then ends; and give them to the next one";

    /// A client may need so many descriptors: let in no more than there are for, if no number was given.
    pub fn with_descriptors_each(self, each: usize) -> ServerOptions {
        let most = self.max_connections.unwrap_or((descriptors() / each).max(1));
        ServerOptions { max_connections: Some(most), ..self }
    }

    /// Goes below the help of each server that can speak TLS.
    pub const HELP_OF_TLS: &str = "
  --tls-cert FILE    speak TLS, with this certificate, and those that vouch for it (PEM)
  --tls-key FILE     and this key (PEM); SIGHUP reads both anew";

    /// It can speak TLS.
    pub fn with_tls(self) -> ServerOptions {
        ServerOptions { tls: Some(ServerTls::default()), ..self }
    }

    /// What a server does not know itself is one of these options, or a mistake.
    pub fn take(&mut self, unknown: lexopt::Error, args: &mut lexopt::Parser) -> Result<(), Exit> {
        let lexopt::Error::UnexpectedOption(option) = &unknown else { return Err(unknown.into()) };
        match option.as_str() {
            "--tls-cert" | "--tls-key" if self.tls.is_some() => {
                let (tls, value) = (self.tls.get_or_insert_default(), args.value()?);
                tls.take(option, value)?;
            }
            "--threads" => self.set_threads(args.value()?)?,
            "--public" => self.public = true,
            "--max-connections" => self.max_connections = Some(number(option, args)?),
            "--max-per-peer" => self.max_per_peer = Some(number(option, args)?),
            "--drain" => self.drain = Some(seconds_or_none(option, args)?),
            "--idle" => self.idle = Some(seconds(option, args)?),
            "--proxy-protocol" => self.is_proxied = true,
            "--proxy-from" => self.trust(option, args)?,
            "--take-over" if self.can_be_taken_over && cfg!(feature = "layers") => {
                self.take_over = Some(args.value()?.into())
            }
            "--stats" => self.set_stats(args.value()?)?,
            "--log" => set_log_level(args.value()?)?,
            "--help" | "-h" => return Err(Exit::Help),
            _ => return Err(unknown.into()),
        }
        Ok(())
    }

    /// It can be taken over by a successor.
    pub fn with_take_over(self) -> ServerOptions {
        ServerOptions { can_be_taken_over: true, ..self }
    }

    /// Where successors ask.
    pub fn take_over(&self) -> Option<&Path> {
        self.take_over.as_deref()
    }

    fn trust(&mut self, option: &str, args: &mut lexopt::Parser) -> Result<(), Exit> {
        let network = args.value()?.to_string_lossy().into_owned();
        self.trusted.push(network);
        let trusted = self.trusted.iter().map(String::as_str);
        let wrong = |error| Exit::Usage(format!("{option}: {error}"));
        self.proxy = ProxyOptions::default().with_trusted(trusted).map_err(wrong)?;
        Ok(())
    }

    /// `--threads`, also of a server that has no other of these options.
    pub fn set_threads(&mut self, number: OsString) -> Result<(), Exit> {
        self.threads = Some(parse("--threads", number, "a number; 0: one for each core")?);
        Ok(())
    }

    /// How many loops.
    pub fn threads(&self) -> usize {
        match self.threads.unwrap_or(1) {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        }
    }

    /// All options are known: read the certificate, if there is one.
    pub fn begin_tls(&mut self) -> Result<(), Exit> {
        self.tls.as_mut().map_or(Ok(()), ServerTls::begin)
    }

    /// Read it again at each SIGHUP, for all loops.
    pub fn reload_tls_on_signal(&self, map: &mut ChannelMap) -> io::Result<()> {
        self.tls.as_ref().map_or(Ok(()), |tls| tls.reload_on_signal(map))
    }

    /// Add a connection that was accepted: with the header of a balancer, if that is to come; over TLS, if there is a
    /// certificate.
    pub fn add<D: Dispatcher>(&self, map: &mut ChannelMap, socket: Socket, d: D) -> io::Result<Handle<D>> {
        let handle = match self.is_proxied {
            true => map.add_proxied(socket, &self.proxy, d)?,
            false => map.add(socket, d)?,
        };
        if let Some(tls) = &self.tls {
            tls.start_on(&mut map.channel(handle)?)?;
        }
        Ok(handle)
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
        let options = if self.public { ListenOptions::public() } else { ListenOptions::default() };
        options.with_limits(self.accept_limits())
    }

    /// The limits of all listeners together.
    pub fn accept_limits(&self) -> Option<AcceptLimits> {
        self.limits.get_or_init(|| self.limits()).clone()
    }

    fn limits(&self) -> Option<AcceptLimits> {
        let (total, per_peer) = (self.max_connections, self.max_per_peer);
        let limits = match total {
            Some(total) if self.public => AcceptLimits::public_with_total(total),
            None if self.public => AcceptLimits::public(),
            None if per_peer.is_none() => return None,
            _ => AcceptLimits::default().with_total(total),
        };
        Some(match per_peer {
            Some(most) => limits.with_per_peer(most),
            None => limits,
        })
    }

    /// How long a connection may be idle, where the server itself has a limit.
    pub fn idle_or(&self, usual: Duration) -> Duration {
        self.idle.unwrap_or(usual)
    }

    /// `--stats`, also of a server that has no other of these options.
    pub fn set_stats(&mut self, text: OsString) -> Result<(), Exit> {
        let text = address(text)?;
        if text.starts_with("*:") {
            return Err(Exit::Usage(format!("--stats {text:?}: wanted one address")));
        }
        self.stats = Some(text);
        Ok(())
    }

    /// Where the numbers are to be had.
    pub fn stats(&self) -> Option<&str> {
        self.stats.as_deref()
    }

    /// Let a new connection have what is said of it here.
    pub fn set_on(&self, ch: &mut Channel<'_>) {
        if let Some(idle) = self.idle.or(self.public.then_some(PUBLIC_IDLE)) {
            ch.set_timeout(Some(idle));
        }
    }
}

/// A number of connections, at least one.
fn number(option: &str, args: &mut lexopt::Parser) -> Result<usize, Exit> {
    let number: std::num::NonZero<usize> = parse(option, args.value()?, "a number, 1 or more")?;
    Ok(number.get())
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
