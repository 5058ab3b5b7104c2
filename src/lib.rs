//! asyncore for Rust: one thread serves many sockets, and calls you when something can be done
//! without waiting.
//!
//! Implement [`Dispatcher`], give it to a [`ChannelMap`] with its socket, and [`run`] the map. Each
//! hook is given a [`Channel`], the view of its own connection; through
//! [`map_mut()`](Channel::map_mut) it reaches all others by their [`Token`] or typed [`Handle`].
//!
//! One *turn* of the loop waits until channels are ready, serves them, then runs the timers that are due
//! and the messages of other threads. Before and after that it *settles*: for every channel that is
//! *dirty* (reached through the map, or left by a hook with something to do) it runs the hooks that are
//! due, sends what is queued, asks `readable` and `writable`, *registers* the channel with the poller for
//! what it waits for, and ends it if its end is due.
//!
//! The [guide] goes through all of it in chapters: a first server, hooks and their order, backpressure, timers,
//! threads, porting.
//!
//! # A server
//!
//! ```
//! use dispatch_loop::{Address, Channel, ChannelMap, Dispatcher, Socket};
//! use std::io::{self, Read, Write};
//!
//! struct Echo;
//!
//! impl Dispatcher for Echo {
//!     fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
//!         ch.read_with(|ch, data| ch.push(data))
//!     }
//! }
//!
//! struct EchoServer;
//!
//! impl Dispatcher for EchoServer {
//!     fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
//!         ch.map_mut().add(socket, Echo)?;
//!         ch.close();                            // one client is enough for an example
//!         Ok(())
//!     }
//! }
//!
//! let mut map = ChannelMap::new()?;
//! let server = map.listen("127.0.0.1:0", EchoServer)?;
//! let address = map.channel(server)?.local_addr()?.ip().unwrap();
//! # let client = std::thread::spawn(move || -> io::Result<()> {
//! #     let mut stream = std::net::TcpStream::connect(address)?;
//! #     stream.write_all(b"hello")?;
//! #     stream.shutdown(std::net::Shutdown::Write)?;
//! #     let mut echo = String::new();
//! #     stream.read_to_string(&mut echo)?;
//! #     assert_eq!(echo, "hello");
//! #     Ok(())
//! # });
//! dispatch_loop::run(&mut map)?;                 // until no channel is left
//! # client.join().unwrap()?;
//! # io::Result::Ok(())
//! ```
//!
//! # A client that keeps what it learns
//!
//! ```
//! use dispatch_loop::{Channel, ChannelMap, Dispatcher, Reason};
//! use std::io;
//! use std::time::Duration;
//!
//! struct Fetch {
//!     body: Vec<u8>,
//! }
//!
//! impl Dispatcher for Fetch {
//!     fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
//!         ch.set_timeout(Some(Duration::from_secs(10)));
//!         ch.push(b"GET / HTTP/1.0\r\n\r\n")
//!     }
//!     fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
//!         ch.read_with(|_, data| Ok(self.body.extend_from_slice(data)))
//!     }
//!     fn handle_close(&mut self, _: &mut Channel<'_>, reason: &Reason) {
//!         println!("{reason}: {} bytes", self.body.len());
//!     }
//! }
//!
//! # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
//! # let address = listener.local_addr()?;
//! # let server = std::thread::spawn(move || -> io::Result<()> {
//! #     io::Write::write_all(&mut listener.accept()?.0, b"HTTP/1.0 204 No Content\r\n\r\n")
//! # });
//! let mut map = ChannelMap::new()?;
//! map.connect(address, Fetch { body: Vec::new() })?;
//! dispatch_loop::run(&mut map)?;
//! # server.join().unwrap()?;
//! # io::Result::Ok(())
//! ```
//!
//! # Channels that reach each other
//!
//! ```
//! use dispatch_loop::{Channel, ChannelMap, Dispatcher, Eof, Reason, Token};
//! use std::io::{self, Read, Write};
//! use std::os::unix::net::UnixStream;
//!
//! /// Passes on what it reads to the other half, and its end, too.
//! struct Half {
//!     other: Option<Token>,
//! }
//!
//! impl Dispatcher for Half {
//!     fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
//!         let Some(other) = self.other else { return Ok(()) };
//!         ch.read_with(|ch, data| ch.map_mut().channel(other)?.push(data))
//!     }
//!     fn handle_eof(&mut self, ch: &mut Channel<'_>) -> io::Result<Eof> {
//!         let Some(other) = self.other else { return Ok(Eof::Close) };
//!         ch.map_mut().channel(other)?.shutdown_write();
//!         Ok(Eof::KeepWriting)
//!     }
//!     fn handle_close(&mut self, ch: &mut Channel<'_>, reason: &Reason) {
//!         let Some(Ok(mut other)) = self.other.map(|other| ch.map_mut().channel(other)) else { return };
//!         match reason {
//!             Reason::EndOfStream => other.close(),
//!             _ => other.abort(),                // cut short here: cut short there, too
//!         }
//!     }
//! }
//!
//! let (mut left, near_left) = UnixStream::pair()?;
//! let (mut right, near_right) = UnixStream::pair()?;
//! let mut map = ChannelMap::new()?;
//! let a = map.add(near_left, Half { other: None })?;
//! let b = map.add(near_right, Half { other: Some(a.token()) })?;
//! map.get_mut(a)?.other = Some(b.token());
//! map.channel(a)?.auto_pause_with(b)?;           // neither is read while the other's queue is high
//!
//! left.write_all(b"through the middle")?;
//! drop(left);
//! dispatch_loop::run(&mut map)?;
//! let mut got = String::new();
//! right.read_to_string(&mut got)?;
//! assert_eq!(got, "through the middle");
//! # io::Result::Ok(())
//! ```
//!
//! # Layers
//!
//! Ready-made dispatchers on top of the hooks, in the public API alone (feature `layers`, on by
//! default):
//!
//! | module | for | Python's |
//! |---|---|---|
//! | `chat` | messages that end in something: lines, headers and bodies | `asynchat` |
//! | `protocol` | chunks as they come, by asyncio's names | `asyncio.Protocol`, `Transport` |
//! | `stream` | code that reads and writes top-down, in a thread | `asyncio.StreamReader`, `StreamWriter` |
//! | `framing` | lines, netstrings and length prefixes, in any of these | |
//! | `producers` | output that is made while it is sent | `asynchat.simple_producer` |
//! | `hand_over` | a server that is restarted without refusing a connect | |
//! | `reconnect` | a client that connects again when its connection ends | Twisted's `ReconnectingClientFactory` |
//! | `stats` | the numbers of a map for Prometheus | `prometheus_client`'s `start_http_server` |
//!
//! # What holds
//!
//! - **One thread.** A map and all in it stay on the thread that made it; other threads hold a
//!   [`Remote`] or an [`Outlet`].
//! - **Hooks never nest.** No call on a channel or a map runs a hook before it returns; what it
//!   causes comes afterwards, at the latest when the loop settles. (One exception: dropping a map runs
//!   each `handle_close` before it returns.)
//! - **The order of hooks** is `handle_connect` (only after [`connect`](ChannelMap::connect)),
//!   `handle_open`, then the rest, and `handle_close` exactly once, as the last. In one turn a
//!   channel's urgent data comes before its input, and that before its output.
//! - **A [`Token`] never lies.** It names one channel for ever, however often its slot and its
//!   descriptor are used again.
//! - **Errors stay local.** An `Err` or a panic of a hook goes to the same dispatcher's
//!   `handle_error` and, by default, ends that channel. An error about another channel that a hook
//!   returns (see [`ChannelError`]) is logged and ends nothing, but for one: if the other channel's queue
//!   has refused a push, that channel ends with [`Reason::Limit`], because bytes are missing in its
//!   stream. Only a failing poller ends the loop.
//! - **Nothing is lost, nothing comes twice.** Bytes leave in the order of the pushes;
//!   [`close`](Channel::close) sends what is queued first.
//! - **Output is gathered.** What a hook, a timer or a [`Remote`]'s `with` pushes to its own channel is
//!   sent in one call when it returns, however many pushes it was; a piece of 4 KiB or more is sent at
//!   once, together with what was pushed before it. What is pushed to other channels is sent when the
//!   loop settles. Once everything that had to wait has been sent, `handle_drained` runs.
//! - **Everything has a limit**: queued output 64 KiB before `handle_high`, 16 MiB at most, and 256 MiB
//!   in all channels together; 64 KiB read, and 64 KiB written in at most 64 calls, for a channel and
//!   turn, 16 connections accepted for a listener and turn, 1,024 timers and 256 messages of other
//!   threads in a turn. What is left over continues in the next turn, without waiting. How many connections
//!   a listener takes is not limited unless [`AcceptLimits`] say so; for a server that strangers reach there
//!   is [`ListenOptions::public`].
//! - **A peer may take its time** unless you say how much: [`set_timeout`](Channel::set_timeout) ends a
//!   channel on which nothing moves, [`set_deadlines`](Channel::set_deadlines) one that is slow in other ways,
//!   and a [`Bandwidth`] bounds what a channel, or a group of them, may carry. They cost a message nothing, but
//!   for the bandwidth, whose channels take a longer way.
//! - **Nothing spins.** A channel that is ready for 64 turns without progress is *suspended* for 10 ms,
//!   then longer, up to 1 s, which is logged once. It is *resumed* as soon as something is done with it.
//! - **Shortages pass.** Without a descriptor or memory, a listener, or a channel that is to be watched,
//!   waits until another channel ends, or for 0.1 s, then longer, up to 1 s. If the last listener fails for
//!   good, [`run`] returns its error.
//! - **A lost connection is not an error.** It is *broken*: what has arrived can still be read, nothing
//!   can be sent, and `handle_close` gets the reason. A system that is short of buffers or memory
//!   (`ENOBUFS`, `ENOMEM`) loses no connection: what is queued is offered again after 10 ms, then longer,
//!   up to 1 s.
//!
//! - **An orderly end.** After [`drain`](ChannelMap::drain), listeners accept who waits and close, idle
//!   channels close, what is under way is finished, and [`run`] returns, at a deadline in any case.
//!
//! # What a channel can be
//!
//! A TCP connection or listener, the same on a Unix-domain socket, a socket for datagrams
//! ([`bind`](ChannelMap::bind)), a pipe or a terminal ([`add_file`](ChannelMap::add_file)), or a
//! [`Source`]: something that transforms the bytes, as TLS does, or that has no descriptor and announces
//! its readiness itself ([`SourceWaker`], [`source_ready`](Channel::source_ready)).
//!
//! # What it costs
//!
//! A turn costs O(channels that are ready or dirty), however many there are. A message that is
//! echoed costs one `recv`, one `send` and its share of one wait, and no allocation. An idle channel
//! takes 176 bytes (on 64-bit systems) and its boxed dispatcher, and no buffer.
//!
//! # Logging
//!
//! Through [`log`](https://docs.rs/log), with the module path as the target; repeated failures are
//! limited to ten lines a second.

#![deny(missing_docs, missing_debug_implementations, unreachable_pub)]

#[cfg(not(unix))]
compile_error!("dispatch-loop is for Unix systems: Linux, macOS and the BSDs");

mod bucket;
mod chance;
mod channels;
mod clock;
mod core;
mod drain;
mod error;
mod event_loop;
mod group;
mod guard;
#[cfg(any(doc, doctest))]
pub mod guide;
#[cfg(feature = "testing")]
mod kit;
#[cfg(feature = "layers")]
mod layers;
mod link;
mod net;
mod numbers;
mod reason;
mod report;
mod sys;
mod threads;
mod timers;
#[cfg(feature = "tls")]
pub mod tls;
mod token;

pub use self::core::action::Call;
pub use self::core::channel::Channel;
pub use self::core::dispatcher::{Dispatcher, Eof, OnError};
pub use self::core::map::ChannelMap;
pub use self::core::wrapper::Wrapper;
pub use channels::serve::IntoDispatcher;
pub use drain::{DrainOptions, DrainProgress, DrainState};
pub use error::{ChannelError, LookupError};
pub use event_loop::{LoopOptions, run, run_with};
pub use group::LoopGroup;
pub use group::loops::Loops;
pub use group::topics::Topics;
#[cfg(feature = "layers")]
pub use layers::{chat, framing, hand_over, producers, protocol, reconnect, stats, stream};
pub use link::bandwidth::Bandwidth;
pub use link::deadlines::{Deadline, Deadlines, MinRate};
pub use link::marks::OnLimit;
pub use link::producer::{More, Producer};
pub use link::source::Source;
pub use net::address::{Address, ToAddress};
pub use net::datagram::Datagram;
pub use net::full::{AcceptLimit, AcceptLimitError};
pub use net::limits::{AcceptLimits, AtLimit};
pub use net::options::{ConnectOptions, DatagramOptions, ListenOptions};
#[cfg(feature = "proxy-protocol")]
pub use net::proxy::{ProxyHeader, ProxyVersion};
pub use net::socket::{Detached, Socket};
#[cfg(feature = "proxy-protocol")]
pub use net::trust::ProxyOptions;
pub use net::unix::Credentials;
pub use numbers::{Histogram, Numbers};
pub use reason::Reason;
pub use sys::poll::Interest;
pub use threads::ask::AskError;
pub use threads::lines::{Line, read_lines};
pub use threads::meter::Meter;
pub use threads::outlet::Outlet;
pub use threads::remote::{Remote, StopGuard};
pub use threads::send_error::SendError;
pub use threads::source_waker::SourceWaker;
pub use timers::TimerId;
pub use token::{Handle, Token};

/// What a service manager such as systemd gives to a program, and what the program tells it: sockets
/// ([`inherited`](service::inherited)), [`ready`](service::ready), [`stopping`](service::stopping); and, on the map,
/// [`keep_watchdog`](ChannelMap::keep_watchdog).
pub mod service {
    pub use crate::channels::service::{inherited, notify, ready, stopping};
}

/// To test dispatchers without sockets and without waiting (feature `testing`): a [map](testing::map) whose clock
/// is the test's, channels whose [peers](testing::Peer) a test scripts, a [server](testing::Server) that answers
/// its connects, and [seeds](testing::seeds) that vary what a network may vary. Twisted's `Clock` and
/// `StringTransport`.
#[cfg(feature = "testing")]
pub mod testing {
    pub use crate::kit::end::End;
    pub use crate::kit::maps::{add, advance, map, map_with_seed, pair, server};
    pub use crate::kit::peer::Peer;
    pub use crate::kit::seeds::seeds;
    pub use crate::kit::server::{Server, Try};
}

/// For this crate's own tests, and in debug builds alone: makes a chosen system call fail, counts the
/// calls. Not part of the API.
#[cfg(debug_assertions)]
#[doc(hidden)]
pub mod faults {
    pub use crate::sys::faults::{Call, Fault, clear, count, inject};

    /// Let the next channel of `map` be given a slot whose generation is its last but `left`.
    pub fn wear_out(map: &mut crate::ChannelMap, left: u32) {
        map.wear_out(left);
    }
}

/// The README's programs compile, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
