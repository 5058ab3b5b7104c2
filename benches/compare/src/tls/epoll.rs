//! By hand on epoll: rustls is fed from one shared buffer, so that a message of any size is one `recv`, and what
//! it has encrypted leaves in one `writev`.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};

use crate::servers::{BATCH, BUFFER, Table};

struct Connection {
    socket: TcpStream,
    session: ServerConnection,
    /// It waits for room; nothing is read meanwhile.
    is_blocked: bool,
}

struct Buffers {
    encrypted: Vec<u8>,
    plain: Vec<u8>,
}

pub(super) fn serve(listener: TcpListener) -> io::Result<()> {
    let config = config().map_err(io::Error::other)?;
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let listener_key = listener.as_raw_fd() as usize;
    epoll::add(&epoll, &listener, EventData::new_u64(listener_key as u64), EventFlags::IN)?;
    let mut connections = Table::new();
    let mut buffers = Buffers { encrypted: vec![0; BUFFER], plain: vec![0; BUFFER] };
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
                accept(&listener, &epoll, &config, &mut connections)?;
            } else if let Some(connection) = connections.get_mut(key) {
                if connection.serve(&epoll, &mut buffers).is_err() {
                    connections.remove(key);
                }
            }
        }
    }
}

fn config() -> Result<Arc<ServerConfig>, Box<dyn std::error::Error + Send + Sync>> {
    let folder = super::served_folder();
    let chain = CertificateDer::pem_file_iter(folder.join("cert.pem"))?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key)?;
    config.ticketer = rustls::crypto::ring::Ticketer::new()?;
    Ok(Arc::new(config))
}

fn accept(
    listener: &TcpListener,
    epoll: &OwnedFd,
    config: &Arc<ServerConfig>,
    connections: &mut Table<Connection>,
) -> io::Result<()> {
    loop {
        match rustix::net::accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok(socket) => {
                let key = socket.as_raw_fd() as usize;
                epoll::add(epoll, &socket, EventData::new_u64(key as u64), EventFlags::IN)?;
                let session = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
                let socket = TcpStream::from(socket);
                connections.insert(key, Connection { socket, session, is_blocked: false });
            }
            Err(Errno::WOULDBLOCK) => return Ok(()),
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

impl Connection {
    /// An error ends the connection.
    fn serve(&mut self, epoll: &OwnedFd, buffers: &mut Buffers) -> io::Result<()> {
        if !self.is_blocked {
            let read = match self.socket.read(&mut buffers.encrypted) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let mut left = &buffers.encrypted[..read];
            while !left.is_empty() {
                self.session.read_tls(&mut left)?;
                let state = self.session.process_new_packets().map_err(io::Error::other)?;
                if state.plaintext_bytes_to_read() > 0 {
                    let read = self.session.reader().read(&mut buffers.plain)?;
                    self.session.writer().write_all(&buffers.plain[..read])?;
                }
            }
        }
        let was_blocked = self.is_blocked;
        self.is_blocked = false;
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.is_blocked = true;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        if was_blocked != self.is_blocked {
            let flags = if self.is_blocked { EventFlags::OUT } else { EventFlags::IN };
            epoll::modify(epoll, &self.socket, EventData::new_u64(self.socket.as_raw_fd() as u64), flags)?;
        }
        Ok(())
    }
}
