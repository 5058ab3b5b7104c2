//! The source of a channel that may begin with a PROXY header: it reads that and not a byte more, or sees to it
//! that there is none. Then the plain socket takes its place.

use std::any::Any;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::link::held::Held;
use crate::link::source::{Plain, Source};
use crate::link::state::Link;
use crate::net::proxy::{self, Missing, Proxied, ProxyHeader};
use crate::sys;
use crate::sys::errno::would_block;
use crate::sys::poll::Interest;

struct Preface {
    plain: Plain,
    stage: Stage,
}

enum Stage {
    /// A header must come; this much of it has.
    Awaited {
        start: Vec<u8>,
        most: usize,
        timeout: Duration,
    },
    Complete(ProxyHeader),
    /// None may come; so many bytes have, and they are the start of one.
    Unwanted {
        matched: usize,
        signature: &'static [u8],
    },
    /// It is clear that none comes.
    Absent,
}

impl Source for Preface {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.plain.descriptor()
    }

    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.is_established() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let read = self.plain.recv(buffer)?;
        self.look_for_a_header(&buffer[..read])?;
        Ok(read)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.is_established() {
            true => self.plain.send(bytes),
            false => Err(ErrorKind::WouldBlock.into()),
        }
    }

    fn send_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.is_established() {
            true => self.plain.send_vectored(pieces),
            false => Err(ErrorKind::WouldBlock.into()),
        }
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        self.plain.shutdown_write()
    }

    fn is_established(&self) -> bool {
        !matches!(self.stage, Stage::Awaited { .. })
    }

    fn interest(&self, wanted: Interest) -> Interest {
        match self.is_established() {
            true => wanted,
            false => Interest { read: true, write: false },
        }
    }

    fn drive(&mut self, _: Interest) -> io::Result<bool> {
        let Stage::Awaited { start, most, .. } = &mut self.stage else { return Ok(false) };
        let before = start.len();
        match read_header(&self.plain, start, *most) {
            Ok(header) => {
                self.stage = Stage::Complete(header);
                Ok(true)
            }
            Err(error) if would_block(&error) => Ok(start.len() > before),
            Err(error) => Err(error),
        }
    }
}

impl Preface {
    /// Bytes have come from somebody who may send no header.
    fn look_for_a_header(&mut self, read: &[u8]) -> io::Result<()> {
        let Stage::Unwanted { matched, signature } = &mut self.stage else { return Ok(()) };
        if *matched == 0 && proxy::begins(read, proxy::v1::SIGNATURE) {
            *signature = proxy::v1::SIGNATURE;
        }
        let left = &signature[*matched..];
        if !proxy::begins(read, left) {
            self.stage = Stage::Absent;
        } else if read.len() >= left.len() {
            return Err(proxy::wrong("a PROXY header of somebody who is not trusted"));
        } else {
            *matched += read.len();
        }
        Ok(())
    }
}

/// Read what is there of the header, and not a byte behind it. `WouldBlock` if it goes on.
fn read_header(plain: &Plain, start: &mut Vec<u8>, most: usize) -> io::Result<ProxyHeader> {
    loop {
        let wanted = match proxy::missing(start, most)? {
            Missing::Nothing => return proxy::parsed(start),
            Missing::Bytes(wanted) => wanted,
            Missing::Line(longest) => {
                let mut ahead = vec![0; longest];
                let seen = sys::stream::peek(plain.fd(), &mut ahead)?;
                // At the end of input, the read finds it.
                proxy::line_within(&ahead[..seen]).max(1)
            }
        };
        let had = start.len();
        start.resize(had + wanted, 0);
        let read = sys::stream::recv(plain.fd(), &mut start[had..]);
        start.truncate(had + read.as_ref().map_or(0, |read| *read));
        if read? == 0 {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "it ended in the PROXY header"));
        }
    }
}

impl Link {
    /// The connection, which was just made, must begin with a header.
    pub(crate) fn expect_header(&mut self, most: usize, timeout: Duration) {
        self.begin_with(Stage::Awaited { start: Vec::new(), most, timeout });
    }

    /// It must not begin with one.
    pub(crate) fn refuse_header(&mut self) {
        self.begin_with(Stage::Unwanted { matched: 0, signature: proxy::v2::SIGNATURE });
    }

    fn begin_with(&mut self, stage: Stage) {
        self.socket = match self.socket.take() {
            Some(Held::Plain(plain)) => Some(Held::own(Box::new(Preface { plain, stage }))),
            other => other,
        };
    }

    fn preface(&self) -> Option<&Preface> {
        self.socket.as_ref()?.as_type()
    }

    pub(crate) fn awaits_header(&self) -> bool {
        self.preface().is_some_and(|preface| !preface.is_established())
    }

    /// How long the channel waits for a header, if it does.
    pub(crate) fn header_timeout(&self) -> Option<Duration> {
        match self.preface()?.stage {
            Stage::Awaited { timeout, .. } => Some(timeout),
            _ => None,
        }
    }

    /// The header has come, or it is clear that none does: the plain socket takes the place of what has looked for
    /// it. `true` if there is a header.
    pub(crate) fn end_preface(&mut self) -> bool {
        match self.preface() {
            Some(Preface { stage: Stage::Complete(_) | Stage::Absent, .. }) => self.drop_preface(),
            _ => false,
        }
    }

    /// The same, also while none has come of somebody who may send none. (A source that is put around the socket
    /// has a first byte of its own.)
    pub(crate) fn drop_preface(&mut self) -> bool {
        if !self.preface().is_some_and(Preface::is_established) {
            return false;
        }
        let source = self.socket.take().map(Held::into_box);
        let Some(Ok(preface)) = source.map(|source| (source as Box<dyn Any>).downcast::<Preface>()) else {
            return false;
        };
        self.socket = Some(Held::Plain(preface.plain));
        let Stage::Complete(header) = preface.stage else { return false };
        self.has_header(header);
        true
    }

    fn has_header(&mut self, header: ProxyHeader) {
        let balancer = self.peer();
        self.set_peer(header.source().cloned());
        self.rare().proxied = Some(Box::new(Proxied { header, balancer }));
    }

    pub(crate) fn proxied(&self) -> Option<&Proxied> {
        self.rare.as_ref()?.proxied.as_deref()
    }
}
