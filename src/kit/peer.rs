//! The other end of a scripted connection, which a test holds.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use crate::kit::pipe::{Pipe, Reading, Step};

/// The other end of a channel's connection, in the hands of a test: it plays what the test has told it, and shows
/// what the channel has sent.
///
/// Made by [`add`](crate::testing::add), [`pair`](crate::testing::pair), or by a
/// [`Server`](crate::testing::Server) for each connection that it accepts. Clones are the same peer. Its script
/// is played in order, by the clock of the test: each step at once after the one before, unless
/// [`wait`](Peer::wait) is between them, and never before it was added. Each is seen by itself: what two calls
/// of [`send`](Peer::send) have sent comes in two turns (with a [seed](crate::testing::map_with_seed), perhaps in
/// one, or in more).
///
/// At first it reads everything at once. A step about how it reads that has none before it is played at once.
///
/// ```
/// use dispatch_loop::{Channel, Dispatcher, testing};
/// use std::io;
/// use std::time::Duration;
///
/// struct Echo;
///
/// impl Dispatcher for Echo {
///     fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
///         ch.read_with(|ch, data| ch.push(data))
///     }
/// }
///
/// let mut map = testing::map()?;
/// let (_, peer) = testing::add(&mut map, Echo)?;
/// peer.send("one ").wait(Duration::from_secs(3600)).send("two").fin();
/// dispatch_loop::run(&mut map)?;                       // an hour, in no time
/// assert_eq!(peer.sent(), b"one two");
/// assert!(peer.has_fin() && peer.is_closed());
/// # io::Result::Ok(())
/// ```
#[derive(Clone, Debug)]
pub struct Peer(pub(super) Rc<RefCell<Pipe>>);

impl Peer {
    fn then(&self, step: Step) -> &Peer {
        self.0.borrow_mut().add(step);
        self
    }

    // What it does.

    /// Let `time` pass before the next step.
    pub fn wait(&self, time: Duration) -> &Peer {
        self.0.borrow_mut().wait(time);
        self
    }

    /// Send bytes to the channel. After its FIN, or a reset, nothing is sent.
    pub fn send(&self, bytes: impl AsRef<[u8]>) -> &Peer {
        self.then(Step::Send(bytes.as_ref().to_vec()))
    }

    /// Send bytes in pieces of `size` (at least 1), the first at once, the others `every` so often.
    pub fn send_in_pieces(&self, bytes: impl AsRef<[u8]>, size: usize, every: Duration) -> &Peer {
        for (at, piece) in bytes.as_ref().chunks(size.max(1)).enumerate() {
            if at > 0 {
                self.wait(every);
            }
            self.send(piece);
        }
        self
    }

    /// End what it sends, as `shutdown(SHUT_WR)`; it still reads.
    pub fn fin(&self) -> &Peer {
        self.then(Step::Fin)
    }

    /// Reset the connection. What came before can still be read, then reads fail with `ECONNRESET`, and sends at
    /// once.
    pub fn reset(&self) -> &Peer {
        self.then(Step::Reset)
    }

    /// Have the channel's reads fail with `error`, once what came before is read.
    pub fn fail_reads(&self, error: impl Into<io::Error>) -> &Peer {
        self.then(Step::FailRead(error.into()))
    }

    /// Have the channel's next send fail with `error`.
    pub fn fail_send(&self, error: impl Into<io::Error>) -> &Peer {
        self.then(Step::FailWrite(error.into()))
    }

    // How it reads.

    /// Read nothing from now on: what the channel sends fills the [buffer](Peer::set_buffer).
    pub fn stop_reading(&self) -> &Peer {
        self.then(Step::Read(Reading::Not))
    }

    /// Read so many bytes, every so often, from what waits in the [buffer](Peer::set_buffer).
    pub fn read_slowly(&self, bytes: usize, every: Duration) -> &Peer {
        let next = self.0.borrow().when();
        self.then(Step::Read(Reading::Rate { bytes, every, next }))
    }

    /// Read everything at once again.
    pub fn read_on(&self) -> &Peer {
        self.then(Step::Read(Reading::AtOnce))
    }

    /// Read so many bytes of what waits in the buffer, and then no more than before.
    pub fn read(&self, bytes: usize) -> &Peer {
        self.then(Step::Take(bytes))
    }

    /// How many bytes that the peer has not read fit between the two, from this moment on: the channel's sends
    /// take no more (`WouldBlock`). Default: 64 KiB.
    pub fn set_buffer(&self, bytes: usize) -> &Peer {
        self.0.borrow_mut().buffer = bytes;
        self
    }

    /// Short writes: how many bytes one call to send takes at most (at least 1), from this moment on. Default: any
    /// number.
    pub fn set_most_per_send(&self, bytes: usize) -> &Peer {
        self.0.borrow_mut().most = bytes.max(1);
        self
    }

    // What has come.

    /// All that the channel has sent so far and [`take_sent`](Peer::take_sent) has not taken, also what the peer
    /// has not read yet.
    #[must_use]
    pub fn sent(&self) -> Vec<u8> {
        self.0.borrow().sent.clone()
    }

    /// The same, once.
    pub fn take_sent(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.borrow_mut().sent)
    }

    /// How many bytes wait in the buffer.
    #[must_use]
    pub fn unread(&self) -> usize {
        self.0.borrow().unread
    }

    /// Whether the channel has sent FIN: by `shutdown_write`, or because it has closed.
    #[must_use]
    pub fn has_fin(&self) -> bool {
        self.0.borrow().fin
    }

    /// Whether the channel has reset the connection.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        self.0.borrow().reset
    }

    /// Whether the channel has ended, in whatever way.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.borrow().closed
    }

    /// Whether all of the script was played.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.0.borrow().has_played()
    }
}
