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

use std::io;
use std::process::ExitCode;

use common::{Exit, Lines, ServerOptions};
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
    let address = address.unwrap_or("127.0.0.1:8111".to_owned());

    let mut server = common::Server::new(&options)?;
    let loops = server.loops();
    let clients = Topics::new(&loops);
    let lines = clients.clone();
    server.listen(&address, &options, move || AgentServer { clients: clients.clone(), options })?;
    dispatch_loop::read_lines(loops.remote(0), io::stdin(), move |map, line| match line {
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

/// The listener.
#[derive(Clone)]
struct AgentServer {
    clients: Topics,
    options: ServerOptions,
}

impl Dispatcher for AgentServer {
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, peer: Address) -> io::Result<()> {
        let client = ch.map_mut().add(socket, Client { lines: Lines::default() })?;
        let mut client = ch.map_mut().channel(client)?;
        self.options.set_on(&mut client);
        self.clients.subscribe(&mut client, TYPED);
        common::say(format_args!("connected: {peer}"));
        Ok(())
    }
}

struct Client {
    lines: Lines,
}

impl Dispatcher for Client {
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
        if let Ok(peer) = ch.peer_addr() {
            common::say(format_args!("disconnected: {peer}"));
            log::info!("{peer} disconnected: {reason}");
        }
    }
}
