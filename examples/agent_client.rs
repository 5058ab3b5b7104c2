//! A client that sends what is typed, and prints the lines that come: the other side of `agent_server`,
//! or of anything that speaks in lines.
//!
//! It shows an `Outlet`, the way for another thread to feed a channel: the thread that copies stdin
//! waits while the peer is slow, so that a file of any size passes in bounded memory. At the end of
//! stdin comes FIN, after all that was sent; what still comes is printed.
//!
//! ```sh
//! cargo run --release --example agent_client -- 127.0.0.1:8111
//! cargo run --release --example agent_client -- localhost:8111 < README.md
//! ```

mod common;

use std::cell::RefCell;
use std::io;
use std::process::ExitCode;
use std::rc::Rc;

use common::{Exit, Lines, Stdin};
use dispatch_loop::{Channel, ChannelMap, Dispatcher, Eof, Reason};
use lexopt::prelude::*;

const HELP: &str = "\
usage: agent_client [--log LEVEL] ADDR

Sends stdin to a server, and prints the lines that it sends, until it ends or Ctrl-C.

  ADDR               HOST:PORT, [IPV6]:PORT or unix:PATH of the server";

fn main() -> ExitCode {
    common::main(HELP, run)
}

fn run(mut args: lexopt::Parser) -> Result<(), Exit> {
    let mut address = None;
    while let Some(arg) = args.next()? {
        match arg {
            Long("log") => common::set_log_level(args.value()?)?,
            Long("help") | Short('h') => return Err(Exit::Help),
            Value(text) if address.is_none() => address = Some(common::address(text)?),
            other => return Err(other.unexpected().into()),
        }
    }
    let Some(address) = address else { return Err(Exit::Usage("no ADDR is given".into())) };

    let failure = Rc::new(RefCell::new(None));
    let mut map = ChannelMap::new()?;
    common::close_on_signal(&mut map)?;
    let agent = Agent {
        address: address.clone(),
        is_connected: false,
        has_sent: false,
        lines: Lines::default(),
        failure: failure.clone(),
    };
    let agent = map.connect(address.as_str(), agent)?;
    common::send_stdin(&mut map, agent, |agent, stdin| match stdin {
        Stdin::Begun => agent.has_sent = true,
        Stdin::Ended(Ok(())) => {}
        Stdin::Ended(Err(error)) => agent.fail(format!("cannot read stdin: {error}")),
    })?;
    dispatch_loop::run(&mut map)?; // until the connection has ended, or a signal
    failure.take().map_or(Ok(()), |why| Err(Exit::Failure(why)))
}

struct Agent {
    address: String,
    is_connected: bool,
    has_sent: bool,
    lines: Lines,
    failure: Rc<RefCell<Option<String>>>,
}

impl Agent {
    fn fail(&self, why: String) {
        *self.failure.borrow_mut() = Some(why);
    }
}

impl Dispatcher for Agent {
    fn handle_connect(&mut self, _: &mut Channel<'_>) -> io::Result<()> {
        self.is_connected = true;
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

    fn handle_close(&mut self, _: &mut Channel<'_>, reason: &Reason) {
        let address = &self.address;
        match reason.error() {
            None => {}
            Some(error) if !self.is_connected => self.fail(common::cannot_connect(address, error)),
            // Nobody knows how much of it has arrived.
            Some(error) if self.has_sent => {
                self.fail(format!("the connection to {address} is lost: {error}"))
            }
            // The peer has ended, which is its right. That it did so without a word is worth one.
            Some(error) => log::warn!("{address} ended the connection: {error}"),
        }
    }
}
