//! A client that fetches poems from many servers at once, in about the time of the slowest.
//!
//! It shows many connections that go on side by side without any thread; how the end of a stream is told
//! from a lost connection, in `handle_close` with its reason; and that bytes are kept as bytes: a
//! character may come in two reads. When the last connection has ended, the loop returns.
//!
//! ```sh
//! cargo run --release --example poetry_client -- 10000 10001 10002
//! cargo run --release --example poetry_client -- localhost:10000 '[::1]:10000'
//! ```
//!
//! The other side is the example `poetry_server`. It exits with 0 if every poem came whole.

mod common;

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use common::{ClientTls, Exit};
use dispatch_loop::{Address, Channel, ChannelMap, Dispatcher, Reason};
use lexopt::prelude::*;

/// How long a server may be silent, and how much of its poem is kept, in bytes.
const PATIENCE: Duration = Duration::from_secs(30);
const LONGEST: usize = 16 * 1024 * 1024;

const HELP: &str = "\
usage: poetry_client [OPTION...] [HOST:]PORT...

Fetches a poem from each server, from all at once, and prints them when they are all there. A poem has at
most 16 MiB, and comes without silences of more than 30 seconds.

  [HOST:]PORT        a server (without HOST: on 127.0.0.1); [IPV6]:PORT and unix:PATH as well";

fn main() -> ExitCode {
    common::tls_client(HELP, run)
}

fn run(mut args: lexopt::Parser) -> Result<(), Exit> {
    let mut servers = Vec::new();
    let mut tls = ClientTls::default();
    while let Some(arg) = args.next()? {
        match arg {
            Long("log") => common::set_log_level(args.value()?)?,
            Long("help") | Short('h') => return Err(Exit::Help),
            Value(server) => servers.push(address(server)?),
            other => tls.take(other.unexpected(), &mut args)?,
        }
    }
    if servers.is_empty() {
        return Err(Exit::Usage("no PORT is given".into()));
    }

    tls.begin()?;
    let begin = Instant::now();
    let poems: Rc<Poems> = Rc::new(RefCell::new(vec![None; servers.len()]));
    let mut map = ChannelMap::new()?;
    common::close_on_signal(&mut map)?;
    for (task, server) in (1..).zip(&servers) {
        let fetch = Fetch { task, server: server.clone(), poem: Vec::new(), poems: poems.clone() };
        let begun = map.connect(server, fetch).and_then(|fetch| Ok(map.channel(fetch)?));
        let begun = begun.and_then(|mut ch| {
            ch.set_timeout(Some(PATIENCE));
            tls.start_on(&mut ch, server)
        });
        match begun {
            Ok(()) => {}
            Err(error) => common::complain(format_args!("Task {task}: error: {error}")),
        }
    }
    dispatch_loop::run(&mut map)?; // until the last connection has ended, or a signal

    let poems = poems.take();
    for (task, poem) in (1..).zip(&poems) {
        let Some(poem) = poem else { continue };
        common::print_received(poem);
        if poem.last().is_some_and(|&byte| byte != b'\n') {
            common::print_received(b"\n");
        }
        common::say(format_args!("Task {task}: {} bytes of poetry", poem.len()));
    }
    let whole = poems.iter().flatten().count();
    common::say(format_args!("Got {whole} poems in {}", clock(begin.elapsed())));
    if whole == poems.len() { common::all_is_printed() } else { Err(Exit::Reported) }
}

fn address(server: OsString) -> Result<String, Exit> {
    match server.to_str().and_then(|server| server.parse::<u16>().ok()) {
        Some(port) => Ok(format!("127.0.0.1:{port}")),
        None => common::address(server),
    }
}

/// As `0:00:02.0`.
fn clock(time: Duration) -> String {
    let tenths = (time.as_millis() + 50) / 100;
    let (hours, minutes, seconds) = (tenths / 36_000, tenths / 600 % 60, tenths / 10 % 60);
    format!("{hours}:{minutes:02}:{seconds:02}.{}", tenths % 10)
}

/// Those that came whole, each in the place of its task.
type Poems = RefCell<Vec<Option<Vec<u8>>>>;

struct Fetch {
    /// From 1.
    task: usize,
    server: String,
    poem: Vec<u8>,
    poems: Rc<Poems>,
}

impl Dispatcher for Fetch {
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        if common::is_behind(ch) {
            return Ok(()); // it comes again when stdout was read
        }
        ch.read_with(|ch, data| {
            let (task, len) = (self.task, data.len());
            let from = ch.peer_addr().unwrap_or(Address::Unnamed);
            common::say(format_args!("Task {task}: got {len} bytes of poetry from {from}"));
            self.poem.extend_from_slice(data);
            match self.poem.len() {
                ..=LONGEST => Ok(()),
                _ => Err(io::Error::new(ErrorKind::FileTooLarge, "it is longer than 16 MiB")),
            }
        })
    }

    /// Every connection ends here, also one that never came about.
    fn handle_close(&mut self, _: &mut Channel<'_>, reason: &Reason) {
        let (task, from) = (self.task, &self.server);
        let why = match reason {
            Reason::EndOfStream => {
                common::say(format_args!("Task {task} finished"));
                self.poems.borrow_mut()[task - 1] = Some(std::mem::take(&mut self.poem));
                return;
            }
            Reason::Closed | Reason::MapEnded => "interrupted".to_owned(),
            other => other.to_string(),
        };
        let len = self.poem.len();
        common::complain(format_args!("Task {task}: error: no poem from {from} ({len} bytes came): {why}"));
    }
}
