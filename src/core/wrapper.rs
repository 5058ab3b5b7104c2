//! A dispatcher around another one, and the only place that passes the hooks on.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::core::channel::Channel;
use crate::core::dispatcher::{Dispatcher, Eof, OnError};
use crate::link::deadlines::Deadline;
use crate::net::address::Address;
use crate::net::datagram::Datagram;
use crate::net::socket::Socket;
use crate::reason::Reason;

/// A dispatcher around another one. Every hook is passed on to the inner one; the wrapper itself is
/// told when the channel opens and when it has ended.
///
/// Implement it instead of [`Dispatcher`]: every wrapper is one. A `Box` of a dispatcher is one, too,
/// so where the type is known only at run time, add a `Box<dyn Dispatcher>`.
///
/// ```
/// use dispatch_loop::{Channel, ChannelMap, Dispatcher, Reason, Wrapper};
/// use std::cell::Cell;
/// use std::io;
/// use std::rc::Rc;
///
/// /// Counts the connections that are open, whatever they do.
/// struct Counted<D> {
///     inner: D,
///     open: Rc<Cell<u32>>,
/// }
///
/// impl<D: Dispatcher> Wrapper for Counted<D> {
///     type Inner = D;
///
///     fn inner(&self) -> &D {
///         &self.inner
///     }
///     fn inner_mut(&mut self) -> &mut D {
///         &mut self.inner
///     }
///     fn opened(&mut self, _: &mut Channel<'_>) {
///         self.open.set(self.open.get() + 1);
///     }
///     fn closed(&mut self, _: &mut Channel<'_>, _: &Reason) {
///         self.open.set(self.open.get() - 1);
///     }
/// }
///
/// struct Discard;
///
/// impl Dispatcher for Discard {
///     fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
///         ch.read_with(|_, _| Ok(()))
///     }
/// }
///
/// # let (near, far) = std::os::unix::net::UnixStream::pair()?;
/// let mut map = ChannelMap::new()?;
/// let open = Rc::new(Cell::new(0));
/// map.add(near, Counted { inner: Discard, open: open.clone() })?;
/// # map.turn(Some(std::time::Duration::ZERO))?;
/// # assert_eq!(open.get(), 1);
/// # drop((map, far));
/// # assert_eq!(open.get(), 0);
/// # io::Result::Ok(())
/// ```
#[allow(unused_variables)]
pub trait Wrapper: 'static {
    /// The dispatcher inside.
    type Inner: Dispatcher + ?Sized;

    /// The dispatcher inside.
    fn inner(&self) -> &Self::Inner;

    /// The dispatcher inside, mutably.
    fn inner_mut(&mut self) -> &mut Self::Inner;

    /// The channel is ready for use; the inner [`handle_open`](Dispatcher::handle_open) follows.
    fn opened(&mut self, ch: &mut Channel<'_>) {}

    /// The channel has ended, and the inner [`handle_close`](Dispatcher::handle_close) has run, or
    /// panicked. Runs exactly once.
    fn closed(&mut self, ch: &mut Channel<'_>, reason: &Reason) {}
}

/// Every hook of [`Dispatcher`] must be here: `tests/contract/wrappers.rs` counts them.
#[diagnostic::do_not_recommend]
impl<W: Wrapper> Dispatcher for W {
    fn readable(&self, ch: &Channel<'_>) -> bool {
        self.inner().readable(ch)
    }

    fn writable(&self, ch: &Channel<'_>) -> bool {
        self.inner().writable(ch)
    }

    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.opened(ch);
        self.inner_mut().handle_open(ch)
    }

    fn handle_connect(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.inner_mut().handle_connect(ch)
    }

    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, peer: Address) -> io::Result<()> {
        self.inner_mut().handle_accept(ch, socket, peer)
    }

    fn handle_accept_error(&mut self, ch: &mut Channel<'_>, error: &io::Error) {
        self.inner_mut().handle_accept_error(ch, error);
    }

    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.inner_mut().handle_read(ch)
    }

    fn handle_datagram(&mut self, ch: &mut Channel<'_>, datagram: &Datagram<'_>) -> io::Result<()> {
        self.inner_mut().handle_datagram(ch, datagram)
    }

    fn handle_network_error(&mut self, ch: &mut Channel<'_>, error: &io::Error) -> io::Result<()> {
        self.inner_mut().handle_network_error(ch, error)
    }

    fn handle_write(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.inner_mut().handle_write(ch)
    }

    fn handle_expt(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.inner_mut().handle_expt(ch)
    }

    fn handle_eof(&mut self, ch: &mut Channel<'_>) -> io::Result<Eof> {
        self.inner_mut().handle_eof(ch)
    }

    fn handle_high(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.inner_mut().handle_high(ch)
    }

    fn handle_low(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.inner_mut().handle_low(ch)
    }

    fn handle_drained(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.inner_mut().handle_drained(ch)
    }

    fn handle_wrapped(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.inner_mut().handle_wrapped(ch)
    }

    fn handle_drain(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.inner_mut().handle_drain(ch)
    }

    fn handle_timeout(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.inner_mut().handle_timeout(ch)
    }

    fn handle_deadline(&mut self, ch: &mut Channel<'_>, deadline: Deadline) -> io::Result<()> {
        self.inner_mut().handle_deadline(ch, deadline)
    }

    fn handle_error(&mut self, ch: &mut Channel<'_>, error: &io::Error) -> OnError {
        self.inner_mut().handle_error(ch, error)
    }

    fn handle_close(&mut self, ch: &mut Channel<'_>, reason: &Reason) {
        let told = catch_unwind(AssertUnwindSafe(|| self.inner_mut().handle_close(ch, reason)));
        self.closed(ch, reason);
        told.unwrap_or_else(|payload| resume_unwind(payload));
    }
}

impl<D: Dispatcher + ?Sized> Wrapper for Box<D> {
    type Inner = D;

    fn inner(&self) -> &D {
        self
    }

    fn inner_mut(&mut self) -> &mut D {
        self
    }
}
