//! With `polling`, in its level-triggered mode.

use std::io::{self, ErrorKind};
use std::net::{TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::os::fd::AsRawFd;

use ::polling::{AsRawSource, Event, Events, PollMode, Poller};

use super::echo::{self, Next, Table};
use super::{BATCH, BUFFER};

struct Connection {
    stream: TcpStream,
    unsent: Vec<u8>,
}

pub(super) fn serve(listener: TcpListener) -> io::Result<()> {
    let poller = Poller::new()?;
    let listener_key = listener.as_raw_fd() as usize;
    add(&poller, &listener, listener_key)?;
    let mut connections: Table<Connection> = Table::new();
    let mut buffer = vec![0; BUFFER];
    let mut events = Events::with_capacity(NonZeroUsize::new(BATCH).unwrap());
    loop {
        events.clear();
        poller.wait(&mut events, None)?;
        for event in events.iter() {
            let key = event.key;
            if key == listener_key {
                accept(&listener, &poller, &mut connections)?;
                continue;
            }
            let Some(Connection { stream, unsent }) = connections.get_mut(key) else { continue };
            match echo::serve(&*stream, unsent, &mut buffer) {
                Next::Same => {}
                Next::Input => poller.modify_with_mode(&*stream, Event::readable(key), PollMode::Level)?,
                Next::Room => poller.modify_with_mode(&*stream, Event::writable(key), PollMode::Level)?,
                Next::End => {
                    poller.delete(&*stream)?;
                    connections.remove(key);
                }
            }
        }
    }
}

fn accept(listener: &TcpListener, poller: &Poller, connections: &mut Table<Connection>) -> io::Result<()> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true)?;
                let key = stream.as_raw_fd() as usize;
                add(poller, &stream, key)?;
                connections.insert(key, Connection { stream, unsent: Vec::new() });
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => return Ok(()),
                ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                _ => return Err(error),
            },
        }
    }
}

#[allow(unsafe_code)]
fn add(poller: &Poller, source: impl AsRawSource, key: usize) -> io::Result<()> {
    // SAFETY: a connection is deleted from the poller before it is dropped; the listener outlives it.
    unsafe { poller.add_with_mode(source, Event::readable(key), PollMode::Level) }
}
