//! A half's way to the loop: which thread that runs on, whether it runs, and how to notify it.

use std::io::{self, ErrorKind};
use std::sync::{Arc, MutexGuard};
use std::thread::{self, ThreadId};

use super::dispatcher::StreamDispatcher;
use super::shared::{Shared, State, clone_error};
use crate::{Address, Call, Handle, Remote, SendError, StopGuard};

/// The loop's side, as both halves know it.
pub(super) struct LoopSide {
    pub(super) shared: Arc<Shared>,
    pub(super) remote: Remote,
    pub(super) handle: Handle<StreamDispatcher>,
    /// The loop's thread.
    pub(super) home: ThreadId,
    pub(super) local: Option<Address>,
    pub(super) peer: Option<Address>,
    pub(super) _on_stop: StopGuard,
}

impl LoopSide {
    pub(super) fn local_addr(&self) -> io::Result<Address> {
        self.local.clone().ok_or_else(|| ErrorKind::NotConnected.into())
    }

    pub(super) fn peer_addr(&self) -> io::Result<Address> {
        self.peer.clone().ok_or_else(|| ErrorKind::NotConnected.into())
    }

    pub(super) fn refuse_the_loops_thread(&self) -> io::Result<()> {
        if thread::current().id() == self.home {
            return Err(io::Error::new(
                ErrorKind::Deadlock,
                "a stream cannot be used on its loop's own thread, which would wait for itself",
            ));
        }
        Ok(())
    }

    /// Fails if waiting is pointless. Hold the lock: whatever changes these conditions takes it before
    /// notifying.
    pub(super) fn check(&self, state: &State) -> io::Result<()> {
        if let Some(error) = &state.end {
            return Err(clone_error(error));
        }
        if self.remote.is_stopped() {
            return Err(io::Error::new(ErrorKind::BrokenPipe, "the loop was stopped, or its map has ended"));
        }
        Ok(())
    }

    pub(super) fn check_output(&self, state: &State) -> io::Result<()> {
        self.check(state)?;
        state.output_end.as_ref().map_or(Ok(()), |error| Err(clone_error(error)))
    }

    /// Ask the loop to act on the state.
    pub(super) fn post(&self) -> Result<(), SendError<Call>> {
        self.remote.with(self.handle, StreamDispatcher::look)
    }

    /// Like [`post`](LoopSide::post), but never refused: if the loop is stopped, it acts when it runs again.
    pub(super) fn insist(&self, state: MutexGuard<'_, State>) {
        let ended = state.end.is_some();
        drop(state);
        if ended {
            return;
        }
        let handle = self.handle;
        let posted = self.remote.call_after_stop(move |map| {
            if let Err(error) = map.with(handle, StreamDispatcher::look) {
                log::debug!("a stream has ended: {error}");
            }
        });
        // The map is gone, and the stream with it.
        drop(posted);
    }
}

pub(super) fn refused(error: SendError<Call>) -> io::Error {
    match error {
        SendError::Full(_) => io::Error::new(
            ErrorKind::Deadlock,
            "the loop's queue is full, and a thread that owns a channel map must not wait for it",
        ),
        error => error.into(),
    }
}
