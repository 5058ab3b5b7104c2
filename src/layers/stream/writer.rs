//! The half that writes: `StreamWriter`.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::mem;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use super::loop_side::{LoopSide, refused};
use super::shared::{LIMIT, State, deadline, wait};
use crate::{Address, Token};

/// The way to the peer, for one thread: asyncio's `StreamWriter`.
///
/// What is written is on its way at once, `flush` has nothing to do; many small writes leave
/// together. A write waits while 64 KiB wait for the loop, and as much again for the peer. Once the
/// connection has ended, writing is an error; what was under way then may not have arrived.
///
/// Dropping it sends the end of the stream (FIN) after all that was written, as
/// [`write_eof`](StreamWriter::write_eof) does; the [`StreamReader`](super::StreamReader) may read on. When that is dropped,
/// too, the connection ends.
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
///     writer.drain()?;                     // the system has taken it all
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

    /// How long a call may wait for room: then it fails with `TimedOut`. `None`, the default: for
    /// as long as it takes. Zero: not at all.
    ///
    /// The call can be made again. `write_all` is several, each with its own time, and does not say
    /// how far it came.
    pub fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    /// Wait until the system has taken everything that was written. It may still be on its way to the
    /// peer: only an answer tells that it has arrived. (asyncio's `drain` waits only until less is
    /// queued; here `write` itself does.)
    ///
    /// # Errors
    /// What was written cannot be sent any more; else as `write`.
    pub fn drain(&mut self) -> io::Result<()> {
        self.side.refuse_the_loops_thread()?;
        self.wait_while(|state| state.loop_comes || !state.outgoing.is_empty()).map(drop)
    }

    /// Send the end of the stream (FIN) after all that was written, C's `shutdown(SHUT_WR)`: the
    /// peer's reads end, and it may still answer. Does not wait. A second one does nothing.
    ///
    /// # Errors
    /// As `write`.
    pub fn write_eof(&mut self) -> io::Result<()> {
        let mut state = self.side.shared.lock();
        if !state.write_closed {
            self.side.check_output(&state)?;
            state.write_closed = true;
            self.side.insist(state);
        }
        Ok(())
    }

    /// Our end of the connection: `get_extra_info("sockname")`.
    pub fn local_address(&self) -> Option<&Address> {
        self.side.local.as_ref()
    }

    /// The other end: `get_extra_info("peername")`.
    pub fn peer_address(&self) -> Option<&Address> {
        self.side.peer.as_ref()
    }

    /// The channel, for those on the loop's side.
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

/// The errors are those of reading, with `BrokenPipe` also after `write_eof` and when the peer takes
/// nothing more. A write that fails has taken nothing.
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
        // Not under the lock: it may wait for room in the loop's queue, and the loop for the lock.
        drop(state);
        let Err(error) = self.side.post() else { return Ok(taken) };
        let mut state = self.side.shared.lock();
        state.posted = false;
        // The loop may have come for another reason, and taken it.
        if state.outgoing.len() < before + taken {
            return Ok(taken);
        }
        state.outgoing.truncate(before);
        Err(refused(error))
    }

    /// Nothing to do: what was written is on its way.
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
