//! A client that sends one request as a message that carries its own length, and prints the answer: the
//! other side of `app_server`, and of the server in Real Python's "Socket Programming in Python".
//!
//! It shows `Chat` on an outgoing connection, and a `handle_error` of its own, for a program that reports
//! by itself what went wrong.
//!
//! ```sh
//! cargo run --release --example app_client -- 127.0.0.1:65432 search morpheus
//! cargo run --release --example app_client -- localhost:65432 binary data
//! ```

#[path = "common/app.rs"]
mod app;
mod common;

use std::cell::RefCell;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use app::{Receiver, malformed};
use common::Exit;
use dispatch_loop::chat::{Chat, ChatChannel, ChatDispatcher};
use dispatch_loop::{ChannelMap, Eof, OnError, Reason};
use lexopt::prelude::*;
use serde_json::Value as Json;

const HELP: &str = "\
usage: app_client [--log LEVEL] ADDR ACTION VALUE

Sends a request to an app_server, and prints its answer: for the ACTION search what is found under VALUE,
for any other what the server has to say about ACTION and VALUE as bytes.

  ADDR               HOST:PORT, [IPV6]:PORT or unix:PATH of the server";

fn main() -> ExitCode {
    common::main(HELP, run)
}

fn run(mut args: lexopt::Parser) -> Result<(), Exit> {
    let (mut address, mut words) = (None, Vec::new());
    while let Some(arg) = args.next()? {
        match arg {
            Long("log") => common::set_log_level(args.value()?)?,
            Long("help") | Short('h') => return Err(Exit::Help),
            Value(text) if address.is_none() => address = Some(text),
            Value(word) => words.push(word),
            other => return Err(other.unexpected().into()),
        }
    }
    let (Some(address), Ok([action, value])) = (address, <[OsString; 2]>::try_from(words)) else {
        return Err(Exit::Usage("wanted ADDR, ACTION and VALUE".into()));
    };
    let request = request(action, value)?;
    let address = common::address(address)?;

    let outcome = Rc::new(RefCell::new(None));
    let mut map = ChannelMap::new()?;
    common::close_on_signal(&mut map)?;
    let answer = Answer { request, receiver: Receiver::default(), outcome: outcome.clone() };
    map.connect(address.as_str(), ChatDispatcher::new(app::LENGTH, answer)?)?;
    dispatch_loop::run(&mut map)?; // until it has ended, or a signal

    let outcome = outcome.take().unwrap_or_else(|| Err("interrupted".to_owned()));
    let answer = outcome.map_err(|why| Exit::Failure(format!("no answer from {address}: {why}")))?;
    common::print_received(&[&answer, &b"\n"[..]].concat());
    common::all_is_printed()
}

fn request(action: OsString, value: OsString) -> Result<Vec<u8>, Exit> {
    if action != "search" {
        let content = [action.into_vec(), value.into_vec()].concat();
        return Ok(app::message("binary/custom-client-binary-type", "binary", &content));
    }
    let not_text = |value| Exit::Usage(format!("VALUE {value:?}: JSON is UTF-8"));
    let value = value.into_string().map_err(not_text)?;
    Ok(app::json_message(&[("action", "search"), ("value", &value)]))
}

/// What is to be printed, or why there is nothing to print. `None` until that is known, and when the
/// program is interrupted.
type Outcome = Option<Result<Vec<u8>, String>>;

struct Answer {
    request: Vec<u8>,
    receiver: Receiver,
    outcome: Rc<RefCell<Outcome>>,
}

impl Chat for Answer {
    fn handle_open(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        ch.push(&self.request)
    }

    fn found_terminator(&mut self, ch: &mut ChatChannel<'_>, data: &[u8]) -> io::Result<()> {
        let Some(answer) = self.receiver.take(ch, data)? else { return Ok(()) };
        let result = match answer.json()? {
            None => answer.content,
            Some(json) => match json.get("result").and_then(Json::as_str) {
                Some(result) => result.as_bytes().to_vec(),
                None => return Err(malformed("the answer has no \"result\" that is a string")),
            },
        };
        *self.outcome.borrow_mut() = Some(Ok(result));
        // Whether the server ends, too, is of no interest: it has answered.
        ch.channel_mut().set_linger(Duration::ZERO);
        ch.close();
        Ok(())
    }

    fn handle_eof(&mut self, _: &mut ChatChannel<'_>, rest: &[u8]) -> io::Result<Eof> {
        Err(self.receiver.cut_short(rest))
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
