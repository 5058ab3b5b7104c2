//! The loop: asyncore's `loop()`, turn by turn.

pub(crate) mod accept;
pub(crate) mod accepted;
pub(crate) mod admission;
pub(crate) mod backoff;
pub(crate) mod bandwidth;
pub(crate) mod broken;
pub(crate) mod closing;
pub(crate) mod connect;
pub(crate) mod datagram;
pub(crate) mod deadlines;
pub(crate) mod dial;
pub(crate) mod drain;
pub(crate) mod drive;
pub(crate) mod handshake;
pub(crate) mod hooks;
pub(crate) mod messages;
pub(crate) mod output;
pub(crate) mod overdue;
#[cfg(feature = "proxy-protocol")]
pub(crate) mod preface;
pub(crate) mod registration;
#[cfg(feature = "testing")]
pub(crate) mod scripted;
pub(crate) mod serve;
pub(crate) mod settle;
pub(crate) mod teardown;
pub(crate) mod timers;
pub(crate) mod turn;
pub(crate) mod upgrade;

use std::io;
use std::time::Duration;

use crate::core::map::ChannelMap;
use crate::event_loop::hooks::Entered;
use crate::threads::pulse::Running;
use crate::threads::queue::Queue;

/// How [`run_with`] runs: the arguments of asyncore's `loop(timeout, use_poll, map, count)`.
///
/// ```
/// use dispatch_loop::{ChannelMap, LoopOptions};
/// use std::time::Duration;
///
/// let mut map = ChannelMap::new()?;
/// map.call_later(Duration::from_secs(3600), |_| ());
/// let options = LoopOptions::default().with_timeout(Duration::from_millis(10)).with_count(3);
/// dispatch_loop::run_with(&mut map, &options)?;       // three waits, not an hour
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoopOptions {
    /// The longest that one wait may take. Default `None`: wait until there is something to do.
    /// (Python's default is 30 s.)
    pub timeout: Option<Duration>,
    /// Return after this many waits. Default `None`: go on until the map is empty.
    pub count: Option<u64>,
    /// Ask `readable` and `writable` of every channel every turn, as Python does, at a cost that
    /// grows with the number of channels. For ported programs whose answers change without the loop
    /// noticing. Default `false`.
    pub rescan: bool,
    /// Go on also when no channel, timer or message is left, until [`stop`](ChannelMap::stop) is called or a
    /// [`drain`](ChannelMap::drain) is over. For a map that is fed by a [`Remote`](crate::Remote). Default
    /// `false`.
    pub until_stopped: bool,
}

impl LoopOptions {
    /// Set [`timeout`](LoopOptions::timeout).
    #[must_use]
    pub fn with_timeout(mut self, timeout: impl Into<Option<Duration>>) -> LoopOptions {
        self.timeout = timeout.into();
        self
    }

    /// Set [`count`](LoopOptions::count).
    #[must_use]
    pub fn with_count(mut self, count: impl Into<Option<u64>>) -> LoopOptions {
        self.count = count.into();
        self
    }

    /// Set [`rescan`](LoopOptions::rescan).
    #[must_use]
    pub fn with_rescan(mut self, rescan: bool) -> LoopOptions {
        self.rescan = rescan;
        self
    }

    /// Set [`until_stopped`](LoopOptions::until_stopped).
    #[must_use]
    pub fn with_until_stopped(mut self, until_stopped: bool) -> LoopOptions {
        self.until_stopped = until_stopped;
        self
    }
}

/// Drive the channels of `map` until none is left and no timer is set,
/// [`stop`](ChannelMap::stop) is called, or a [`drain`](ChannelMap::drain) is over: asyncore's `loop()`.
///
/// When it is stopped, channels stay, and the next call continues with them. However it returns,
/// [remotes](crate::Remote) and [outlets](crate::Outlet) refuse what comes after that, and threads that wait
/// in one are woken: `run` may never be called again. The next `run` or [`turn`](ChannelMap::turn) lets them
/// in again; a program that does other work between its turns calls `turn`, after which they stay open.
///
/// # Errors
/// The poller failed, or this is called from inside one of the map's own hooks (`Deadlock`). When nothing is
/// left to do, and the listener that ended last ended with an error: that error, with its address, so that a
/// server that has lost its listeners does not look as if it had been told to end. (A
/// [`handle_error`](crate::Dispatcher::handle_error) that ends the listener itself, by
/// [`abort`](crate::Channel::abort) and [`OnError::Keep`](crate::OnError::Keep), has taken care of it.)
#[doc(alias = "loop")]
pub fn run(map: &mut ChannelMap) -> io::Result<()> {
    run_with(map, &LoopOptions::default())
}

/// As [`run`], with options: `loop(timeout, use_poll, map, count)`.
///
/// # Errors
/// As [`run`].
#[doc(alias = "loop")]
pub fn run_with(map: &mut ChannelMap, options: &LoopOptions) -> io::Result<()> {
    refuse_nested(map)?;
    map.set_stopped(false);
    let mut waits = 0;
    let mut id = map.id;
    let mut entered = Entered::now(id);
    let mut running = map.running();
    let mut queue = map.queue.as_ref().map(Queue::shared);
    loop {
        if map.id != id {
            // A hook swapped the maps. The other one may never run again.
            drop((entered, running));
            queue.take().iter().for_each(|left| left.set_stopped(true));
            refuse_nested(map)?;
            id = map.id;
            entered = Entered::now(id);
            running = map.running();
            map.let_messages_in();
        }
        queue = queue.or_else(|| map.queue.as_ref().map(Queue::shared));
        if map.is_stop_asked() {
            map.take_stop();
            map.set_stopped(true);
            return Ok(());
        }
        if map.drain.is_some() && map.has_run_all_messages() && drain::is_concluded(map) {
            if map.id != id {
                continue;
            }
            map.set_stopped(true);
            return Ok(());
        }
        let counted_out = options.count.is_some_and(|count| waits >= count);
        let idle =
            !options.until_stopped && map.is_idle() && map.queue.as_ref().is_none_or(Queue::shut_if_empty);
        if idle || counted_out {
            map.set_stopped(true);
            if idle {
                return map.failed_listener.take().map_or(Ok(()), Err);
            }
            return Ok(());
        }
        turn::turns(map, options, &mut waits).inspect_err(|_| map.set_stopped(true))?;
    }
}

impl ChannelMap {
    /// One turn of the loop: settle, wait for at most `timeout` (`None`: as long as it takes), serve
    /// what is ready, run due timers and messages, settle. Python's `poll()`. It does not wait if its
    /// settle ends the last channel, nor, with `None`, if nothing could end the wait.
    ///
    /// # Errors
    /// The poller failed, or this is called from inside one of the map's own hooks (`Deadlock`).
    pub fn turn(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        refuse_nested(self)?;
        let _entered = Entered::now(self.id);
        let _running = self.running();
        self.let_messages_in();
        let id = self.id;
        turn::once(self, timeout)?;
        if self.id == id && self.drain.is_some() {
            drain::is_concluded(self);
        }
        Ok(())
    }

    /// Whether [`run`] would return: no channel is left except those in the background
    /// ([`set_background`](crate::Channel::set_background)), and there is no timer, no message from another
    /// thread and no [call that blocks](ChannelMap::spawn_blocking). Time limits, `set_timeout` among them, are
    /// no timers: they count with their channel.
    pub fn is_idle(&self) -> bool {
        // A connect attempt is its channel's business; one that is over is still to be closed.
        self.slots.len() == self.background + self.internal
            && (self.internal == 0 || self.dirty.is_empty())
            && !self.timers.keeps()
            && self.queue.as_ref().is_none_or(Queue::is_empty)
            && !self.awaits_a_thread()
    }

    /// Whether the result of a call that blocks, or the answer to a look-up, is still to come.
    pub(crate) fn awaits_a_thread(&self) -> bool {
        self.work.as_ref().is_some_and(|pool| !pool.is_empty())
    }

    /// The loop is run from now on.
    fn running(&self) -> Running {
        if self.is_timed() {
            self.pulse.see(self.clock.now().instant());
        }
        Running::now(self.pulse.clone())
    }

    #[inline]
    fn is_stop_asked(&self) -> bool {
        self.stopping || self.queue.as_ref().is_some_and(Queue::is_stop_asked)
    }

    fn take_stop(&mut self) {
        self.stopping = false;
        if let Some(queue) = &self.queue {
            queue.take_stop();
        }
    }

    /// Its `run` has returned or gone on with another map, perhaps, and it turns again.
    fn let_messages_in(&mut self) {
        if self.stopped || self.queue.as_ref().is_some_and(Queue::is_stopped) {
            self.set_stopped(false);
        }
    }

    fn set_stopped(&mut self, stopped: bool) {
        self.stopped = stopped;
        if let Some(queue) = &self.queue {
            queue.set_stopped(stopped);
        }
    }
}

fn refuse_nested(map: &ChannelMap) -> io::Result<()> {
    if map.ended || Entered::is(map.id) {
        return Err(io::Error::new(
            io::ErrorKind::Deadlock,
            "the loop of this map is running already; a hook must return to it, not start it anew",
        ));
    }
    Ok(())
}
