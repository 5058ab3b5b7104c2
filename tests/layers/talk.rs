//! A chat that records its hooks and can be told what to do in each, as `Recorder` is a dispatcher
//! that does; its peer; and what a stream is cut into, found out the slow way.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};

use dispatch_loop::chat::{Chat, ChatChannel, ChatDispatcher, Terminator};
use dispatch_loop::{ChannelMap, Eof, Handle, OnError, Reason, Token};

use crate::support::peers::pair;
use crate::support::recorder::Log;
use crate::support::turning::{arrive, turn_quiet};

type Hook = Box<dyn FnMut(&mut ChatChannel<'_>, &[u8]) -> io::Result<()>>;

/// Records every hook as `"NAME HOOK"`: `open`, `connect`, `data …` (only with an `on("data", …)`),
/// `found …`, `overlong` (only with an `on` of it; the default is kept otherwise), `eof …`, `high`,
/// `low`, `drained` (only with an `on` of it), `timeout`, `error: …`, `close: …`; then does what `on` gave
/// for it.
pub struct Talk {
    pub name: &'static str,
    pub log: Log,
    hooks: HashMap<&'static str, Hook>,
    eof: Eof,
    on_error: OnError,
}

impl Talk {
    pub fn new(name: &'static str, log: &Log) -> Talk {
        Talk { name, log: log.clone(), hooks: HashMap::new(), eof: Eof::Close, on_error: OnError::End }
    }

    /// Also do this in the hook called `hook`, with what it is given; of `error` and `close` a
    /// result is of no consequence.
    pub fn on(
        mut self,
        hook: &'static str,
        f: impl FnMut(&mut ChatChannel<'_>, &[u8]) -> io::Result<()> + 'static,
    ) -> Self {
        self.hooks.insert(hook, Box::new(f));
        self
    }

    pub fn eof(mut self, eof: Eof) -> Self {
        self.eof = eof;
        self
    }

    pub fn on_error(mut self, on_error: OnError) -> Self {
        self.on_error = on_error;
        self
    }

    fn ran(&mut self, hook: &'static str, ch: &mut ChatChannel<'_>, data: Option<&[u8]>) -> io::Result<()> {
        let shown = data.map_or(String::new(), |data| format!(" {}", data.escape_ascii()));
        self.log.add(format!("{} {hook}{shown}", self.name));
        match self.hooks.get_mut(hook) {
            Some(f) => f(ch, data.unwrap_or_default()),
            None => Ok(()),
        }
    }
}

/// Whose hooks are the defaults.
struct Defaults;

impl Chat for Defaults {
    fn found_terminator(&mut self, _: &mut ChatChannel<'_>, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

impl Chat for Talk {
    fn collect_incoming_data(&mut self, ch: &mut ChatChannel<'_>, data: &[u8]) -> io::Result<()> {
        match self.hooks.contains_key("data") {
            true => self.ran("data", ch, Some(data)),
            false => Defaults.collect_incoming_data(ch, data),
        }
    }
    fn found_terminator(&mut self, ch: &mut ChatChannel<'_>, data: &[u8]) -> io::Result<()> {
        self.ran("found", ch, Some(data))
    }
    fn handle_overlong(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        match self.hooks.contains_key("overlong") {
            true => self.ran("overlong", ch, None),
            false => Defaults.handle_overlong(ch),
        }
    }
    fn handle_open(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        self.ran("open", ch, None)
    }
    fn handle_connect(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        self.ran("connect", ch, None)
    }
    fn handle_eof(&mut self, ch: &mut ChatChannel<'_>, rest: &[u8]) -> io::Result<Eof> {
        self.ran("eof", ch, Some(rest))?;
        Ok(self.eof)
    }
    fn handle_high(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        self.ran("high", ch, None)
    }
    fn handle_low(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        self.ran("low", ch, None)
    }
    fn handle_drained(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        match self.hooks.contains_key("drained") {
            true => self.ran("drained", ch, None),
            false => Ok(()),
        }
    }
    fn handle_timeout(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        self.ran("timeout", ch, None)?;
        Defaults.handle_timeout(ch)
    }
    fn handle_error(&mut self, ch: &mut ChatChannel<'_>, error: &io::Error) -> OnError {
        self.log.add(format!("{} error: {error}", self.name));
        if let Some(f) = self.hooks.get_mut("error") {
            let _ = f(ch, &[]);
        }
        self.on_error
    }
    fn handle_close(&mut self, ch: &mut ChatChannel<'_>, reason: &Reason) {
        self.log.add(format!("{} close: {reason}", self.name));
        if let Some(f) = self.hooks.get_mut("close") {
            let _ = f(ch, &[]);
        }
    }
}

pub type TalkHandle = Handle<ChatDispatcher<Talk>>;

/// A map with one open chat, and the blocking other end.
pub fn talking(
    on: SocketAddr,
    terminator: impl Into<Terminator>,
    talk: Talk,
) -> (ChannelMap, TalkHandle, TcpStream) {
    let (near, far) = pair(on);
    let mut map = ChannelMap::new().unwrap();
    let handle = map.add(near, ChatDispatcher::new(terminator, talk).unwrap()).unwrap();
    turn_quiet(&mut map);
    (map, handle, far)
}

/// Reach the chat and its view from outside.
pub fn reach<R>(
    map: &mut ChannelMap,
    handle: TalkHandle,
    f: impl FnOnce(&mut Talk, &mut ChatChannel<'_>) -> io::Result<R>,
) -> R {
    map.with(handle, |chat, ch| chat.with(ch, f)).unwrap()
}

/// Send `bytes` in pieces of `size`, each of which is read before the next is sent.
pub fn deliver(
    map: &mut ChannelMap,
    token: impl Into<Token>,
    far: &mut impl Write,
    bytes: &[u8],
    size: usize,
) {
    let token = token.into();
    for piece in bytes.chunks(size) {
        far.write_all(piece).unwrap();
        arrive(map, token);
    }
}

/// The messages of a stream as the textbook has it: look for the terminator in all that there is,
/// and if it is not there, keep the longest end that may be its start.
pub struct Naive {
    pub terminator: Terminator,
    /// Set one by one when a message is whole.
    pub next: VecDeque<Terminator>,
    pub collected: Vec<u8>,
    pub held: Vec<u8>,
    counted: usize,
    pub messages: Vec<Vec<u8>>,
    limit: usize,
}

impl Naive {
    pub fn new(terminator: Terminator, next: VecDeque<Terminator>, limit: usize) -> Naive {
        Naive { terminator, next, collected: vec![], held: vec![], counted: 0, messages: vec![], limit }
    }

    pub fn set(&mut self, terminator: Terminator) {
        self.terminator = terminator;
        self.counted = 0;
    }

    pub fn feed(&mut self, data: &[u8]) {
        self.held.extend_from_slice(data);
        while self.step() {
            self.messages.push(std::mem::take(&mut self.collected));
            self.counted = 0;
            // One that is too long is found by nobody.
            if self.messages.last().is_some_and(|message| message.len() > self.limit) {
                continue;
            }
            if let Some(next) = self.next.pop_front() {
                self.set(next);
            }
        }
    }

    /// Whether a message is whole.
    fn step(&mut self) -> bool {
        match self.terminator.clone() {
            Terminator::Bytes(bytes) => {
                let found = self.held.windows(bytes.len()).position(|window| *window == *bytes);
                let kept = (1..bytes.len()).rev().find(|&len| self.held.ends_with(&bytes[..len]));
                let end = found.unwrap_or(self.held.len() - kept.unwrap_or(0));
                self.collected.extend(self.held.drain(..end));
                self.held.drain(..found.map_or(0, |_| bytes.len()));
                found.is_some()
            }
            Terminator::Count(count) => {
                let taken = self.held.len().min(count - self.counted);
                self.collected.extend(self.held.drain(..taken));
                self.counted += taken;
                self.counted == count
            }
            Terminator::None => {
                self.collected.append(&mut self.held);
                false
            }
            other => unreachable!("{other:?}"),
        }
    }

    /// What is left when the stream ends.
    pub fn rest(&self) -> Vec<u8> {
        [&self.collected[..], &self.held].concat()
    }
}
