//! What a source without a descriptor wakes its channel with, from any thread.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::token::Token;

/// Wakes the channel of a source that has no descriptor: its input, or room for its output, has come.
///
/// A source is given it by [`set_waker`](crate::Source::set_waker), and passes clones to whoever fills and
/// empties it, on this or any other thread. [`wake`](SourceWaker::wake) has the channel served in the next turn,
/// as [`source_ready`](crate::Channel::source_ready) does, which it calls.
///
/// ```
/// use dispatch_loop::{Channel, ChannelMap, Dispatcher, Source, SourceWaker};
/// use std::io;
/// use std::os::fd::BorrowedFd;
/// use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
///
/// /// A stream over a queue of the standard library.
/// struct Queue {
///     pieces: Receiver<Vec<u8>>,
///     who_fills_it: Sender<SourceWaker>,
/// }
///
/// impl Source for Queue {
///     fn descriptor(&self) -> Option<BorrowedFd<'_>> {
///         None
///     }
///     fn set_waker(&mut self, waker: &SourceWaker) {
///         let _ = self.who_fills_it.send(waker.clone());
///     }
///     fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
///         match self.pieces.try_recv() {
///             Ok(piece) => {
///                 buffer[..piece.len()].copy_from_slice(&piece);      // all are small
///                 Ok(piece.len())
///             }
///             Err(TryRecvError::Empty) => Err(io::ErrorKind::WouldBlock.into()),
///             Err(TryRecvError::Disconnected) => Ok(0),
///         }
///     }
///     fn send(&mut self, _: &[u8]) -> io::Result<usize> {
///         Err(io::ErrorKind::Unsupported.into())
///     }
///     fn shutdown_write(&mut self) -> io::Result<()> {
///         Ok(())
///     }
/// }
///
/// struct Count(usize);
///
/// impl Dispatcher for Count {
///     fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
///         let mut buffer = [0; 100];
///         loop {
///             match ch.recv(&mut buffer)? {                            // until it would block
///                 0 => return Ok(()),
///                 n => self.0 += n,
///             }
///         }
///     }
///     fn handle_close(&mut self, _: &mut Channel<'_>, _: &dispatch_loop::Reason) {
///         assert_eq!(self.0, 6);
///     }
/// }
///
/// let (pieces, from) = channel();
/// let (who_fills_it, waker) = channel();
/// let mut map = ChannelMap::new()?;
/// map.add_source(Queue { pieces: from, who_fills_it }, Count(0))?;
/// let waker: SourceWaker = waker.recv().unwrap();
/// std::thread::spawn(move || {
///     for piece in ["abc", "def"] {
///         pieces.send(piece.into()).unwrap();
///         waker.wake();
///     }
///     drop(pieces);
///     waker.wake();
/// });
/// dispatch_loop::run(&mut map)?;
/// # io::Result::Ok(())
/// ```
#[derive(Clone)]
pub struct SourceWaker(Arc<Inner>);

struct Inner {
    token: Token,
    /// It was woken, and not served since.
    awake: AtomicBool,
    /// Has the loop's thread serve the channel.
    wake: Box<dyn Fn(&SourceWaker) + Send + Sync>,
}

impl SourceWaker {
    pub(crate) fn new(token: Token, wake: Box<dyn Fn(&SourceWaker) + Send + Sync>) -> SourceWaker {
        SourceWaker(Arc::new(Inner { token, awake: AtomicBool::new(false), wake }))
    }

    /// Have the channel served: its source is asked for input, and offered output that waits. It never waits
    /// itself; calls before the channel is served count as one, and after its end have no effect.
    pub fn wake(&self) {
        if !self.0.awake.swap(true, Ordering::AcqRel) {
            (self.0.wake)(self);
        }
    }

    /// The loop is about to look at the channel: what is told from now on is news.
    pub(crate) fn is_heard(&self) {
        self.0.awake.swap(false, Ordering::AcqRel);
    }

    /// The channel that it wakes.
    pub fn token(&self) -> Token {
        self.0.token
    }
}

impl fmt::Debug for SourceWaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceWaker").field("token", &self.0.token).finish_non_exhaustive()
    }
}
