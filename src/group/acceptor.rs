//! The listener of a group: who gets which connection.

use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::group::loops::Loops;
use crate::{Address, Channel, ChannelMap, Dispatcher, Socket, ToAddress};

/// How long accepting pauses when no loop has room in its queue.
const PAUSE: Duration = Duration::from_millis(10);

/// An accepted connection on its way.
type Connection = (Socket, Address);

pub(super) struct Acceptor<F> {
    loops: Loops,
    /// The loop that it is on.
    own: usize,
    /// Whether connections go to other loops, too.
    hands_over: bool,
    serve: Arc<F>,
    /// The one for which no loop had room.
    in_hand: Option<Connection>,
}

impl<F> Acceptor<F>
where
    F: Fn(&mut ChannelMap, Socket, Address) -> io::Result<()> + Send + Sync + 'static,
{
    pub(super) fn new(loops: Loops, own: usize, hands_over: bool, serve: Arc<F>) -> Acceptor<F> {
        Acceptor { loops, own, hands_over, serve, in_hand: None }
    }

    /// The same, for another address.
    pub(super) fn another(&self) -> Acceptor<F> {
        Acceptor::new(self.loops.clone(), self.own, self.hands_over, self.serve.clone())
    }

    /// Give the connection to the loop that has the fewest and takes it. `Some`: none does.
    fn place(&self, map: &mut ChannelMap, mut connection: Connection) -> io::Result<Option<Connection>> {
        if !self.hands_over {
            return self.keep(map, connection).map(|()| None);
        }
        for index in self.loops.by_load() {
            if index == self.own {
                return self.keep(map, connection).map(|()| None);
            }
            match self.send(index, connection) {
                None => return Ok(None),
                Some(back) => connection = back,
            }
        }
        Ok(Some(connection))
    }

    fn keep(&self, map: &mut ChannelMap, (mut socket, peer): Connection) -> io::Result<()> {
        socket.count_for(self.loops.load(self.own).raise());
        (self.serve)(map, socket, peer)
    }

    /// Hand over to another loop, where it counts from now on. `Some` if its queue is full, or it has ended.
    fn send(&self, index: usize, (mut socket, peer): Connection) -> Option<Connection> {
        socket.count_for(self.loops.load(index).raise());
        let parcel = Arc::new(Mutex::new(Some((socket, peer))));
        let (brought, serve) = (parcel.clone(), self.serve.clone());
        let sent = self.loops.remote(index).call(move |map| {
            let Some((socket, peer)) = take(&brought) else { return };
            if let Err(error) = serve(map, socket, peer.clone()) {
                log::warn!("connection from {peer}: {error}");
            }
        });
        match sent {
            Ok(()) => None,
            Err(_) => take(&parcel).map(|(mut socket, peer)| {
                socket.counts_no_more();
                (socket, peer)
            }),
        }
    }

    /// Try again with the one that is in hand.
    fn try_again(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        let Some(connection) = self.in_hand.take() else { return Ok(()) };
        self.in_hand = self.place(ch.map_mut(), connection)?;
        match self.in_hand {
            Some(_) => self.wait(ch),
            None => ch.resume_reading(),
        }
        Ok(())
    }

    fn wait(&self, ch: &mut Channel<'_>) {
        ch.pause_reading();
        let me = ch.token().typed::<Self>();
        ch.call_later(PAUSE, move |ch| ch.map_mut().with(me, |acceptor, ch| acceptor.try_again(ch)));
    }
}

fn take(parcel: &Mutex<Option<Connection>>) -> Option<Connection> {
    parcel.lock().unwrap_or_else(PoisonError::into_inner).take()
}

impl<F> Dispatcher for Acceptor<F>
where
    F: Fn(&mut ChannelMap, Socket, Address) -> io::Result<()> + Send + Sync + 'static,
{
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, peer: Address) -> io::Result<()> {
        self.in_hand = self.place(ch.map_mut(), (socket, peer))?;
        if self.in_hand.is_some() {
            log::info!("no loop has room for another connection; others wait");
            self.wait(ch);
        }
        Ok(())
    }
}

/// Whether several listeners on `address` share its connections.
pub(super) fn check_reuse_port(address: &str) -> io::Result<()> {
    let spreads = cfg!(any(target_os = "linux", target_os = "android", target_os = "freebsd"));
    if !spreads {
        let why = "this system does not spread connections over several listeners on one port";
        return Err(io::Error::new(ErrorKind::Unsupported, why));
    }
    match address.to_address() {
        Ok(Address::Ip(_)) | Err(_) => Ok(()),
        Ok(other) => {
            let why = format!("{other} cannot have several listeners: that is for IP addresses");
            Err(io::Error::new(ErrorKind::InvalidInput, why))
        }
    }
}
