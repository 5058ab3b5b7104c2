//! What the two halves and the loop share: the bytes in transit, which half waits for what, and why the
//! stream ended.

use std::io::{self, ErrorKind};
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The loop stops reading when this many bytes wait for the reader, and the writer blocks when this many
/// wait for the loop.
pub(super) const LIMIT: usize = 64 * 1024;

/// What the halves and the loop share. Never post or push while holding the lock.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Notified when what the reader waits for has changed.
    pub(super) input: Condvar,
    /// Likewise for the writer.
    pub(super) output: Condvar,
}

pub(super) struct State {
    /// Read by the loop, not yet taken by the reader.
    pub(super) incoming: Vec<u8>,
    /// The loop does not read until that has been taken.
    pub(super) paused: bool,
    /// The reader has told it so.
    pub(super) asked: bool,
    /// The peer has ended its stream.
    pub(super) eof: bool,
    /// Written, not yet taken by the loop.
    pub(super) outgoing: Vec<u8>,
    /// The writer has asked the loop to take that.
    pub(super) posted: bool,
    /// No post needed: the loop sends on its own when the channel opens or its queue drains. False only
    /// while nothing is on its way to the system.
    pub(super) loop_comes: bool,
    /// FIN is to follow what was written.
    pub(super) write_closed: bool,
    pub(super) reader_gone: bool,
    pub(super) writer_gone: bool,
    pub(super) reader_waits: bool,
    pub(super) writer_waits: bool,
    /// Why nothing more can be sent, though the channel is alive.
    pub(super) output_end: Option<io::Error>,
    /// Why the channel has ended.
    pub(super) end: Option<io::Error>,
}

impl State {
    /// Whether a drain is to wait: unless the reader waits for input, and all that was written has been taken.
    pub(super) fn is_busy(&self) -> bool {
        !self.reader_waits || !self.incoming.is_empty() || !self.outgoing.is_empty()
    }
}

impl Shared {
    pub(super) fn new() -> Shared {
        let state = State {
            incoming: Vec::new(),
            paused: false,
            asked: false,
            eof: false,
            outgoing: Vec::new(),
            posted: false,
            loop_comes: true,
            write_closed: false,
            reader_gone: false,
            writer_gone: false,
            reader_waits: false,
            writer_waits: false,
            output_end: None,
            end: None,
        };
        Shared { state: Mutex::new(state), input: Condvar::new(), output: Condvar::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wake_reader(&self, mut state: MutexGuard<'_, State>) {
        if mem::take(&mut state.reader_waits) {
            drop(state);
            self.input.notify_one();
        }
    }

    pub(super) fn wake_writer(&self, mut state: MutexGuard<'_, State>) {
        if mem::take(&mut state.writer_waits) {
            drop(state);
            self.output.notify_one();
        }
    }

    pub(super) fn wake_both(&self, state: MutexGuard<'_, State>) {
        self.wake_reader(state);
        self.wake_writer(self.lock());
    }

    /// The channel has ended. The first cause counts.
    pub(super) fn end(&self, error: io::Error) {
        let mut state = self.lock();
        state.end.get_or_insert(error);
        self.wake_both(state);
    }

    /// Nothing more can be sent. What was written is lost, and the loop will never report it as sent.
    pub(super) fn end_output(&self, error: io::Error) {
        let mut state = self.lock();
        state.output_end.get_or_insert(error);
        state.outgoing = Vec::new();
        state.loop_comes = true;
        self.wake_writer(state);
    }
}

/// A copy with the same code, or the same kind and message; an `io::Error` cannot be cloned.
pub(super) fn clone_error(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// `None` is no deadline, also for a timeout too long for the clock.
pub(super) fn deadline(timeout: Option<Duration>) -> Option<Instant> {
    Instant::now().checked_add(timeout?)
}

/// Wait to be woken, or fail at the deadline.
pub(super) fn wait<'a>(
    condvar: &Condvar,
    state: MutexGuard<'a, State>,
    deadline: Option<Instant>,
) -> io::Result<MutexGuard<'a, State>> {
    let Some(deadline) = deadline else {
        return Ok(condvar.wait(state).unwrap_or_else(PoisonError::into_inner));
    };
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::Error::new(ErrorKind::TimedOut, "the stream's time limit has passed"));
    }
    Ok(condvar.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0)
}
