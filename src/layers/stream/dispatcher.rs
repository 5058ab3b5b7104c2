//! The loop's side of a stream: the dispatcher that moves bytes between the channel and the halves.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use super::shared::{LIMIT, Shared, clone_error};
use crate::{Channel, Dispatcher, Eof, Reason};

/// How often to look at the threads while the map drains.
const LOOK: Duration = Duration::from_millis(10);

/// The loop's side of a stream.
pub(super) struct StreamDispatcher {
    shared: Arc<Shared>,
    open: bool,
    /// The channel's queue was not empty when last examined; then `loop_comes` is true as well.
    sending: Cell<bool>,
}

impl StreamDispatcher {
    pub(super) fn new(shared: &Arc<Shared>) -> StreamDispatcher {
        StreamDispatcher { shared: shared.clone(), open: false, sending: Cell::new(false) }
    }

    /// Do what the halves have asked for.
    pub(super) fn look(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        let mut state = self.shared.lock();
        state.posted = false;
        state.asked = false;
        let resumed = state.paused && state.incoming.is_empty();
        state.paused &= !resumed;
        let last = state.write_closed;
        let abandoned = state.reader_gone && state.writer_gone;
        drop(state);
        if resumed {
            ch.resume_reading();
        }
        // Before that, a `close` would discard what was written.
        if !self.open {
            return Ok(());
        }
        if last || !self.sending.get() {
            self.send(ch)?;
        }
        if abandoned {
            ch.close();
        }
        Ok(())
    }

    /// Push what was written, and the end of the stream if that follows.
    fn send(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        loop {
            let mut state = self.shared.lock();
            let bytes = mem::take(&mut state.outgoing);
            let last = state.write_closed;
            // It is not sent yet; what is written meanwhile is picked up below.
            state.loop_comes = true;
            drop(state);
            if let Err(error) = push(ch, bytes) {
                self.sending.set(false);
                self.shared.end_output(clone_error(&error));
                // For a channel that is ending, `handle_close` brings the reason.
                return match error.kind() == ErrorKind::BrokenPipe || ch.is_closing() {
                    true => Ok(()),
                    false => Err(error),
                };
            }
            if last {
                ch.shutdown_write();
            }
            self.sending.set(ch.queued() > 0);
            let mut state = self.shared.lock();
            if state.outgoing.is_empty() || self.sending.get() {
                state.loop_comes = self.sending.get();
                self.shared.wake_writer(state);
                return Ok(());
            }
        }
    }
}

/// Push, and also fail if the connection turns out to be lost.
fn push(ch: &mut Channel<'_>, bytes: Vec<u8>) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    ch.push_vec(bytes)?;
    match ch.is_closing() {
        true => ch.send(&[]).map(drop),
        false => Ok(()),
    }
}

/// While the map drains, look what the threads do: they do not tell when they are done.
fn say_whether_busy(ch: &mut Channel<'_>, shared: Arc<Shared>) {
    if ch.map().is_draining() {
        ch.set_busy(shared.lock().is_busy());
        let again = ch.call_later(LOOK, move |ch| {
            say_whether_busy(ch, shared);
            Ok(())
        });
        ch.map_mut().set_timer_background(again, true);
    }
}

impl Dispatcher for StreamDispatcher {
    /// Asked after everything that happens to the channel. So this notices what has no hook: the queue
    /// has been sent, or never will be although the peer may still send.
    fn writable(&self, ch: &Channel<'_>) -> bool {
        if !self.sending.get() {
            return false;
        }
        if ch.is_closing() {
            self.sending.set(false);
            self.shared.end_output(io::Error::new(ErrorKind::BrokenPipe, "the peer accepts no more"));
            return false;
        }
        let mut state = self.shared.lock();
        let more = !state.outgoing.is_empty();
        if !more && ch.queued() == 0 {
            self.sending.set(false);
            state.loop_comes = false;
            self.shared.wake_writer(state);
        }
        more
    }

    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.open = true;
        if ch.map().is_draining() {
            say_whether_busy(ch, self.shared.clone());
        }
        self.look(ch)
    }

    fn handle_drain(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        say_whether_busy(ch, self.shared.clone());
        Ok(())
    }

    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, data| {
            let mut state = self.shared.lock();
            if state.reader_gone {
                return Ok(());
            }
            state.incoming.extend_from_slice(data);
            if state.incoming.len() >= LIMIT {
                state.paused = true;
                ch.pause_reading();
            }
            self.shared.wake_reader(state);
            Ok(())
        })
    }

    fn handle_eof(&mut self, _: &mut Channel<'_>) -> io::Result<Eof> {
        let mut state = self.shared.lock();
        state.eof = true;
        self.shared.wake_reader(state);
        Ok(Eof::KeepWriting)
    }

    fn handle_write(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.send(ch)
    }

    fn handle_close(&mut self, _: &mut Channel<'_>, reason: &Reason) {
        if matches!(reason, Reason::EndOfStream) {
            // Everything was sent, FIN included; if the peer's end came first, only this tells.
            self.shared.lock().loop_comes = false;
        }
        self.shared.end(match reason {
            Reason::Error(error) => clone_error(error),
            Reason::EndOfStream => io::Error::new(ErrorKind::BrokenPipe, "both sides have ended the stream"),
            Reason::MapEnded => io::Error::new(ErrorKind::BrokenPipe, "the channel map ended"),
            // Never of kind `TimedOut`, which would invite another try.
            other => io::Error::new(ErrorKind::ConnectionAborted, format!("ended by the loop: {other}")),
        });
    }
}

/// Without a `handle_close` before it, another dispatcher has taken over the channel.
impl Drop for StreamDispatcher {
    fn drop(&mut self) {
        let error = "another dispatcher has taken over the channel of this stream";
        self.shared.end(io::Error::new(ErrorKind::ConnectionAborted, error));
    }
}
