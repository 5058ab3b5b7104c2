//! Datagrams, of UDP and of Unix-domain sockets: each is one hook, each is sent whole or not at all,
//! and an error of the network is no end of the channel.

use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::sync::Arc;

use crate::address::{about, literal};
use crate::hooks;
use crate::outbox::Flushed;
use crate::source::{Held, Plain};
use crate::state::{Phase, State};
use crate::{Address, Channel, ChannelMap, Dispatcher, Handle, ToAddress, Token, sys};

/// Datagrams that one channel may receive in one turn, beside the budget of bytes.
const DATAGRAMS: usize = 64;

/// Datagrams that may wait to be sent, however small.
const QUEUED: usize = 64 * 1024;

/// What [`handle_datagram`](crate::Dispatcher::handle_datagram) is given: Python's
/// `recvfrom`.
///
/// ```
/// use dispatch_loop::{Channel, Datagram, Dispatcher};
/// use std::io;
///
/// struct Echo;
///
/// impl Dispatcher for Echo {
///     fn handle_datagram(&mut self, ch: &mut Channel<'_>, datagram: &Datagram<'_>) -> io::Result<()> {
///         match ch.send_to(datagram.data, &datagram.from) {
///             // Too many answers wait already: this one is lost, as datagrams are.
///             Err(error) if error.kind() == io::ErrorKind::QuotaExceeded => Ok(()),
///             result => result,
///         }
///     }
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Datagram<'a> {
    /// What it carries; may be empty.
    pub data: &'a [u8],
    /// Its sender; [`Address::Unnamed`] where that has no address.
    pub from: Address,
    /// It was longer than 64 KiB, and the rest is lost. (No UDP datagram is.)
    pub truncated: bool,
}

/// How [`bind_with`](ChannelMap::bind_with) makes a datagram socket. What a kind of socket does not have
/// is of no effect there.
///
/// ```
/// use dispatch_loop::{ChannelMap, DatagramOptions, Dispatcher};
///
/// struct Quiet;
/// impl Dispatcher for Quiet {}
///
/// let mut map = ChannelMap::new()?;
/// let options = DatagramOptions { broadcast: true, ..DatagramOptions::default() };
/// map.bind_with("0.0.0.0:0", &options, Quiet)?;
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DatagramOptions {
    /// The only peer: `connect`. [`push`](Channel::push) sends to it, datagrams of others are not
    /// received, and errors on the way to it are told. (None.)
    pub peer: Option<Address>,
    /// `SO_BROADCAST` (off): may send to broadcast addresses.
    pub broadcast: bool,
    /// `SO_REUSEADDR` (off): several sockets may be bound to one multicast address.
    pub reuse_address: bool,
    /// `SO_REUSEPORT` (off): several sockets share the datagrams of one port.
    pub reuse_port: bool,
    /// `SO_RCVBUF` and `SO_SNDBUF`, in bytes (the system's own).
    pub recv_buffer: Option<usize>,
    /// See `recv_buffer`.
    pub send_buffer: Option<usize>,
    /// The network interface to send and receive by, by name (any). Linux only: elsewhere, an error.
    pub interface: Option<String>,
    /// The permissions of the file of a Unix-domain socket (what the umask leaves).
    pub mode: Option<u32>,
}

impl ChannelMap {
    /// A channel for datagrams, on a UDP or Unix-domain address: asyncio's
    /// `create_datagram_endpoint`. What comes is given to
    /// [`handle_datagram`](Dispatcher::handle_datagram); [`send_to`](Channel::send_to) sends. To send alone,
    /// bind to `"0.0.0.0:0"`, or to [`Address::Unnamed`] for Unix-domain sockets.
    ///
    /// # Errors
    /// As those of [`listen`](ChannelMap::listen).
    pub fn bind<D: Dispatcher>(&mut self, address: impl ToAddress, dispatcher: D) -> io::Result<Handle<D>> {
        self.bind_with(address, &DatagramOptions::default(), dispatcher)
    }

    /// As [`bind`](ChannelMap::bind), with options.
    ///
    /// # Errors
    /// As [`bind`](ChannelMap::bind); and an option that the system does not take.
    pub fn bind_with<D: Dispatcher>(
        &mut self,
        address: impl ToAddress,
        options: &DatagramOptions,
        dispatcher: D,
    ) -> io::Result<Handle<D>> {
        let address = literal(&address, "names are not looked up here")?;
        let (fd, file) =
            sys::bind_datagram(&address, options).map_err(|error| about("bind to", &address, &error))?;
        let mut state = State::new(Held::Plain(Plain(fd)), Box::new(dispatcher), Phase::Opening);
        state.local = state.fd().and_then(|fd| sys::local_address(fd).ok()).map(Arc::new);
        state.peer = options.peer.clone();
        state.file = file.map(Box::new);
        state.datagrams = true;
        self.insert(state)
    }
}

impl Channel<'_> {
    /// Send a datagram, at once if there is room, else after those that wait: Python's `sendto`.
    /// [`push`](Channel::push) is the same to the one peer of a connected socket.
    ///
    /// What the network says to it, also that it is too big, is told by
    /// [`handle_network_error`](Dispatcher::handle_network_error).
    ///
    /// # Errors
    /// `BrokenPipe` after `close` or `abort`; `QuotaExceeded` over the hard limit; `InvalidInput` if
    /// this is no channel for datagrams.
    pub fn send_to(&mut self, bytes: &[u8], to: &Address) -> io::Result<()> {
        self.put_datagram(bytes, to)
    }

    /// Receive what is sent to a multicast group: `IP_ADD_MEMBERSHIP`. `interface` is its index; 0
    /// leaves the choice to the system.
    ///
    /// # Errors
    /// This is no UDP socket of the group's family, or the system says no.
    pub fn join_multicast(&mut self, group: IpAddr, interface: u32) -> io::Result<()> {
        self.multicast(group, interface, true)
    }

    /// No longer: `IP_DROP_MEMBERSHIP`.
    ///
    /// # Errors
    /// As [`join_multicast`](Channel::join_multicast).
    pub fn leave_multicast(&mut self, group: IpAddr, interface: u32) -> io::Result<()> {
        self.multicast(group, interface, false)
    }

    fn multicast(&self, group: IpAddr, interface: u32, join: bool) -> io::Result<()> {
        let fd = self.socket().ok_or(ErrorKind::NotConnected)?;
        let about = |error: io::Error| {
            io::Error::new(error.kind(), format!("multicast group {group} on interface {interface}: {error}"))
        };
        self.named(sys::multicast(fd, group, interface, join).map_err(about))
    }
}

/// A channel of datagrams has some, or an error waits on its socket.
pub(crate) fn receive(map: &mut ChannelMap, token: Token) {
    let mut buffer = map.take_buffer();
    for _ in 0..DATAGRAMS {
        let turn = map.turn;
        let Some(state) = map.state_mut(token) else { break };
        if !state.reads() || *state.read_budget(turn) == 0 {
            break;
        }
        let Some(fd) = state.fd() else { break };
        match sys::recv_datagram(fd, &mut buffer) {
            Ok((read, from, truncated)) => {
                state.stamp();
                let left = state.read_budget(turn);
                *left = left.saturating_sub(read as u32);
                let from = from.or_else(|| state.peer.clone()).unwrap_or(Address::Unnamed);
                let datagram = Datagram { data: &buffer[..read], from, truncated };
                hooks::run(map, token, "handle_datagram", |dispatcher, ch| {
                    dispatcher.handle_datagram(ch, &datagram)
                });
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => {
                tell(map, token, &error);
                break;
            }
        }
    }
    map.give_buffer_back(buffer);
}

/// What the network has said.
pub(crate) fn tell(map: &mut ChannelMap, token: Token, error: &io::Error) {
    if map.state(token).is_some_and(|state| state.phase == Phase::Open) {
        hooks::run(map, token, "handle_network_error", |dispatcher, ch| {
            dispatcher.handle_network_error(ch, error)
        });
    }
}

/// What a send met since the last settle.
pub(crate) fn tell_noted(map: &mut ChannelMap, token: Token) {
    let noted = map.state_mut(token).and_then(|state| state.network_error.take());
    if let Some(error) = noted {
        tell(map, token, &error);
    }
}

impl State {
    pub(crate) fn push_datagram(
        &mut self,
        turn: u32,
        bytes: &[u8],
        to: Option<&Address>,
        limited: bool,
    ) -> io::Result<()> {
        if !self.datagrams {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "this channel is a stream, and has no datagrams",
            ));
        }
        self.check_open_for_output()?;
        if limited && (!self.outbox.takes(bytes.len()) || self.outbox.len() >= QUEUED) {
            return self.over_limit(bytes.len());
        }
        if self.outbox.is_empty() && !self.blocked && *self.write_budget(turn) > 0 {
            match self.send_datagram(bytes, to) {
                Sent::Whole => {
                    self.sent(turn, bytes.len());
                    return Ok(());
                }
                Sent::Not(error) => {
                    self.note(error);
                    return Ok(());
                }
                Sent::Later => self.blocked = true,
            }
        }
        self.outbox.push_datagram(bytes, to);
        Ok(())
    }

    /// Send what is queued, a datagram at a time.
    pub(crate) fn flush_datagrams(&mut self, turn: u32) -> Flushed {
        self.blocked = false;
        while let Some((bytes, to)) = self.outbox.take_datagram() {
            let sent = match *self.write_budget(turn) {
                0 => None,
                _ => Some(self.send_datagram(&bytes, to.as_deref())),
            };
            match sent {
                Some(Sent::Whole) => self.sent(turn, bytes.len()),
                Some(Sent::Not(error)) => self.note(error),
                Some(Sent::Later) | None => {
                    self.outbox.put_datagram_back(bytes, to);
                    self.blocked = sent.is_some();
                    return if self.blocked { Flushed::Blocked } else { Flushed::Budget };
                }
            }
        }
        Flushed::Empty
    }

    /// The error of an earlier datagram waits on the socket, and the next call of any kind takes it;
    /// so one more try.
    fn send_datagram(&mut self, bytes: &[u8], to: Option<&Address>) -> Sent {
        let Some(fd) = self.fd() else { return Sent::Later };
        let sent = match sys::send_datagram(fd, bytes, to) {
            Err(error) if sys::is_of_an_earlier_datagram(&error) => {
                let again = sys::send_datagram(fd, bytes, to);
                self.note(error);
                again
            }
            sent => sent,
        };
        match sent {
            Ok(()) => Sent::Whole,
            // One of several Unix-domain receivers does not read. Nobody tells when it does, and the
            // others are not to wait for it.
            Err(error) if error.kind() == ErrorKind::WouldBlock && to.is_some_and(|to| to.ip().is_none()) => {
                Sent::Not(io::Error::new(
                    ErrorKind::ResourceBusy,
                    "the receiver takes no more: it does not read",
                ))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Sent::Later,
            Err(error) => Sent::Not(error),
        }
    }

    /// The dispatcher is told at the settle; of several errors, the first.
    fn note(&mut self, error: io::Error) {
        self.busy = true;
        self.network_error.get_or_insert(error);
    }

    fn sent(&mut self, turn: u32, len: usize) {
        let left = self.write_budget(turn);
        // An empty one is work as well.
        *left = left.saturating_sub(len.max(1) as u32);
        self.stamp();
    }
}

enum Sent {
    Whole,
    Later,
    Not(io::Error),
}
