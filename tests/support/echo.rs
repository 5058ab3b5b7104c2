//! The plainest dispatcher that does something.

use std::io;

use dispatch_loop::{Channel, Dispatcher};

/// Gives back what it gets, and reads no more than the peer takes.
pub struct Echo;

impl Dispatcher for Echo {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.set_auto_pause(true);
        Ok(())
    }
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, data| ch.push(data))
    }
}
