//! A server whose user types lines for all clients, and sees what they send: the keyboard and the network
//! in one loop.
//!
//! It shows `read_lines`, which reads what cannot be polled in a thread of its own and hands it to
//! the loop; and `Topics`, which reach the clients of all loops, wait for nobody, hold a line once for all of
//! a loop, and cut off who does not read at the default limit of 16 MiB.
//!
//! ```sh
//! cargo run --release --example agent_server
//! ```
//!
//! The other side is the example `agent_client`, or `nc 127.0.0.1 8111`.

mod common;

use std::io::{self, Read, Stdin};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::{Exit, Lines, Server, ServerOptions};
use dispatch_loop::{Address, Channel, Dispatcher, Eof, Line, Reason, Socket, Topics};
use lexopt::prelude::*;

const HELP: &str = "\
usage: agent_server [OPTION...] [ADDR]

Sends each line of stdin to all clients, and prints the lines that they send, until Ctrl-C. A client that
leaves more than 16 MiB unread is cut off.

  ADDR               HOST:PORT, [IPV6]:PORT or unix:PATH (127.0.0.1:8111); port 0 asks for a
                     free one";

fn main() -> ExitCode {
    common::server(HELP, run)
}

fn run(mut args: lexopt::Parser) -> Result<(), Exit> {
    let mut options = ServerOptions::default();
    let mut address = None;
    while let Some(arg) = args.next()? {
        match arg {
            Value(text) if address.is_none() => address = Some(common::address(text)?),
            other => options.take(other.unexpected(), &mut args)?,
        }
    }
    let mut server = Server::new(options)?;
    let (loops, options) = (server.loops(), server.options());
    let clients = Topics::new(&loops);
    let (typed, lines) = (Typed { stdin: io::stdin(), clients: clients.clone() }, clients.clone());
    let new = move || AgentServer { clients: clients.clone(), options: options.clone() };
    server.listen(address.as_slice(), "127.0.0.1:8111", new)?;
    dispatch_loop::read_lines(loops.remote(0), typed, move |map, line| match line {
        Line::Text(text) => {
            let told = lines.publish(map, TYPED, text);
            told.unwrap_or_else(|error| log::warn!("a line does not reach all: {error}"));
        }
        Line::End => log::info!("that was all of stdin"),
        Line::Failed(error) => common::complain(format_args!("error: cannot read stdin: {error}")),
    })?;
    server.run() // until a signal
}

/// Under this topic goes what is typed.
const TYPED: &str = "typed";

/// Stdin, which is read no faster than the slowest loop passes it on.
struct Typed {
    stdin: Stdin,
    clients: Topics,
}

/// How many bytes may wait for a loop, and how often is looked.
const AHEAD: usize = 1024 * 1024;
const LOOK: Duration = Duration::from_millis(5);

impl Read for Typed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.clients.backlog() > AHEAD {
            thread::sleep(LOOK); // it is a thread of its own that reads
        }
        self.stdin.read(buffer)
    }
}

/// The listener.
#[derive(Clone)]
struct AgentServer {
    clients: Topics,
    options: Arc<ServerOptions>,
}

impl Dispatcher for AgentServer {
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
        let client = Client { lines: Lines::default(), is_known: false };
        let client = self.options.add(ch.map_mut(), socket, client)?;
        let mut client = ch.map_mut().channel(client)?;
        self.options.set_on(&mut client);
        self.clients.subscribe(&mut client, TYPED);
        Ok(())
    }
}

struct Client {
    lines: Lines,
    /// It was said who has connected.
    is_known: bool,
}

impl Dispatcher for Client {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.is_known = true;
        common::say(format_args!("connected: {}", ch.peer_addr()?));
        Ok(())
    }

    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        if common::is_behind(ch) {
            return Ok(()); // it comes again when stdout was read
        }
        ch.read_with(|_, data| {
            self.lines.add(data, common::say_received);
            Ok(())
        })
    }

    fn handle_eof(&mut self, _: &mut Channel<'_>) -> io::Result<Eof> {
        self.lines.end(common::say_received);
        Ok(Eof::Close)
    }

    fn handle_close(&mut self, ch: &mut Channel<'_>, reason: &Reason) {
        if let Some(peer) = ch.peer_addr().ok().filter(|_| self.is_known) {
            common::say(format_args!("disconnected: {peer}"));
        }
        common::disconnected(ch, reason);
    }
}
