//! A client that fetches one page by HTTP/1.0, and prints it as it arrives.
//!
//! It shows `Chat` with changing terminators: the lines up to an empty one are the head, and that says how
//! the body ends: after a number of bytes, or with the stream. The body is not collected:
//! `collect_incoming_data` takes each piece of it as soon as it arrives.
//!
//! ```sh
//! cargo run --release --example http_client -- example.com /
//! cargo run --release --example http_client -- -v localhost:8000 /README.md > README.md
//! ```
//!
//! It exits with 0 if the whole body arrived with a status of 200 to 299. Redirects are not followed.

mod common;

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use common::{ClientTls, Exit};
use dispatch_loop::chat::{Chat, ChatChannel, ChatDispatcher, Terminator};
use dispatch_loop::{ChannelMap, Eof, OnError, Reason};
use lexopt::prelude::*;

const HELP: &str = "\
usage: http_client [-v] [OPTION...] [https://]HOST[:PORT] PATH

Fetches http://HOST:PORT/PATH by HTTP/1.0, and writes the body to stdout.

  HOST[:PORT]        the server, [IPV6]:PORT as well (port 80; 443 of https://)
  PATH               what to ask for, from its / on, percent-encoded
  -v                 write the status and the headers to stderr
  --ca FILE          trust the authorities in this file (PEM), not those of the system";

/// The limit of a head, in bytes.
const HEAD: usize = 64 * 1024;
const HEADERS: usize = 256;

fn main() -> ExitCode {
    common::main(HELP, run)
}

fn run(mut args: lexopt::Parser) -> Result<(), Exit> {
    let (mut host, mut path, mut verbose) = (None, None, false);
    let mut tls = ClientTls::default();
    while let Some(arg) = args.next()? {
        match arg {
            Short('v') => verbose = true,
            Long("log") => common::set_log_level(args.value()?)?,
            Long("help") | Short('h') => return Err(Exit::Help),
            Value(text) if host.is_none() => host = Some(text.string()?),
            Value(text) if path.is_none() => path = Some(text),
            Long("ca") => tls.trust(args.value()?)?,
            other => return Err(other.unexpected().into()),
        }
    }
    let (Some(host), Some(path)) = (host, path) else {
        return Err(Exit::Usage("wanted HOST[:PORT] and PATH".into()));
    };
    let (scheme, host, port) = match host.strip_prefix("https://") {
        Some(host) => {
            tls.is_wanted()?;
            ("https", host.to_owned(), 443)
        }
        None => ("http", host, 80),
    };
    let url = format!("{scheme}://{host}{}", path.as_bytes().escape_ascii());
    let request = request(&host, path)?;
    // In `[::1]` the colons are not those of a port.
    let has_port = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
    let address = common::address(if has_port { host.into() } else { format!("{host}:{port}").into() })?;

    let outcome = Rc::new(RefCell::new(None));
    tls.begin()?;
    let mut map = ChannelMap::new()?;
    common::close_on_signal(&mut map)?;
    let fetch =
        Fetch { request, verbose, head: Vec::new(), received: 0, status: None, outcome: outcome.clone() };
    let handle = map.connect(address.as_str(), ChatDispatcher::new("\n", fetch)?)?;
    tls.start_on(&mut map.channel(handle).map_err(io::Error::from)?, &address)?;
    dispatch_loop::run(&mut map)?; // until it has ended, or a signal
    let outcome = outcome.take().unwrap_or_else(|| Err("interrupted".to_owned()));
    outcome.map_err(|why| Exit::Failure(format!("{url} ({address}): {why}")))?;
    common::all_is_printed()
}

fn request(host: &str, path: OsString) -> Result<Vec<u8>, Exit> {
    let path = path.into_vec();
    let breaks_the_line = |byte: &u8| byte.is_ascii_control() || *byte == b' ';
    if !path.starts_with(b"/") || path.iter().any(breaks_the_line) {
        let what = format!("PATH \"{}\": wanted / and no spaces (%20)", path.escape_ascii());
        return Err(Exit::Usage(what));
    }
    if host.bytes().any(|byte| breaks_the_line(&byte)) {
        return Err(Exit::Usage(format!("{host:?} is no name of a host")));
    }
    let host = if host.starts_with("unix:") { "localhost" } else { host };
    Ok([b"GET ", &*path, b" HTTP/1.0\r\nHost: ", host.as_bytes(), b"\r\n\r\n"].concat())
}

struct Fetch {
    request: Vec<u8>,
    verbose: bool,
    /// The lines of the head that have arrived.
    head: Vec<u8>,
    /// The length of all heads, in bytes.
    received: usize,
    /// `Some` in the body: what is wrong with the status, if anything.
    status: Option<Result<(), String>>,
    /// `None` until it is known, and when the program is interrupted.
    outcome: Rc<RefCell<Option<Result<(), String>>>>,
}

impl Chat for Fetch {
    fn handle_open(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        ch.set_input_limit(HEAD);
        ch.push(&self.request)
    }

    fn collect_incoming_data(&mut self, ch: &mut ChatChannel<'_>, data: &[u8]) -> io::Result<()> {
        match self.status {
            // If stdout blocks (`| less`), the server waits: nothing piles up.
            Some(_) => {
                common::print_received(data);
                common::is_behind(ch.channel_mut());
            }
            None => ch.collect(data),
        }
        Ok(())
    }

    fn found_terminator(&mut self, ch: &mut ChatChannel<'_>, line: &[u8]) -> io::Result<()> {
        if self.status.is_some() {
            self.finish(ch); // as many bytes as were announced
            return Ok(());
        }
        self.head.extend_from_slice(line);
        self.head.push(b'\n');
        self.received += line.len() + 1;
        if self.received > HEAD {
            return self.handle_overlong(ch);
        }
        if !line.is_empty() && line != b"\r" {
            return Ok(());
        }
        if self.verbose {
            common::complain(common::shown(&String::from_utf8_lossy(&self.head)).trim_end());
        }
        let Some((status, length)) = parse(&self.head)? else {
            self.head.clear(); // the answer comes after this one
            return Ok(());
        };
        self.status = Some(status);
        match length {
            Some(0) => self.finish(ch),
            Some(length) => ch.set_terminator(length)?,
            None => ch.set_terminator(Terminator::None)?,
        }
        Ok(())
    }

    fn handle_overlong(&mut self, _: &mut ChatChannel<'_>) -> io::Result<()> {
        Err(malformed(format!("the head of the answer is longer than {HEAD} bytes")))
    }

    fn handle_eof(&mut self, ch: &mut ChatChannel<'_>, _: &[u8]) -> io::Result<Eof> {
        match (&self.status, ch.terminator()) {
            (None, _) => return Err(malformed("the server ended before the end of the head")),
            (Some(_), Terminator::None) => self.finish(ch),
            (Some(_), _) => return Err(malformed("the body is cut short")),
        }
        Ok(Eof::Close)
    }

    /// Called for a failed connect and for errors of our own hooks. The program prints them; the loop need
    /// not log them.
    fn handle_error(&mut self, ch: &mut ChatChannel<'_>, error: &io::Error) -> OnError {
        *self.outcome.borrow_mut() = Some(Err(error.to_string()));
        ch.abort();
        OnError::Keep
    }

    fn handle_close(&mut self, _: &mut ChatChannel<'_>, reason: &Reason) {
        if let Some(lost) = reason.error() {
            self.outcome.borrow_mut().get_or_insert_with(|| Err(lost.to_string()));
        }
    }
}

impl Fetch {
    fn finish(&mut self, ch: &mut ChatChannel<'_>) {
        *self.outcome.borrow_mut() = self.status.take();
        // Whether the server ends, too, is of no interest: it has answered.
        ch.channel_mut().set_linger(Duration::ZERO);
        ch.close();
    }
}

/// What is wrong with the status, if anything, and the length of the body, if it is given.
type Answer = (Result<(), String>, Option<usize>);

/// What a head says; `None` for an answer in between, like `103 Early Hints`.
fn parse(head: &[u8]) -> io::Result<Option<Answer>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut answer = httparse::Response::new(&mut headers);
    let parsed = answer.parse(head).map_err(|error| malformed(format!("no HTTP answer: {error}")))?;
    let (true, Some(code)) = (parsed.is_complete(), answer.code) else {
        return Err(malformed("no HTTP answer"));
    };
    let status = match code {
        100 | 102..=104 => return Ok(None),
        200..=299 => Ok(()),
        _ => Err(format!("status {code} {}", answer.reason.unwrap_or_default())),
    };
    if matches!(code, 204 | 304) {
        return Ok(Some((status, Some(0))));
    }
    let mut length = None;
    for header in answer.headers {
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(malformed("the body is encoded for its transfer, which HTTP/1.0 does not know"));
        }
        if header.name.eq_ignore_ascii_case("content-length") {
            match number(header.value) {
                Some(said) if length.is_none_or(|other| other == said) => length = Some(said),
                _ => return Err(malformed("no Content-Length that makes sense")),
            }
        }
    }
    Ok(Some((status, length)))
}

/// Digits only: a sign, which Rust's `parse` accepts, is not allowed here.
fn number(value: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(value).ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn malformed(what: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.into())
}
