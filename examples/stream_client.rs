//! A client that sends lines and prints the answers, written in the order in which it happens: read a
//! line, send it, wait for the answer, print it.
//!
//! It shows a stream: the two halves of a connection that the loop drives, as a plain `Read` and a plain
//! `Write` for a thread that may block. It has no callbacks, and the loop never blocks: it could drive a
//! thousand such conversations, and other channels besides.
//!
//! ```sh
//! cargo run --release --example stream_client -- localhost:8080
//! printf 'one\ntwo\n' | cargo run --release --example stream_client -- 127.0.0.1:8080
//! ```
//!
//! It exits with 0 if every line was answered.

mod common;

use std::io::{self, BufRead, Read, Write};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use common::{ClientTls, Exit};
use dispatch_loop::stream::{self, StreamReader, StreamWriter};
use dispatch_loop::{ChannelMap, LoopOptions};
use lexopt::prelude::*;

const HELP: &str = "\
usage: stream_client [OPTION...] ADDR

Sends each line of stdin to a server, waits for one line of answer, and prints it.

  ADDR               HOST:PORT, [IPV6]:PORT or unix:PATH of the server";

/// A longer line is passed on in pieces of this many bytes.
const PIECE: u64 = 64 * 1024;

fn main() -> ExitCode {
    common::tls_client(HELP, run)
}

fn run(mut args: lexopt::Parser) -> Result<(), Exit> {
    let mut address = None;
    let mut tls = ClientTls::default();
    while let Some(arg) = args.next()? {
        match arg {
            Long("log") => common::set_log_level(args.value()?)?,
            Long("help") | Short('h') => return Err(Exit::Help),
            Value(text) if address.is_none() => address = Some(common::address(text)?),
            other => tls.take(other.unexpected(), &mut args)?,
        }
    }
    let Some(address) = address else { return Err(Exit::Usage("no ADDR is given".into())) };

    tls.begin()?;
    let mut map = ChannelMap::new()?;
    common::close_on_signal(&mut map)?;
    let (reader, writer) = stream::connect(&mut map, address.as_str())?;
    // It ends when each line was answered: whether the server ends, too, is of no interest then.
    let mut ch = map.channel(reader.token()).map_err(io::Error::from)?;
    ch.set_linger(Duration::ZERO);
    tls.start_on(&mut ch, &address)?;
    let (remote, to) = (map.remote(), address.clone());
    let (tell, outcome) = mpsc::channel();
    thread::Builder::new().name("conversation".to_owned()).spawn(move || {
        let result = converse(reader, writer, &to);
        // Refused if a signal has stopped the loop: then it was not finished.
        let _ = remote.call(move |map| {
            let _ = tell.send(result);
            map.stop();
        });
    })?;
    // The loop ends with the conversation, not with the connection. That may be lost while the user thinks
    // about the next line, and it is the loop that notices Ctrl-C.
    dispatch_loop::run_with(&mut map, &LoopOptions::default().with_until_stopped(true))?;
    dispatch_loop::run(&mut map)?; // until the last byte is sent
    match outcome.try_recv() {
        Ok(result) => result.map_err(Exit::Failure),
        Err(_) => Err(Exit::Failure(format!("interrupted: the conversation with {address} is not finished"))),
    }
}

/// The whole conversation. The connection ends with it, as both halves are dropped.
fn converse(mut reader: StreamReader, mut writer: StreamWriter, address: &str) -> Result<(), String> {
    let cannot_read = |error| format!("cannot read stdin: {error}");
    let lost = |error| format!("the connection to {address} is lost: {error}");
    // With nothing to send yet, this waits for the connection.
    writer.drain().map_err(|error| common::cannot_connect(address, &error))?;
    let mut stdin = io::stdin().lock();
    loop {
        let asked = pass_line(&mut stdin, cannot_read, |piece| writer.write_all(piece).map_err(lost))?;
        if !asked {
            return Ok(());
        }
        let answered = pass_line(&mut reader, lost, |piece| {
            common::print_received(piece);
            common::flush(); // this thread may wait
            Ok(())
        })?;
        if !answered {
            return Err(format!("{address} ended the connection and did not answer"));
        }
    }
}

/// Read a line and pass it on as it arrives; `false` if there is none left. A newline is added to a last
/// line that lacks it.
fn pass_line(
    from: &mut impl BufRead,
    failed: impl Fn(io::Error) -> String,
    mut pass: impl FnMut(&[u8]) -> Result<(), String>,
) -> Result<bool, String> {
    let (mut piece, mut begun) = (Vec::new(), false);
    while !piece.ends_with(b"\n") {
        piece.clear();
        from.take(PIECE).read_until(b'\n', &mut piece).map_err(&failed)?;
        if piece.is_empty() {
            if !begun {
                return Ok(false);
            }
            piece.push(b'\n');
        }
        pass(&piece)?;
        begun = true;
    }
    Ok(true)
}
