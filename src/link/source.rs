//! What a channel reads and writes: a plain socket, or a layer over one, such as a TLS session. The core
//! asks a source and assumes nothing about it.

use std::any::Any;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys;
use crate::sys::poll::Interest;
use crate::threads::source_waker::SourceWaker;

/// What a channel reads and writes, over a non-blocking socket that it owns.
///
/// Implement it for something that transforms the bytes: encryption, compression, records. A plain
/// socket needs no source: [`add`](crate::ChannelMap::add) takes it as it is. Pass a source to
/// [`add_source`](crate::ChannelMap::add_source), or put it around a living channel's socket with
/// [`wrap_source`](crate::Channel::wrap_source).
///
/// It owns its descriptor. If it exchanges it for another, the channel goes on with that one from the next
/// time that the loop looks at it ([`source_ready`](crate::Channel::source_ready) asks it to, and must be called if
/// the old one was closed first, so that the new one may have its number); the old one must not have been
/// duplicated, because then closing it does not take it out of epoll. No method may wait: `WouldBlock` means that
/// nothing can be done now.
///
/// ```
/// use dispatch_loop::Source;
/// use std::io;
/// use std::os::fd::{AsFd, BorrowedFd};
/// use std::os::unix::net::UnixStream;
///
/// /// Inverts every byte, in both directions.
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
pub trait Source: Any {
    /// The socket to wait for. `None` if there is none: then readiness is announced, by the waker that
    /// [`set_waker`](Source::set_waker) is given, or by [`source_ready`](crate::Channel::source_ready).
    fn descriptor(&self) -> Option<BorrowedFd<'_>>;

    /// Input, as `recv(2)`. `Ok(0)` is the end of the stream, after which the socket may be closed: if
    /// the peer may send after its close_notify, report the end only at the socket's own end.
    /// `WouldBlock`, also in the middle of a record, means that more must arrive first.
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Output, as `send(2)`: how much of `bytes` was taken. A source that buffers some until there is
    /// room returns `true` from [`output_pending`](Source::output_pending), and takes no more while it
    /// has much buffered. The system's `ENOBUFS` and `ENOMEM`, passed on as they are, mean that the bytes
    /// are to be offered again later.
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Output in pieces, as `sendmsg(2)`. By default sends the first piece that is not empty.
    fn send_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match pieces.iter().find(|piece| !piece.is_empty()) {
            Some(piece) => self.send(piece),
            None => Ok(0),
        }
    }

    /// End the output: the source's own end (TLS's close_notify), then `shutdown(SHUT_WR)`. Called once.
    /// What cannot be sent now stays [pending](Source::output_pending), and is sent by
    /// [`drive`](Source::drive).
    fn shutdown_write(&mut self) -> io::Result<()>;

    /// Whether data can be sent and received: `false` during a handshake, for which `handle_open` waits.
    fn is_established(&self) -> bool {
        true
    }

    /// What the socket must be ready for when the channel waits for `wanted`. A source with buffered
    /// output, or in a handshake, adds what it needs itself.
    fn interest(&self, wanted: Interest) -> Interest {
        wanted
    }

    /// The socket is ready: continue a handshake and flush what is buffered, until the socket would
    /// block. `Ok(true)` if anything moved. Called before the channel reads and writes. An `Err` ends the
    /// channel at once; if input is left to be read, keep the error for the next
    /// [`send`](Source::send).
    fn drive(&mut self, ready: Interest) -> io::Result<bool> {
        let _ = ready;
        Ok(false)
    }

    /// Whether [`recv`](Source::recv) can return something without the socket being ready.
    fn input_pending(&self) -> bool {
        false
    }

    /// Whether something that was taken is still buffered, not yet passed to the socket.
    fn output_pending(&self) -> bool {
        false
    }

    /// How many bytes that is. They count as queued towards the channel's watermarks and limits, and those of
    /// the map.
    fn output_held(&self) -> usize {
        0
    }

    /// How many bytes it has passed on that are still on their way to the peer, `SIOCOUTQ` of a socket: that they
    /// become fewer is a sign of life. Asked only if there is no descriptor. A source around another one asks it.
    fn unacknowledged(&self) -> usize {
        0
    }

    /// A source without a descriptor has become a channel's: `waker` is what tells that it is ready, for whoever
    /// brings its input and takes its output to keep. A source around another one passes it on. Not called if
    /// there is a descriptor.
    fn set_waker(&mut self, waker: &SourceWaker) {
        let _ = waker;
    }

    /// The channel ends by a reset, and this is about to be dropped: what it still holds is not to be sent, and
    /// must not look like all there was. Called once, if there is no descriptor, for which the socket's own reset
    /// does that. A source around another one passes it on.
    fn reset(&mut self) {}
}

/// Makes a new source out of the one that a channel has.
pub(crate) type MakeSource = Box<dyn FnOnce(Box<dyn Source>) -> io::Result<Box<dyn Source>>>;

/// A plain socket.
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
