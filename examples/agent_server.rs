//! A server whose user types lines for all clients, and sees what they send: the keyboard and the network
//! in one loop.
//!
//! It shows `read_lines`, which reads what cannot be polled in a thread of its own and hands it to
//! the loop; `broadcast`, which waits for nobody, holds a line once for all, and cuts off who does not
//! read at the default limit of 16 MiB; and a set of clients that the listener and its connections share.
//!
//! ```sh
//! cargo run --release --example agent_server
//! ```
//!
//! The other side is the example `agent_client`, or `nc 127.0.0.1 8111`.

mod common;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::process::ExitCode;
use std::rc::Rc;

use common::{Exit, Lines, ServerOptions};
use dispatch_loop::{Address, Channel, ChannelMap, Dispatcher, Eof, Line, Reason, Socket, Token};
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
    let mut map = ChannelMap::new()?;
    common::drain_on_signal(&mut map, &options)?;
    let clients = Clients::default();
    let new = || AgentServer { clients: clients.clone(), options: options.clone() };
    let servers = common::listen(&mut map, address.as_slice(), "127.0.0.1:8111", &options, new)?;
    let server = servers[0]; // any will do: they share their clients
    dispatch_loop::read_lines(&map.remote(), io::stdin(), move |map, line| match line {
        Line::Text(text) => {
            // An error: the server was told to end, and its listener is closed.
            let Ok(clients) = map.get(server).map(|server| server.clients.clone()) else { return };
            map.broadcast(clients.borrow().iter().copied(), text);
        }
        Line::End => log::info!("that was all of stdin"),
        Line::Failed(error) => common::complain(format_args!("error: cannot read stdin: {error}")),
    })?;
    common::serve(map, &options) // until a signal
}

type Clients = Rc<RefCell<BTreeSet<Token>>>;

/// The listener.
struct AgentServer {
    clients: Clients,
    options: ServerOptions,
}

impl Dispatcher for AgentServer {
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
        let client = Client { clients: self.clients.clone(), lines: Lines::default(), is_known: false };
        let client = self.options.add(ch.map_mut(), socket, client)?;
        self.options.set_on(&mut ch.map_mut().channel(client)?);
        self.clients.borrow_mut().insert(client.token());
        Ok(())
    }
}

struct Client {
    clients: Clients,
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
        self.clients.borrow_mut().remove(&ch.token());
        if let Some(peer) = ch.peer_addr().ok().filter(|_| self.is_known) {
            common::say(format_args!("disconnected: {peer}"));
        }
        common::disconnected(ch, reason);
    }
}
