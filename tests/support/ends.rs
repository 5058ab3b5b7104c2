//! The two ends of a connection, of every kind that there is: plain or with records around it, one
//! in a map, the other on a thread that waits.

use std::io::{self, ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use dispatch_loop::{ChannelMap, Dispatcher, Handle, Interest, Source};

use super::peers::{limit_time, pair};
use super::records::{Options, Records};
use super::waiting::DEADLINE;

/// A plain socket as a source, waiting or not.
pub struct Wire(pub socket2::Socket);

impl Source for Wire {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(buffer)
    }
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send_with_flags(bytes, libc::MSG_NOSIGNAL)
    }
    fn shutdown_write(&mut self) -> io::Result<()> {
        self.0.shutdown(std::net::Shutdown::Write)
    }
}

/// How the two ends of a connection are made.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// The loopback address; `None`: a Unix-domain pair.
    pub on: Option<&'static str>,
    /// 0 is a plain socket, 2 are records within records.
    pub layers: u8,
    /// The end in the map begins the handshake.
    pub client: bool,
    pub options: Options,
}

/// A plain socket of each family, records over each, records within records.
pub fn kinds() -> Vec<Kind> {
    let v6 = TcpListener::bind("[::1]:0").is_ok().then_some("[::1]:0");
    let families = [Some("127.0.0.1:0"), None].into_iter().chain(v6.map(Some));
    let options = Options::default();
    families
        .flat_map(|on| {
            [(0, true), (1, true), (1, false), (2, on.is_none())].map(|(layers, client)| (on, layers, client))
        })
        .map(|(on, layers, client)| Kind { on, layers, client, options })
        .collect()
}

/// Only those with a source of their own.
pub fn record_kinds() -> Vec<Kind> {
    kinds().into_iter().filter(|kind| kind.layers > 0).collect()
}

impl Kind {
    /// Two sockets, connected to each other; both wait. Not much room is between them, so that a
    /// queue is soon full.
    pub fn sockets(self) -> (socket2::Socket, socket2::Socket) {
        let (near, far): (socket2::Socket, socket2::Socket) = match self.on {
            Some(on) => {
                let (near, far) = pair(on.parse().unwrap());
                (near.into(), far.into())
            }
            None => {
                let (near, far) = UnixStream::pair().unwrap();
                (near.into(), far.into())
            }
        };
        near.set_send_buffer_size(32 * 1024).unwrap();
        far.set_recv_buffer_size(32 * 1024).unwrap();
        (near, far)
    }

    fn wrap(self, mut source: Box<dyn Source>, client: bool, blocking: bool) -> Box<dyn Source> {
        for _ in 0..self.layers {
            source = self.options.around(source, client, blocking);
        }
        source
    }

    /// Whether this tells of an end without a farewell.
    pub fn is_cut_short(self, told: &str) -> bool {
        let words =
            if self.options.with.is_none() { ["farewell"; 2] } else { ["close_notify", "mid-handshake"] };
        words.iter().any(|word| told.contains(word))
    }

    /// Make `socket` a channel: records begun by itself, or put around the plain channel.
    pub fn add<D: Dispatcher>(
        self,
        map: &mut ChannelMap,
        socket: socket2::Socket,
        client: bool,
        d: D,
    ) -> Handle<D> {
        if self.layers == 1 && client && self.options.with.is_none() {
            socket.set_nonblocking(true).unwrap();
            return map.add_source(Records::new(Box::new(Wire(socket)), client, self.options), d).unwrap();
        }
        let handle = map.add(TcpStream::from(OwnedFd::from(socket)), d).unwrap();
        if self.layers > 0 {
            let mut ch = map.channel(handle).unwrap();
            ch.wrap_source(move |plain| Ok(self.wrap(plain, client, false))).unwrap();
        }
        handle
    }

    /// Let `f` have the far end, waiting, on a thread of its own.
    pub fn far<T: Send + 'static>(
        self,
        socket: socket2::Socket,
        f: impl FnOnce(&mut Far) -> T + Send + 'static,
    ) -> JoinHandle<T> {
        limit_time(&socket);
        thread::spawn(move || {
            let raw = socket.try_clone().unwrap();
            let tls_in_tls = self.layers == 2 && self.options.with.is_some();
            let source = self.wrap(Box::new(Wire(socket)), !self.client, true);
            let mut far = Far { source, raw, tls_in_tls };
            far.until("the handshake", |source| match source.is_established() {
                true => Ok(Some(())),
                false => source.drive(Interest { read: true, write: true }).map(|_| None),
            })
            .unwrap();
            f(&mut far)
        })
    }

    /// Both: a channel for `d`, and a far end for `f`.
    pub fn open<D: Dispatcher, T: Send + 'static>(
        self,
        map: &mut ChannelMap,
        d: D,
        f: impl FnOnce(&mut Far) -> T + Send + 'static,
    ) -> (Handle<D>, JoinHandle<T>) {
        let (near, far) = self.sockets();
        (self.add(map, near, self.client, d), self.far(far, f))
    }
}

/// The far end of a connection, for a thread that may wait.
pub struct Far {
    source: Box<dyn Source>,
    raw: socket2::Socket,
    tls_in_tls: bool,
}

impl Far {
    fn until<T>(
        &mut self,
        what: &str,
        mut f: impl FnMut(&mut dyn Source) -> io::Result<Option<T>>,
    ) -> io::Result<T> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            assert!(Instant::now() < deadline, "the far end waits for {what}");
            if let Some(value) = f(&mut *self.source)? {
                return Ok(value);
            }
        }
    }

    pub fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let sent = self.until("room", |source| match source.send(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    source.drive(Interest { read: true, write: true }).map(|_| None)
                }
                result => result.map(Some),
            })?;
            bytes = &bytes[sent..];
        }
        Ok(())
    }

    /// 0 at the end of the stream.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.until("input", |source| match source.recv(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            result => result.map(Some),
        })
    }

    /// Until there are so many bytes.
    pub fn read_some(&mut self, wanted: usize) -> io::Result<Vec<u8>> {
        let mut got = vec![0; wanted];
        let mut at = 0;
        while at < wanted {
            match self.read(&mut got[at..])? {
                0 => break,
                read => at += read,
            }
        }
        got.truncate(at);
        Ok(got)
    }

    pub fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        self.read_some(64 << 20)
    }

    pub fn finish(&mut self) -> io::Result<()> {
        match self.source.shutdown_write() {
            // Of TLS within TLS, the end of the outer one is enough for the peer, which is gone by now.
            Err(_) if self.tls_in_tls => Ok(()),
            result => result,
        }
    }

    /// Let the drop reset the connection, where there is such a thing.
    pub fn reset(&mut self) {
        let _ = self.raw.set_linger(Some(Duration::ZERO));
    }
}
