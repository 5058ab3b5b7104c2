//! A server that recites poems, a few bytes at a time: one loop, many ports, any number of clients
//! at once, and no thread that sleeps.
//!
//! It shows timers that belong to a channel and end with it; `map.with`, by which a timer reaches the
//! dispatcher; and output by asyncore's own means, `writable` and `handle_write`: nothing is ever
//! queued, so a client that reads slowly costs no memory, however long the poem is.
//!
//! ```sh
//! cargo run --release --example poetry_server
//! cargo run --release --example poetry_server -- --port 10000 --delay 0.1 --num-bytes 30 README.md
//! ```
//!
//! Listen to it with `nc 127.0.0.1 10000`, or with the example `poetry_client`.

mod common;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZero;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use common::{Exit, Server, ServerOptions};
use dispatch_loop::{Address, Channel, Dispatcher, Eof, Reason, Socket};
use lexopt::prelude::*;

const HELP: &str = "\
usage: poetry_server [--iface HOST] [--port P]... [--delay SECS] [--num-bytes N] [OPTION...] [POEM...]

Sends a poem, slowly, to whoever connects, until Ctrl-C.

  POEM               a file. One is for all ports, as many as ports are for one port each;
                     without any, three classics are served in turn
  --iface HOST       where to listen (127.0.0.1)
  --port P           a port, as many as you like (10000, 10001, 10002); 0 asks for a free one
  --delay SECS       the time from one piece to the next, fractions allowed, 0 for none (0.5)
  --num-bytes N      how many bytes a piece has (10)";

const CLASSICS: [&[u8]; 3] = [
    include_bytes!("poems/tyger.txt"),
    include_bytes!("poems/ozymandias.txt"),
    include_bytes!("poems/hope.txt"),
];

fn main() -> ExitCode {
    common::server(HELP, run)
}

fn run(mut args: lexopt::Parser) -> Result<(), Exit> {
    let mut options = ServerOptions::default();
    let mut host = "127.0.0.1".to_owned();
    let mut ports: Vec<u16> = Vec::new();
    let mut delay = Duration::from_millis(500);
    let mut num_bytes = 10;
    let mut files = Vec::new();
    while let Some(arg) = args.next()? {
        match arg {
            Long("iface") => host = common::parse("--iface", args.value()?, "a host")?,
            Long("port") => ports.push(common::parse("--port", args.value()?, "0 to 65535")?),
            Long("delay") => delay = seconds(common::parse("--delay", args.value()?, "seconds")?)?,
            Long("num-bytes") => {
                num_bytes = common::parse::<NonZero<_>>("--num-bytes", args.value()?, "1 or more")?.get();
            }
            Value(file) => files.push(file),
            other => options.take(other.unexpected(), &mut args)?,
        }
    }
    let given = if ports.is_empty() { common::inherited()? } else { Vec::new() };
    if ports.is_empty() && given.is_empty() {
        ports = vec![10000, 10001, 10002];
    }
    let places = ports.len() + given.len();
    if files.len() > 1 && files.len() != places {
        let why = format!("{} POEMs for {places} ports: wanted one, or one for each", files.len());
        return Err(Exit::Usage(why));
    }
    let mut poems: Vec<Arc<[u8]>> = Vec::new();
    for file in &files {
        let cannot = |error| Exit::Failure(format!("cannot read {file:?}: {error}"));
        poems.push(std::fs::read(file).map_err(cannot)?.into());
    }
    if poems.is_empty() {
        poems = CLASSICS.map(Arc::from).into();
    }

    let pace = Pace { delay, num_bytes };
    let mut server = Server::new(options)?;
    let options = server.options();
    let new = |poem: &Arc<[u8]>| Poet { poem: poem.clone(), pace, options: options.clone() };
    for (&port, poem) in ports.iter().zip(poems.iter().cycle()) {
        let (address, poet) = (common::address(on(&host, port).into())?, new(poem));
        server.listen(&[address], "", move || poet.clone())?;
    }
    for (socket, poem) in given.into_iter().zip(poems.iter().cycle()) {
        let poet = new(poem);
        server.adopt(socket, move || poet.clone())?;
    }
    server.run() // until a signal
}

fn seconds(number: f64) -> Result<Duration, Exit> {
    let wrong = |_| Exit::Usage(format!("--delay {number}: wanted seconds, 0 or more"));
    Duration::try_from_secs_f64(number).map_err(wrong)
}

fn on(host: &str, port: u16) -> String {
    match host.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::from((ip, port)).to_string(),
        Err(_) => format!("{host}:{port}"),
    }
}

#[derive(Clone, Copy)]
struct Pace {
    delay: Duration,
    num_bytes: usize,
}

/// A listener.
#[derive(Clone)]
struct Poet {
    poem: Arc<[u8]>,
    pace: Pace,
    options: Arc<ServerOptions>,
}

impl Dispatcher for Poet {
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
        let Pace { delay, num_bytes } = self.pace;
        let mut recital = Recital { poem: self.poem.clone(), due: 0, sent: 0 };
        recital.go_on(if delay.is_zero() { usize::MAX } else { num_bytes });
        let recital = self.options.add(ch.map_mut(), socket, recital)?;
        self.options.set_on(&mut ch.map_mut().channel(recital)?);
        if !delay.is_zero() {
            ch.map_mut().channel(recital)?.call_every(delay, move |ch| {
                ch.map_mut().with(recital, |recital, _| {
                    recital.go_on(num_bytes);
                    Ok(())
                })
            });
        }
        Ok(())
    }
}

/// One client.
struct Recital {
    poem: Arc<[u8]>,
    /// How much of it may have been sent by now, and how much has been.
    due: usize,
    sent: usize,
}

impl Recital {
    fn go_on(&mut self, num_bytes: usize) {
        self.due = self.due.saturating_add(num_bytes).min(self.poem.len());
    }
}

impl Dispatcher for Recital {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        log::info!("{} connected", ch.peer_addr()?);
        Ok(())
    }

    fn writable(&self, _: &Channel<'_>) -> bool {
        // At its end there is one thing left to do: to close.
        self.sent < self.due || self.sent == self.poem.len()
    }

    fn handle_write(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.sent += ch.send(&self.poem[self.sent..self.due])?;
        if self.sent == self.poem.len() {
            ch.close();
        }
        Ok(())
    }

    /// Whatever the client says: poets do not listen.
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|_, _| Ok(()))
    }

    /// It says no more, but may well listen on.
    fn handle_eof(&mut self, _: &mut Channel<'_>) -> io::Result<Eof> {
        Ok(Eof::KeepWriting)
    }

    fn handle_close(&mut self, ch: &mut Channel<'_>, reason: &Reason) {
        common::disconnected(ch, reason);
    }
}
