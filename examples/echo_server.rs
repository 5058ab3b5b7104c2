//! A server that sends back what it is sent: the smallest whole program.
//!
//! It shows a listener whose `handle_accept` adds each connection to the map, a `handle_read` that
//! pushes what it reads, and the one line that keeps a client that sends but never reads from
//! filling the memory: `set_auto_pause`. Any number of addresses and clients share one loop and
//! one thread; or several, with `--threads`.
//!
//! ```sh
//! cargo run --release --example echo_server -- 127.0.0.1:8080 '[::1]:8080'
//! cargo run --release --example echo_server -- --prefix 'you said: ' --log info
//! ```
//!
//! Talk to it with `nc 127.0.0.1 8080`, or with the example `echo_client`.

mod common;

use std::io;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;
use std::sync::Arc;

use common::{Exit, Server, ServerOptions};
use dispatch_loop::{Address, Channel, Dispatcher, Reason, Socket};
use lexopt::prelude::*;

const HELP: &str = "\
usage: echo_server [--prefix TEXT] [--suffix TEXT] [OPTION...] [ADDR...]

Sends back what each client sends, until Ctrl-C.

  ADDR               HOST:PORT, [IPV6]:PORT or unix:PATH, as many as you like (127.0.0.1:8080);
                     port 0 asks for a free one
  --prefix TEXT      goes before each chunk that is sent back
  --suffix TEXT      goes after it";

fn main() -> ExitCode {
    common::tls_server(HELP, run)
}

fn run(mut args: lexopt::Parser) -> Result<(), Exit> {
    let mut options = ServerOptions::default().with_tls();
    let mut addresses = Vec::new();
    let mut around = Around::default();
    while let Some(arg) = args.next()? {
        match arg {
            Long("prefix") => around.prefix = args.value()?.into_vec(),
            Long("suffix") => around.suffix = args.value()?.into_vec(),
            Value(address) => addresses.push(common::address(address)?),
            other => options.take(other.unexpected(), &mut args)?,
        }
    }
    let mut server = Server::new(options)?;
    let (around, options) = (Arc::new(around), server.options());
    let new = move || EchoServer { around: around.clone(), options: options.clone() };
    server.listen(&addresses, "127.0.0.1:8080", new)?;
    server.run() // until a signal
}

/// What goes around each chunk.
#[derive(Default)]
struct Around {
    prefix: Vec<u8>,
    suffix: Vec<u8>,
}

/// A listener.
#[derive(Clone)]
struct EchoServer {
    around: Arc<Around>,
    options: Arc<ServerOptions>,
}

impl Dispatcher for EchoServer {
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
        let (around, options) = (self.around.clone(), self.options.clone());
        self.options.add(ch.map_mut(), socket, Echo { around, options }).map(drop)
    }
}

/// One client.
struct Echo {
    around: Arc<Around>,
    options: Arc<ServerOptions>,
}

impl Dispatcher for Echo {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        log::info!("{} connected", ch.peer_addr()?);
        // While more than 64 KiB wait for the client to take them, read no more from it.
        ch.set_auto_pause(true);
        self.options.set_on(ch);
        Ok(())
    }

    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        let Around { prefix, suffix } = &*self.around;
        ch.read_with(|ch, data| match prefix.is_empty() && suffix.is_empty() {
            true => ch.push(data),
            // In one piece, so that it also arrives in one, if it is short.
            false => ch.push_vec([prefix, data, suffix].concat()),
        })
    }

    fn handle_drain(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.options.close_in_time(ch); // it may never cease to send
        Ok(())
    }

    // There is no `handle_eof`: by default what is queued is sent, then the connection is closed.

    fn handle_close(&mut self, ch: &mut Channel<'_>, reason: &Reason) {
        common::disconnected(ch, reason);
    }
}
