//! A chat room, as the example of that name; with `--bus`, one room over any number of nodes.
//!
//! It shows a program with two Redis clients on the loop that serves its own clients. What the room is stands in
//! `room.rs`, what goes over the bus in `bus.rs`, and what Redis does in one step in `say.lua` and `lease.lua`.
//!
//! ```sh
//! cargo run --release -p programs --bin chat_server -- --bus redis://127.0.0.1 127.0.0.1:8222
//! cargo run --release -p programs --bin chat_server -- --bus redis://127.0.0.1 127.0.0.1:8223
//! ```

mod bus;
#[path = "../../../../examples/common/mod.rs"]
mod common;
mod room;

use std::cell::RefCell;
use std::io;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;

use common::{Exit, Server, ServerOptions};
use dispatch_loop::chat::{Chat, ChatChannel, ChatDispatcher};
use dispatch_loop::{Address, Channel, Dispatcher, Eof, OnLimit, Reason, Socket};
use lexopt::prelude::*;

use crate::room::{Answer, BAD_NAME, Room};

const HELP: &str = "\
usage: chat_server [OPTION...] [ADDR]

A chat room: each line of a client goes to all others as `NAME: TEXT`, until Ctrl-C.

  ADDR               HOST:PORT, [IPV6]:PORT or unix:PATH (127.0.0.1:8222); port 0 asks for
                     a free one
  --bus URL          one room with all servers that have the same bus: redis://HOST[:PORT][/DB], rediss://
                     for TLS, redis+unix:///PATH
  --node NAME        what is put behind a name that two nodes have let in while they were cut off from each
                     other: 1 to 16 ASCII letters, digits, `_` (something random)

A client may say /name NEW (1 to 32 ASCII letters, digits, `_`, `-`), /who and /quit. A line has at
most 8 KiB; a longer one is dropped. A client that leaves more than 1 MiB unread is cut off.

While the bus is there, all clients of all nodes read the same lines in the same order. Without it for 3 seconds
the room says so, and goes on within each node; up to 10,000 lines are kept for the others, and sent when it is
back.";

/// The limit of a line, in bytes without its end.
const LONGEST: usize = 8 * 1024;
const TOO_LONG: &[u8] = b"* line too long\r\n";

/// How many bytes may wait for a client to read them.
const MOST_UNREAD: usize = 1024 * 1024;

fn main() -> ExitCode {
    common::lasting_server(HELP, run)
}

fn run(mut args: lexopt::Parser) -> Result<(), Exit> {
    let mut options = ServerOptions::default().with_tls().with_take_over();
    let (mut address, mut bus, mut node) = (None, None, None);
    while let Some(arg) = args.next()? {
        match arg {
            Long("bus") => bus = Some(args.value()?.string()?),
            Long("node") => node = Some(args.value()?.string()?),
            Value(text) if address.is_none() => address = Some(common::address(text)?),
            other => options.take(other.unexpected(), &mut args)?,
        }
    }
    let node = node.map_or_else(|| Ok(bus::any_node()), |node| usable(node, bus.is_some()))?;
    if let Some(Err(error)) = bus.as_ref().map(|url| url.parse::<dispatch_loop_redis::Url>()) {
        return Err(Exit::Usage(format!("--bus: {error}")));
    }
    let mut server = Server::single(options)?;
    let options = server.options();
    let room = ROOM.with(Rc::clone);
    if let (Some(url), Some(map)) = (bus, server.map()) {
        bus::begin(map, &room, &url, node)?;
    }
    let new = move || ChatServer { room: ROOM.with(Rc::clone), options: options.clone() };
    server.listen(address.as_slice(), "127.0.0.1:8222", new)?;
    let served = server.run(); // until a signal
    match room.borrow_mut().failure.take() {
        Some(why) => Err(Exit::Failure(why)),
        None => served,
    }
}

thread_local! {
    /// The one of the loop.
    static ROOM: Rc<RefCell<Room>> = Rc::default();
}

fn usable(node: String, has_bus: bool) -> Result<String, Exit> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    match (1..=16).contains(&node.len()) && node.bytes().all(good) {
        true if has_bus => Ok(node),
        true => Err(Exit::Usage("--node is of use with --bus only".to_owned())),
        false => Err(Exit::Usage(format!("--node {node:?}: wanted 1 to 16 ASCII letters, digits, `_`"))),
    }
}

/// The listener.
#[derive(Clone)]
struct ChatServer {
    room: Rc<RefCell<Room>>,
    options: Arc<ServerOptions>,
}

impl Dispatcher for ChatServer {
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
        let guest = Guest { room: self.room.clone(), number: 0 };
        let guest = self.options.add(ch.map_mut(), socket, ChatDispatcher::new("\n", guest)?)?;
        self.options.set_on(&mut ch.map_mut().channel(guest)?);
        Ok(())
    }

    fn handle_drain(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        bus::end(ch.map_mut(), &self.room);
        Ok(())
    }
}

struct Guest {
    room: Rc<RefCell<Room>>,
    /// Its key in the room; 0 before it enters.
    number: u64,
}

impl Chat for Guest {
    fn handle_open(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        ch.set_input_limit(LONGEST + 1); // one more for a `\r`
        ch.channel_mut().set_limit(MOST_UNREAD, OnLimit::End);
        let token = ch.token();
        self.number = room::enter(&self.room, ch.map_mut(), token);
        Ok(())
    }

    fn found_terminator(&mut self, ch: &mut ChatChannel<'_>, line: &[u8]) -> io::Result<()> {
        self.take(ch, line.strip_suffix(b"\r").unwrap_or(line));
        Ok(())
    }

    fn handle_overlong(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        self.answer(ch, Answer::Line(TOO_LONG)); // the rest of the line is dropped
        Ok(())
    }

    fn handle_eof(&mut self, ch: &mut ChatChannel<'_>, rest: &[u8]) -> io::Result<Eof> {
        if !rest.is_empty() {
            self.take(ch, rest);
        }
        match self.answer(ch, Answer::End) {
            true => Ok(Eof::KeepWriting),
            false => Ok(Eof::Close),
        }
    }

    /// The listener may be a successor's already, and is not told then.
    fn handle_drain(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        bus::end(ch.map_mut(), &self.room);
        Ok(())
    }

    /// Also runs for a member that was cut off.
    fn handle_close(&mut self, ch: &mut ChatChannel<'_>, reason: &Reason) {
        common::disconnected(ch.channel_mut(), reason);
        room::leave(&self.room, ch.map_mut(), self.number);
    }
}

impl Guest {
    /// After what was done before; whether that is later.
    fn answer(&self, ch: &mut ChatChannel<'_>, answer: Answer) -> bool {
        room::answer(&self.room, ch.map_mut(), self.number, answer)
    }

    fn take(&mut self, ch: &mut ChatChannel<'_>, line: &[u8]) {
        if line.len() > LONGEST {
            self.answer(ch, Answer::Line(TOO_LONG));
            return;
        }
        let mut words = line.splitn(2, |&byte| byte == b' ');
        match (words.next().unwrap_or_default(), words.next()) {
            (b"/name", name) => {
                let name = name.unwrap_or_default();
                let good = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-".contains(byte);
                match (1..=32).contains(&name.len()) && name.iter().all(good) {
                    true => room::rename(&self.room, ch.map_mut(), self.number, name),
                    false => _ = self.answer(ch, Answer::Line(BAD_NAME)),
                }
            }
            (b"/who", None) => _ = self.answer(ch, Answer::Names),
            (b"/quit", None) => {
                // What follows is not heard.
                ch.pause_reading();
                self.answer(ch, Answer::End);
                return;
            }
            ([b'/', ..], _) => _ = self.answer(ch, Answer::Line(b"* unknown command\r\n")),
            _ => room::say(&self.room, ch.map_mut(), self.number, line),
        }
        // Not faster than the bus takes it.
        if self.room.borrow_mut().is_to_wait(ch.token()) {
            ch.pause_reading();
        }
    }
}
