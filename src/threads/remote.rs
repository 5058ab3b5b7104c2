//! `Remote`, with which other threads run code on the loop's thread; what it sends goes through
//! `queue.rs`.

use std::fmt;
use std::io;
use std::sync::Arc;

use crate::core::action::{Call, Message};
use crate::core::channel::Channel;
use crate::core::dispatcher::Dispatcher;
use crate::core::map::ChannelMap;
use crate::drain::DrainOptions;
use crate::threads::queue::Shared;
use crate::threads::send_error::SendError;
use crate::token::{Handle, Token};

/// Runs code on the loop's thread, from any other: asyncio's `call_soon_threadsafe`. Made by
/// [`ChannelMap::remote`]; cheap to clone.
///
/// An accepted message runs on the loop's thread, in the order its thread sent them and at most 256 a
/// turn, or is dropped with the map. While the queue (1,024 messages, see
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
    /// `Stopped`, `Ended`, and, on a thread that owns a map, `Full`; each with the closure.
    pub fn call(&self, f: impl FnOnce(&mut ChannelMap) + Send + 'static) -> Result<(), SendError<Call>> {
        let message = Message::Call(Box::new(f));
        self.shared.post(message, true).map_err(|error| error.map(Message::into_call))
    }

    /// As [`call`](Remote::call), but while the loop is stopped it waits. `false` if `f` will never run.
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

    /// Run `f` on the loop's thread; if [`run`](crate::run) has returned, once the loop runs again. Needs no
    /// room in the queue and never waits: for what must not be refused and happens once, such as the drop of
    /// a guard that undoes something on its channel.
    ///
    /// ```
    /// use dispatch_loop::ChannelMap;
    ///
    /// let mut map = ChannelMap::new()?;
    /// let remote = map.remote();
    /// map.stop();
    /// dispatch_loop::run(&mut map)?;                          // stopped: other messages are refused
    /// assert!(remote.call(|_| ()).is_err());
    /// assert!(remote.call_after_stop(|_| println!("the loop runs again")).is_ok());
    /// dispatch_loop::run(&mut map)?;
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    /// `Ended`, with the closure: the map was dropped.
    pub fn call_after_stop(
        &self,
        f: impl FnOnce(&mut ChannelMap) + Send + 'static,
    ) -> Result<(), SendError<Call>> {
        let message = Message::Call(Box::new(f));
        self.shared.post_unbounded(message).map_err(|error| error.map(Message::into_call))
    }

    /// Run `f` with a dispatcher and its channel, as [`ChannelMap::with`] does: an `Err` goes to
    /// its `handle_error`, a panic ends the channel. If the channel has ended, `f` is dropped.
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

    /// Push bytes to a channel; never waits. If the channel has ended, is closing or is over its hard
    /// limit when they arrive, they are dropped, and that is logged.
    ///
    /// # Errors
    /// `Full`, `Stopped`, `Ended`; each with the bytes.
    pub fn try_send(
        &self,
        token: impl Into<Token>,
        bytes: impl Into<Vec<u8>>,
    ) -> Result<(), SendError<Vec<u8>>> {
        let message = Message::Bytes(token.into(), bytes.into(), None);
        self.shared.post(message, false).map_err(|error| error.map(Message::into_bytes))
    }

    /// Whether messages are refused: [`run`](crate::run) has returned, for whatever reason, and neither it
    /// nor [`turn`](ChannelMap::turn) was called again, or the map was dropped.
    pub fn is_stopped(&self) -> bool {
        self.shared.is_stopped()
    }

    /// Call `f` each time [`run`](crate::run) returns, and when the map is dropped, for as long as the guard
    /// lives, so that a thread that waits for the loop does not wait for ever.
    ///
    /// `f` runs on the loop's thread and should do no more than wake that thread, which finds
    /// [`is_stopped`](Remote::is_stopped) already `true`. A panic of `f` is caught and logged. A return
    /// before this call is not reported.
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
    /// let thread = std::thread::spawn(move || answers.recv());   // would wait for ever
    /// map.stop();
    /// dispatch_loop::run(&mut map)?;
    /// assert_eq!(thread.join().unwrap(), Ok(None));
    /// # drop(guard);
    /// # std::io::Result::Ok(())
    /// ```
    pub fn on_stop(&self, f: impl Fn() + Send + Sync + 'static) -> StopGuard {
        StopGuard { shared: self.shared.clone(), number: self.shared.watch(Arc::new(f)) }
    }

    /// Begin the orderly end of the loop, as [`ChannelMap::drain`] does; or bring it nearer.
    ///
    /// # Errors
    /// As [`call`](Remote::call).
    pub fn drain(&self, options: &DrainOptions) -> Result<(), SendError<Call>> {
        let options = *options;
        self.call(move |map| map.drain(&options))
    }

    /// Make [`run`](crate::run) return, as [`ChannelMap::stop`] does. Works when the queue is full, too.
    pub fn stop(&self) {
        self.shared.ask_stop();
    }
}

impl ChannelMap {
    /// A way for other threads to run code on this one.
    pub fn remote(&mut self) -> Remote {
        Remote { shared: self.open_queue().shared() }
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("queued", &self.shared.len()).finish_non_exhaustive()
    }
}

/// Returned by [`Remote::on_stop`], whose closure is called until this is dropped.
///
/// ```
/// let mut map = dispatch_loop::ChannelMap::new()?;
/// let guard = map.remote().on_stop(|| println!("stopped"));
/// drop(guard);                       // from now on it is not called
/// # std::io::Result::Ok(())
/// ```
#[must_use = "the closure is no longer called once this is dropped"]
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
