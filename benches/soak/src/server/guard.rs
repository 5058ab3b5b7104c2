//! Who is let in, and for how long: all that the server does about clients that do not behave is here.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use dispatch_loop::{
    Address, Channel, ChannelMap, Dispatcher, Handle, ListenOptions, Reason, Socket, Wrapper,
};

use super::hooks;
use super::tally::Tally;
use crate::ports::Port;

/// How long a connection may be idle, both ways.
const IDLE: Duration = Duration::from_secs(5);

/// What a connection must take in or give out in each window of time, in bytes.
const WINDOW: Duration = Duration::from_secs(5);
const LEAST: usize = 256;

/// How long a connection that is closing may go without sending a byte.
const CLOSING: Duration = Duration::from_secs(5);

/// The limits of a listener (connections in total, and of one peer) belong here.
pub fn listen(map: &mut ChannelMap, port: Port, tally: &Rc<Tally>) -> io::Result<Handle<Listener>> {
    let options = ListenOptions::default().with_backlog(4096);
    map.listen_with("127.0.0.1:0", &options, Listener { port, tally: tally.clone() })
}

pub struct Listener {
    port: Port,
    tally: Rc<Tally>,
}

impl Dispatcher for Listener {
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
        let progress = Progress::default();
        let inner = hooks::of(self.port, &progress)?;
        self.tally.accepted.set(self.tally.accepted.get() + 1);
        ch.map_mut().add(socket, Guarded { inner, progress, tally: self.tally.clone() })?;
        Ok(())
    }
}

/// How many bytes have gone in or out since it was last asked.
#[derive(Clone, Default)]
pub struct Progress(Rc<Cell<usize>>);

impl Progress {
    pub fn made(&self, bytes: usize) {
        self.0.set(self.0.get() + bytes);
    }
}

/// A connection that must go on.
struct Guarded {
    inner: Box<dyn Dispatcher>,
    progress: Progress,
    tally: Rc<Tally>,
}

impl Wrapper for Guarded {
    type Inner = dyn Dispatcher;

    fn inner(&self) -> &dyn Dispatcher {
        &*self.inner
    }

    fn inner_mut(&mut self) -> &mut dyn Dispatcher {
        &mut *self.inner
    }

    fn opened(&mut self, ch: &mut Channel<'_>) {
        ch.set_auto_pause(true);
        ch.set_timeout(Some(IDLE));
        ch.set_close_timeout(CLOSING);
        let progress = self.progress.clone();
        ch.call_every(WINDOW, move |ch| {
            if progress.0.take() < LEAST {
                ch.abort();
            }
            Ok(())
        });
    }

    fn closed(&mut self, _: &mut Channel<'_>, reason: &Reason) {
        self.tally.ended(reason);
    }
}
