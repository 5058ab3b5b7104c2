//! Who is let in, and for how long: all that the server does about clients that do not behave is here, and
//! all of it is the library's.

use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use dispatch_loop::{
    AcceptLimitError, AcceptLimits, Address, Channel, ChannelMap, Deadlines, Dispatcher, Handle,
    ListenOptions, MinRate, Socket,
};

use super::hooks;
use super::tally::{Newcomer, Tally};
use crate::ports::Port;

/// How long a connection may be idle, both ways.
const IDLE: Duration = Duration::from_secs(7);

/// How long a connection that is closing may go without sending a byte.
const CLOSING: Duration = Duration::from_secs(5);

fn deadlines() -> Deadlines {
    let window = Duration::from_secs(5);
    Deadlines::default()
        .with_first_byte(Duration::from_secs(5))
        .with_message(Duration::from_secs(10))
        .with_read_rate(MinRate::new(50).with_window(window))
        .with_write_rate(MinRate::new(500).with_window(window))
}

pub fn listen(
    map: &mut ChannelMap,
    port: Port,
    limits: Option<AcceptLimits>,
    tally: &Rc<Tally>,
) -> io::Result<Handle<Listener>> {
    let options = ListenOptions::default().with_backlog(4096).with_limits(limits);
    map.listen_with("127.0.0.1:0", &options, Listener { port, tally: tally.clone(), rests_since: None })
}

pub struct Listener {
    port: Port,
    tally: Rc<Tally>,
    /// Since when the first in the backlog has had to wait.
    rests_since: Option<Instant>,
}

impl Dispatcher for Listener {
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, peer: Address) -> io::Result<()> {
        let at_head = self.rests_since.take().unwrap_or_else(Instant::now);
        let newcomer = Newcomer::new(peer.ip().map(|peer| peer.ip()), at_head, &self.tally);
        let added = ch.map_mut().add(socket, hooks::of(self.port, newcomer)?)?;
        let mut ch = ch.map_mut().channel(added)?;
        ch.set_auto_pause(true);
        ch.set_timeout(Some(IDLE));
        ch.set_close_timeout(CLOSING);
        ch.set_deadlines(&deadlines());
        Ok(())
    }

    fn handle_accept_error(&mut self, _: &mut Channel<'_>, error: &io::Error) {
        let has_moved_on = match AcceptLimitError::of(error) {
            Some(limited) => limited.refused().is_some(),
            None => error.kind() == ErrorKind::ConnectionAborted,
        };
        match has_moved_on {
            true => self.rests_since = None,
            false => _ = self.rests_since.get_or_insert_with(Instant::now),
        }
    }
}
