//! With mio, which is edge-triggered: a connection is read until it is drained. As in tokio, a short read
//! counts as drained unless the peer has closed, so a message costs no second `recv`.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;

use ::mio::net::{TcpListener, TcpStream};
use ::mio::{Events, Interest, Poll, Registry, Token};

use super::echo::Table;
use super::{BATCH, BUFFER};

struct Connection {
    stream: TcpStream,
    unsent: Vec<u8>,
}

pub(super) fn serve(listener: std::net::TcpListener) -> io::Result<()> {
    let mut listener = TcpListener::from_std(listener);
    let mut poll = Poll::new()?;
    let listener_key = Token(listener.as_raw_fd() as usize);
    poll.registry().register(&mut listener, listener_key, Interest::READABLE)?;
    let mut connections: Table<Connection> = Table::new();
    let mut buffer = vec![0; BUFFER];
    let mut events = Events::with_capacity(BATCH);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &events {
            let token = event.token();
            if token == listener_key {
                accept(&listener, poll.registry(), &mut connections)?;
                continue;
            }
            let Some(connection) = connections.get_mut(token.0) else { continue };
            let was_blocked = !connection.unsent.is_empty();
            let may_end = event.is_read_closed() || event.is_error();
            match connection.serve(&mut buffer, may_end) {
                Ok(()) => {
                    let is_blocked = !connection.unsent.is_empty();
                    if is_blocked != was_blocked {
                        let interest = if is_blocked { Interest::WRITABLE } else { Interest::READABLE };
                        poll.registry().reregister(&mut connection.stream, token, interest)?;
                    }
                }
                Err(_) => {
                    if let Some(mut connection) = connections.remove(token.0) {
                        let _ = poll.registry().deregister(&mut connection.stream);
                    }
                }
            }
        }
    }
}

fn accept(
    listener: &TcpListener,
    registry: &Registry,
    connections: &mut Table<Connection>,
) -> io::Result<()> {
    loop {
        match listener.accept() {
            Ok((mut stream, _)) => {
                let key = stream.as_raw_fd() as usize;
                registry.register(&mut stream, Token(key), Interest::READABLE)?;
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

impl Connection {
    /// Echoes until the connection is drained or the peer takes no more. An error ends the connection.
    fn serve(&mut self, buffer: &mut [u8], may_end: bool) -> io::Result<()> {
        if !self.unsent.is_empty() {
            let sent = write(&mut self.stream, &self.unsent)?;
            if sent < self.unsent.len() {
                self.unsent.drain(..sent);
                return Ok(());
            }
            self.unsent = Vec::new();
        }
        loop {
            let data = match self.stream.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => &buffer[..read],
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let sent = write(&mut self.stream, data)?;
            if sent < data.len() {
                self.unsent.extend_from_slice(&data[sent..]);
                return Ok(());
            }
            if data.len() < BUFFER && !may_end {
                return Ok(());
            }
        }
    }
}

/// Writes until it would block; returns how many bytes were taken.
fn write(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(more) => sent += more,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}
