//! A client that opens many connections at once, sends messages on each, and wants them back.
//!
//! It shows `connect`, whose outcome comes by hooks; pushing before anything is known of the
//! connection's speed, because the loop sends the rest when there is room; and where the end of a
//! connection is judged, in `handle_close` with its reason. When the last one has ended, the loop
//! returns. With `--interactive`, a thread feeds one connection with what is typed.
//!
//! ```sh
//! cargo run --release --example echo_client -- 127.0.0.1:8080
//! cargo run --release --example echo_client -- --connections 300 --message hello localhost:8080
//! cargo run --release --example echo_client -- --interactive localhost:8080
//! ```
//!
//! It exits with 0 if every connection got back exactly what it had sent.

mod common;

use std::cell::RefCell;
use std::io;
use std::num::NonZero;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use common::{ClientTls, Exit, Stdin};
use dispatch_loop::{Channel, ChannelMap, Dispatcher, Reason};
use lexopt::prelude::*;

/// How long a server may take to end when all has come back.
const PATIENCE: Duration = Duration::from_secs(2);

const HELP: &str = "\
usage: echo_client [--interactive | [--connections N] [--message TEXT]...] [OPTION...] ADDR

Sends messages to an echo server, on N connections at once, and checks that they come back.

  ADDR               HOST:PORT, [IPV6]:PORT or unix:PATH of the server
  --connections N    how many connections (1)
  --message TEXT     what to send on each, one or more times
                     (\"Message 1 from client.\" and \"Message 2 from client.\")
  --interactive      send stdin instead, and write what comes back to stdout";

fn main() -> ExitCode {
    common::tls_client(HELP, run)
}

fn run(mut args: lexopt::Parser) -> Result<(), Exit> {
    let mut address = None;
    let mut connections = NonZero::<usize>::MIN;
    let mut messages = Vec::new();
    let mut interactive = false;
    let mut tls = ClientTls::default();
    while let Some(arg) = args.next()? {
        match arg {
            Long("connections") => connections = common::parse("--connections", args.value()?, "1 or more")?,
            Long("message") => messages.push(args.value()?.into_vec()),
            Long("interactive") => interactive = true,
            Long("log") => common::set_log_level(args.value()?)?,
            Long("help") | Short('h') => return Err(Exit::Help),
            Value(text) if address.is_none() => address = Some(common::address(text)?),
            other => tls.take(other.unexpected(), &mut args)?,
        }
    }
    let Some(address) = address else { return Err(Exit::Usage("no ADDR is given".into())) };
    let connections = connections.get();
    if interactive && (connections > 1 || !messages.is_empty()) {
        return Err(Exit::Usage("--interactive has one connection, and sends stdin".into()));
    }
    if messages.is_empty() {
        messages = [b"Message 1 from client.", b"Message 2 from client."].map(Vec::from).into();
    }

    let sent = messages.concat();
    let work = Rc::new(Work { messages, sent, failures: RefCell::default() });
    tls.begin()?;
    let mut map = ChannelMap::new()?;
    common::close_on_signal(&mut map)?;
    if interactive {
        let handle = map.connect(address.as_str(), Interactive { work: work.clone(), all_sent: false })?;
        tls.start_on(&mut map.channel(handle).map_err(io::Error::from)?, &address)?;
        common::send_stdin(&mut map, handle, Interactive::stdin_is)?;
    } else {
        for number in 1..=connections {
            let connection = Connection { number, work: work.clone(), returned: 0, done: false };
            let handle = map.connect(address.as_str(), connection)?;
            tls.start_on(&mut map.channel(handle).map_err(io::Error::from)?, &address)?;
        }
    }
    dispatch_loop::run(&mut map)?; // until the last connection has ended, or a signal

    let failures = work.failures.take();
    let Some(first) = failures.first() else { return common::all_is_printed() };
    let failed = failures.len();
    Err(Exit::Failure(format!("{failed} of {connections} connections to {address} failed; {first}")))
}

/// What the connections have in common.
struct Work {
    messages: Vec<Vec<u8>>,
    /// All of them, as they must come back: in what pieces is up to the network.
    sent: Vec<u8>,
    failures: RefCell<Vec<String>>,
}

struct Connection {
    number: usize,
    work: Rc<Work>,
    /// How many bytes have come back as they were sent.
    returned: usize,
    done: bool,
}

impl Dispatcher for Connection {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        for message in &self.work.messages {
            ch.push(message)?;
        }
        self.end_if_done(ch); // if there is nothing to send
        Ok(())
    }

    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        if common::is_behind(ch) {
            return Ok(()); // it comes again when stdout was read
        }
        ch.read_with(|ch, data| {
            common::say(format_args!("received \"{}\" from connection {}", data.escape_ascii(), self.number));
            if !self.work.sent[self.returned..].starts_with(data) {
                ch.abort();
                return Ok(());
            }
            self.returned += data.len();
            self.end_if_done(ch);
            Ok(())
        })
    }

    /// The server has nothing more to say.
    fn handle_timeout(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.set_linger(Duration::ZERO); // it was waited for
        ch.close();
        Ok(())
    }

    /// Every connection ends here, also one that never came about.
    fn handle_close(&mut self, _: &mut Channel<'_>, reason: &Reason) {
        if !self.done || matches!(reason, Reason::Aborted) {
            let (number, returned, all) = (self.number, self.returned, self.work.sent.len());
            let failure =
                format!("connection {number}, with {returned} of {all} bytes back: {}", why(reason));
            self.work.failures.borrow_mut().push(failure);
        }
    }
}

impl Connection {
    /// When all has come back, end it, and see whether more comes.
    fn end_if_done(&mut self, ch: &mut Channel<'_>) {
        if self.returned == self.work.sent.len() {
            self.done = true;
            ch.shutdown_write();
            ch.set_timeout(Some(PATIENCE));
        }
    }
}

/// The connection of `--interactive`.
struct Interactive {
    work: Rc<Work>,
    all_sent: bool,
}

impl Dispatcher for Interactive {
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        if common::is_behind(ch) {
            return Ok(());
        }
        ch.read_with(|_, data| {
            common::print_received(data);
            Ok(())
        })
    }

    fn handle_close(&mut self, _: &mut Channel<'_>, reason: &Reason) {
        if !(self.all_sent && matches!(reason, Reason::EndOfStream)) {
            self.work.failures.borrow_mut().push(why(reason));
        }
    }
}

impl Interactive {
    fn stdin_is(&mut self, stdin: Stdin) {
        let Stdin::Ended(result) = stdin else { return };
        self.all_sent = true;
        if let Err(error) = result {
            self.work.failures.borrow_mut().push(format!("cannot read stdin: {error}"));
        }
    }
}

fn why(reason: &Reason) -> String {
    match reason {
        Reason::EndOfStream => "the server ended it".to_owned(),
        Reason::Aborted => "something else came back than was sent".to_owned(),
        Reason::Closed | Reason::MapEnded => "interrupted".to_owned(),
        other => other.to_string(),
    }
}
