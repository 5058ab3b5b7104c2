//! The half that reads: `StreamReader`.

use std::fmt;
use std::io::{self, BufRead, Read};
use std::mem;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use super::loop_side::{LoopSide, refused};
use super::shared::{State, deadline, wait};
use crate::{Address, Token};

/// The reading half, for one thread: asyncio's `StreamReader`.
///
/// It has its own buffer, so lines and single bytes are cheap without a
/// [`BufReader`](std::io::BufReader). A peer may send a line without end:
/// `(&mut reader).take(8192).read_line(&mut line)` limits it.
///
/// Once the reader is dropped, the loop reads and discards what still arrives. When the
/// [`StreamWriter`](super::StreamWriter) is dropped too, the connection ends.
///
/// ```
/// use dispatch_loop::{ChannelMap, stream};
/// use std::io::{self, BufRead, Read, Write};
///
/// let (near, mut far) = std::os::unix::net::UnixStream::pair()?;
/// let mut map = ChannelMap::new()?;
/// let (mut reader, writer) = stream::add(&mut map, near)?;
/// let thread = std::thread::spawn(move || -> io::Result<()> {
///     let mut number = [0; 4];
///     reader.read_exact(&mut number)?;                             // readexactly(4)
///     let mut field = Vec::new();
///     reader.read_until(b';', &mut field)?;                        // readuntil(b";")
///     assert_eq!((number, &field[..]), ([0, 0, 1, 2], &b"name;"[..]));
///     assert!(reader.fill_buf()?.is_empty());                      // at_eof()
///     drop(writer);
///     Ok(())
/// });
/// far.write_all(b"\0\0\x01\x02name;")?;
/// drop(far);
/// dispatch_loop::run(&mut map)?;
/// thread.join().unwrap()?;
/// # io::Result::Ok(())
/// ```
pub struct StreamReader {
    side: Arc<LoopSide>,
    /// Taken from the loop; the first `at` bytes have been read.
    buffer: Vec<u8>,
    at: usize,
    timeout: Option<Duration>,
}

impl StreamReader {
    pub(super) fn new(side: Arc<LoopSide>) -> StreamReader {
        StreamReader { side, buffer: Vec::new(), at: 0, timeout: None }
    }

    /// Sets how long a call may wait for input before it fails with `TimedOut`. `None`, the default,
    /// waits without limit; zero does not wait.
    ///
    /// No input is lost, and the call can be repeated. `read_exact` and `read_until` make several
    /// calls, each with its own limit: `read_until` leaves what it has in its vector and continues from
    /// there, but `read_exact` does not tell how far it came. (When the system gives up a connection,
    /// that is `TimedOut` as well, with a [`raw_os_error`](io::Error::raw_os_error).)
    pub fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
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

    /// Wait for input. The buffer stays empty at the end of the stream.
    fn fill(&mut self) -> io::Result<()> {
        self.side.refuse_the_loops_thread()?;
        let deadline = deadline(self.timeout);
        let shared = &self.side.shared;
        let mut state = shared.lock();
        while state.incoming.is_empty() {
            if state.eof {
                return Ok(());
            }
            self.side.check(&state)?;
            // The loop was asked before, but was stopped and refused.
            if state.paused && !state.asked {
                self.ask_for_more(state)?;
                state = shared.lock();
                continue;
            }
            state.reader_waits = true;
            state = wait(&shared.input, state, deadline)?;
        }
        self.buffer = mem::take(&mut state.incoming);
        // Let the loop read on meanwhile. If it refuses, the next call finds out.
        if state.paused && !state.asked {
            let _ = self.ask_for_more(state);
        }
        Ok(())
    }

    fn ask_for_more(&self, mut state: MutexGuard<'_, State>) -> io::Result<()> {
        state.asked = true;
        drop(state);
        self.side.post().map_err(|error| {
            self.side.shared.lock().asked = false;
            refused(error)
        })
    }
}

/// At the end of the stream every read returns `Ok(0)`. Errors are the cause of a lost connection or a
/// failed connect; `ConnectionAborted` if the channel was ended on the loop's side; `TimedOut` (see
/// [`set_read_timeout`](StreamReader::set_read_timeout)); `BrokenPipe` while the loop is stopped; and
/// `Deadlock` on the loop's own thread, unless the reader still has buffered input.
impl Read for StreamReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for StreamReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.buffer.len() {
            // Free the buffer before waiting: a stream that waits holds no memory.
            (self.buffer, self.at) = (Vec::new(), 0);
            self.fill()?;
        }
        Ok(&self.buffer[self.at..])
    }

    fn consume(&mut self, bytes: usize) {
        self.at = (self.at + bytes).min(self.buffer.len());
    }
}

impl Drop for StreamReader {
    fn drop(&mut self) {
        let mut state = self.side.shared.lock();
        state.reader_gone = true;
        state.incoming = Vec::new();
        self.side.insist(state);
    }
}

impl fmt::Debug for StreamReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamReader")
            .field("token", &self.token())
            .field("buffered", &(self.buffer.len() - self.at))
            .finish_non_exhaustive()
    }
}
