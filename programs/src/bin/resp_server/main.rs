//! Keys, values and messages over Redis' protocol.
//!
//! It shows `Messages`, which gives a parser each request from its start (`request.rs`); timers that are asked how long
//! they have, and moved (`store.rs`); and `broadcast` to subscribers, of which one that never reads harms nobody
//! (`commands.rs`). Requests wait unread while their client does not take the answers.
//!
//! ```sh
//! cargo run --release -p programs --bin resp_server
//! ```
//!
//! The other side is `redis-cli -p 6380`.

mod commands;
#[path = "../../../../examples/common/mod.rs"]
mod common;
mod request;
mod store;

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use common::{Exit, Server, ServerOptions};
use dispatch_loop::framing::Messages;
use dispatch_loop::{Address, Channel, Deadlines, Dispatcher, OnError, Reason, Socket};
use lexopt::prelude::*;

use crate::commands::Client;
use crate::request::Requests;
use crate::store::Store;

const HELP: &str = "\
usage: resp_server [OPTION...] [ADDR]

Keeps keys and values in memory, and passes on what is published, for clients of Redis, until Ctrl-C.

  ADDR               HOST:PORT, [IPV6]:PORT or unix:PATH (127.0.0.1:6380); port 0 asks for
                     a free one

A request may have 8 MiB and 65,536 arguments, an answer 8 MiB, all keys and values together 256 MiB.
A subscriber that leaves more than 16 MiB unread is cut off.";

/// How long a request may take to come.
const REQUEST: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    common::server(HELP, run)
}

fn run(mut args: lexopt::Parser) -> Result<(), Exit> {
    let (mut options, mut address) = (ServerOptions::default(), None);
    while let Some(arg) = args.next()? {
        match arg {
            Value(text) if address.is_none() => address = Some(common::address(text)?),
            other => options.take(other.unexpected(), &mut args)?,
        }
    }
    let mut server = Server::single(options)?;
    let options = server.options();
    let new = move || Listener { store: STORE.with(Rc::clone), options: options.clone() };
    server.listen(address.as_slice(), "127.0.0.1:6380", new)?;
    server.run() // until a signal
}

thread_local! {
    /// What all connections share.
    static STORE: Rc<RefCell<Store>> = Rc::default();
}

#[derive(Clone)]
struct Listener {
    store: Rc<RefCell<Store>>,
    options: Arc<ServerOptions>,
}

impl Dispatcher for Listener {
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
        let requests = Messages::new(Requests::default()).with_limit(request::LONGEST);
        let session = Session { requests, client: Client::new(self.store.clone()) };
        let session = self.options.add(ch.map_mut(), socket, session)?;
        self.options.set_on(&mut ch.map_mut().channel(session)?);
        Ok(())
    }
}

/// A connection.
struct Session {
    requests: Messages<Requests>,
    client: Client,
}

impl Dispatcher for Session {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.set_auto_pause(true);
        ch.set_deadlines(&Deadlines::default().with_message(REQUEST));
        Ok(())
    }

    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, mut input| {
            while let Some(request) = self.requests.next(&mut input)? {
                ch.end_message();
                self.client.answer(ch, request)?;
                if ch.is_paused() || ch.is_closing() {
                    ch.unread(input); // for when the answers are taken
                    break;
                }
            }
            ch.set_busy(self.requests.has_begun());
            if self.requests.has_begun() {
                ch.begin_message();
            }
            Ok(())
        })
    }

    /// The answer to what is no request is the last one.
    fn handle_error(&mut self, ch: &mut Channel<'_>, error: &io::Error) -> OnError {
        if error.kind() != ErrorKind::InvalidData {
            return OnError::End;
        }
        log::info!("channel {}: protocol error: {error}", ch.token());
        match ch.push(format!("-ERR Protocol error: {error}\r\n").as_bytes()) {
            Ok(()) => ch.close(),
            Err(_) => return OnError::End,
        }
        OnError::Keep
    }

    fn handle_close(&mut self, ch: &mut Channel<'_>, reason: &Reason) {
        self.client.leave(ch.token());
        common::disconnected(ch, reason);
    }
}
