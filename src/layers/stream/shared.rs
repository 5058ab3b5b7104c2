//! What the two halves and the loop share: the bytes on their way, who waits for what, and why it
//! ended.

use std::io::{self, ErrorKind};
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The loop stops reading when so many bytes wait for the reader, and the writer waits when so many
/// wait for the loop.
pub(super) const LIMIT: usize = 64 * 1024;

/// What the halves and the loop share. Nobody posts or pushes while holding the lock.
pub(super) struct Shared {
    state: Mutex<State>,
    /// What the reader waits for has changed; what the writer waits for.
    pub(super) input: Condvar,
    pub(super) output: Condvar,
}

pub(super) struct State {
    /// Read by the loop, not yet taken by the reader.
    pub(super) incoming: Vec<u8>,
    /// The loop does not read until that is taken; the reader has told it that it was.
    pub(super) paused: bool,
    pub(super) asked: bool,
    /// The peer has sent its end of stream.
    pub(super) eof: bool,
    /// Written, not yet taken by the loop.
    pub(super) outgoing: Vec<u8>,
    /// The writer has sent for the loop, which will take that.
    pub(super) posted: bool,
    /// It need not, because the loop comes by itself: when the channel opens, or its queue is sent.
    /// False only while nothing is on its way from here to the system.
    pub(super) loop_comes: bool,
    /// FIN follows what was written.
    pub(super) write_closed: bool,
    pub(super) reader_gone: bool,
    pub(super) writer_gone: bool,
    pub(super) reader_waits: bool,
    pub(super) writer_waits: bool,
    /// Why nothing can be sent any more, though the channel lives; why it has ended.
    pub(super) output_end: Option<io::Error>,
    pub(super) end: Option<io::Error>,
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

    /// The channel has ended. The first cause stays.
    pub(super) fn end(&self, error: io::Error) {
        let mut state = self.lock();
        state.end.get_or_insert(error);
        self.wake_both(state);
    }

    /// Nothing can be sent any more. What was written is lost, and the loop never comes to say that
    /// it was sent.
    pub(super) fn end_output(&self, error: io::Error) {
        let mut state = self.lock();
        state.output_end.get_or_insert(error);
        state.outgoing = Vec::new();
        state.loop_comes = true;
        self.wake_writer(state);
    }
}

/// An `io::Error` cannot be cloned: one that says the same.
pub(super) fn twin(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// `None` is for ever, which is also what is too long for the clock.
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
        return Err(io::Error::new(ErrorKind::TimedOut, "the stream has waited for as long as it may"));
    }
    Ok(condvar.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0)
}
