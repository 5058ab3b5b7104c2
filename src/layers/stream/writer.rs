//! The half that writes: `StreamWriter`.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::mem;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use super::loop_side::{LoopSide, refused};
use super::shared::{LIMIT, State, deadline, wait};
use crate::{Address, Token};

/// The writing half, for one thread: asyncio's `StreamWriter`.
///
/// What is written is sent without a `flush`, which does nothing; many small writes leave together. A
/// write blocks while 64 KiB wait for the loop and as much again for the peer. Once the connection has
/// ended, writing fails, and what had not yet been delivered may be lost.
///
/// Dropping the writer sends the end of the stream (FIN) after everything that was written, as
/// [`write_eof`](StreamWriter::write_eof) does; the [`StreamReader`](super::StreamReader) can still read.
/// When that is dropped too, the connection ends.
///
/// ```
/// use dispatch_loop::{ChannelMap, stream};
/// use std::io::{self, Read, Write};
///
/// let (near, mut far) = std::os::unix::net::UnixStream::pair()?;
/// let mut map = ChannelMap::new()?;
/// let (mut reader, mut writer) = stream::add(&mut map, near)?;
/// let thread = std::thread::spawn(move || -> io::Result<String> {
///     for n in 0..100_000 {
///         writeln!(writer, "{n}")?;
///     }
///     writer.drain()?;                     // the system has accepted all of it
///     writer.write_eof()?;
///     let mut answer = String::new();
///     reader.read_to_string(&mut answer)?;
///     Ok(answer)
/// });
/// let peer = std::thread::spawn(move || -> io::Result<()> {
///     let mut all = String::new();
///     far.read_to_string(&mut all)?;
///     write!(far, "{} lines", all.lines().count())
/// });
/// dispatch_loop::run(&mut map)?;
/// peer.join().unwrap()?;
/// assert_eq!(thread.join().unwrap()?, "100000 lines");
/// # io::Result::Ok(())
/// ```
pub struct StreamWriter {
    side: Arc<LoopSide>,
    timeout: Option<Duration>,
}

impl StreamWriter {
    pub(super) fn new(side: Arc<LoopSide>) -> StreamWriter {
        StreamWriter { side, timeout: None }
    }

    /// Sets how long a call may wait for room before it fails with `TimedOut`. `None`, the default,
    /// waits without limit; zero does not wait.
    ///
    /// The call can be repeated. `write_all` makes several calls, each with its own limit, and does not
    /// tell how far it came.
    pub fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    /// Waits until the system has accepted everything that was written. It may still be on its way:
    /// only an answer shows that the peer has received it. (asyncio's `drain` waits only until less is
    /// queued; here `write` itself does that.)
    ///
    /// # Errors
    /// What was written can no longer be sent; otherwise those of `write`.
    pub fn drain(&mut self) -> io::Result<()> {
        self.side.refuse_the_loops_thread()?;
        self.wait_while(|state| state.loop_comes || !state.outgoing.is_empty()).map(drop)
    }

    /// Sends the end of the stream (FIN) after everything that was written: C's `shutdown(SHUT_WR)`.
    /// The peer reads to the end and can still answer. Does not wait. A second call does nothing.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn write_eof(&mut self) -> io::Result<()> {
        let mut state = self.side.shared.lock();
        if !state.write_closed {
            self.side.check_output(&state)?;
            state.write_closed = true;
            self.side.insist(state);
        }
        Ok(())
    }

    /// The local address: `get_extra_info("sockname")`.
    ///
    /// # Errors
    /// `NotConnected` if it was not known when the stream was made.
    pub fn local_addr(&self) -> io::Result<Address> {
        self.side.local_addr()
    }

    /// The peer's address: `get_extra_info("peername")`.
    ///
    /// # Errors
    /// Those of [`local_addr`](Self::local_addr).
    pub fn peer_addr(&self) -> io::Result<Address> {
        self.side.peer_addr()
    }

    /// The token of the stream's channel, for use on the loop's side.
    pub fn token(&self) -> Token {
        self.side.handle.token()
    }

    fn wait_while(&self, condition: impl Fn(&State) -> bool) -> io::Result<MutexGuard<'_, State>> {
        let deadline = deadline(self.timeout);
        let shared = &self.side.shared;
        let mut state = shared.lock();
        while condition(&state) {
            self.side.check_output(&state)?;
            state.writer_waits = true;
            state = wait(&shared.output, state, deadline)?;
        }
        Ok(state)
    }
}

/// The errors are those of reading; also `BrokenPipe` after `write_eof`, and when the peer accepts no
/// more. A write that fails has written nothing.
impl Write for StreamWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        self.side.refuse_the_loops_thread()?;
        let mut state = self.wait_while(|state| state.outgoing.len() >= LIMIT)?;
        self.side.check_output(&state)?;
        if state.write_closed {
            return Err(io::Error::new(ErrorKind::BrokenPipe, "write_eof has ended the stream"));
        }
        let before = state.outgoing.len();
        let taken = bytes.len().min(LIMIT - before);
        state.outgoing.extend_from_slice(&bytes[..taken]);
        if state.loop_comes || mem::replace(&mut state.posted, true) {
            return Ok(taken);
        }
        // Not under the lock: this may wait for room in the loop's queue, and the loop for the lock.
        drop(state);
        let Err(error) = self.side.post() else { return Ok(taken) };
        let mut state = self.side.shared.lock();
        state.posted = false;
        // The loop may have taken it meanwhile, for another reason.
        if state.outgoing.len() < before + taken {
            return Ok(taken);
        }
        state.outgoing.truncate(before);
        Err(refused(error))
    }

    /// Does nothing: what was written is already on its way.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        let mut state = self.side.shared.lock();
        state.writer_gone = true;
        state.write_closed = true;
        self.side.insist(state);
    }
}

impl fmt::Debug for StreamWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamWriter").field("token", &self.token()).finish_non_exhaustive()
    }
}
