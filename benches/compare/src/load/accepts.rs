//! Connections that are made, have one byte echoed, and are closed; several at a time.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::{BATCH, Load, PATIENCE};

/// An empty line, for servers that read lines.
const MESSAGE: &[u8] = b"\n";

pub struct Accepts {
    epoll: OwnedFd,
    events: Vec<Event>,
    address: SocketAddr,
    /// The connections in progress.
    slots: Vec<Option<Connection>>,
    /// Connections that may still be made.
    budget: u64,
    /// Connections that were started and are not done.
    in_flight: u64,
    /// Connections that were made, echoed and closed.
    done: u64,
}

struct Connection {
    socket: TcpStream,
    /// Its byte is not sent yet.
    is_new: bool,
}

impl Accepts {
    /// Makes `at_once` connections at a time, once it is started.
    pub fn new(address: SocketAddr, at_once: usize) -> io::Result<Accepts> {
        Ok(Accepts {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(BATCH),
            address,
            slots: (0..at_once).map(|_| None).collect(),
            budget: 0,
            in_flight: 0,
            done: 0,
        })
    }

    fn start(&mut self, budget: u64) -> io::Result<()> {
        self.budget = budget;
        for slot in 0..self.slots.len() {
            if self.slots[slot].is_none() {
                self.connect(slot)?;
            }
        }
        Ok(())
    }

    fn connect(&mut self, slot: usize) -> io::Result<()> {
        if self.budget == 0 {
            return Ok(());
        }
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&socket, &self.address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let mut connection = Connection { socket: TcpStream::from(socket), is_new: true };
        super::close_by_reset(&connection.socket)?;
        // Over loopback the connection is established by now.
        connection.send()?;
        let flags = connection.awaited();
        epoll::add(&self.epoll, &connection.socket, EventData::new_u64(slot as u64), flags)?;
        self.slots[slot] = Some(connection);
        self.budget -= 1;
        self.in_flight += 1;
        Ok(())
    }

    /// Continues until all connections that may be made are done.
    fn settle(&mut self) -> io::Result<()> {
        while self.in_flight > 0 {
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> io::Result<()> {
        self.events.clear();
        let patience = Timespec::try_from(PATIENCE).expect("some seconds");
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&patience)) {
            Ok(0) => {
                let what = format!("no progress: {} connections were not served", self.in_flight);
                return Err(io::Error::other(what));
            }
            Err(Errno::INTR) => return Ok(()),
            result => result?,
        };
        for event in 0..self.events.len() {
            let data = self.events[event].data;
            let slot = data.u64() as usize;
            let Some(connection) = &mut self.slots[slot] else { continue };
            if connection.is_new {
                connection.send()?;
                epoll::modify(&self.epoll, &connection.socket, data, connection.awaited())?;
            } else if connection.is_answered()? {
                self.slots[slot] = None;
                self.in_flight -= 1;
                self.done += 1;
                self.connect(slot)?;
            }
        }
        Ok(())
    }
}

impl Connection {
    fn send(&mut self) -> io::Result<()> {
        match rustix::net::send(&self.socket, MESSAGE, SendFlags::NOSIGNAL) {
            Ok(_) => self.is_new = false,
            Err(Errno::WOULDBLOCK | Errno::NOTCONN | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn awaited(&self) -> EventFlags {
        if self.is_new { EventFlags::OUT } else { EventFlags::IN }
    }

    fn is_answered(&self) -> io::Result<bool> {
        let mut buffer = [0; 2];
        match rustix::net::recv(&self.socket, &mut buffer, RecvFlags::empty()) {
            Ok((_, read)) if buffer[..read] == *MESSAGE => Ok(true),
            Ok((_, 0)) => Err(io::Error::other("the server closed a new connection")),
            Ok(_) => Err(io::Error::other("wrong bytes came back on a new connection")),
            Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Load for Accepts {
    fn keep_busy(&mut self, time: Duration) -> io::Result<u64> {
        let (end, done) = (Instant::now() + time, self.done);
        self.start(u64::MAX)?;
        while Instant::now() < end {
            self.turn()?;
        }
        Ok(self.done - done)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.budget = 0;
        self.settle()
    }

    fn exactly(&mut self, count: u64) -> io::Result<()> {
        self.start(count)?;
        self.settle()
    }
}
