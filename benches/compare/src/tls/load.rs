//! The load over TLS: messages there and back on connections that stay, or connections that are made with a full
//! handshake, have a byte echoed, and are closed.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::load::{BATCH, Load, PATIENCE, close_by_reset};

pub(super) struct Work {
    epoll: OwnedFd,
    events: Vec<Event>,
    address: SocketAddr,
    config: Arc<ClientConfig>,
    peers: Vec<Option<Peer>>,
    message: Vec<u8>,
    /// Each message has a connection of its own.
    one_each: bool,
    budget: u64,
    in_flight: u64,
    done: u64,
}

struct Peer {
    socket: TcpStream,
    session: ClientConnection,
    /// Bytes of its message that are back.
    back: usize,
    is_busy: bool,
}

impl Work {
    /// Messages of `size` bytes; 0: connections.
    pub(super) fn open(address: SocketAddr, connections: usize, size: usize) -> io::Result<Work> {
        let mut work = Work {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(BATCH),
            address,
            config: config().map_err(io::Error::other)?,
            peers: (0..connections).map(|_| None).collect(),
            message: (0..size.max(1)).map(|at| (at * 31 + at / 251) as u8).collect(),
            one_each: size == 0,
            budget: 0,
            in_flight: 0,
            done: 0,
        };
        if !work.one_each {
            // Each is proved with a message.
            work.exactly(connections as u64)?;
        }
        Ok(work)
    }

    fn start(&mut self, budget: u64) -> io::Result<()> {
        self.budget = budget;
        for at in 0..self.peers.len() {
            if self.peers[at].as_ref().is_none_or(|peer| !peer.is_busy) {
                self.issue(at)?;
            }
        }
        Ok(())
    }

    /// One more message on this connection, which is made if need be.
    fn issue(&mut self, at: usize) -> io::Result<()> {
        if self.budget == 0 {
            return Ok(());
        }
        self.budget -= 1;
        self.in_flight += 1;
        if self.peers[at].is_none() {
            let socket = TcpStream::connect_timeout(&self.address, PATIENCE)?;
            close_by_reset(&socket)?;
            socket.set_nodelay(true)?;
            socket.set_nonblocking(true)?;
            epoll::add(&self.epoll, &socket, EventData::new_u64(at as u64), EventFlags::IN)?;
            let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
            let session = ClientConnection::new(self.config.clone(), name).map_err(io::Error::other)?;
            self.peers[at] = Some(Peer { socket, session, back: 0, is_busy: true });
        }
        if let Some(peer) = &mut self.peers[at] {
            peer.is_busy = true;
            peer.back = 0;
            // Before the end of the handshake it is kept.
            peer.session.writer().write_all(&self.message)?;
            peer.flush()?;
        }
        Ok(())
    }

    fn settle(&mut self) -> io::Result<()> {
        while self.in_flight > 0 {
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> io::Result<()> {
        self.events.clear();
        let patience = Timespec::try_from(PATIENCE).expect("some seconds");
        if epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&patience))? == 0 {
            return Err(io::Error::other(format!("no progress: {} are not back", self.in_flight)));
        }
        for event in 0..self.events.len() {
            let at = self.events[event].data.u64() as usize;
            let Some(peer) = &mut self.peers[at] else { continue };
            if peer.advance(&self.message)? {
                self.in_flight -= 1;
                self.done += 1;
                if self.one_each {
                    self.peers[at] = None;
                }
                self.issue(at)?;
            }
        }
        Ok(())
    }
}

fn config() -> Result<Arc<ClientConfig>, Box<dyn std::error::Error + Send + Sync>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(super::own_folder().join("ca.pem"))?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

impl Peer {
    fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.socket) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                result => drop(result?),
            }
        }
        Ok(())
    }

    /// Read what has come; whether the message is back.
    fn advance(&mut self, message: &[u8]) -> io::Result<bool> {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.session.read_tls(&mut self.socket) {
                Ok(0) => return Err(io::Error::other("the server closed a connection")),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            let state = self.session.process_new_packets().map_err(io::Error::other)?;
            if state.plaintext_bytes_to_read() > 0 {
                let read = self.session.reader().read(&mut buffer)?;
                if message.get(self.back..self.back + read) != Some(&buffer[..read]) {
                    return Err(io::Error::other("wrong bytes came back"));
                }
                self.back += read;
            }
        }
        self.flush()?;
        let is_back = self.is_busy && self.back == message.len();
        self.is_busy &= !is_back;
        Ok(is_back)
    }
}

impl Load for Work {
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
