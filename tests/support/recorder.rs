//! A dispatcher that records its hooks and can be told what to do in each, and the log that it writes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;

use dispatch_loop::{Address, Channel, Datagram, Deadline, Dispatcher, Eof, OnError, Reason, Socket};

/// What happened, in order, in all channels that share it: `"a open"`, `"a read"`, `"b close: …"`.
#[derive(Clone, Default)]
pub struct Log(Rc<RefCell<Shared>>);

#[derive(Default)]
struct Shared {
    events: Vec<String>,
    input: HashMap<&'static str, Vec<u8>>,
}

impl Log {
    pub fn new() -> Log {
        Log::default()
    }

    pub fn add(&self, event: impl Into<String>) {
        self.0.borrow_mut().events.push(event.into());
    }

    pub fn events(&self) -> Vec<String> {
        self.0.borrow().events.clone()
    }

    /// The events of one channel, without its name.
    pub fn of(&self, name: &str) -> Vec<String> {
        let prefix = format!("{name} ");
        self.events().iter().filter_map(|event| event.strip_prefix(&prefix)).map(str::to_owned).collect()
    }

    pub fn has(&self, event: &str) -> bool {
        self.0.borrow().events.iter().any(|e| e == event)
    }

    /// How many events begin with this.
    pub fn count(&self, prefix: &str) -> usize {
        self.0.borrow().events.iter().filter(|e| e.starts_with(prefix)).count()
    }

    pub fn closed(&self, name: &str) -> bool {
        self.count(&format!("{name} close: ")) > 0
    }

    /// All that the recorder of this name has read.
    pub fn input(&self, name: &str) -> Vec<u8> {
        self.0.borrow().input.get(name).cloned().unwrap_or_default()
    }

    fn add_input(&self, name: &'static str, data: &[u8]) {
        self.0.borrow_mut().input.entry(name).or_default().extend_from_slice(data);
    }
}

type Hook = Box<dyn FnMut(&mut Channel<'_>) -> io::Result<()>>;
type AcceptHook = Box<dyn FnMut(&mut Channel<'_>, Socket, Address) -> io::Result<()>>;
type Question = Box<dyn Fn(&Channel<'_>) -> bool>;

/// Records every hook as `"NAME HOOK"` (`open`, `connect`, `read`, `write`, `expt`, `eof`, `high`,
/// `low`, `timeout`, `deadline: …`, `accept`, `error: …`, `close: …`), then does what `on` gave for it. Without
/// an `on("read", …)` it reads once and keeps what it got.
pub struct Recorder {
    pub name: &'static str,
    pub log: Log,
    hooks: HashMap<&'static str, Hook>,
    accept: Option<AcceptHook>,
    readable: Question,
    writable: Question,
    eof: Eof,
    on_error: OnError,
    quiet: bool,
}

impl Recorder {
    pub fn new(name: &'static str, log: &Log) -> Recorder {
        Recorder {
            name,
            log: log.clone(),
            hooks: HashMap::new(),
            accept: None,
            readable: Box::new(|_| true),
            writable: Box::new(|_| false),
            eof: Eof::Close,
            on_error: OnError::End,
            quiet: false,
        }
    }

    /// Also do this in the hook called `hook`: `open`, `connect`, `read`, `write`, `expt`, `eof`,
    /// `high`, `low`, `drain`, `timeout`, `deadline`, `error`, `close` (of the last two a result is of no
    /// consequence).
    pub fn on(
        mut self,
        hook: &'static str,
        f: impl FnMut(&mut Channel<'_>) -> io::Result<()> + 'static,
    ) -> Self {
        self.hooks.insert(hook, Box::new(f));
        self
    }

    pub fn on_accept(
        mut self,
        f: impl FnMut(&mut Channel<'_>, Socket, Address) -> io::Result<()> + 'static,
    ) -> Self {
        self.accept = Some(Box::new(f));
        self
    }

    pub fn readable(mut self, f: impl Fn(&Channel<'_>) -> bool + 'static) -> Self {
        self.readable = Box::new(f);
        self
    }

    pub fn writable(mut self, f: impl Fn(&Channel<'_>) -> bool + 'static) -> Self {
        self.writable = Box::new(f);
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

    /// Do not record `read` and `write`.
    pub fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    fn ran(&mut self, hook: &'static str, ch: &mut Channel<'_>) -> io::Result<()> {
        if !(self.quiet && matches!(hook, "read" | "write")) {
            self.log.add(format!("{} {hook}", self.name));
        }
        match self.hooks.get_mut(hook) {
            Some(f) => f(ch),
            None => Ok(()),
        }
    }
}

impl Dispatcher for Recorder {
    fn readable(&self, ch: &Channel<'_>) -> bool {
        (self.readable)(ch)
    }
    fn writable(&self, ch: &Channel<'_>) -> bool {
        (self.writable)(ch)
    }
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.ran("open", ch)
    }
    fn handle_connect(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.ran("connect", ch)
    }
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, peer: Address) -> io::Result<()> {
        self.log.add(format!("{} accept", self.name));
        match &mut self.accept {
            Some(f) => f(ch, socket, peer),
            None => Ok(()),
        }
    }
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        let given = self.hooks.contains_key("read");
        self.ran("read", ch)?;
        if given {
            return Ok(());
        }
        ch.read_with(|_, data| {
            self.log.add_input(self.name, data);
            Ok(())
        })
    }
    fn handle_datagram(&mut self, ch: &mut Channel<'_>, _: &Datagram<'_>) -> io::Result<()> {
        self.ran("datagram", ch)
    }
    fn handle_write(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.ran("write", ch)
    }
    fn handle_expt(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.ran("expt", ch)
    }
    fn handle_eof(&mut self, ch: &mut Channel<'_>) -> io::Result<Eof> {
        self.ran("eof", ch)?;
        Ok(self.eof)
    }
    fn handle_high(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.ran("high", ch)
    }
    fn handle_low(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.ran("low", ch)
    }
    fn handle_wrapped(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.ran("wrapped", ch)
    }
    fn handle_drain(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.ran("drain", ch)
    }
    fn handle_timeout(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        let given = self.hooks.contains_key("timeout");
        self.ran("timeout", ch)?;
        if !given {
            ch.abort();
        }
        Ok(())
    }
    fn handle_deadline(&mut self, ch: &mut Channel<'_>, deadline: Deadline) -> io::Result<()> {
        self.log.add(format!("{} deadline: {deadline}", self.name));
        match self.hooks.get_mut("deadline") {
            Some(f) => f(ch),
            None => {
                ch.time_out();
                Ok(())
            }
        }
    }
    fn handle_error(&mut self, ch: &mut Channel<'_>, error: &io::Error) -> OnError {
        self.log.add(format!("{} error: {error}", self.name));
        if let Some(f) = self.hooks.get_mut("error") {
            let _ = f(ch);
        }
        self.on_error
    }
    fn handle_close(&mut self, ch: &mut Channel<'_>, reason: &Reason) {
        self.log.add(format!("{} close: {reason}", self.name));
        if let Some(f) = self.hooks.get_mut("close") {
            let _ = f(ch);
        }
    }
}

/// What an error of this `errno` is called; reasons and errors are recorded in these words.
pub fn text(errno: i32) -> String {
    std::io::Error::from_raw_os_error(errno).to_string()
}
