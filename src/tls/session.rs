//! A TLS session over a channel's socket.

use std::io::{self, ErrorKind, IoSlice, Read};
use std::os::fd::BorrowedFd;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, Connection, HandshakeKind, ProtocolVersion, ServerConnection};

use crate::tls::exchange::{MARGIN, RECORD};
use crate::tls::plain_http::Beginning;
use crate::tls::{TlsClient, TlsServer, tls_error};
use crate::{Interest, Source, SourceWaker};

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
    pub(super) wire: Box<dyn Source>,
    pub(super) session: Connection,
    pub(super) stage: Stage,
    /// Bytes that are decrypted and were not read.
    pub(super) plain: usize,
    pub(super) end: End,
    /// What is wrong with what has come; told after what came before.
    pub(super) failed: Option<io::Error>,
    pub(super) farewell: Farewell,
    /// Encrypted bytes that wait for room. Known when the socket took less than all.
    pub(super) held: usize,
    /// Why nothing can be sent any more.
    pub(super) write_error: Option<io::Error>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// A server that may still be spoken to in the clear. Holds what has come.
    First(Beginning),
    Handshake,
    Open,
}

/// How far the peer's end is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    No,
    /// It has come, and was not read yet.
    Inside,
    Read,
}

/// How far our own end is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Farewell {
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
            failed: None,
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
        if self.stage != Stage::Open {
            return Err(ErrorKind::WouldBlock.into());
        }
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut result = None;
        if self.plain == 0 && self.end == End::No {
            result = match buffer.len() > MARGIN + RECORD {
                true => self.receive(buffer)?,
                false => self.receive_little()?,
            };
            // It may have to answer: a new key, an alert. What fails then is told by the next `send`.
            if self.session.wants_write() {
                let _ = self.flush();
            }
        }
        if let Some(read) = result {
            return Ok(read);
        }
        if self.plain > 0 {
            let read = self.session.reader().read(buffer)?;
            self.plain -= read;
            return Ok(read);
        }
        match self.end {
            End::No => Err(ErrorKind::WouldBlock.into()),
            End::Inside => {
                self.end = End::Read;
                let why = "TLS: the connection ended without close_notify, so bytes may be missing";
                self.session.reader().read(buffer).map_err(|_| self.cut_short(why))
            }
            End::Read => self.drop_input(buffer),
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
            Stage::Open => {
                let inside = self.plain > 0 || self.end == End::Inside || self.failed.is_some();
                inside || self.wire.input_pending()
            }
            Stage::First(_) | Stage::Handshake => self.wire.input_pending(),
        }
    }

    fn output_pending(&self) -> bool {
        self.wants_write() || self.wire.output_pending()
    }

    fn output_held(&self) -> usize {
        self.held + self.wire.output_held()
    }

    fn unacknowledged(&self) -> usize {
        self.wire.unacknowledged()
    }

    fn set_waker(&mut self, waker: &SourceWaker) {
        self.wire.set_waker(waker);
    }

    fn reset(&mut self) {
        self.wire.reset();
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
