//! A server whose messages carry their own length and type: the application protocol of Real Python's
//! "Socket Programming in Python", whose client can talk to it.
//!
//! It shows `Chat` with counts as terminators: two bytes, then as many as they say, then as many as those
//! say. For a malformed message a hook returns an error, and that is enough: the loop logs it and ends
//! that connection, and no other. `close` sends the answer before it closes.
//!
//! ```sh
//! cargo run --release --example app_server
//! ```
//!
//! The other side is the example `app_client`. What both share is in `common/app.rs`.

#[path = "common/app.rs"]
mod app;
mod common;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use app::{Message, Receiver, malformed};
use common::{Exit, Server, ServerOptions};
use dispatch_loop::chat::{Chat, ChatChannel, ChatDispatcher};
use dispatch_loop::{Address, Channel, Dispatcher, Eof, Reason, Socket};
use lexopt::prelude::*;
use serde_json::Value as Json;

const HELP: &str = "\
usage: app_server [OPTION...] [ADDR]

Answers one request on each connection, in the protocol of Real Python's Socket Programming in Python,
until Ctrl-C. A request has at most 1 MiB, and a minute to come.

  ADDR               HOST:PORT, [IPV6]:PORT or unix:PATH (127.0.0.1:65432); port 0 asks for
                     a free one";

/// What can be searched for.
const TABLE: [(&str, &str); 3] = [
    ("morpheus", "Follow the white rabbit. \u{1f430}"),
    ("ring", "In the caves beneath the Misty Mountains. \u{1f48d}"),
    ("\u{1f436}", "\u{1f43e} Playing ball! \u{1f3d0}"),
];

/// How long a request may take to come.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    common::server(HELP, run)
}

fn run(mut args: lexopt::Parser) -> Result<(), Exit> {
    let mut options = ServerOptions::default();
    let mut address = None;
    while let Some(arg) = args.next()? {
        match arg {
            Value(text) if address.is_none() => address = Some(common::address(text)?),
            other => options.take(other.unexpected(), &mut args)?,
        }
    }
    let mut server = Server::new(options)?;
    let options = server.options();
    server.listen(address.as_slice(), "127.0.0.1:65432", move || AppServer { options: options.clone() })?;
    server.run() // until a signal
}

/// The listener.
#[derive(Clone)]
struct AppServer {
    options: Arc<ServerOptions>,
}

impl Dispatcher for AppServer {
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
        let request = Request { receiver: Receiver::default() };
        let client = self.options.add(ch.map_mut(), socket, ChatDispatcher::new(app::LENGTH, request)?)?;
        self.options.set_on(&mut ch.map_mut().channel(client)?);
        Ok(())
    }
}

struct Request {
    receiver: Receiver,
}

impl Chat for Request {
    fn handle_open(&mut self, ch: &mut ChatChannel<'_>) -> io::Result<()> {
        // However much comes meanwhile. While the answer is sent, the deadline is that of `close`.
        ch.channel_mut().call_later(PATIENCE, |ch| {
            if !ch.is_closing() {
                ch.time_out();
            }
            Ok(())
        });
        Ok(())
    }

    fn found_terminator(&mut self, ch: &mut ChatChannel<'_>, data: &[u8]) -> io::Result<()> {
        if let Some(request) = self.receiver.take(ch, data)? {
            ch.push_vec(answer(&request)?)?;
            ch.close(); // once it is sent; what follows the request is ignored
        }
        Ok(())
    }

    fn handle_eof(&mut self, _: &mut ChatChannel<'_>, rest: &[u8]) -> io::Result<Eof> {
        match &self.receiver {
            Receiver::Length if rest.is_empty() => Ok(Eof::Close), // a probe whether the server runs
            receiver => Err(receiver.cut_short(rest)),
        }
    }

    fn handle_close(&mut self, ch: &mut ChatChannel<'_>, reason: &Reason) {
        common::disconnected(ch.channel_mut(), reason);
    }
}

/// The answer to a request, as it is sent.
fn answer(request: &Message) -> io::Result<Vec<u8>> {
    let Some(json) = request.json()? else {
        let first = &request.content[..request.content.len().min(10)];
        let content = [b"First 10 bytes of request: ", first].concat();
        return Ok(app::message("binary/custom-server-binary-type", "binary", &content));
    };
    let Json::Object(fields) = json else { return Err(malformed("the request is no JSON object")) };
    let (action, value) = (fields.get("action"), fields.get("value"));
    let result = match action.and_then(Json::as_str) {
        Some("search") => match TABLE.iter().find(|(key, _)| value.is_some_and(|value| value == key)) {
            Some((_, found)) => (*found).to_owned(),
            None => format!("No match for '{}'.", shown(value)),
        },
        _ => format!("Error: invalid action '{}'.", shown(action)),
    };
    Ok(app::json_message(&[("result", &result)]))
}

/// A value in a text, as Python shows it; lists and objects stay JSON.
fn shown(value: Option<&Json>) -> String {
    match value {
        None | Some(Json::Null) => "None".to_owned(),
        Some(Json::Bool(true)) => "True".to_owned(),
        Some(Json::Bool(false)) => "False".to_owned(),
        Some(Json::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
