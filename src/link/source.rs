//! What a channel reads and writes: a plain socket, or something that speaks through one, as a TLS
//! session does. The core asks a source; it assumes nothing of it.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys;
use crate::sys::poll::Interest;

/// What a channel reads and writes, over a non-blocking socket that it owns.
///
/// Implement it for what changes the bytes under way: encryption, compression, records. A plain
/// socket needs none: [`add`](crate::ChannelMap::add) takes it as it is. Give a source to
/// [`add_source`](crate::ChannelMap::add_source), or put it around a living channel's socket with
/// [`wrap_source`](crate::Channel::wrap_source).
///
/// It owns its descriptor and keeps it, the same one, for as long as it lives. No method may wait: `WouldBlock` says that there is nothing to be done now.
///
/// ```
/// use dispatch_loop::Source;
/// use std::io;
/// use std::os::fd::{AsFd, BorrowedFd};
/// use std::os::unix::net::UnixStream;
///
/// /// Every byte with its bits turned over, both ways.
/// struct Inverted(UnixStream);
///
/// impl Source for Inverted {
///     fn descriptor(&self) -> Option<BorrowedFd<'_>> {
///         Some(self.0.as_fd())
///     }
///     fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
///         let n = io::Read::read(&mut self.0, buffer)?;
///         buffer[..n].iter_mut().for_each(|byte| *byte = !*byte);
///         Ok(n)
///     }
///     fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
///         let inverted: Vec<u8> = bytes.iter().map(|byte| !byte).collect();
///         io::Write::write(&mut self.0, &inverted)
///     }
///     fn shutdown_write(&mut self) -> io::Result<()> {
///         self.0.shutdown(std::net::Shutdown::Write)
///     }
/// }
/// ```
pub trait Source: 'static {
    /// The socket to wait for, the same one for as long as the source lives. `None` if there is none:
    /// then the source itself says when it is ready, by
    /// [`source_ready`](crate::Channel::source_ready).
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;

    /// Input: as `recv(2)`. `Ok(0)` is the end of the stream, after which the socket may be closed:
    /// a source whose peer may still send something after its farewell gives it when the socket
    /// itself has ended. `WouldBlock`, also in the midst of a record, says that more must come
    /// first.
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Output: as `send(2)`, how much of `bytes` was taken. A source that keeps some inside until
    /// there is room says so in [`output_pending`](Source::output_pending), and takes no more
    /// while that is much.
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Output in pieces: as `sendmsg(2)`. By default the first piece that is not empty.
    fn send_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match pieces.iter().find(|piece| !piece.is_empty()) {
            Some(piece) => self.send(piece),
            None => Ok(0),
        }
    }

    /// No more output: the source's own farewell, then `shutdown(SHUT_WR)`. Called once. What
    /// cannot go out now is left in [`output_pending`](Source::output_pending) for
    /// [`drive`](Source::drive).
    fn shutdown_write(&mut self) -> io::Result<()>;

    /// Whether data can pass: `false` during a handshake. `handle_open` waits for it.
    fn is_established(&self) -> bool {
        true
    }

    /// What the socket must be ready for, if the channel waits for `wanted`. A source with output
    /// inside, or in a handshake, adds what it needs itself.
    fn interest(&self, wanted: Interest) -> Interest {
        wanted
    }

    /// The socket is ready: go on with a handshake, flush what is inside, until the socket would
    /// block. `Ok(true)` if that moved anything. Comes before the channel reads and writes. An `Err`
    /// ends the channel at once; an error that leaves input to be read is better kept for the next
    /// [`send`](Source::send).
    fn drive(&mut self, ready: Interest) -> io::Result<bool> {
        let _ = ready;
        Ok(false)
    }

    /// Whether [`recv`](Source::recv) has something to give without the socket being ready.
    fn input_pending(&self) -> bool {
        false
    }

    /// Whether something that was taken is still inside, not yet given to the socket.
    fn output_pending(&self) -> bool {
        false
    }
}

/// A socket without anything around it.
#[derive(Debug)]
pub(crate) struct Plain(pub(crate) OwnedFd);

impl Plain {
    #[inline]
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Source for Plain {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd())
    }

    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        sys::stream::recv(self.fd(), buffer)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        sys::stream::send(self.fd(), bytes)
    }

    fn send_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        sys::stream::send_vectored(self.fd(), pieces)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        sys::stream::shutdown_write(self.fd())
    }
}
