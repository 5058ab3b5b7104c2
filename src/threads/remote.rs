//! `Remote`: how another thread has things done on the loop's thread.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::core::action::{Call, Message};
use crate::core::channel::Channel;
use crate::core::dispatcher::Dispatcher;
use crate::core::map::ChannelMap;
use crate::threads::queue::{SendError, Shared};
use crate::token::{Handle, Token};

/// A way from any thread to the loop's: asyncio's `call_soon_threadsafe`. Made by
/// [`ChannelMap::remote`], cloned as often as you like.
///
/// What it has taken runs on the loop's thread, in each thread's order, at most 256 messages a turn,
/// or is dropped with the map. When the queue (1,024 messages, see
/// [`set_remote_capacity`](ChannelMap::set_remote_capacity)) is full, a call waits; on a thread that
/// owns a map it gives the message back instead.
///
/// ```
/// use dispatch_loop::ChannelMap;
///
/// let mut map = ChannelMap::new()?;
/// let remote = map.remote();
/// map.call_later(std::time::Duration::from_secs(60), |_| ());     // keeps the loop waiting
/// let thread = std::thread::spawn(move || {
///     remote.call(|map| println!("on the loop's thread: {} channels", map.len()))?;
///     remote.stop();
///     Ok::<_, dispatch_loop::SendError<_>>(())
/// });
/// dispatch_loop::run(&mut map)?;
/// assert!(thread.join().unwrap().is_ok());
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone)]
pub struct Remote {
    pub(crate) shared: Arc<Shared<Message>>,
}

impl Remote {
    /// Run `f` on the loop's thread. A panic of `f` is caught and logged.
    ///
    /// # Errors
    /// `Full` only on a thread that owns a map, `Stopped`, `Ended`; each has the closure.
    pub fn call(&self, f: impl FnOnce(&mut ChannelMap) + Send + 'static) -> Result<(), SendError<Call>> {
        let message = Message::Call(Box::new(f));
        self.shared.post(message, true).map_err(|error| error.map(Message::into_call))
    }

    /// As [`call`](Remote::call), but a stop is only waited for to be over; `false` if `f` will
    /// never run.
    pub(crate) fn call_across_stops(&self, f: impl FnOnce(&mut ChannelMap) + Send + 'static) -> bool {
        let mut message = Message::Call(Box::new(f));
        loop {
            match self.shared.post(message, true) {
                Ok(()) => return true,
                Err(SendError::Stopped(kept)) => message = kept,
                Err(_) => return false,
            }
            self.shared.wait_while_stopped();
        }
    }

    /// Run `f` with a dispatcher and its channel, as [`ChannelMap::with`] does: an `Err` goes to
    /// its `handle_error`, a panic ends that channel. If the channel is gone, `f` is dropped.
    ///
    /// # Errors
    /// As [`call`](Remote::call).
    pub fn with<T, F>(&self, handle: Handle<T>, f: F) -> Result<(), SendError<Call>>
    where
        T: Dispatcher,
        F: FnOnce(&mut T, &mut Channel<'_>) -> io::Result<()> + Send + 'static,
    {
        self.call(move |map| {
            if let Err(error) = map.with(handle, f) {
                log::debug!("a remote `with`: {error}");
            }
        })
    }

    /// Push bytes to a channel, without ever waiting. If the channel is gone or closing when they
    /// arrive, or over its hard limit, they are dropped, and the log says so.
    ///
    /// # Errors
    /// `Full`, `Stopped`, `Ended`; each has the bytes.
    pub fn try_send(
        &self,
        token: impl Into<Token>,
        bytes: impl Into<Vec<u8>>,
    ) -> Result<(), SendError<Vec<u8>>> {
        let message = Message::Bytes(token.into(), bytes.into(), None);
        self.shared.post(message, false).map_err(|error| error.map(Message::into_bytes))
    }

    /// Whether nothing is taken: the loop was stopped and [`run`](crate::run) not called again, or
    /// the map is gone.
    pub fn is_stopped(&self) -> bool {
        self.shared.is_stopped()
    }

    /// Call `f` each time that the loop stops, and when the map goes, for as long as the guard
    /// lives: so that a thread that waits for something of the loop's need not wait for ever.
    ///
    /// `f` runs on the loop's thread and should only wake somebody; who then asks
    /// [`is_stopped`](Remote::is_stopped), which is `true` already. A panic of `f` is caught and
    /// logged. A stop that has been is not told.
    ///
    /// ```
    /// use dispatch_loop::ChannelMap;
    /// use std::sync::mpsc;
    ///
    /// let mut map = ChannelMap::new()?;
    /// let remote = map.remote();
    /// let (answer, answers) = mpsc::channel::<Option<u32>>();
    /// let hang_up = answer.clone();
    /// let guard = remote.on_stop(move || drop(hang_up.send(None)));
    /// let thread = std::thread::spawn(move || answers.recv());   // would wait for an answer
    /// map.stop();
    /// dispatch_loop::run(&mut map)?;
    /// assert_eq!(thread.join().unwrap(), Ok(None));
    /// # drop(guard);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn on_stop(&self, f: impl Fn() + Send + Sync + 'static) -> StopGuard {
        StopGuard { shared: self.shared.clone(), number: self.shared.watch(Arc::new(f)) }
    }

    /// Let [`run`](crate::run) return, as [`ChannelMap::stop`] does. Needs no room in the queue.
    pub fn stop(&self) {
        self.shared.ask_stop();
    }
}

impl ChannelMap {
    /// A way for other threads to have things done on this one.
    pub fn remote(&mut self) -> Remote {
        Remote { shared: self.open_queue().shared() }
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("queued", &self.shared.len()).finish_non_exhaustive()
    }
}

/// What [`Remote::on_stop`] returns: dropping it ends the watch.
///
/// ```
/// let mut map = dispatch_loop::ChannelMap::new()?;
/// let guard = map.remote().on_stop(|| println!("stopped"));
/// drop(guard);                       // no longer
/// # std::io::Result::Ok(())
/// ```
#[must_use = "dropping it ends the watch"]
pub struct StopGuard {
    shared: Arc<Shared<Message>>,
    number: u64,
}

impl Drop for StopGuard {
    fn drop(&mut self) {
        self.shared.unwatch(self.number);
    }
}

impl fmt::Debug for StopGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StopGuard").finish_non_exhaustive()
    }
}
