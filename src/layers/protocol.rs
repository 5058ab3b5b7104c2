//! Protocol and Transport, asyncio's pair without asyncio: the protocol is told what happens, and acts
//! through the transport.
//!
//! Implement [`Protocol`], and give it to the map in a [`ProtocolDispatcher`].
//!
//! ```
//! use dispatch_loop::protocol::{Protocol, ProtocolDispatcher, Transport};
//! use dispatch_loop::{ChannelMap, Reason};
//! use std::io::{self, Read, Write};
//! use std::os::unix::net::UnixStream;
//!
//! struct Echo;
//!
//! impl Protocol for Echo {
//!     fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> io::Result<()> {
//!         transport.write(data)
//!     }
//!     fn connection_lost(&mut self, _: &mut Transport<'_>, reason: &Reason) {
//!         println!("over: {reason}");
//!     }
//! }
//!
//! let (near, mut far) = UnixStream::pair()?;
//! let mut map = ChannelMap::new()?;
//! map.add(near, ProtocolDispatcher::new(Echo))?;
//! far.write_all(b"hello")?;
//! far.shutdown(std::net::Shutdown::Write)?;
//! dispatch_loop::run(&mut map)?;
//! let mut echo = String::new();
//! far.read_to_string(&mut echo)?;
//! assert_eq!(echo, "hello");
//! # io::Result::Ok(())
//! ```

use std::fmt;
use std::io::{self, IoSlice};
use std::time::Duration;

use crate::{Address, Channel, ChannelMap, Dispatcher, Eof, Handle, Reason, TimerId, Token};

/// The callbacks of a connection: `asyncio.Protocol`.
///
/// An `Err` or a panic in any of them ends the connection, and is the reason that `connection_lost` is
/// given.
///
/// ```
/// use dispatch_loop::protocol::{Protocol, Transport};
/// use std::io;
///
/// /// Sends numbers for ever, no faster than the peer reads them.
/// #[derive(Default)]
/// struct Numbers {
///     next: u64,
///     paused: bool,
/// }
///
/// impl Numbers {
///     fn go_on(&mut self, transport: &mut Transport<'_>) -> io::Result<()> {
///         while !self.paused && transport.write_buffer_size() <= 64 * 1024 {
///             transport.write(format!("{}\n", self.next).as_bytes())?;
///             self.next += 1;
///         }
///         Ok(())
///     }
/// }
///
/// impl Protocol for Numbers {
///     fn connection_made(&mut self, transport: &mut Transport<'_>) -> io::Result<()> {
///         self.go_on(transport)
///     }
///     fn data_received(&mut self, _: &mut Transport<'_>, _: &[u8]) -> io::Result<()> {
///         Ok(())
///     }
///     fn pause_writing(&mut self, _: &mut Transport<'_>) -> io::Result<()> {
///         self.paused = true;
///         Ok(())
///     }
///     fn resume_writing(&mut self, transport: &mut Transport<'_>) -> io::Result<()> {
///         self.paused = false;
///         self.go_on(transport)
///     }
/// }
/// ```
#[allow(unused_variables)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no `Protocol`",
    label = "has no `data_received`",
    note = "write `impl Protocol for {Self}`; a `Dispatcher` is added to the map as it is, without a `ProtocolDispatcher`"
)]
pub trait Protocol: 'static {
    /// The connection is ready for use. Called once, unless it ends before that.
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> io::Result<()> {
        Ok(())
    }

    /// Bytes have arrived: at most 64 KiB at a time, borrowed from the loop's own buffer.
    fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> io::Result<()>;

    /// The peer will send no more. [`Eof::Close`], the default (asyncio's `None`), sends what is
    /// queued and closes; [`Eof::KeepWriting`] (`True`) leaves closing to the protocol.
    fn eof_received(&mut self, transport: &mut Transport<'_>) -> io::Result<Eof> {
        Ok(Eof::Close)
    }

    /// More than the high watermark is queued: stop writing for now. Called once per crossing.
    fn pause_writing(&mut self, transport: &mut Transport<'_>) -> io::Result<()> {
        Ok(())
    }

    /// The queue is back down to the low watermark.
    fn resume_writing(&mut self, transport: &mut Transport<'_>) -> io::Result<()> {
        Ok(())
    }

    /// The map is being drained: see [`Dispatcher::handle_drain`]. asyncio has
    /// no such thing. Default: does nothing.
    fn drain_begun(&mut self, transport: &mut Transport<'_>) -> io::Result<()> {
        Ok(())
    }

    /// The connection has ended. Called exactly once, as the last callback, whatever the cause; also
    /// when the connect failed (where asyncio's `create_connection` raises), then without
    /// `connection_made` before it. asyncio's `exc` is [`reason.error()`](Reason::error).
    fn connection_lost(&mut self, transport: &mut Transport<'_>, reason: &Reason) {}
}

/// The connection of a [`Protocol`]: asyncio's `Transport`, with its methods under its names. Everything
/// else that a [`Channel`] can do is at [`channel_mut`](Transport::channel_mut).
///
/// ```
/// use dispatch_loop::protocol::{Protocol, Transport};
/// use std::io::{self, IoSlice};
/// use std::time::Duration;
///
/// struct Answer;
///
/// impl Protocol for Answer {
///     fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> io::Result<()> {
///         transport.channel_mut().set_timeout(Some(Duration::from_secs(30)));
///         transport.write_vectored(&[IoSlice::new(b"you said: "), IoSlice::new(data)])?;
///         transport.write_eof();
///         Ok(())
///     }
/// }
/// ```
pub struct Transport<'a> {
    channel: Channel<'a>,
}

impl<'a> Transport<'a> {
    /// The underlying channel, read-only.
    pub fn channel(&self) -> &Channel<'a> {
        &self.channel
    }

    /// The underlying channel, for everything that has no method here, and for functions that take a
    /// [`Channel`].
    ///
    /// The transport holds nothing back, so the channel's methods do what they do in a [`Dispatcher`]:
    /// the bytes that `data_received` was given are the protocol's. Before
    /// [`wrap_source`](Channel::wrap_source), put back those that are not used
    /// ([`unread`](Channel::unread)), so that after STARTTLS nothing that arrived in the clear is taken
    /// for encrypted.
    pub fn channel_mut(&mut self) -> &mut Channel<'a> {
        &mut self.channel
    }

    /// The channel's token.
    pub fn token(&self) -> Token {
        self.channel.token()
    }

    /// The map, to look something up.
    pub fn map(&self) -> &ChannelMap {
        self.channel.map()
    }

    /// The map, and through it every other channel.
    pub fn map_mut(&mut self) -> &mut ChannelMap {
        self.channel.map_mut()
    }

    /// The peer's address: `get_extra_info("peername")`. [`Channel::peer_addr`].
    ///
    /// # Errors
    /// Those of [`Channel::peer_addr`].
    #[doc(alias = "get_extra_info")]
    pub fn peer_addr(&self) -> io::Result<Address> {
        self.channel.peer_addr()
    }

    /// Sends all of `bytes`: what fits at once, the rest when there is room. [`Channel::push`].
    ///
    /// # Errors
    /// `BrokenPipe` after `close`, `abort` or `write_eof` (where asyncio silently drops the bytes);
    /// `QuotaExceeded` over the hard limit ([`Channel::set_limit`]).
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.channel.push(bytes)
    }

    /// Like [`write`](Transport::write), for bytes in several places: `writelines`.
    #[doc(alias = "writelines")]
    pub fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<()> {
        self.channel.push_vectored(slices)
    }

    /// Sends what is queued, then FIN, and keeps reading. [`Channel::shutdown_write`].
    pub fn write_eof(&mut self) {
        self.channel.shutdown_write();
    }

    /// The number of bytes waiting to be sent: `get_write_buffer_size`.
    #[doc(alias = "get_write_buffer_size")]
    pub fn write_buffer_size(&self) -> usize {
        self.channel.queued()
    }

    /// Sets the watermarks: `pause_writing` runs when more than `high` bytes (64 KiB) are queued,
    /// `resume_writing` when `low` (32 KiB) are left. [`Channel::set_watermarks`].
    pub fn set_write_buffer_limits(&mut self, low: usize, high: usize) {
        self.channel.set_watermarks(low, high);
    }

    /// Stops reading, sends what is queued, then closes. [`Channel::close`].
    pub fn close(&mut self) {
        self.channel.close();
    }

    /// Drops what is queued and resets the connection. [`Channel::abort`].
    pub fn abort(&mut self) {
        self.channel.abort();
    }

    /// Whether the connection is closing or closed. [`Channel::is_closing`].
    pub fn is_closing(&self) -> bool {
        self.channel.is_closing()
    }

    /// Calls `data_received` no more until [`resume_reading`](Transport::resume_reading).
    /// [`Channel::pause_reading`].
    pub fn pause_reading(&mut self) {
        self.channel.pause_reading();
    }

    /// Ends a [`pause_reading`](Transport::pause_reading). [`Channel::resume_reading`].
    pub fn resume_reading(&mut self) {
        self.channel.resume_reading();
    }

    /// Whether input is delivered. [`Channel::is_reading`].
    pub fn is_reading(&self) -> bool {
        self.channel.is_reading()
    }

    /// Calls `f` with the protocol after `delay`, unless the connection has ended by then: asyncio's
    /// `loop.call_later`. [`Channel::call_later_with`].
    pub fn call_later<P, F>(&mut self, delay: Duration, f: F) -> TimerId
    where
        P: Protocol,
        F: FnOnce(&mut P, &mut Transport<'_>) -> io::Result<()> + 'static,
    {
        self.channel.call_later_with(delay, |protocol: &mut ProtocolDispatcher<P>, ch| protocol.with(ch, f))
    }

    /// Hands the connection to `protocol`: an upgrade in mid-stream. `rest`, the bytes that the old
    /// protocol has not used, comes before all further input. Neither the new protocol's
    /// `connection_made` nor the old one's `connection_lost` runs; the old one is dropped after its
    /// callback.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn set_protocol<P: Protocol>(
        &mut self,
        protocol: P,
        rest: &[u8],
    ) -> io::Result<Handle<ProtocolDispatcher<P>>> {
        self.channel.unread(rest);
        self.channel.replace_dispatcher(ProtocolDispatcher::new(protocol))
    }
}

impl fmt::Debug for Transport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Transport").field(&self.channel).finish()
    }
}

/// The dispatcher that calls a [`Protocol`].
///
/// From elsewhere, [`map.get_mut(handle)`](crate::ChannelMap::get_mut) gives the dispatcher and
/// [`inner_mut`](ProtocolDispatcher::inner_mut) the protocol; [`with`](ProtocolDispatcher::with) gives the
/// protocol together with its transport.
///
/// ```
/// use dispatch_loop::ChannelMap;
/// use dispatch_loop::protocol::{Protocol, ProtocolDispatcher, Transport};
/// use std::io;
/// use std::os::unix::net::UnixStream;
///
/// struct Counter(usize);
///
/// impl Protocol for Counter {
///     fn data_received(&mut self, _: &mut Transport<'_>, data: &[u8]) -> io::Result<()> {
///         self.0 += data.len();
///         Ok(())
///     }
/// }
///
/// let (near, _far) = UnixStream::pair()?;
/// let mut map = ChannelMap::new()?;
/// let counter = map.add(near, ProtocolDispatcher::new(Counter(0)))?;
/// assert_eq!(map.get(counter)?.inner().0, 0);
/// map.with(counter, |counter, ch| counter.with(ch, |_, transport| transport.write(b"begin\n")))?;
/// # io::Result::Ok(())
/// ```
pub struct ProtocolDispatcher<P> {
    protocol: P,
}

impl<P: Protocol> ProtocolDispatcher<P> {
    /// Makes a dispatcher for `protocol`.
    pub fn new(protocol: P) -> ProtocolDispatcher<P> {
        ProtocolDispatcher { protocol }
    }

    /// The protocol.
    pub fn inner(&self) -> &P {
        &self.protocol
    }

    /// The protocol, mutably.
    pub fn inner_mut(&mut self) -> &mut P {
        &mut self.protocol
    }

    /// Calls `f` with the protocol and its transport, from outside its own callbacks.
    pub fn with<R>(&mut self, ch: &mut Channel<'_>, f: impl FnOnce(&mut P, &mut Transport<'_>) -> R) -> R {
        f(&mut self.protocol, &mut Transport { channel: ch.reborrow() })
    }
}

impl<P: Protocol> Dispatcher for ProtocolDispatcher<P> {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.with(ch, |protocol, transport| protocol.connection_made(transport))
    }

    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, data| self.with(ch, |protocol, transport| protocol.data_received(transport, data)))
    }

    fn handle_eof(&mut self, ch: &mut Channel<'_>) -> io::Result<Eof> {
        self.with(ch, |protocol, transport| protocol.eof_received(transport))
    }

    fn handle_high(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.with(ch, |protocol, transport| protocol.pause_writing(transport))
    }

    fn handle_low(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.with(ch, |protocol, transport| protocol.resume_writing(transport))
    }

    fn handle_drain(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.with(ch, |protocol, transport| protocol.drain_begun(transport))
    }

    fn handle_close(&mut self, ch: &mut Channel<'_>, reason: &Reason) {
        self.with(ch, |protocol, transport| protocol.connection_lost(transport, reason));
    }
}

impl<P: fmt::Debug> fmt::Debug for ProtocolDispatcher<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ProtocolDispatcher").field(&self.protocol).finish()
    }
}

/// A transport does not coerce to a channel.
///
/// ```compile_fail,E0308
/// fn helper(_: &mut dispatch_loop::Channel<'_>) {}
/// fn hook(transport: &mut dispatch_loop::protocol::Transport<'_>) {
///     helper(transport);
/// }
/// ```
#[cfg(doctest)]
struct NoChannel;
