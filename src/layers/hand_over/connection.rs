//! Connections that go along.

use std::io;
use std::os::fd::OwnedFd;

use super::CONNECTION;
use crate::{Channel, ChannelMap, Detached, Dispatcher, Handle, Socket, Token};

/// The most bytes that come with one connection.
const MOST: usize = 1 << 30;

/// Which connections go along to a successor, and how it goes on with them.
///
/// ```
/// use dispatch_loop::hand_over::{Connection, Connections};
/// use dispatch_loop::{ChannelMap, Dispatcher, Token};
/// use std::io;
///
/// struct Guest {
///     name: String,
/// }
///
/// impl Dispatcher for Guest {}
///
/// struct Guests;
///
/// impl Connections for Guests {
///     fn give(&mut self, map: &mut ChannelMap) -> Vec<(Token, Vec<u8>)> {
///         let tokens: Vec<Token> = map.tokens().collect();
///         let named = |token: Token| Some((token, map.get(token.typed::<Guest>()).ok()?.name.clone().into_bytes()));
///         tokens.into_iter().filter_map(named).collect()
///     }
///     fn take(&mut self, map: &mut ChannelMap, connection: Connection) -> io::Result<()> {
///         let name = String::from_utf8_lossy(&connection.state).into_owned();
///         connection.add(map, Guest { name }).map(drop)
///     }
/// }
/// ```
pub trait Connections: 'static {
    /// In the old process, when the new one is ready: the channels that go along, each with what the new one has to
    /// know of it. Those that are in the middle of something are better left out.
    fn give(&mut self, map: &mut ChannelMap) -> Vec<(Token, Vec<u8>)>;

    /// In the new process: go on with one of them. If that fails, it is closed, and the error logged.
    ///
    /// # Errors
    /// Any.
    fn take(&mut self, map: &mut ChannelMap, connection: Connection) -> io::Result<()>;
}

/// None goes along.
impl Connections for () {
    fn give(&mut self, _: &mut ChannelMap) -> Vec<(Token, Vec<u8>)> {
        Vec::new()
    }

    fn take(&mut self, _: &mut ChannelMap, _: Connection) -> io::Result<()> {
        Ok(())
    }
}

/// A connection that has come from the predecessor. See [`Connections`].
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "dropping it closes the connection"]
pub struct Connection {
    /// The socket. What a balancer has told of it is not known any more.
    pub socket: Socket,
    /// Input that was put back and not read again.
    pub unread: Vec<u8>,
    /// Output that was pushed but not sent.
    pub unsent: Vec<u8>,
    /// What the predecessor had to say of it.
    pub state: Vec<u8>,
}

impl Connection {
    pub(super) fn new(detached: Detached, state: Vec<u8>) -> Connection {
        Connection { socket: detached.socket, unread: detached.unread, unsent: detached.unsent, state }
    }

    /// Make a channel of it, with what is unread and unsent.
    ///
    /// # Errors
    /// Those of [`ChannelMap::add`] and of [`push`](Channel::push).
    pub fn add<D: Dispatcher>(self, map: &mut ChannelMap, dispatcher: D) -> io::Result<Handle<D>> {
        let handle = map.add(self.socket, dispatcher)?;
        let mut ch = map.channel(handle)?;
        ch.unread(&self.unread);
        ch.push_vec(self.unsent)?;
        Ok(handle)
    }

    pub(super) fn push_to(self, ch: &mut Channel<'_>) -> io::Result<()> {
        let lengths = [&self.unread, &self.unsent, &self.state].map(Vec::len);
        let line = format!("{CONNECTION}{} {} {}\n", lengths[0], lengths[1], lengths[2]);
        ch.push_descriptors(line.as_bytes(), vec![OwnedFd::from(self.socket)])?;
        for part in [self.unread, self.unsent, self.state] {
            ch.push_vec(part)?;
        }
        Ok(())
    }
}

/// A connection of which the rest is to come.
pub(super) struct Announced {
    socket: Socket,
    lengths: [usize; 3],
}

impl Announced {
    /// `None` if these are no lengths.
    pub(super) fn new(socket: Socket, lengths: &str) -> Option<Announced> {
        let parsed = lengths.split(' ').map(str::parse).collect::<Result<Vec<usize>, _>>().ok()?;
        let lengths = <[usize; 3]>::try_from(parsed).ok()?;
        lengths.iter().all(|len| *len <= MOST).then_some(Announced { socket, lengths })
    }

    pub(super) fn len(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// All of it, with this many bytes.
    pub(super) fn with(self, mut unread: Vec<u8>) -> Connection {
        let mut unsent = unread.split_off(self.lengths[0]);
        let state = unsent.split_off(self.lengths[1]);
        Connection { socket: self.socket, unread, unsent, state }
    }
}
