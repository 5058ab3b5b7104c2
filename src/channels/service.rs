//! A program as a service: it is given its sockets, and tells how it is.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process;
use std::time::Duration;

use crate::core::map::ChannelMap;
use crate::net::address::Address;
use crate::net::socket::Socket;
use crate::sys::inherited;
use crate::timers::TimerId;

/// How long the service manager may take to take a message.
const PATIENCE: Duration = Duration::from_secs(1);

/// The sockets that a service manager has opened for this process (`LISTEN_FDS`, `LISTEN_PID`, `LISTEN_FDNAMES`), with
/// their names, in its order: systemd's `sd_listen_fds_with_names`. [`ChannelMap::add`] takes each. Empty if there are
/// none, and from the second call on: they are given away once.
///
/// A socket that the unit does not name is called `unknown`. The files of Unix-domain listeners stay: they are the
/// service manager's.
///
/// ```
/// use dispatch_loop::{ChannelMap, Dispatcher, service};
///
/// struct Server;
/// impl Dispatcher for Server {}
///
/// let mut map = ChannelMap::new()?;
/// for (name, socket) in service::inherited()? {
///     println!("{name}: {}", socket.local_addr()?);
///     map.add(socket, Server)?;
/// }
/// if map.is_empty() {
///     map.listen("127.0.0.1:0", Server)?;              // started by hand
/// }
/// service::ready()?;
/// # std::io::Result::Ok(())
/// ```
///
/// # Errors
/// `InvalidInput`: the variables are there, and say what cannot be, such as a descriptor that is none, or not a socket.
/// Then nothing was taken, or all is closed.
pub fn inherited() -> io::Result<Vec<(String, Socket)>> {
    if number("LISTEN_PID")? != Some(process::id()) {
        return Ok(Vec::new());
    }
    let count = number::<u16>("LISTEN_FDS")?.unwrap_or(0);
    let wrong = |error: io::Error| {
        io::Error::new(ErrorKind::InvalidInput, format!("LISTEN_FDS is {count}, but: {error}"))
    };
    let Some(descriptors) = inherited::take(count).map_err(wrong)? else { return Ok(Vec::new()) };
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let names = names.split(':').filter(|_| !names.is_empty());
    let names = names.map(str::to_owned).chain(std::iter::repeat("unknown".to_owned()));
    let sockets = names.zip(descriptors).map(|(name, fd)| Ok((name, Socket::from_fd(fd)?)));
    sockets.collect::<io::Result<_>>().map_err(wrong)
}

/// Tell the service manager that this process is up (`READY=1`, with its `MAINPID`, for one that has taken over from
/// another); `false` if there is none. Once it listens.
///
/// # Errors
/// As [`notify`].
pub fn ready() -> io::Result<bool> {
    notify(format_args!("READY=1\nMAINPID={}", process::id()))
}

/// Tell the service manager that this process is about to end (`STOPPING=1`); `false` if there is none.
///
/// # Errors
/// As [`notify`].
pub fn stopping() -> io::Result<bool> {
    notify("STOPPING=1")
}

/// Tell the service manager something, in lines as `STATUS=3 clients`: systemd's `sd_notify`. `false` if there is none
/// (`NOTIFY_SOCKET` is not set). It waits, for 1 s at most, where the service manager is slow.
///
/// # Errors
/// `InvalidInput` if `NOTIFY_SOCKET` is no address; those of the system.
pub fn notify(state: impl fmt::Display) -> io::Result<bool> {
    tell(&state, PATIENCE)
}

fn tell(state: &dyn fmt::Display, patience: Duration) -> io::Result<bool> {
    let Some(socket) = env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()) else {
        return Ok(false);
    };
    inherited::tell(&address_of(socket)?, state.to_string().as_bytes(), patience)?;
    Ok(true)
}

fn address_of(socket: OsString) -> io::Result<Address> {
    match socket.as_bytes() {
        [b'@', name @ ..] => Ok(Address::Abstract(name.into())),
        [b'/', ..] => Ok(Address::Unix(Path::new(&socket).into())),
        _ => Err(io::Error::new(ErrorKind::InvalidInput, format!("NOTIFY_SOCKET is no address: {socket:?}"))),
    }
}

fn number<T: std::str::FromStr>(variable: &str) -> io::Result<Option<T>> {
    let Some(value) = env::var_os(variable) else { return Ok(None) };
    match value.to_str().and_then(|value| value.parse().ok()) {
        Some(number) => Ok(Some(number)),
        None => Err(io::Error::new(ErrorKind::InvalidInput, format!("{variable} is no number: {value:?}"))),
    }
}

impl ChannelMap {
    /// If the service manager watches this process (`WATCHDOG_USEC`, `WATCHDOG_PID`), tell it in time, from this map's
    /// loop, that it lives (`WATCHDOG=1`): now, and from then on twice in each interval. A loop that stands still for
    /// an interval gets the process restarted. `None` if nobody watches. The timer does not keep the loop going.
    ///
    /// ```
    /// let mut map = dispatch_loop::ChannelMap::new()?;
    /// if let Some((_, interval)) = map.keep_watchdog()? {
    ///     println!("a word every {interval:?}");
    /// }
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    /// `InvalidInput` if one of the variables is not what it should be.
    pub fn keep_watchdog(&mut self) -> io::Result<Option<(TimerId, Duration)>> {
        let Some(interval) = watchdog_interval()? else { return Ok(None) };
        tell_watchdog();
        let timer = self.call_every(interval, |_| tell_watchdog());
        self.set_timer_background(timer, true);
        Ok(Some((timer, interval)))
    }
}

/// How often the service manager's watchdog is to be told, if there is one.
pub(crate) fn watchdog_interval() -> io::Result<Option<Duration>> {
    let is_ours = number("WATCHDOG_PID")?.is_none_or(|pid: u32| pid == process::id());
    let micros = number("WATCHDOG_USEC")?.filter(|micros| is_ours && *micros > 0);
    Ok(micros.map(|micros| Duration::from_micros(micros) / 2))
}

pub(crate) fn tell_watchdog() {
    if let Err(error) = tell(&"WATCHDOG=1", Duration::ZERO) {
        log::warn!("the service manager's watchdog was not told: {error}");
    }
}
