//! A chat room: what one member writes, all others read, under the writer's name.
//!
//! It shows `Chat`, which delivers lines however the network has split them, and what it does with a line
//! that never ends; and a room that all connections share, and `broadcast` to it, or `Topics`, which
//! reach all loops: neither waits, and both cut off members that do not read. A member that takes its lines as
//! they come loses none, however fast another one writes: a socket is offered what is queued before its limit
//! counts.
//!
//! ```sh
//! cargo run --release --example chat_server
//! ```
//!
//! The other side is `nc 127.0.0.1 8222`, several of them.

mod common;

use std::collections::BTreeMap;
use std::io;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use common::{Exit, Server, ServerOptions};
use dispatch_loop::chat::{Chat, ChatChannel, ChatDispatcher};
use dispatch_loop::{Address, Channel, Dispatcher, Eof, OnLimit, Reason, Socket, Token, Topics};
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

/// How long who talks faster than the loops can pass it on is not read from.
const PAUSE: Duration = Duration::from_millis(10);

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
    let mut server = Server::new(options)?;
    let (topics, options) = (server.several().map(|loops| Topics::new(&loops)), server.options());
    let room = Arc::new(Room { topics, members: Mutex::default() });
    let new = move || ChatServer { room: room.clone(), options: options.clone() };
    server.listen(address.as_slice(), "127.0.0.1:8222", new)?;
    server.run() // until a signal
}

/// The listener.
#[derive(Clone)]
struct ChatServer {
    room: Arc<Room>,
    options: Arc<ServerOptions>,
}

impl Dispatcher for ChatServer {
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
        let guest = Guest { room: self.room.clone(), number: 0 };
        let guest = self.options.add(ch.map_mut(), socket, ChatDispatcher::new("\n", guest)?)?;
        self.options.set_on(&mut ch.map_mut().channel(guest)?);
        Ok(())
    }
}

/// One for all loops.
struct Room {
    /// Under `ALL`, everybody who is in; `None` if there is one loop.
    topics: Option<Topics>,
    members: Mutex<Members>,
}

const ALL: &str = "all";

impl Room {
    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Members {
    /// By number, and so in order of arrival.
    all: BTreeMap<u64, Member>,
    /// The last number that was given out.
    last: u64,
}

struct Member {
    token: Token,
    name: String,
}

impl Members {
    fn is_taken(&self, name: &str) -> bool {
        self.all.values().any(|member| member.name == name)
    }

    /// Let `token` in, under the next number whose name is free.
    fn enter(&mut self, token: Token) -> (u64, String) {
        loop {
            self.last += 1;
            let name = format!("guest{}", self.last);
            if !self.is_taken(&name) {
                self.all.insert(self.last, Member { token, name: name.clone() });
                return (self.last, name);
            }
        }
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.all.values().map(|member| member.name.as_str()).collect();
        names.join(", ")
    }
}

struct Guest {
    room: Arc<Room>,
    /// Its key in the room; 0 before it enters.
    number: u64,
}

impl Chat for Guest {
    fn handle_open(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        ch.set_input_limit(LONGEST + 1); // one more for a `\r`
        ch.channel_mut().set_limit(MOST_UNREAD, OnLimit::End);
        let (number, name) = self.room.members().enter(ch.token());
        self.number = number;
        if let Some(topics) = &self.room.topics {
            topics.subscribe(ch.channel_mut(), ALL);
        }
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
        let member = self.room.members().all.remove(&self.number);
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
                let names = self.room.members().names();
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
        self.room.members().all.get(&self.number).map(|member| member.name.clone()).unwrap_or_default()
    }

    fn rename(&mut self, ch: &mut ChatChannel<'_>, name: &[u8]) -> io::Result<()> {
        let good = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-".contains(byte);
        let name = String::from_utf8_lossy(name);
        let is_good = (1..=32).contains(&name.len()) && name.as_bytes().iter().all(good);
        // Looked for and taken at once: somebody on another loop may want the same.
        let mut members = self.room.members();
        if !is_good || members.is_taken(&name) {
            return ch.push(b"* bad name\r\n");
        }
        let Some(member) = members.all.get_mut(&self.number) else { return Ok(()) };
        let old = std::mem::replace(&mut member.name, name.clone().into_owned());
        drop(members);
        self.tell_others(ch, format!("* {old} is now {name}\r\n").as_bytes());
        Ok(())
    }

    fn tell_others(&self, ch: &mut ChatChannel<'_>, line: &[u8]) {
        let own = ch.token();
        let Some(topics) = &self.room.topics else {
            let members = self.room.members();
            let others = members.all.values().map(|member| member.token).filter(|token| *token != own);
            ch.map_mut().broadcast(others, line);
            return;
        };
        if let Err(error) = topics.publish_from(ch.map_mut(), own, ALL, line) {
            log::warn!("a line does not reach all: {error}");
        }
        if topics.backlog() > MOST_UNREAD && !ch.channel().is_closing() {
            // Another loop does not keep up: read no more until it has had some time.
            ch.channel_mut().pause_reading();
            ch.channel_mut().call_later(PAUSE, |ch| {
                ch.resume_reading();
                Ok(())
            });
        }
    }
}
