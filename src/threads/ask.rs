//! A call to the loop that brings its answer back.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};

use crate::core::action::Message;
use crate::core::map::ChannelMap;
use crate::threads::queue::owns_a_map;
use crate::threads::remote::Remote;
use crate::threads::send_error::SendError;

impl Remote {
    /// Run `f` on the loop's thread, and wait for what it returns, for at most `timeout`: asyncio's
    /// `run_coroutine_threadsafe(…).result(timeout)`. It runs after what this thread has
    /// [called](Remote::call) before.
    ///
    /// ```
    /// use dispatch_loop::ChannelMap;
    /// use std::thread;
    /// use std::time::Duration;
    ///
    /// let mut map = ChannelMap::new()?;
    /// let remote = map.remote();
    /// # map.call_later(Duration::from_secs(60), |_| ());     // keeps the loop waiting
    /// let thread = thread::spawn(move || {
    ///     let channels = remote.ask(Duration::from_secs(1), |map| map.len());
    ///     remote.stop();
    ///     channels
    /// });
    /// dispatch_loop::run(&mut map)?;
    /// assert_eq!(thread.join().unwrap(), Ok(0));
    /// # std::io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    /// See [`AskError`]. Once it has returned one, `f` does not begin to run any more.
    pub fn ask<R, F>(&self, timeout: Duration, f: F) -> Result<R, AskError>
    where
        R: Send + 'static,
        F: FnOnce(&mut ChannelMap) -> R + Send + 'static,
    {
        // That loop may wait for this one.
        if owns_a_map() {
            return Err(AskError::OnALoop);
        }
        let (answer, answers) = bounded(1);
        let state = Arc::new(AtomicU8::new(QUEUED));
        let [call, of_stop] = [(); 2].map(|()| Asked { state: state.clone(), answer: answer.clone() });
        let call = move |map: &mut ChannelMap| {
            if call.becomes(BEGUN) {
                let _ = call.answer.try_send(Ok(f(map)));
            }
        };
        // A call that has begun is answered, although the loop stops.
        let _stops = self.on_stop(move || of_stop.hang_up(AskError::Stopped));
        self.shared.post(Message::Call(Box::new(call)), false).map_err(|error| match error {
            SendError::Full(_) => AskError::Full,
            SendError::Stopped(_) | SendError::Ended(_) => AskError::Stopped,
        })?;
        answers.recv_timeout(timeout).unwrap_or_else(|_| {
            match state.compare_exchange(QUEUED, OVER, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => Err(AskError::TimedOut),
                // Perhaps there is an answer by now.
                Err(BEGUN) => answers.try_recv().unwrap_or(Err(AskError::Unanswered)),
                Err(_) => Err(AskError::Stopped),
            }
        })
    }
}

const QUEUED: u8 = 0;
const BEGUN: u8 = 1;
/// It does not begin any more.
const OVER: u8 = 2;

/// A call that is asked for, and the way of its answer.
struct Asked<R> {
    state: Arc<AtomicU8>,
    answer: Sender<Result<R, AskError>>,
}

impl<R> Asked<R> {
    /// Whether it was in the queue until now.
    fn becomes(&self, state: u8) -> bool {
        self.state.compare_exchange(QUEUED, state, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// If it has not begun, it never will.
    fn hang_up(&self, why: AskError) {
        if self.becomes(OVER) {
            let _ = self.answer.try_send(Err(why));
        }
    }
}

impl<R> Drop for Asked<R> {
    fn drop(&mut self) {
        self.hang_up(AskError::Stopped);
        // It has panicked, unless there is an answer.
        let _ = self.answer.try_send(Err(AskError::Unanswered));
    }
}

/// Why [`Remote::ask`] has no answer.
///
/// ```
/// use dispatch_loop::{AskError, ChannelMap};
/// use std::time::Duration;
///
/// let mut map = ChannelMap::new()?;
/// let remote = map.remote();
/// // This thread owns the map, and could not wait and run it, too.
/// assert_eq!(remote.ask(Duration::from_secs(1), |map| map.len()), Err(AskError::OnALoop));
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AskError {
    /// The time was over before the call began.
    TimedOut,
    /// The call began, and had not returned when the time was over; or it has panicked.
    Unanswered,
    /// The queue of messages to the loop is full.
    Full,
    /// The loop is stopped, or its map was dropped.
    Stopped,
    /// The thread that asks owns a map itself: two loops that waited for each other would wait for ever. Use
    /// [`call`](Remote::call), and have the answer sent by a `Remote` of that map.
    OnALoop,
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AskError::TimedOut => "the loop was asked, and had no time to begin",
            AskError::Unanswered => "the loop was asked, and began, but gave no answer",
            AskError::Full => "the queue to the loop is full",
            AskError::Stopped => "the loop is stopped",
            AskError::OnALoop => "a thread that owns a map must not wait for a loop",
        })
    }
}

impl Error for AskError {}

impl From<AskError> for io::Error {
    fn from(error: AskError) -> io::Error {
        let kind = match error {
            AskError::TimedOut | AskError::Unanswered => io::ErrorKind::TimedOut,
            AskError::Full => io::ErrorKind::QuotaExceeded,
            AskError::Stopped => io::ErrorKind::BrokenPipe,
            AskError::OnALoop => io::ErrorKind::Deadlock,
        };
        io::Error::new(kind, error)
    }
}
