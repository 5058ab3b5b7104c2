//! Streams, asyncio's without asyncio: the loop drives the connection, and another thread uses it as a
//! plain [`Read`](io::Read) and a plain [`Write`](io::Write). There the code reads top-down and blocks
//! where it has to, while the loop never does.
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
//! dispatch_loop::run(&mut map)?;              // and so does the loop
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
//! | `write` and `drain` | `write_all`, which blocks if need be; [`drain`](StreamWriter::drain) |
//! | `write_eof` | [`write_eof`](StreamWriter::write_eof), or dropping the writer |
//! | `close` | dropping both halves |
//! | `wait_for(reader.…, 5)` | [`set_read_timeout`](StreamReader::set_read_timeout) |
//! | `get_extra_info("peername")` | `peer_addr` |
//!
//! # What holds
//!
//! - **Bounded.** The loop stops reading while the reader lags behind, and `write` blocks while the
//!   peer does not read: a stream never holds more than 256 KiB of input and 128 KiB of output.
//! - **An end is an end, a loss is an error.** Reading returns `Ok(0)` only if the peer has ended its
//!   stream. A connection that is lost, or that is ended from the loop's side, gives an error with the
//!   cause, on every further call; what arrived before is read first.
//! - **No call waits for a loop that does not run.** When `run` has returned or the map is dropped, calls
//!   that wait fail with `BrokenPipe`. After the next `run` the stream continues, and nothing is lost.
//! - **Not on the loop's own thread.** There, every call that could block fails with `Deadlock`, even if
//!   it would not have blocked, so that the mistake shows at once.

mod dispatcher;
mod loop_side;
mod reader;
mod shared;
mod writer;

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::thread;

use crate::{ChannelMap, Handle, Socket, ToAddress};

use dispatcher::StreamDispatcher;
use loop_side::LoopSide;
pub use reader::StreamReader;
use shared::Shared;
pub use writer::StreamWriter;

/// Connects to a TCP address: asyncio's `open_connection`. This does not wait for the connection;
/// reading and writing do, and fail if the connect fails.
///
/// # Errors
/// Those of [`ChannelMap::connect`].
pub fn connect(map: &mut ChannelMap, address: impl ToAddress) -> io::Result<(StreamReader, StreamWriter)> {
    let shared = Arc::new(Shared::new());
    let handle = map.connect(address, StreamDispatcher::new(&shared))?;
    halves(map, handle, shared)
}

/// Makes a stream of a connected socket: the one that `handle_accept` was given, a `TcpStream` or a
/// `UnixStream`.
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
        return Err(io::Error::new(ErrorKind::InvalidInput, "a listener is not a stream"));
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
    let side = Arc::new(LoopSide {
        shared,
        remote,
        handle,
        home: thread::current().id(),
        local: ch.local_addr().ok(),
        peer: ch.peer_addr().ok(),
        _on_stop: on_stop,
    });
    let reader = StreamReader::new(side.clone());
    Ok((reader, StreamWriter::new(side)))
}
