//! Streams, asyncio's without asyncio: a connection that the loop drives, as a plain [`Read`] and a
//! plain [`Write`] for another thread. There the conversation reads top-down, and waits where it has
//! to; the loop waits for nobody.
//!
//! ```
//! use dispatch_loop::{ChannelMap, stream};
//! use std::io::{self, BufRead, Write};
//! use std::thread;
//!
//! # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
//! # let address = listener.local_addr()?;
//! # let server = thread::spawn(move || -> io::Result<()> {
//! #     let mut peer = io::BufReader::new(listener.accept()?.0);
//! #     let mut name = String::new();
//! #     peer.read_line(&mut name)?;
//! #     write!(peer.get_mut(), "hello, {name}")
//! # });
//! let mut map = ChannelMap::new()?;
//! let (mut reader, mut writer) = stream::connect(&mut map, address)?;
//! let conversation = thread::spawn(move || -> io::Result<String> {
//!     writer.write_all(b"Ada\n")?;
//!     let mut greeting = String::new();
//!     reader.read_line(&mut greeting)?;
//!     Ok(greeting)
//! });                                         // both halves are dropped: the connection ends
//! dispatch_loop::run(&mut map)?;              // and with it the loop
//! assert_eq!(conversation.join().unwrap()?, "hello, Ada\n");
//! # server.join().unwrap()?;
//! # io::Result::Ok(())
//! ```
//!
//! | asyncio | here |
//! |---|---|
//! | `open_connection` | [`connect`] |
//! | `start_server` and its callback | [`add`] in `handle_accept`, and a thread |
//! | `read(n)`, `readexactly(n)` | `read`, `read_exact` |
//! | `readline`, `readuntil(b";")` | `read_line`, `read_until(b';', …)` |
//! | `at_eof()` | `fill_buf()?.is_empty()` |
//! | `write` and `drain` | `write_all`, which waits by itself; [`drain`](StreamWriter::drain) waits until nothing is queued |
//! | `write_eof` | [`write_eof`](StreamWriter::write_eof), or dropping the writer |
//! | `close` | dropping both halves |
//! | `wait_for(reader.…, 5)` | [`set_read_timeout`](StreamReader::set_read_timeout) |
//! | `get_extra_info("peername")` | `peer_addr` |
//!
//! # What holds
//!
//! - **Bounded.** The loop stops reading while nobody takes what it has read, and `write` waits while
//!   the peer takes nothing: a stream never holds more than 256 KiB of input and 128 KiB of output.
//! - **An end is an end, a loss is an error.** `Ok(0)` only if the peer has sent its end of stream. A
//!   connection that is lost, or ended by somebody on the loop's side, is an error that says why, each
//!   time again; what came before it is read first.
//! - **Nobody waits for a loop that does not run.** When it is stopped or its map goes, waiting ends
//!   with `BrokenPipe`. After the next `run` a stream goes on, and nothing is lost.
//! - **Not on the loop's own thread.** There, every call that could wait fails with `Deadlock`,
//!   also when it would not have had to, so that the mistake shows at once.

use std::cell::Cell;
use std::fmt;
use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use crate::{
    Address, Call, Channel, ChannelMap, Dispatcher, Eof, Handle, Reason, Remote, SendError, Socket,
    StopGuard, ToAddress, Token, read_lines,
};

/// The loop stops reading when so many bytes wait for the reader, and the writer waits when so many
/// wait for the loop.
const LIMIT: usize = 64 * 1024;

/// Connect to a TCP address: asyncio's `open_connection`. It does not wait: whoever reads or writes
/// does, and is given the error if the connection does not come about.
///
/// # Errors
/// Those of [`ChannelMap::connect`].
pub fn connect(map: &mut ChannelMap, address: impl ToAddress) -> io::Result<(StreamReader, StreamWriter)> {
    let shared = Arc::new(Shared::new());
    let handle = map.connect(address, StreamDispatcher::new(&shared))?;
    halves(map, handle, shared)
}

/// Make a stream of a connected socket: what `handle_accept` was given, a `TcpStream`, a `UnixStream`.
///
/// ```
/// use dispatch_loop::{Address, Channel, ChannelMap, Dispatcher, Socket, stream};
/// use std::io::{self, BufRead, Write};
/// use std::thread;
///
/// struct Server;
///
/// impl Dispatcher for Server {
///     fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
///         let (reader, mut writer) = stream::add(ch.map_mut(), socket)?;
///         thread::Builder::new().spawn(move || -> io::Result<()> {
///             for line in reader.lines() {
///                 writeln!(writer, "{}", line?.to_uppercase())?;
///             }
///             Ok(())
///         })?;
///         Ok(())
///     }
/// }
///
/// let mut map = ChannelMap::new()?;
/// map.listen("127.0.0.1:0", Server)?;
/// # io::Result::Ok(())
/// ```
///
/// # Errors
/// Those of [`ChannelMap::add`]; `InvalidInput` for a listener.
pub fn add(map: &mut ChannelMap, socket: impl Into<Socket>) -> io::Result<(StreamReader, StreamWriter)> {
    let shared = Arc::new(Shared::new());
    let handle = map.add(socket, StreamDispatcher::new(&shared))?;
    let mut ch = map.channel(handle)?;
    if ch.is_listening() {
        ch.close();
        return Err(io::Error::new(ErrorKind::InvalidInput, "a listener is no stream"));
    }
    halves(map, handle, shared)
}

fn halves(
    map: &mut ChannelMap,
    handle: Handle<StreamDispatcher>,
    shared: Arc<Shared>,
) -> io::Result<(StreamReader, StreamWriter)> {
    let remote = map.remote();
    let waiting = shared.clone();
    let on_stop = remote.on_stop(move || waiting.wake_both(waiting.lock()));
    let ch = map.channel(handle)?;
    let link = Arc::new(Link {
        shared,
        remote,
        handle,
        home: thread::current().id(),
        local: ch.local_addr().ok(),
        peer: ch.peer_addr().ok(),
        _on_stop: on_stop,
    });
    let reader = StreamReader { link: link.clone(), buffer: Vec::new(), at: 0, timeout: None };
    Ok((reader, StreamWriter { link, timeout: None }))
}

/// What the peer sends, for one thread: asyncio's `StreamReader`.
///
/// It has a buffer of its own (there is no need for a [`BufReader`](std::io::BufReader)), so that
/// lines and single bytes are cheap. A peer may send a line without end:
/// `(&mut reader).take(8192).read_line(&mut line)` sets a limit.
///
/// Dropping it lets the loop read and drop what still comes. When the [`StreamWriter`] is dropped,
/// too, the connection ends.
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
    link: Arc<Link>,
    /// Taken from the loop; the first `at` bytes are read.
    buffer: Vec<u8>,
    at: usize,
    timeout: Option<Duration>,
}

impl StreamReader {
    /// How long a call may wait for input: then it fails with `TimedOut`. `None`, the default: for
    /// as long as it takes. Zero: not at all.
    ///
    /// Nothing is lost by it, and the call can be made again. `read_exact` and `read_until` are
    /// several calls, each with its own time: `read_until` leaves what it has in its vector, and goes
    /// on from there, but `read_exact` does not say how far it came. (A connection that the system gave
    /// up is `TimedOut` as well; that one has a [`raw_os_error`](io::Error::raw_os_error).)
    pub fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    /// Our end of the connection: `get_extra_info("sockname")`.
    ///
    /// # Errors
    /// `NotConnected` if it was not known when the stream was made.
    pub fn local_addr(&self) -> io::Result<Address> {
        self.link.local.clone().ok_or_else(|| ErrorKind::NotConnected.into())
    }

    /// The other end: `get_extra_info("peername")`.
    ///
    /// # Errors
    /// As [`local_addr`](Self::local_addr).
    pub fn peer_addr(&self) -> io::Result<Address> {
        self.link.peer.clone().ok_or_else(|| ErrorKind::NotConnected.into())
    }

    /// The channel, for those on the loop's side.
    pub fn token(&self) -> Token {
        self.link.handle.token()
    }

    /// Wait until there is something to read. The buffer stays empty at the end of the stream.
    fn fill(&mut self) -> io::Result<()> {
        self.link.refuse_the_loops_thread()?;
        let deadline = deadline(self.timeout);
        let shared = &self.link.shared;
        let mut state = shared.lock();
        while state.incoming.is_empty() {
            if state.eof {
                return Ok(());
            }
            self.link.check(&state)?;
            // It was asked for before, and refused because the loop was stopped.
            if state.paused && !state.asked {
                self.ask_for_more(state)?;
                state = shared.lock();
                continue;
            }
            state.reader_waits = true;
            state = wait(&shared.input, state, deadline)?;
        }
        self.buffer = mem::take(&mut state.incoming);
        // The loop is to read on while this is being looked at. If it refuses, the next call tells.
        if state.paused && !state.asked {
            let _ = self.ask_for_more(state);
        }
        Ok(())
    }

    fn ask_for_more(&self, mut state: MutexGuard<'_, State>) -> io::Result<()> {
        state.asked = true;
        drop(state);
        self.link.post().map_err(|error| {
            self.link.shared.lock().asked = false;
            refused(error)
        })
    }
}

/// `Ok(0)` at the end of the stream, for ever. The error that the connection was lost with, or that
/// it never came about with; `ConnectionAborted` when somebody on the loop's side has ended it;
/// `TimedOut` after [`set_read_timeout`](StreamReader::set_read_timeout); `BrokenPipe` while the loop is
/// stopped; `Deadlock` on the loop's own thread, unless the reader has some input already.
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
            // Given back before the wait: a stream that waits holds no memory.
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
        let mut state = self.link.shared.lock();
        state.reader_gone = true;
        state.incoming = Vec::new();
        self.link.insist(state);
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

/// The way to the peer, for one thread: asyncio's `StreamWriter`.
///
/// What is written is on its way at once, `flush` has nothing to do; many small writes leave
/// together. A write waits while 64 KiB wait for the loop, and as much again for the peer. Once the
/// connection has ended, writing is an error; what was under way then may not have arrived.
///
/// Dropping it sends the end of the stream (FIN) after all that was written, as
/// [`write_eof`](StreamWriter::write_eof) does; the [`StreamReader`] may read on. When that is dropped,
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
    link: Arc<Link>,
    timeout: Option<Duration>,
}

impl StreamWriter {
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
        self.link.refuse_the_loops_thread()?;
        self.wait_while(|state| state.loop_comes || !state.outgoing.is_empty()).map(drop)
    }

    /// Send the end of the stream (FIN) after all that was written, C's `shutdown(SHUT_WR)`: the
    /// peer's reads end, and it may still answer. Does not wait. A second one does nothing.
    ///
    /// # Errors
    /// As `write`.
    pub fn write_eof(&mut self) -> io::Result<()> {
        let mut state = self.link.shared.lock();
        if !state.write_closed {
            self.link.check_output(&state)?;
            state.write_closed = true;
            self.link.insist(state);
        }
        Ok(())
    }

    /// Our end of the connection: `get_extra_info("sockname")`.
    ///
    /// # Errors
    /// `NotConnected` if it was not known when the stream was made.
    pub fn local_addr(&self) -> io::Result<Address> {
        self.link.local.clone().ok_or_else(|| ErrorKind::NotConnected.into())
    }

    /// The other end: `get_extra_info("peername")`.
    ///
    /// # Errors
    /// As [`local_addr`](Self::local_addr).
    pub fn peer_addr(&self) -> io::Result<Address> {
        self.link.peer.clone().ok_or_else(|| ErrorKind::NotConnected.into())
    }

    /// The channel, for those on the loop's side.
    pub fn token(&self) -> Token {
        self.link.handle.token()
    }

    fn wait_while(&self, condition: impl Fn(&State) -> bool) -> io::Result<MutexGuard<'_, State>> {
        let deadline = deadline(self.timeout);
        let shared = &self.link.shared;
        let mut state = shared.lock();
        while condition(&state) {
            self.link.check_output(&state)?;
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
        self.link.refuse_the_loops_thread()?;
        let mut state = self.wait_while(|state| state.outgoing.len() >= LIMIT)?;
        self.link.check_output(&state)?;
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
        let Err(error) = self.link.post() else { return Ok(taken) };
        let mut state = self.link.shared.lock();
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
        let mut state = self.link.shared.lock();
        state.writer_gone = true;
        state.write_closed = true;
        self.link.insist(state);
    }
}

impl fmt::Debug for StreamWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamWriter").field("token", &self.token()).finish_non_exhaustive()
    }
}

/// What both halves know of the loop's side.
struct Link {
    shared: Arc<Shared>,
    remote: Remote,
    handle: Handle<StreamDispatcher>,
    /// The loop's thread.
    home: ThreadId,
    local: Option<Address>,
    peer: Option<Address>,
    _on_stop: StopGuard,
}

impl Link {
    fn refuse_the_loops_thread(&self) -> io::Result<()> {
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
    fn check(&self, state: &State) -> io::Result<()> {
        if let Some(error) = &state.end {
            return Err(twin(error));
        }
        if self.remote.is_stopped() {
            return Err(io::Error::new(ErrorKind::BrokenPipe, "the loop was stopped, or its map has ended"));
        }
        Ok(())
    }

    fn check_output(&self, state: &State) -> io::Result<()> {
        self.check(state)?;
        state.output_end.as_ref().map_or(Ok(()), |error| Err(twin(error)))
    }

    /// Let the loop look at the state.
    fn post(&self) -> Result<(), SendError<Call>> {
        self.remote.with(self.handle, StreamDispatcher::look)
    }

    /// As [`post`](Link::post); and if the loop takes nothing now, as soon as it does.
    fn insist(&self, state: MutexGuard<'_, State>) {
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

/// What the halves and the loop share. Nobody posts or pushes while holding the lock.
struct Shared {
    state: Mutex<State>,
    /// What the reader waits for has changed; what the writer waits for.
    input: Condvar,
    output: Condvar,
}

struct State {
    /// Read by the loop, not yet taken by the reader.
    incoming: Vec<u8>,
    /// The loop does not read until that is taken; the reader has told it that it was.
    paused: bool,
    asked: bool,
    /// The peer has sent its end of stream.
    eof: bool,
    /// Written, not yet taken by the loop.
    outgoing: Vec<u8>,
    /// The writer has sent for the loop, which will take that.
    posted: bool,
    /// It need not, because the loop comes by itself: when the channel opens, or its queue is sent.
    /// False only while nothing is on its way from here to the system.
    loop_comes: bool,
    /// FIN follows what was written.
    write_closed: bool,
    reader_gone: bool,
    writer_gone: bool,
    reader_waits: bool,
    writer_waits: bool,
    /// Why nothing can be sent any more, though the channel lives; why it has ended.
    output_end: Option<io::Error>,
    end: Option<io::Error>,
}

impl Shared {
    fn new() -> Shared {
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

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_reader(&self, mut state: MutexGuard<'_, State>) {
        if mem::take(&mut state.reader_waits) {
            drop(state);
            self.input.notify_one();
        }
    }

    fn wake_writer(&self, mut state: MutexGuard<'_, State>) {
        if mem::take(&mut state.writer_waits) {
            drop(state);
            self.output.notify_one();
        }
    }

    fn wake_both(&self, state: MutexGuard<'_, State>) {
        self.wake_reader(state);
        self.wake_writer(self.lock());
    }

    /// The channel has ended. The first cause stays.
    fn end(&self, error: io::Error) {
        let mut state = self.lock();
        state.end.get_or_insert(error);
        self.wake_both(state);
    }

    /// Nothing can be sent any more. What was written is lost, and the loop never comes to say that
    /// it was sent.
    fn end_output(&self, error: io::Error) {
        let mut state = self.lock();
        state.output_end.get_or_insert(error);
        state.outgoing = Vec::new();
        state.loop_comes = true;
        self.wake_writer(state);
    }
}

/// The loop's side of a stream.
struct StreamDispatcher {
    shared: Arc<Shared>,
    open: bool,
    /// The channel's queue was not empty when we last looked; `loop_comes` is true as well.
    sending: Cell<bool>,
}

impl StreamDispatcher {
    fn new(shared: &Arc<Shared>) -> StreamDispatcher {
        StreamDispatcher { shared: shared.clone(), open: false, sending: Cell::new(false) }
    }

    /// Do what the halves have left to be done.
    fn look(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
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
        // A `close` would send nothing before that.
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

    /// Push what was written, and after the last of it the end.
    fn send(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        loop {
            let mut state = self.shared.lock();
            let bytes = mem::take(&mut state.outgoing);
            let last = state.write_closed;
            // It is not sent yet; and what is written meanwhile we see below.
            state.loop_comes = true;
            drop(state);
            if let Err(error) = push(ch, bytes) {
                self.sending.set(false);
                self.shared.end_output(twin(&error));
                // A channel that is ending has a reason, which we are told.
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

/// Push, and fail also if the connection turns out to be lost.
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

impl Dispatcher for StreamDispatcher {
    /// Asked after whatever has happened to the channel. So it is here that we see what has no hook:
    /// that its queue is sent, or never will be, though the peer may go on sending.
    fn writable(&self, ch: &Channel<'_>) -> bool {
        if !self.sending.get() {
            return false;
        }
        if ch.is_closing() {
            self.sending.set(false);
            self.shared.end_output(io::Error::new(ErrorKind::BrokenPipe, "the peer takes nothing any more"));
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
        self.look(ch)
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
            // All of it was sent, FIN included; nothing but this tells so, if the peer's end came first.
            self.shared.lock().loop_comes = false;
        }
        self.shared.end(match reason {
            Reason::Error(error) => twin(error),
            Reason::EndOfStream => io::Error::new(ErrorKind::BrokenPipe, "both sides have ended the stream"),
            Reason::MapEnded => io::Error::new(ErrorKind::BrokenPipe, "the channel map ended"),
            // Never of the kind `TimedOut`: to try again is of no use.
            other => io::Error::new(ErrorKind::ConnectionAborted, format!("ended by the loop: {other}")),
        });
    }
}

/// Without a `handle_close` only when another dispatcher has taken over the channel.
impl Drop for StreamDispatcher {
    fn drop(&mut self) {
        let error = "another dispatcher has taken over the channel of this stream";
        self.shared.end(io::Error::new(ErrorKind::ConnectionAborted, error));
    }
}

/// An `io::Error` cannot be cloned: one that says the same.
fn twin(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

fn refused(error: SendError<Call>) -> io::Error {
    match error {
        SendError::Full(_) => io::Error::new(
            ErrorKind::Deadlock,
            "this stream would have to wait for its loop, on a thread that owns a channel map",
        ),
        error => error.into(),
    }
}

/// `None` is for ever, which is also what is too long for the clock.
fn deadline(timeout: Option<Duration>) -> Option<Instant> {
    Instant::now().checked_add(timeout?)
}

/// Wait to be woken, or fail at the deadline.
fn wait<'a>(
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

/// The program of the guide compiles, too, and runs.
#[cfg(doctest)]
#[doc = include_str!("../../docs/streams.md")]
struct Guide;
