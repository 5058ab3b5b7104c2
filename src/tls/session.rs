//! A TLS session over a channel's socket.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, Connection, HandshakeKind, ProtocolVersion, ServerConnection};

use crate::tls::plain_http::{self, Beginning};
use crate::tls::{TlsClient, TlsServer, tls_error};
use crate::{Interest, Source};

/// Encrypted bytes that a session may hold while the socket takes none.
const HELD: usize = 32 * 1024;

/// A TLS session: the [`Source`] of a channel that speaks TLS. [`Channel::tls`](crate::Channel::tls) lends it,
/// for what was agreed on in the handshake.
///
/// ```
/// use dispatch_loop::{Channel, Dispatcher};
/// use std::io;
///
/// struct Polite;
///
/// impl Dispatcher for Polite {
///     fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
///         let told = match ch.tls() {
///             Some(tls) => format!("{:?}, {}\n", tls.version(), tls.cipher_suite().unwrap_or("?")),
///             None => "in the clear\n".to_owned(),
///         };
///         ch.push(told.as_bytes())
///     }
/// }
/// ```
pub struct TlsSession {
    wire: Box<dyn Source>,
    session: Connection,
    stage: Stage,
    /// Bytes that are decrypted and were not read.
    plain: usize,
    end: End,
    farewell: Farewell,
    /// Encrypted bytes that wait for room. Known when the socket took less than all.
    held: usize,
    /// Why nothing can be sent any more.
    write_error: Option<io::Error>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// A server that may still be spoken to in the clear. Holds what has come.
    First(Beginning),
    Handshake,
    Open,
}

/// How far the peer's end is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    No,
    /// It has come, and was not read yet.
    Inside,
    Read,
}

/// How far our own end is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Farewell {
    No,
    /// `close_notify` is in the session's buffer; FIN follows it.
    Due,
    Sent,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    V1_2,
    /// TLS 1.3 (RFC 8446).
    V1_3,
}

/// The socket, as rustls reads and writes it.
struct Wire<'a>(&'a mut dyn Source, Option<&'a mut Beginning>);

impl Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.recv(buffer)?;
        if let Some(beginning) = &mut self.1 {
            beginning.add(&buffer[..read]);
        }
        Ok(read)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.send_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TlsSession {
    /// The server's side of a connection, over the source of a channel: for
    /// [`wrap_source`](crate::Channel::wrap_source).
    ///
    /// # Errors
    /// rustls does not take the settings.
    pub fn server(wire: Box<dyn Source>, server: &TlsServer) -> io::Result<TlsSession> {
        let session = ServerConnection::new(server.config()).map_err(tls_error)?;
        Ok(TlsSession::new(wire, session.into(), Stage::First(Beginning::default())))
    }

    /// The client's side, which expects a certificate for `name`: a host name or an IP address.
    ///
    /// # Errors
    /// `InvalidInput` if that is neither.
    pub fn client(wire: Box<dyn Source>, client: &TlsClient, name: &str) -> io::Result<TlsSession> {
        let name = server_name(name)?;
        let session = ClientConnection::new(client.config(), name).map_err(tls_error)?;
        Ok(TlsSession::new(wire, session.into(), Stage::Handshake))
    }

    fn new(wire: Box<dyn Source>, mut session: Connection, stage: Stage) -> TlsSession {
        session.set_buffer_limit(Some(HELD));
        TlsSession {
            wire,
            session,
            stage,
            plain: 0,
            end: End::No,
            farewell: Farewell::No,
            held: 0,
            write_error: None,
        }
    }

    // What was agreed on.

    /// The version of the protocol; `None` before the handshake is done.
    pub fn version(&self) -> Option<TlsVersion> {
        match self.session.protocol_version()? {
            ProtocolVersion::TLSv1_2 => Some(TlsVersion::V1_2),
            ProtocolVersion::TLSv1_3 => Some(TlsVersion::V1_3),
            _ => None,
        }
    }

    /// The cipher suite, by the name that IANA gives it.
    pub fn cipher_suite(&self) -> Option<&'static str> {
        self.session.negotiated_cipher_suite()?.suite().as_str()
    }

    /// The protocol that both sides chose by ALPN, such as `b"h2"`.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.session.alpn_protocol()
    }

    /// On a server: the name that the client has asked for (SNI).
    pub fn server_name(&self) -> Option<&str> {
        match &self.session {
            Connection::Server(session) => session.server_name(),
            Connection::Client(_) => None,
        }
    }

    /// The peer's certificates in DER, its own first; none if it has shown none.
    pub fn peer_certificates(&self) -> impl Iterator<Item = &[u8]> {
        self.session.peer_certificates().unwrap_or_default().iter().map(|der| &**der)
    }

    /// Whether the handshake was a short one, because both sides remembered an earlier session.
    pub fn is_resumed(&self) -> bool {
        self.session.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    // The wire.

    fn wants_write(&self) -> bool {
        self.session.wants_write() && self.write_error.is_none()
    }

    /// Send what is encrypted, as far as the socket takes it; whether anything was sent.
    fn flush(&mut self) -> io::Result<bool> {
        if let Some(error) = &self.write_error {
            return Err(copy(error));
        }
        let flushed = self.try_to_flush();
        if self.held > 0 || self.session.wants_write() {
            self.held = self.session.process_new_packets().map_or(0, |state| state.tls_bytes_to_write());
        }
        if let Err(error) = &flushed {
            if !is_shortage(error) {
                self.write_error = Some(copy(error));
            }
        }
        flushed
    }

    fn try_to_flush(&mut self) -> io::Result<bool> {
        let mut moved = false;
        while self.session.wants_write() {
            match self.session.write_tls(&mut Wire(&mut *self.wire, None)) {
                Ok(0) => return Ok(moved),
                Ok(_) => moved = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(moved),
                Err(error) => return Err(error),
            }
        }
        if self.farewell == Farewell::Due {
            self.farewell = Farewell::Sent;
            self.wire.shutdown_write()?;
        }
        Ok(moved)
    }

    /// Read from the socket once, and decrypt; `false` if there is nothing now.
    fn fill(&mut self) -> io::Result<bool> {
        let beginning = match &mut self.stage {
            Stage::First(beginning) => Some(beginning),
            _ => None,
        };
        match self.session.read_tls(&mut Wire(&mut *self.wire, beginning)) {
            Ok(read) => self.digest(read),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Do what the records say that have come.
    fn digest(&mut self, read: usize) -> io::Result<bool> {
        let state = match self.session.process_new_packets() {
            Ok(state) => state,
            Err(error) => return Err(self.refuse(error)),
        };
        self.plain = state.plaintext_bytes_to_read();
        if read == 0 || state.peer_has_closed() {
            self.end = End::Inside;
        }
        match self.stage {
            Stage::Open => {}
            _ if !self.session.is_handshaking() => self.stage = Stage::Open,
            _ if self.end == End::Inside => {
                return Err(
                    self.cut_short("TLS: the peer ended the connection in mid-handshake, without a word")
                );
            }
            Stage::First(beginning) if beginning.is_tls() => self.stage = Stage::Handshake,
            _ => {}
        }
        Ok(true)
    }

    /// What has come is wrong. The peer is told so, as far as there is room: by an alert, or in its own words
    /// if it does not know that this is TLS.
    #[cold]
    fn refuse(&mut self, error: rustls::Error) -> io::Error {
        let is_http = matches!(self.stage, Stage::First(beginning) if beginning.is_http());
        if is_http {
            let _ = self.wire.send(plain_http::ANSWER);
            // Instead of the alert.
            self.write_error = Some(ErrorKind::BrokenPipe.into());
        }
        let _ = self.flush();
        // What nobody has read would reset the connection, and destroy what it was told.
        let mut rest = [0; 4096];
        for _ in 0..16 {
            if !matches!(self.wire.recv(&mut rest), Ok(1..)) {
                break;
            }
        }
        match is_http {
            true => io::Error::new(ErrorKind::InvalidData, "TLS: the client speaks plain HTTP"),
            false => tls_error(error),
        }
    }

    /// The system tells of a reset once; if it has told us when we sent something, the peer seems to have ended.
    fn cut_short(&self, why: &str) -> io::Error {
        let reset = self.write_error.as_ref().filter(|error| error.kind() == ErrorKind::ConnectionReset);
        reset.map_or_else(|| io::Error::new(ErrorKind::UnexpectedEof, why), copy)
    }

    /// As far as the handshake goes now; whether anything moved.
    fn shake_hands(&mut self) -> io::Result<bool> {
        let mut flushed = self.flush();
        let mut moved = matches!(flushed, Ok(true));
        // If nothing can be sent, the peer may have said why.
        while self.stage != Stage::Open && self.fill()? {
            moved = true;
            flushed = self.flush();
        }
        match flushed {
            Err(error) if self.stage != Stage::Open => Err(error),
            // The next `send` tells; what has come may still be read.
            _ => Ok(moved),
        }
    }

    fn take(&mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<usize>) -> io::Result<usize> {
        if self.stage != Stage::Open {
            return Err(ErrorKind::WouldBlock.into());
        }
        // It takes no more while the socket takes nothing.
        self.flush()?;
        if self.session.wants_write() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let taken = write(&mut self.session.writer())?;
        match self.flush() {
            // `drive` tries again.
            Err(error) if !is_shortage(&error) => Err(error),
            _ => Ok(taken),
        }
    }

    /// The peer has ended its part, but not the connection: what comes now means nothing.
    fn drop_input(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.wire.recv(buffer)? {
            0 => Ok(0),
            _ => Err(ErrorKind::WouldBlock.into()),
        }
    }
}

fn copy(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

/// Whether the same may succeed later.
fn is_shortage(error: &io::Error) -> bool {
    let of = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
    of(Errno::NOBUFS) || of(Errno::NOMEM)
}

/// `name` is a host name or an IP address.
pub(super) fn server_name(name: &str) -> io::Result<ServerName<'static>> {
    ServerName::try_from(name.to_owned()).map_err(|_| {
        let why = format!("{:?} is neither a host name nor an IP address", name);
        io::Error::new(ErrorKind::InvalidInput, why)
    })
}

impl Source for TlsSession {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.wire.descriptor()
    }

    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.stage != Stage::Open {
                return Err(ErrorKind::WouldBlock.into());
            }
            if self.plain > 0 {
                let read = self.session.reader().read(buffer)?;
                self.plain -= read;
                return Ok(read);
            }
            match self.end {
                End::No => {}
                End::Inside => {
                    self.end = End::Read;
                    let why = "TLS: the connection ended without close_notify, so bytes may be missing";
                    return self.session.reader().read(buffer).map_err(|_| self.cut_short(why));
                }
                End::Read => return self.drop_input(buffer),
            }
            if !self.fill()? {
                return Err(ErrorKind::WouldBlock.into());
            }
            // It may have to answer: a new key, an alert. What fails then is told by the next `send`.
            if self.session.wants_write() {
                let _ = self.flush();
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.take(|writer| writer.write(bytes))
    }

    fn send_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.take(|writer| writer.write_vectored(pieces))
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        self.session.send_close_notify();
        self.farewell = Farewell::Due;
        self.flush().map(drop)
    }

    fn is_established(&self) -> bool {
        self.stage == Stage::Open && self.wire.is_established()
    }

    fn interest(&self, wanted: Interest) -> Interest {
        let read = match self.stage {
            Stage::Open => wanted.read,
            Stage::First(_) | Stage::Handshake => true,
        };
        self.wire.interest(Interest { read, write: wanted.write || self.wants_write() })
    }

    fn drive(&mut self, ready: Interest) -> io::Result<bool> {
        let moved = self.wire.drive(ready)?;
        if !self.wire.is_established() {
            return Ok(moved);
        }
        if self.stage != Stage::Open {
            return Ok(moved | self.shake_hands()?);
        }
        // If that fails, the next `send` tells: what has come may still be read.
        Ok(moved | self.flush().unwrap_or(false))
    }

    fn input_pending(&self) -> bool {
        match self.stage {
            Stage::Open => self.plain > 0 || self.end == End::Inside || self.wire.input_pending(),
            Stage::First(_) | Stage::Handshake => self.wire.input_pending(),
        }
    }

    fn output_pending(&self) -> bool {
        self.wants_write() || self.wire.output_pending()
    }

    fn output_held(&self) -> usize {
        self.held + self.wire.output_held()
    }
}

impl std::fmt::Debug for TlsSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsSession")
            .field("version", &self.version())
            .field("cipher_suite", &self.cipher_suite())
            .field("established", &self.is_established())
            .finish_non_exhaustive()
    }
}
