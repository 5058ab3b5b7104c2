//! The echo server of the README.

use std::io;
use std::net::TcpListener;

use dispatch_loop::{Channel, Dispatcher};

pub(in crate::servers) fn hooks(listener: TcpListener) -> io::Result<()> {
    super::serve(listener, || Echo)
}

struct Echo;

impl Dispatcher for Echo {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.set_auto_pause(true);
        Ok(())
    }

    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, data| ch.push(data))
    }
}
