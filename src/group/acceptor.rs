//! The listeners of a group, and who gets which connection.

use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::panicked;
use crate::group::loops::Loops;
use crate::guard::drop_error;
use crate::net::address::about;
use crate::{Address, Channel, ChannelMap, Dispatcher, Handle, Reason, Socket, Source, ToAddress};

/// An accepted connection on its way.
type Connection = (Socket, Address);

/// A listener. It gives each connection to the reception of one of the loops.
pub(super) struct Acceptor<D> {
    loops: Loops,
    /// The loop that it is on.
    own: usize,
    /// Whether connections go to other loops, too.
    hands_over: bool,
    receptions: Arc<[Handle<Reception<D>>]>,
}

impl<D: Dispatcher> Acceptor<D> {
    pub(super) fn new(
        loops: &Loops,
        own: usize,
        hands_over: bool,
        receptions: &Arc<[Handle<Reception<D>>]>,
    ) -> Acceptor<D> {
        loops.listeners().count();
        Acceptor { loops: loops.clone(), own, hands_over, receptions: receptions.clone() }
    }

    /// Hand over to another loop, where it counts from now on. `Some` if its queue is full, or it has ended.
    fn send(&self, index: usize, (mut socket, peer): Connection) -> Option<Connection> {
        socket.count_for(self.loops.load(index).raise());
        let parcel = Arc::new(Mutex::new(Some((socket, peer))));
        let (brought, reception) = (parcel.clone(), self.receptions[index]);
        let sent = self.loops.remote(index).call(move |map| {
            if let Some(connection) = take(&brought) {
                receive(map, reception, connection);
            }
        });
        match sent {
            Ok(()) => None,
            Err(_) => take(&parcel),
        }
    }
}

fn take(parcel: &Mutex<Option<Connection>>) -> Option<Connection> {
    parcel.lock().unwrap_or_else(PoisonError::into_inner).take()
}

impl<D> Drop for Acceptor<D> {
    fn drop(&mut self) {
        self.loops.listeners().lower();
    }
}

impl<D: Dispatcher> Dispatcher for Acceptor<D> {
    fn handle_close(&mut self, ch: &mut Channel<'_>, reason: &Reason) {
        // As `run` tells of the last listener of a map, if it has failed.
        if let (Some(error), 1, Ok(local)) = (reason.error(), self.loops.listeners().get(), ch.local_addr()) {
            self.loops.fail(self.own, &about("go on listening on", &local, error));
        }
    }

    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, peer: Address) -> io::Result<()> {
        let mut connection = (socket, peer);
        if self.hands_over {
            for index in self.loops.by_load().into_iter().take_while(|index| *index != self.own) {
                match self.send(index, connection) {
                    None => return Ok(()),
                    Some(back) => connection = back,
                }
            }
        }
        // Its turn has come, or those that have fewer have no room: here there always is.
        connection.0.count_for(self.loops.load(self.own).raise());
        receive(ch.map_mut(), self.receptions[self.own], connection);
        Ok(())
    }
}

/// The user's listener on one loop: a channel without a descriptor, which is given the connections.
pub(super) struct Reception<D>(D);

impl<D: Dispatcher> Reception<D> {
    pub(super) fn open(map: &mut ChannelMap, dispatcher: D) -> io::Result<Handle<Reception<D>>> {
        map.add_internal_source(Nowhere, Reception(dispatcher))
    }
}

impl<D: Dispatcher> Dispatcher for Reception<D> {
    fn handle_close(&mut self, ch: &mut Channel<'_>, reason: &Reason) {
        self.0.handle_close(ch, reason);
    }
}

fn receive<D: Dispatcher>(map: &mut ChannelMap, reception: Handle<Reception<D>>, connection: Connection) {
    let (socket, peer) = connection;
    let received = map.with(reception, |Reception(dispatcher), ch| {
        let from = peer.clone();
        // As of a listener, neither an error nor a panic ends it.
        let accepted = catch_unwind(AssertUnwindSafe(|| dispatcher.handle_accept(ch, socket, peer)));
        if let Err(error) = accepted.unwrap_or_else(|payload| Err(panicked(payload))) {
            let token = ch.token();
            let why = format_args!("connection from {from}: {error}");
            ch.map_mut().report(token, "handle_accept", &why);
            drop_error(error);
        }
        Ok(())
    });
    if let Err(error) = received {
        log::debug!("a connection for a listener that is gone: {error}");
    }
}

/// A source from which nothing comes.
struct Nowhere;

impl Source for Nowhere {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn recv(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }
    fn shutdown_write(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What [`LoopGroup::listen`](crate::LoopGroup::listen) is given, on each loop.
pub(super) struct Serve<F>(pub(super) Arc<F>);

impl<F> Dispatcher for Serve<F>
where
    F: Fn(&mut ChannelMap, Socket, Address) -> io::Result<()> + Send + Sync + 'static,
{
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, peer: Address) -> io::Result<()> {
        (self.0)(ch.map_mut(), socket, peer)
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
