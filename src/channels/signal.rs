//! Signals as callbacks of the loop. A signal handler may do very little, so that of `signal-hook` writes a
//! byte to a socket pair whose other end is a channel of the library's own.

use std::io;
use std::os::unix::net::UnixStream;

use signal_hook::{SigId, low_level};

use crate::core::channel::Channel;
use crate::core::dispatcher::Dispatcher;
use crate::core::map::ChannelMap;
use crate::event_loop::messages::guarded;
use crate::link::held::Held;
use crate::link::source::Plain;
use crate::link::state::Link;
use crate::sys::Kind;
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
        let (reader, writer) = UnixStream::pair()?;
        let id = low_level::pipe::register(signal, writer)?;
        reader.set_nonblocking(true)?;
        let link = Link::of_socket(Held::Plain(Plain(reader.into())), Kind::Stream);
        self.insert_internal(link, Watch { f: Box::new(f), id })
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
