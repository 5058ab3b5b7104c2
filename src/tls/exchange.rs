//! What goes on between a session and its socket: records in and out, the handshake, refusals.

use std::cell::Cell;
use std::io::{self, ErrorKind, IoSlice, Read, Write};

use rustix::io::Errno;

use crate::Source;
use crate::tls::plain_http;
use crate::tls::session::{End, Farewell, Stage, TlsSession};
use crate::tls::tls_error;

/// The most that a record holds; and more than what a session may hold of one that has not come whole.
pub(super) const RECORD: usize = 16 * 1024;
pub(super) const MARGIN: usize = RECORD + 1024;

thread_local! {
    /// What has arrived, on its way into a session: each thread has one buffer for all.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The buffer; given back when this is dropped. (A session within another one makes its own.)
struct Scratch(Vec<u8>);

impl Scratch {
    fn take() -> Scratch {
        // It may be gone before a map that ends with its thread.
        let mut buffer = SCRATCH.try_with(Cell::take).unwrap_or_default();
        if buffer.is_empty() {
            buffer = vec![0; 64 * 1024];
        }
        Scratch(buffer)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = SCRATCH.try_with(|kept| kept.set(std::mem::take(&mut self.0)));
    }
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
    pub(super) fn wants_write(&self) -> bool {
        self.session.wants_write() && self.write_error.is_none()
    }

    /// Send what is encrypted, as far as the socket takes it; whether anything was sent.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
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
            match self.session.write_tls(&mut Wire(&mut *self.wire)) {
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

    /// Read from the socket once, and go on with the handshake; `false` if there was nothing.
    pub(super) fn fill(&mut self) -> io::Result<bool> {
        // What may follow the handshake at once fits into the session.
        let mut scratch = Scratch::take();
        let read = match self.wire.recv(&mut scratch.0[..RECORD]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            read => read?,
        };
        let mut arrived = &scratch.0[..read];
        if let Stage::First(beginning) = &mut self.stage {
            beginning.add(arrived);
        }
        loop {
            let fed = self.session.read_tls(&mut arrived)?;
            self.digest(fed)?;
            if arrived.is_empty() {
                return Ok(true);
            }
        }
    }

    /// Read from the socket once, into a buffer that all sessions share, and decrypt from there into `buffer`,
    /// which has room for all that may come of it. `None` if that is nothing yet.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let mut scratch = Scratch::take();
        let most = (buffer.len() - MARGIN).min(scratch.0.len());
        let read = self.wire.recv(&mut scratch.0[..most])?;
        let mut arrived = &scratch.0[..read];
        let mut got = 0;
        loop {
            let fed = self.session.read_tls(&mut arrived)?;
            match self.digest(fed) {
                // After what came before.
                Err(error) if got > 0 => self.failed = Some(error),
                result => drop(result?),
            }
            if self.plain > 0 {
                let read = self.session.reader().read(&mut buffer[got..])?;
                self.plain -= read;
                got += read;
            }
            if arrived.is_empty() || self.end != End::No || self.failed.is_some() {
                return Ok((got > 0).then_some(got));
            }
        }
    }

    /// The same for a small buffer: what does not fit stays in the session.
    pub(super) fn receive_little(&mut self) -> io::Result<Option<usize>> {
        while self.plain == 0 && self.end == End::No {
            let read = self.session.read_tls(&mut Wire(&mut *self.wire))?;
            self.digest(read)?;
        }
        Ok(None)
    }

    /// Do what the records say that have come; `read` is 0 at the end of the connection.
    fn digest(&mut self, read: usize) -> io::Result<()> {
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
        Ok(())
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
    pub(super) fn cut_short(&self, why: &str) -> io::Error {
        let reset = self.write_error.as_ref().filter(|error| error.kind() == ErrorKind::ConnectionReset);
        reset.map_or_else(|| io::Error::new(ErrorKind::UnexpectedEof, why), copy)
    }

    /// As far as the handshake goes now; whether anything moved.
    pub(super) fn shake_hands(&mut self) -> io::Result<bool> {
        let mut flushed = self.flush();
        let mut moved = matches!(flushed, Ok(true));
        // If nothing can be sent, the peer may have said why.
        if self.fill()? {
            moved = true;
            flushed = self.flush();
        }
        match flushed {
            Err(error) if self.stage != Stage::Open => Err(error),
            // The next `send` tells; what has come may still be read.
            _ => Ok(moved),
        }
    }

    pub(super) fn take(
        &mut self,
        write: impl FnOnce(&mut dyn Write) -> io::Result<usize>,
    ) -> io::Result<usize> {
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
    pub(super) fn drop_input(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
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
