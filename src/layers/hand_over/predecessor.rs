//! The old process: gives its listeners, and stops accepting when the new one is ready.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::rc::Rc;

use super::connection::{Connection, Connections};
use super::wire::Wire;
use super::{ALL, BUSY, LISTENER, OWN, QUESTION, READY, TAKEN, Taken, unclear};
use crate::{Address, Channel, ChannelMap, Dispatcher, ListenOptions, OnLimit, Reason, Socket, Token};

/// Let a successor take `listeners` at `path`: channels of this map, with the names by which it
/// [asks](Taken::take) for them; several may have the same name. If there was a predecessor, it is told now that this
/// process is ready.
///
/// `on_taken` is called once, when a successor has taken over and is ready; the listeners have ended then, with
/// [`Reason::Detached`]. It should see to it that the program ends when its connections have. Nothing of this keeps
/// the loop going.
///
/// # Errors
/// As [`listen`](ChannelMap::listen). Then the predecessor goes on as before.
pub fn offer<'a>(
    map: &mut ChannelMap,
    path: impl AsRef<Path>,
    taken: Taken,
    listeners: impl IntoIterator<Item = (&'a str, Token)>,
    on_taken: impl FnMut(&mut ChannelMap) + 'static,
) -> io::Result<()> {
    offer_with_connections(map, path, taken, listeners, (), on_taken)
}

/// As [`offer`], and let `connections` say which of them go along, too. They do so when the successor is ready, before
/// `on_taken` is called; of those of the predecessor, each is given to [`take`](Connections::take) once the loop runs.
///
/// A channel goes along as [`detach`](crate::Channel::detach) takes it out of the map: it ends here with
/// [`Reason::Detached`]. One that cannot be detached (TLS, a producer in its queue) stays. If the successor dies just
/// then, those that were on their way are closed.
///
/// # Errors
/// As [`offer`].
pub fn offer_with_connections<'a>(
    map: &mut ChannelMap,
    path: impl AsRef<Path>,
    mut taken: Taken,
    listeners: impl IntoIterator<Item = (&'a str, Token)>,
    connections: impl Connections,
    on_taken: impl FnMut(&mut ChannelMap) + 'static,
) -> io::Result<()> {
    let path = path.as_ref();
    let estate = Rc::new(RefCell::new(Estate {
        listeners: listeners.into_iter().map(|(name, token)| (name.to_owned(), token)).collect(),
        connections: Some(Box::new(connections)),
        is_asked: false,
        on_taken: Some(Box::new(on_taken)),
    }));
    let door = Door { estate: estate.clone(), owner: None };
    let door = match taken.own() {
        Some(socket) => map.add(socket, door)?,
        None => map.listen_with(path, &ListenOptions::default().with_mode(0o600), door)?,
    };
    map.channel(door)?.set_background(true);
    map.get_mut(door)?.owner = fs::metadata(path).ok().map(|file| file.uid());
    estate.borrow_mut().listeners.push((OWN.to_owned(), door.token()));
    if taken.confirm(map, estate.clone())? {
        for (_, listener) in &estate.borrow().listeners {
            map.channel(*listener)?.adopt_socket_file();
        }
    }
    Ok(())
}

type OnTaken = Box<dyn FnMut(&mut ChannelMap)>;

/// What can be taken.
pub(super) struct Estate {
    listeners: Vec<(String, Token)>,
    /// `None` while it is called.
    pub(super) connections: Option<Box<dyn Connections>>,
    /// A successor has asked and is not ready yet.
    is_asked: bool,
    on_taken: Option<OnTaken>,
}

/// Listens for successors.
struct Door {
    estate: Rc<RefCell<Estate>>,
    owner: Option<u32>,
}

impl Dispatcher for Door {
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
        let handle = ch.map_mut().add(socket, Predecessor::new(self.estate.clone()))?;
        let mut heir = ch.map_mut().channel(handle)?;
        heir.set_background(true);
        heir.set_timeout(Some(READY));
        if let (Ok(peer), Some(owner)) = (heir.peer_credentials(), self.owner) {
            if peer.uid != owner && peer.uid != 0 {
                log::warn!("process {} of user {} must not take over", peer.pid, peer.uid);
                heir.abort();
            }
        }
        Ok(())
    }
}

/// A conversation with a process that may become the successor.
struct Predecessor {
    estate: Rc<RefCell<Estate>>,
    wire: Wire,
    /// It has what it asked for.
    has_given: bool,
}

impl Predecessor {
    fn new(estate: Rc<RefCell<Estate>>) -> Predecessor {
        Predecessor { estate, wire: Wire::default(), has_given: false }
    }

    fn give(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        let mut estate = self.estate.borrow_mut();
        if estate.is_asked || estate.on_taken.is_none() {
            ch.push(format!("{BUSY}\n").as_bytes())?;
            ch.close();
            return Ok(());
        }
        for (name, token) in &estate.listeners {
            let listener = ch.map_mut().channel(*token).ok();
            // It may have ended.
            let Some(duplicate) = listener.as_ref().and_then(|listener| listener.socket()).map(duplicate)
            else {
                continue;
            };
            ch.push_descriptors(format!("{LISTENER}{name}\n").as_bytes(), vec![duplicate?])?;
        }
        ch.push(format!("{ALL}\n").as_bytes())?;
        estate.is_asked = true;
        self.has_given = true;
        Ok(())
    }

    /// The successor is ready.
    fn taken(&mut self, ch: &mut Channel<'_>) {
        let (listeners, on_taken) = {
            let mut estate = self.estate.borrow_mut();
            (std::mem::take(&mut estate.listeners), estate.on_taken.take())
        };
        for (_, token) in listeners {
            if let Ok(Ok(detached)) = ch.map_mut().channel(token).map(|mut listener| listener.detach()) {
                // The file of a Unix-domain listener stays: it is the successor's.
                drop(OwnedFd::from(detached.socket));
            }
        }
        self.give_connections(ch);
        ch.close();
        if let Some(mut on_taken) = on_taken {
            on_taken(ch.map_mut());
        }
    }
}

impl Predecessor {
    fn give_connections(&mut self, ch: &mut Channel<'_>) {
        let connections = self.estate.borrow_mut().connections.take();
        let Some(mut connections) = connections else { return };
        // What is moved counts here instead of there.
        ch.set_limit(usize::MAX, OnLimit::Refuse);
        for (token, state) in connections.give(ch.map_mut()) {
            let detached =
                ch.map_mut().channel(token).map_err(io::Error::from).and_then(|mut ch| ch.detach());
            let given = detached.and_then(|detached| Connection::new(detached, state).push_to(ch));
            if let Err(error) = given {
                log::info!("channel {token} does not go along: {error}");
            }
        }
    }
}

fn duplicate(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    fd.try_clone_to_owned()
}

impl Dispatcher for Predecessor {
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.wire.read(ch)?;
        while let Some(line) = self.wire.line()? {
            match &*line {
                QUESTION if !self.has_given => self.give(ch)?,
                TAKEN if self.has_given => self.taken(ch),
                line => return Err(unclear(line)),
            }
        }
        Ok(())
    }

    fn handle_close(&mut self, _: &mut Channel<'_>, reason: &Reason) {
        let mut estate = self.estate.borrow_mut();
        if self.has_given && estate.on_taken.is_some() {
            // It has failed: another one may ask.
            estate.is_asked = false;
            log::warn!("a process has asked for the listeners, and was not ready: {reason}");
        }
    }
}
