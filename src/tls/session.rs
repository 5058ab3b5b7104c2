//! A TLS session over a channel's socket.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::BorrowedFd;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, Connection, HandshakeKind, ProtocolVersion, ServerConnection};

use crate::tls::{TlsClient, TlsServer, plain_http, tls_error};
use crate::{Interest, Source};

/// Encrypted bytes that a session may hold while the socket takes none.
const HELD: usize = 64 * 1024;

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
    /// The peer's end has come, and was not read yet.
    end_inside: bool,
    farewell: Farewell,
    /// Nothing can be sent any more; told once more by the next `send`.
    write_error: Option<ErrorKind>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// A server that has not got a byte.
    First,
    Handshake,
    Open,
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
struct Wire<'a>(&'a mut dyn Source);

impl Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.recv(buffer)
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
        Ok(TlsSession::new(wire, session.into(), Stage::First))
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
            end_inside: false,
            farewell: Farewell::No,
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

    /// Send what is encrypted, as far as the socket takes it; whether anything was sent.
    fn flush(&mut self) -> io::Result<bool> {
        let mut moved = false;
        while self.session.wants_write() {
            match self.session.write_tls(&mut Wire(&mut *self.wire)) {
                Ok(0) => return Ok(moved),
                Ok(_) => moved = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(moved),
                Err(error) => return Err(error),
            }
        }
        if self.farewell == Farewell::Due {
            self.wire.shutdown_write()?;
            self.farewell = Farewell::Sent;
        }
        Ok(moved)
    }

    /// Read from the socket once, and decrypt; `false` if there is nothing now.
    fn fill(&mut self) -> io::Result<bool> {
        if self.stage == Stage::First {
            return self.first_fill();
        }
        match self.session.read_tls(&mut Wire(&mut *self.wire)) {
            Ok(read) => self.digest(read),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The first bytes of a client: a browser that does not know that this is TLS is told so.
    fn first_fill(&mut self) -> io::Result<bool> {
        let mut first = [0; 4096];
        let read = match self.wire.recv(&mut first) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            read => read?,
        };
        let mut first = &first[..read];
        if plain_http::is_request(first) {
            let _ = self.wire.send(plain_http::ANSWER);
            return Err(io::Error::new(ErrorKind::InvalidData, "TLS: the client speaks plain HTTP"));
        }
        self.stage = Stage::Handshake;
        while !first.is_empty() {
            self.session.read_tls(&mut first)?;
            self.digest(read)?;
        }
        Ok(true)
    }

    /// Do what the records say that have come.
    fn digest(&mut self, read: usize) -> io::Result<bool> {
        let state = match self.session.process_new_packets() {
            Ok(state) => state,
            Err(error) => {
                // The peer is told by an alert, if there is room for it.
                let _ = self.flush();
                return Err(tls_error(error));
            }
        };
        self.plain = state.plaintext_bytes_to_read();
        self.end_inside = read == 0 || state.peer_has_closed();
        if self.stage == Stage::Handshake {
            if !self.session.is_handshaking() {
                self.stage = Stage::Open;
            } else if self.end_inside {
                let why = "TLS: the peer ended the connection in mid-handshake";
                return Err(io::Error::new(ErrorKind::UnexpectedEof, why));
            }
        }
        Ok(true)
    }

    /// As far as the handshake goes now; whether anything moved.
    fn shake_hands(&mut self) -> io::Result<bool> {
        let mut moved = self.flush()?;
        while self.stage != Stage::Open && self.fill()? {
            moved = true;
            self.flush()?;
        }
        Ok(moved)
    }

    /// Flush after something was taken: an error is told by the next call.
    fn flush_later(&mut self) {
        if let Err(error) = self.flush() {
            self.write_error = Some(error.kind());
        }
    }

    fn take(&mut self, write: impl FnOnce(&mut dyn Write) -> io::Result<usize>) -> io::Result<usize> {
        if let Some(kind) = self.write_error {
            return Err(kind.into());
        }
        if self.stage != Stage::Open {
            return Err(ErrorKind::WouldBlock.into());
        }
        // It takes no more while the socket takes nothing.
        self.flush()?;
        if self.session.wants_write() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let taken = write(&mut self.session.writer())?;
        self.flush_later();
        Ok(taken)
    }
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
            if self.plain > 0 || self.end_inside {
                let read = self.session.reader().read(buffer);
                self.plain -= self.plain.min(*read.as_ref().unwrap_or(&self.plain));
                return match read {
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                        let why = "TLS: the connection ended without close_notify, so bytes may be missing";
                        Err(io::Error::new(ErrorKind::UnexpectedEof, why))
                    }
                    read => read,
                };
            }
            if !self.fill()? {
                return Err(ErrorKind::WouldBlock.into());
            }
            // It may have to answer: a new key, an alert.
            if self.session.wants_write() {
                self.flush_later();
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
            Stage::First | Stage::Handshake => true,
        };
        self.wire.interest(Interest { read, write: wanted.write || self.session.wants_write() })
    }

    fn drive(&mut self, ready: Interest) -> io::Result<bool> {
        let moved = self.wire.drive(ready)?;
        if !self.wire.is_established() {
            return Ok(moved);
        }
        if self.stage != Stage::Open {
            return Ok(moved | self.shake_hands()?);
        }
        match self.flush() {
            Ok(flushed) => Ok(moved | flushed),
            // What has come may still be read.
            Err(error) => {
                self.write_error = Some(error.kind());
                Ok(true)
            }
        }
    }

    fn input_pending(&self) -> bool {
        match self.stage {
            Stage::Open => self.plain > 0 || self.end_inside || self.wire.input_pending(),
            Stage::First | Stage::Handshake => self.wire.input_pending(),
        }
    }

    fn output_pending(&self) -> bool {
        // After a failed write nothing more leaves.
        (self.session.wants_write() && self.write_error.is_none()) || self.wire.output_pending()
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
