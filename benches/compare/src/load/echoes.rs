//! Messages there and back, on connections that stay open.

use std::io;
use std::mem;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::text::{LONGEST, Text};
use super::{BATCH, Load, PATIENCE};

/// The most connections that are opened before all of them have answered.
const AT_ONCE: usize = 256;

pub struct Echoes {
    epoll: OwnedFd,
    events: Vec<Event>,
    peers: Vec<Peer>,
    text: Text,
    buffer: Vec<u8>,
    size: u64,
    depth: u64,
    /// Messages that may still be sent.
    budget: u64,
    /// Messages that were sent, perhaps in part, and are not back.
    in_flight: u64,
    /// Messages that came back.
    done: u64,
}

struct Peer {
    socket: TcpStream,
    /// Its first place in the text.
    origin: u64,
    /// Bytes sent, to be sent, and back.
    sent: u64,
    wanted: u64,
    back: u64,
    /// Whether it waits for room to send.
    is_blocked: bool,
}

impl Echoes {
    /// Opens connections, and proves each with a message.
    pub fn open(address: SocketAddr, connections: usize, size: usize, depth: usize) -> io::Result<Echoes> {
        let mut echoes = Echoes {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(BATCH),
            peers: Vec::with_capacity(connections),
            text: Text::new(size),
            buffer: vec![0; LONGEST],
            size: size as u64,
            depth: 1,
            budget: 0,
            in_flight: 0,
            done: 0,
        };
        while echoes.peers.len() < connections {
            let first = echoes.peers.len();
            let some = AT_ONCE.min(connections - first);
            for at in first..first + some {
                echoes.add(TcpStream::connect_timeout(&address, PATIENCE)?, at)?;
            }
            echoes.budget = some as u64;
            for at in first..first + some {
                echoes.issue(at, 1)?;
            }
            echoes.settle()?;
        }
        echoes.depth = depth as u64;
        Ok(echoes)
    }

    fn add(&mut self, socket: TcpStream, at: usize) -> io::Result<()> {
        super::close_by_reset(&socket)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        epoll::add(&self.epoll, &socket, EventData::new_u64(at as u64), EventFlags::IN)?;
        let origin = self.text.origin(at);
        self.peers.push(Peer { socket, origin, sent: 0, wanted: 0, back: 0, is_blocked: false });
        Ok(())
    }

    /// Sends one more message on each connection, to which no answer is expected.
    pub fn send_unanswered(&mut self) -> io::Result<()> {
        for peer in &mut self.peers {
            peer.wanted += self.size;
            peer.send(&self.text)?;
            if peer.sent < peer.wanted {
                return Err(io::Error::other("no room for one more message"));
            }
        }
        Ok(())
    }

    /// Checks that all connections are open and silent.
    pub fn check_silence(&self) -> io::Result<()> {
        for peer in &self.peers {
            match rustix::net::recv(&peer.socket, &mut [0; 1], RecvFlags::PEEK) {
                Err(Errno::WOULDBLOCK) => {}
                Ok((_, 0)) => return Err(io::Error::other("a silent connection was closed")),
                Ok(_) => return Err(io::Error::other("more came back than was sent")),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Gives one connection up to `count` more messages to send.
    fn issue(&mut self, at: usize, count: u64) -> io::Result<()> {
        let count = count.min(self.budget);
        if count == 0 {
            return Ok(());
        }
        self.budget -= count;
        self.in_flight += count;
        self.peers[at].wanted += count * self.size;
        self.send(at)
    }

    fn send(&mut self, at: usize) -> io::Result<()> {
        let peer = &mut self.peers[at];
        peer.send(&self.text)?;
        let is_blocked = peer.sent < peer.wanted;
        if is_blocked != mem::replace(&mut peer.is_blocked, is_blocked) {
            let flags = if is_blocked { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            epoll::modify(&self.epoll, &peer.socket, EventData::new_u64(at as u64), flags)?;
        }
        Ok(())
    }

    fn start(&mut self, budget: u64) -> io::Result<()> {
        self.budget = budget;
        let size = self.size;
        for at in 0..self.peers.len() {
            let peer = &self.peers[at];
            let in_flight = (peer.wanted - peer.back).div_ceil(size);
            self.issue(at, self.depth.saturating_sub(in_flight))?;
        }
        Ok(())
    }

    /// Continues until everything that may be sent is back.
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
                let what = format!("no progress: {} messages did not come back", self.in_flight);
                return Err(io::Error::other(what));
            }
            Err(Errno::INTR) => return Ok(()),
            result => result?,
        };
        for event in 0..self.events.len() {
            let Event { data, flags } = self.events[event];
            let at = data.u64() as usize;
            if flags.contains(EventFlags::OUT) {
                self.send(at)?;
            }
            if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                let count = self.peers[at].receive(&self.text, &mut self.buffer, self.size)?;
                self.done += count;
                self.in_flight -= count;
                self.issue(at, count)?;
            }
        }
        Ok(())
    }
}

impl Load for Echoes {
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
        self.settle()?;
        self.check_silence()
    }

    fn exactly(&mut self, count: u64) -> io::Result<()> {
        self.start(count)?;
        self.settle()
    }
}

impl Peer {
    /// Sends what is to be sent, as far as there is room.
    fn send(&mut self, text: &Text) -> io::Result<()> {
        while self.sent < self.wanted {
            let len = (self.wanted - self.sent).min(LONGEST as u64) as usize;
            let bytes = text.at(self.origin + self.sent, len);
            match rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => self.sent += sent as u64,
                Err(Errno::WOULDBLOCK) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Receives, and checks that it is what was sent; returns how many messages are now complete.
    fn receive(&mut self, text: &Text, buffer: &mut [u8], size: u64) -> io::Result<u64> {
        let read = match rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
            Ok((_, read)) => read,
            Err(Errno::WOULDBLOCK | Errno::INTR) => return Ok(0),
            Err(error) => return Err(error.into()),
        };
        let wrong = |what: &str| {
            Err(io::Error::other(format!("{what} after {} of {} bytes were back", self.back, self.sent)))
        };
        if read == 0 {
            return wrong("the server closed a connection");
        }
        if self.back + read as u64 > self.sent {
            return wrong("more came back than was sent");
        }
        if buffer[..read] != *text.at(self.origin + self.back, read) {
            return wrong("wrong bytes came back");
        }
        let complete = self.back / size;
        self.back += read as u64;
        Ok(self.back / size - complete)
    }
}
