//! What a half knows of the loop: where it runs, whether it does, and how to have it look at the stream.

use std::io::{self, ErrorKind};
use std::sync::{Arc, MutexGuard};
use std::thread::{self, ThreadId};

use super::dispatcher::StreamDispatcher;
use super::shared::{Shared, State, twin};
use crate::{Address, Call, Handle, OnStop, Remote, SendError, read_lines};

/// What both halves know of the loop's side.
pub(super) struct LoopSide {
    pub(super) shared: Arc<Shared>,
    pub(super) remote: Remote,
    pub(super) handle: Handle<StreamDispatcher>,
    /// The loop's thread.
    pub(super) home: ThreadId,
    pub(super) local: Option<Address>,
    pub(super) peer: Option<Address>,
    pub(super) _on_stop: OnStop,
}

impl LoopSide {
    pub(super) fn refuse_the_loops_thread(&self) -> io::Result<()> {
        if thread::current().id() == self.home {
            return Err(io::Error::new(
                ErrorKind::Deadlock,
                "a stream is for other threads than its loop's own, which would wait for itself",
            ));
        }
        Ok(())
    }

    /// Whether there is anybody to wait for. Asked under the lock, which whoever changes that takes
    /// afterwards, to wake us.
    pub(super) fn check(&self, state: &State) -> io::Result<()> {
        if let Some(error) = &state.end {
            return Err(twin(error));
        }
        if self.remote.is_stopped() {
            return Err(io::Error::new(ErrorKind::BrokenPipe, "the loop was stopped, or its map has ended"));
        }
        Ok(())
    }

    pub(super) fn check_output(&self, state: &State) -> io::Result<()> {
        self.check(state)?;
        state.output_end.as_ref().map_or(Ok(()), |error| Err(twin(error)))
    }

    /// Let the loop look at the state.
    pub(super) fn post(&self) -> Result<(), SendError<Call>> {
        self.remote.with(self.handle, StreamDispatcher::look)
    }

    /// As [`post`](LoopSide::post); and if the loop takes nothing now, as soon as it does.
    pub(super) fn insist(&self, state: MutexGuard<'_, State>) {
        let ended = state.end.is_some();
        drop(state);
        if ended || matches!(self.post(), Ok(()) | Err(SendError::Ended(_))) {
            return;
        }
        // What `read_lines` brings is only put off by a stop, and the waiting is its own thread's.
        let handle = self.handle;
        let sent = read_lines(&self.remote, io::empty(), move |map, _| {
            if let Err(error) = map.with(handle, StreamDispatcher::look) {
                log::debug!("the end of a stream: {error}");
            }
        });
        if let Err(error) = sent {
            log::warn!("channel {}: nobody can tell it the end of its stream: {error}", handle.token());
        }
    }
}

pub(super) fn refused(error: SendError<Call>) -> io::Error {
    match error {
        SendError::Full(_) => io::Error::new(
            ErrorKind::Deadlock,
            "this stream would have to wait for its loop, on a thread that owns a channel map",
        ),
        error => error.into(),
    }
}
