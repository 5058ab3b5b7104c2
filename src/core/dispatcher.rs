//! The trait that users implement: asyncore's hooks, and ours beside them, with their defaults.

use std::any::{Any, TypeId};
use std::io;

use crate::core::channel::Channel;
use crate::link::deadlines::Deadline;
use crate::net::address::Address;
use crate::net::datagram::Datagram;
use crate::net::socket::Socket;
use crate::reason::Reason;

/// The callbacks of one channel: `asyncore.dispatcher`.
///
/// Implement what differs; every hook has a useful default. A hook is given a [`Channel`], the view
/// of its own channel, through which it reaches everything else. Hooks run one after the other on
/// the thread that runs the loop, never inside one another, and should return soon: while one runs,
/// no other channel is served.
///
/// An `Err` or a panic goes to this dispatcher's [`handle_error`](Dispatcher::handle_error), which
/// by default ends this channel and no other.
///
/// ```
/// use dispatch_loop::{Channel, Dispatcher};
/// use std::io;
///
/// struct Shout;
///
/// impl Dispatcher for Shout {
///     fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
///         ch.read_with(|ch, data| ch.push(&data.to_ascii_uppercase()))
///     }
/// }
/// ```
#[allow(unused_variables)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no `Dispatcher`",
    label = "has none of the hooks that a channel calls",
    note = "a struct becomes one by `impl Dispatcher for`, every hook of which has a default",
    note = "a `Chat` goes into a `ChatDispatcher::new(terminator, chat)?`, a `Protocol` into a `ProtocolDispatcher::new(protocol)`",
    note = "a closure that makes a dispatcher for each connection goes to `map.serve(address, |ch, peer| …)`"
)]
pub trait Dispatcher: Any {
    /// Whether to wait for input (for a listener: for connections). Default: `true`.
    ///
    /// Asked when the channel opens, after each of its hooks, and after it was reached through the
    /// map; not every turn, unless [`LoopOptions::rescan`](crate::LoopOptions::rescan) is set.
    /// It cannot change the channel.
    ///
    /// While it is `false`, the peer's end of stream is not noticed either; use
    /// [`set_timeout`](Channel::set_timeout) to bound that.
    fn readable(&self, ch: &Channel<'_>) -> bool {
        ch.note_default_readable(TypeId::of::<Self>());
        true
    }

    /// Whether to call [`handle_write`](Dispatcher::handle_write) when there is room. Default:
    /// `false`, where Python's is `True`: what [`push`](Channel::push) queues is sent without it.
    fn writable(&self, ch: &Channel<'_>) -> bool {
        ch.note_default_writable(TypeId::of::<Self>());
        false
    }

    /// Once, when a channel that carries data is ready for use: accepted, adopted or connected,
    /// and any handshake done. A server that speaks first greets here.
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        Ok(())
    }

    /// The [`connect`](crate::ChannelMap::connect) succeeded; `handle_open` follows.
    ///
    /// A failed connect runs `handle_error` with the cause, then `handle_close`, instead.
    fn handle_connect(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        Ok(())
    }

    /// On a listener: a connection was accepted. `socket` is non-blocking and close-on-exec, `peer` is
    /// the address that `accept` returned.
    /// [`ch.map_mut().add(socket, …)`](crate::ChannelMap::add) makes it a channel.
    ///
    /// Python's `handle_accept`, `accept()` and `handle_accepted` in one. An `Err` drops this
    /// connection (unless it was added already); the listener lives on. Default: drops the
    /// connection, and logs that once.
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, peer: Address) -> io::Result<()> {
        ch.log_default("handle_accept drops connections");
        Ok(())
    }

    /// On a listener: a connection could not be accepted. It died in the backlog; there was no descriptor or
    /// no memory for it; or a limit of [`AcceptLimits`](crate::AcceptLimits) keeps it out, which
    /// [`AcceptLimitError::of`](crate::AcceptLimitError::of) tells. The listener lives on, and tries again
    /// when it can. Default: does nothing. (What is not the fault of one connection is logged in any case.)
    fn handle_accept_error(&mut self, ch: &mut Channel<'_>, error: &io::Error) {}

    /// There is input. Read it with [`read_with`](Channel::read_with) or [`recv`](Channel::recv);
    /// if some is left unread, this hook runs again. It may also find nothing: `WouldBlock` returned
    /// with `?` is not an error here. Default: reads and drops, and logs that once.
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.log_default("handle_read drops input");
        ch.read_with(|_, _| Ok(()))
    }

    /// A datagram arrived on a channel made by [`bind`](crate::ChannelMap::bind): asyncio's
    /// `datagram_received`. Default: drops it, and logs that once.
    fn handle_datagram(&mut self, ch: &mut Channel<'_>, datagram: &Datagram<'_>) -> io::Result<()> {
        ch.log_default("handle_datagram drops datagrams");
        Ok(())
    }

    /// A datagram could not be sent or delivered: unreachable (reported on connected sockets only), or
    /// too long. asyncio's `error_received`. The channel lives on; one that is closing is told, too. Default:
    /// does nothing.
    fn handle_network_error(&mut self, ch: &mut Channel<'_>, error: &io::Error) -> io::Result<()> {
        Ok(())
    }

    /// There is room to send, nothing is queued, and [`writable`](Dispatcher::writable) returned
    /// `true`.
    fn handle_write(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        Ok(())
    }

    /// Urgent (out-of-band) data arrived; [`recv_urgent`](Channel::recv_urgent) takes it. If it is
    /// left, the loop drops it. Not reported on macOS and the BSDs.
    fn handle_expt(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        Ok(())
    }

    /// The peer has ended its stream (FIN), and everything it sent was read. Runs once.
    ///
    /// Default: [`Eof::Close`], which still sends what is queued. Not called when the connection
    /// was lost rather than ended: half a message is not a message.
    fn handle_eof(&mut self, ch: &mut Channel<'_>) -> io::Result<Eof> {
        Ok(Eof::Close)
    }

    /// More is queued than the high watermark: the peer reads more slowly than we send. Runs once per
    /// crossing; `handle_low` follows it.
    fn handle_high(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        Ok(())
    }

    /// The queue is down to the low watermark again.
    fn handle_low(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        Ok(())
    }

    /// Everything that had to wait has been sent: the queue is empty again, and so is the source.
    /// asyncio's `drain`. Does not run after output that did not have to wait, or only for the end of
    /// the turn. Also runs after [`discard_queued`](Channel::discard_queued) dropped what had to wait.
    fn handle_drained(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        Ok(())
    }

    /// The source that [`wrap_source`](Channel::wrap_source) has put around an open channel is in place,
    /// and any handshake done: what was pushed before has left through the old source, and what comes from
    /// now on is read through the new one. (On a channel that was not open yet, `handle_open` says this.)
    fn handle_wrapped(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        Ok(())
    }

    /// The map is being [drained](crate::ChannelMap::drain): what is begun from now on may not come to its
    /// end. The place to tell the peer so, as HTTP does by `Connection: close`. Runs once a drain, on listeners,
    /// too; after `handle_open` on a channel that was just added. Not on one that still connects or shakes hands
    /// then, or that comes later: its `handle_open` can ask [`is_draining`](crate::ChannelMap::is_draining).
    /// Default: does nothing.
    fn handle_drain(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        Ok(())
    }

    /// No byte was received or sent for as long as [`set_timeout`](Channel::set_timeout) allows (while
    /// connecting: the connect took that long). Default: ends the channel with
    /// [`Reason::TimedOut`]. If the channel lives on, the time starts anew.
    fn handle_timeout(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.time_out();
        Ok(())
    }

    /// One of the deadlines of [`set_deadlines`](Channel::set_deadlines) has passed. Default: ends the
    /// channel with [`Reason::TimedOut`]. If the channel lives on, that deadline counts anew, but not a
    /// lifetime.
    fn handle_deadline(&mut self, ch: &mut Channel<'_>, deadline: Deadline) -> io::Result<()> {
        ch.time_out();
        Ok(())
    }

    /// A hook of this dispatcher returned an error or panicked, or its connect or the handshake of its
    /// source failed. The answer decides what happens to the channel. Default: [`OnError::End`], which the loop logs.
    ///
    /// A lost connection is reported by `handle_close` with its reason, not here. To end
    /// the channel without a line in the log, [`abort`](Channel::abort) it and return
    /// [`OnError::Keep`].
    fn handle_error(&mut self, ch: &mut Channel<'_>, error: &io::Error) -> OnError {
        OnError::End
    }

    /// The channel has ended. Runs exactly once, whatever ended it, and as the last hook. The
    /// descriptor is closed already; the addresses can still be read. The dispatcher is dropped
    /// afterwards.
    fn handle_close(&mut self, ch: &mut Channel<'_>, reason: &Reason) {}
}

/// The answer of [`handle_eof`](Dispatcher::handle_eof).
///
/// ```
/// use dispatch_loop::{Channel, Dispatcher, Eof};
/// use std::io;
///
/// struct Answering;
///
/// impl Dispatcher for Answering {
///     fn handle_eof(&mut self, ch: &mut Channel<'_>) -> io::Result<Eof> {
///         ch.push(b"goodbye\n")?;
///         Ok(Eof::Close)                    // sends it first
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Eof {
    /// Send what is queued, then close.
    #[default]
    Close,
    /// Keep the write side: the connection is half-closed until we end it, or the peer resets it.
    KeepWriting,
}

/// The answer of [`handle_error`](Dispatcher::handle_error).
///
/// ```
/// use dispatch_loop::{Channel, Dispatcher, OnError};
/// use std::io;
///
/// struct Tolerant;
///
/// impl Dispatcher for Tolerant {
///     fn handle_error(&mut self, _: &mut Channel<'_>, error: &io::Error) -> OnError {
///         match error.kind() {
///             io::ErrorKind::InvalidData => OnError::Keep,
///             _ => OnError::End,
///         }
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// Drop what is queued and close, with the error as the reason. If anything was queued, the
    /// connection is reset, so that the peer does not mistake a part for the whole.
    #[default]
    End,
    /// Go on as if nothing had happened. Ignored after a panic and after a failed connect or handshake.
    Keep,
}
