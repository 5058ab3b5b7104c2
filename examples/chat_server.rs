//! A chat room: what one member writes, all others read, under the writer's name.
//!
//! It shows `Chat`, which delivers lines however the network has split them, and what it does with a line
//! that never ends; and a room that all connections share, and `broadcast` to it, which never waits and
//! cuts off members that do not read. A member that takes its lines as they come loses none, however fast
//! another one writes: a socket is offered what is queued before its limit counts.
//!
//! ```sh
//! cargo run --release --example chat_server
//! ```
//!
//! The other side is `nc 127.0.0.1 8222`, several of them.

mod common;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::process::ExitCode;
use std::rc::Rc;

use common::{Exit, ServerOptions};
use dispatch_loop::chat::{Chat, ChatChannel, ChatDispatcher};
use dispatch_loop::{Address, Channel, ChannelMap, Dispatcher, Eof, OnLimit, Reason, Socket, Token};
use lexopt::prelude::*;

const HELP: &str = "\
usage: chat_server [OPTION...] [ADDR]

A chat room: each line of a client goes to all others as `NAME: TEXT`, until Ctrl-C.

  ADDR               HOST:PORT, [IPV6]:PORT or unix:PATH (127.0.0.1:8222); port 0 asks for
                     a free one

A client may say /name NEW (1 to 32 ASCII letters, digits, `_`, `-`), /who and /quit. A line has at
most 8 KiB; a longer one is dropped. A client that leaves more than 1 MiB unread is cut off.
One room over many nodes: cargo run --release -p programs --bin chat_server -- --bus redis://HOST";

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
    let mut address = None;
    while let Some(arg) = args.next()? {
        match arg {
            Value(text) if address.is_none() => address = Some(common::address(text)?),
            other => options.take(other.unexpected(), &mut args)?,
        }
    }
    let mut map = ChannelMap::new()?;
    options.begin_tls(&mut map)?;
    common::drain_on_signal(&mut map, &options)?;
    let room = Rc::<RefCell<Room>>::default();
    let new = || ChatServer { room: room.clone(), options: options.clone() };
    common::listen(&mut map, address.as_slice(), "127.0.0.1:8222", &options, new)?;
    common::serve(map, &options) // until a signal
}

/// The listener.
struct ChatServer {
    room: Rc<RefCell<Room>>,
    options: ServerOptions,
}

impl Dispatcher for ChatServer {
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
        let guest = Guest { room: self.room.clone(), number: 0 };
        let guest = self.options.add(ch.map_mut(), socket, ChatDispatcher::new("\n", guest)?)?;
        self.options.set_on(&mut ch.map_mut().channel(guest)?);
        Ok(())
    }
}

#[derive(Default)]
struct Room {
    /// By number, and so in order of arrival.
    members: BTreeMap<u64, Member>,
    /// The last number that was given out.
    last: u64,
}

struct Member {
    token: Token,
    name: String,
}

impl Room {
    fn is_taken(&self, name: &str) -> bool {
        self.members.values().any(|member| member.name == name)
    }

    /// Let `token` in, under the next number whose name is free.
    fn enter(&mut self, token: Token) -> (u64, String) {
        loop {
            self.last += 1;
            let name = format!("guest{}", self.last);
            if !self.is_taken(&name) {
                self.members.insert(self.last, Member { token, name: name.clone() });
                return (self.last, name);
            }
        }
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.members.values().map(|member| member.name.as_str()).collect();
        names.join(", ")
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
        let (number, name) = self.room.borrow_mut().enter(ch.token());
        self.number = number;
        self.tell_others(ch, format!("* {name} joined\r\n").as_bytes());
        Ok(())
    }

    fn found_terminator(&mut self, ch: &mut ChatChannel<'_>, line: &[u8]) -> io::Result<()> {
        self.take(ch, line.strip_suffix(b"\r").unwrap_or(line))
    }

    fn handle_overlong(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        ch.push(TOO_LONG) // the rest of the line is dropped
    }

    fn handle_eof(&mut self, ch: &mut ChatChannel<'_>, rest: &[u8]) -> io::Result<Eof> {
        if !rest.is_empty() {
            self.take(ch, rest)?;
        }
        Ok(Eof::Close)
    }

    /// Also runs for a member that was cut off.
    fn handle_close(&mut self, ch: &mut ChatChannel<'_>, reason: &Reason) {
        common::disconnected(ch.channel_mut(), reason);
        let member = self.room.borrow_mut().members.remove(&self.number);
        if let Some(Member { name, .. }) = member {
            // When the server ends, so they all do.
            if !ch.map().is_draining() {
                self.tell_others(ch, format!("* {name} left\r\n").as_bytes());
            }
        }
    }
}

impl Guest {
    fn take(&mut self, ch: &mut ChatChannel<'_>, line: &[u8]) -> io::Result<()> {
        if line.len() > LONGEST {
            return ch.push(TOO_LONG);
        }
        let mut words = line.splitn(2, |&byte| byte == b' ');
        match (words.next().unwrap_or_default(), words.next()) {
            (b"/name", name) => return self.rename(ch, name.unwrap_or_default()),
            (b"/who", None) => {
                let names = self.room.borrow().names();
                return ch.push(format!("* here: {names}\r\n").as_bytes());
            }
            (b"/quit", None) => ch.close(),
            ([b'/', ..], _) => return ch.push(b"* unknown command\r\n"),
            _ => {
                let line = [self.name().as_bytes(), b": ", line, b"\r\n"].concat();
                self.tell_others(ch, &line);
            }
        }
        Ok(())
    }

    fn name(&self) -> String {
        self.room.borrow().members.get(&self.number).map(|member| member.name.clone()).unwrap_or_default()
    }

    fn rename(&mut self, ch: &mut ChatChannel<'_>, name: &[u8]) -> io::Result<()> {
        let good = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-".contains(byte);
        let name = String::from_utf8_lossy(name);
        let is_good = (1..=32).contains(&name.len()) && name.as_bytes().iter().all(good);
        if !is_good || self.room.borrow().is_taken(&name) {
            return ch.push(b"* bad name\r\n");
        }
        self.tell_others(ch, format!("* {} is now {name}\r\n", self.name()).as_bytes());
        if let Some(member) = self.room.borrow_mut().members.get_mut(&self.number) {
            member.name = name.into_owned();
        }
        Ok(())
    }

    fn tell_others(&self, ch: &mut ChatChannel<'_>, line: &[u8]) {
        let room = self.room.borrow();
        let others = room.members.iter().filter(|(number, _)| **number != self.number);
        ch.map_mut().broadcast(others.map(|(_, member)| member.token), line);
    }
}
