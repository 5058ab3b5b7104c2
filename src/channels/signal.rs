//! Signals as callbacks of the loop. A signal handler may do very little, so that of `signal-hook` writes a
//! byte to a socket pair whose other end is a channel of the library's own.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{SigId, low_level};

use crate::core::channel::Channel;
use crate::core::dispatcher::Dispatcher;
use crate::core::map::ChannelMap;
use crate::drain::DrainOptions;
use crate::event_loop::messages::guarded;
use crate::link::held::Held;
use crate::link::source::Plain;
use crate::link::state::Link;
use crate::reason::Reason;
use crate::sys::faults::{self, Call};
use crate::sys::{self, Kind};
use crate::threads::pulse::Work;
use crate::token::Token;

impl ChannelMap {
    /// Call `f` on the loop's thread whenever the process receives `signal` (`SIGTERM` is 15; see
    /// `signal-hook`'s `consts`): asyncio's `add_signal_handler`. Signals in quick succession may cause
    /// one call. Requires the feature `signals`.
    ///
    /// The watch does not keep [`run`](crate::run) going, and is none of the map's channels:
    /// [`len`](ChannelMap::len), [`tokens`](ChannelMap::tokens) and [`close_all`](ChannelMap::close_all)
    /// pass over it. Its token is for closing it; then the signal does nothing. A panic of `f` is caught
    /// and logged.
    ///
    /// # Errors
    /// The signal cannot be caught (`InvalidInput`), or no descriptor is left.
    ///
    /// ```
    /// use dispatch_loop::ChannelMap;
    ///
    /// let mut map = ChannelMap::new()?;
    /// map.on_signal(signal_hook::consts::SIGUSR1, |map| map.close_all())?;
    /// dispatch_loop::run(&mut map)?;                 // there is nothing else to do
    /// # std::io::Result::Ok(())
    /// ```
    pub fn on_signal(&mut self, signal: i32, f: impl FnMut(&mut ChannelMap) + 'static) -> io::Result<Token> {
        if signal_hook::consts::FORBIDDEN.contains(&signal) {
            let text = format!("signal {signal} cannot be caught");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        faults::pass(Call::Pair)?;
        let (reader, writer) = UnixStream::pair()?;
        sys::set_nonblocking(reader.as_fd())?;
        let id = low_level::pipe::register(signal, writer)?;
        let link = Link::of_socket(Held::Plain(Plain(reader.into())), Kind::Stream);
        self.insert_internal(link, Watch { f: Box::new(f), id })
    }
}

impl ChannelMap {
    /// Let `SIGTERM` and `SIGINT` [drain](ChannelMap::drain) this map, and a second one of either end the drain
    /// at once: what is left is aborted, and [`run`](crate::run) returns. Signals in quick succession may count
    /// as one. If something else has begun a drain, the first signal does not end it, but the sooner end holds.
    /// Called again, the later options hold. Requires the feature `signals`.
    ///
    /// A program that was ended by the second signal exits with 128 and its number, by convention. The number is
    /// in [`DrainProgress::signal`](crate::DrainProgress::signal).
    ///
    /// # Errors
    /// No descriptor is left.
    ///
    /// ```
    /// use dispatch_loop::{ChannelMap, DrainOptions};
    /// use std::process::ExitCode;
    ///
    /// # struct Server;
    /// # impl dispatch_loop::Dispatcher for Server {}
    /// fn main() -> std::io::Result<ExitCode> {
    ///     let mut map = ChannelMap::new()?;
    ///     map.listen("127.0.0.1:0", Server)?;
    ///     map.drain_on_signals(&DrainOptions::default())?;
    /// #   map.call_soon(|_| signal_hook::low_level::raise(15).unwrap());
    ///     dispatch_loop::run(&mut map)?;             // until a signal, and the end of what was begun
    ///     let signal = map.drain_progress().and_then(|progress| progress.signal);
    ///     Ok(signal.map_or(ExitCode::SUCCESS, |signal| ExitCode::from(128 + signal as u8)))
    /// }
    /// ```
    pub fn drain_on_signals(&mut self, options: &DrainOptions) -> io::Result<()> {
        let options = *options;
        let mut watches = Vec::new();
        for signal in [SIGTERM, SIGINT] {
            watches.push(self.on_signal(signal, move |map| map.drain_by_signal(signal, &options))?);
        }
        for before in std::mem::replace(&mut self.drain_signals, watches) {
            if let Some(link) = self.touch_link(before) {
                link.end(Reason::Closed);
            }
        }
        Ok(())
    }
}

struct Watch {
    f: Box<dyn FnMut(&mut ChannelMap)>,
    id: SigId,
}

impl Dispatcher for Watch {
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, _| {
            // A panic is logged, and the next signal calls it again.
            guarded(ch.map_mut(), Work::Signal, |map| (self.f)(map));
            Ok(())
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        low_level::unregister(self.id);
    }
}
