//! With the layers: `Protocol` receives bytes, `Chat` lines.

use std::io::{self, IoSlice};
use std::net::TcpListener;

use dispatch_loop::chat::{Chat, ChatChannel, ChatDispatcher};
use dispatch_loop::protocol::{Protocol, ProtocolDispatcher, Transport};

pub(in crate::servers) fn protocol(listener: TcpListener) -> io::Result<()> {
    super::serve(listener, || ProtocolDispatcher::new(Echo))
}

pub(in crate::servers) fn chat(listener: TcpListener) -> io::Result<()> {
    super::serve(listener, || ChatDispatcher::new("\n", Echo).expect("a terminator of one byte"))
}

struct Echo;

impl Protocol for Echo {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> io::Result<()> {
        transport.channel_mut().set_auto_pause(true);
        Ok(())
    }

    fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> io::Result<()> {
        transport.write(data)
    }
}

impl Chat for Echo {
    fn handle_open(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        ch.channel_mut().set_auto_pause(true);
        Ok(())
    }

    fn found_terminator(&mut self, ch: &mut ChatChannel<'_>, line: &[u8]) -> io::Result<()> {
        ch.push_vectored(&[IoSlice::new(line), IoSlice::new(b"\n")])
    }
}
