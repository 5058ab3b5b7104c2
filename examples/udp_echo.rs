//! Echoes datagrams to whoever sent them.
//!
//! It shows a channel without connections: `bind` instead of `listen`, one hook for each datagram, and
//! its sender as the address to answer to. What the network says against an answer ends nothing.
//!
//! ```sh
//! cargo run --release --example udp_echo -- 127.0.0.1:8080
//! nc -u 127.0.0.1 8080
//! ```

mod common;

use std::io;
use std::net::UdpSocket;
use std::process::ExitCode;

use common::{Exit, Server, ServerOptions};
use dispatch_loop::{Address, Channel, Datagram, DatagramOptions, Dispatcher};
use lexopt::prelude::*;

const HELP: &str = "\
usage: udp_echo [--threads N] [--stats ADDR] [--log LEVEL] [ADDR]

Sends each datagram back to its sender, until Ctrl-C.

  ADDR               HOST:PORT or [IPV6]:PORT (127.0.0.1:8080); port 0 asks for a free one
  --threads N        on how many loops, each with a thread and a socket of its own (1); 0: one for each
                     core
  --stats ADDR       numbers for Prometheus at http://ADDR/metrics, health at http://ADDR/healthz";

fn main() -> ExitCode {
    common::main(HELP, run)
}

fn run(mut args: lexopt::Parser) -> Result<(), Exit> {
    let mut options = ServerOptions::default();
    let mut address = None;
    while let Some(arg) = args.next()? {
        match arg {
            Long("threads") => options.set_threads(args.value()?)?,
            Long("stats") => options.set_stats(args.value()?)?,
            Long("log") => common::set_log_level(args.value()?)?,
            Long("help") | Short('h') => return Err(Exit::Help),
            Value(text) if address.is_none() => address = Some(common::resolve(text)?),
            other => return Err(other.unexpected().into()),
        }
    }
    let given = if address.is_none() { common::inherited()?.pop() } else { None };
    let address = address.unwrap_or(([127, 0, 0, 1], 8080).into());

    let mut server = Server::new(options)?;
    // Room for a burst: what finds none is lost, as datagrams are.
    let room = DatagramOptions::default().with_recv_buffer(1024 * 1024);
    server.bind(given, address, &room, || Echo)?;
    server.run() // until a signal
}

struct Echo;

impl Dispatcher for Echo {
    fn handle_datagram(&mut self, ch: &mut Channel<'_>, datagram: &Datagram<'_>) -> io::Result<()> {
        log::debug!("{}: {} bytes", datagram.from, datagram.data.len());
        if is_ourselves(ch, &datagram.from) {
            return Ok(()); // somebody gave our address as theirs: we would answer ourselves for ever
        }
        match ch.push_to(datagram.data, &datagram.from) {
            // More answers wait than are worth waiting for: this one is lost, as datagrams are.
            Err(error) if error.kind() == io::ErrorKind::QuotaExceeded => Ok(()),
            result => result,
        }
    }

    fn handle_network_error(&mut self, _: &mut Channel<'_>, error: &io::Error) -> io::Result<()> {
        log::info!("an answer did not arrive: {error}");
        Ok(())
    }
}

/// Whether this is our own port, of one of our own addresses: those can be bound.
fn is_ourselves(ch: &Channel<'_>, from: &Address) -> bool {
    let ours = ch.local_addr().ok().and_then(|local| local.ip());
    let (Some(ours), Some(from)) = (ours, from.ip()) else { return false };
    from.port() == ours.port() && (from.ip() == ours.ip() || UdpSocket::bind((from.ip(), 0)).is_ok())
}
