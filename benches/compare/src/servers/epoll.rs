//! By hand on epoll, for speed alone: one wait for a batch, then one `recv` and one `send` per message.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};

use super::echo::Table;
use super::{BATCH, BUFFER};

struct Connection {
    socket: OwnedFd,
    /// Nothing is read while this holds bytes.
    unsent: Vec<u8>,
}

pub(super) fn serve(listener: TcpListener) -> io::Result<()> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let listener_key = listener.as_raw_fd() as usize;
    epoll::add(&epoll, &listener, EventData::new_u64(listener_key as u64), EventFlags::IN)?;
    let mut connections = Table::new();
    let mut buffer = vec![0; BUFFER];
    let mut events: Vec<Event> = Vec::with_capacity(BATCH);
    loop {
        events.clear();
        match epoll::wait(&epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let key = event.data.u64() as usize;
            if key == listener_key {
                accept(&listener, &epoll, &mut connections)?;
            } else if let Some(connection) = connections.get_mut(key) {
                if connection.serve(&epoll, &mut buffer).is_err() {
                    connections.remove(key);
                }
            }
        }
    }
}

fn accept(listener: &TcpListener, epoll: &OwnedFd, connections: &mut Table<Connection>) -> io::Result<()> {
    loop {
        match rustix::net::accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok(socket) => {
                let key = socket.as_raw_fd() as usize;
                epoll::add(epoll, &socket, EventData::new_u64(key as u64), EventFlags::IN)?;
                connections.insert(key, Connection { socket, unsent: Vec::new() });
            }
            Err(Errno::WOULDBLOCK) => return Ok(()),
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

impl Connection {
    /// An error ends the connection.
    #[inline]
    fn serve(&mut self, epoll: &OwnedFd, buffer: &mut [u8]) -> Result<(), Errno> {
        if !self.unsent.is_empty() {
            return self.send_rest(epoll);
        }
        let data = match rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
            Ok((_, 0)) => return Err(Errno::PIPE),
            Ok((_, read)) => &buffer[..read],
            Err(Errno::WOULDBLOCK | Errno::INTR) => return Ok(()),
            Err(error) => return Err(error),
        };
        let sent = match rustix::net::send(&self.socket, data, SendFlags::NOSIGNAL) {
            Ok(sent) => sent,
            Err(Errno::WOULDBLOCK | Errno::INTR) => 0,
            Err(error) => return Err(error),
        };
        if sent < data.len() {
            self.unsent.extend_from_slice(&data[sent..]);
            self.watch(epoll, EventFlags::OUT)?;
        }
        Ok(())
    }

    #[cold]
    fn send_rest(&mut self, epoll: &OwnedFd) -> Result<(), Errno> {
        match rustix::net::send(&self.socket, &self.unsent, SendFlags::NOSIGNAL) {
            Ok(sent) if sent == self.unsent.len() => {
                self.unsent = Vec::new();
                self.watch(epoll, EventFlags::IN)
            }
            Ok(sent) => {
                self.unsent.drain(..sent);
                Ok(())
            }
            Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn watch(&self, epoll: &OwnedFd, flags: EventFlags) -> Result<(), Errno> {
        let key = EventData::new_u64(self.socket.as_raw_fd() as u64);
        epoll::modify(epoll, &self.socket, key, flags)
    }
}
