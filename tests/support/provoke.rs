//! Makes each hook of a channel run, so that a test can do its worst in every one of them; and the
//! far ends that look what comes of it.
#![allow(dead_code)]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use dispatch_loop::{ChannelMap, Handle, Token};
use socket2::SockRef;

use super::{DEADLINE, Log, Recorder, pair, turn_until};

/// All hooks of a channel that carries data but for `close`, as a `Recorder` calls them. `expt`
/// only where the system reports it.
pub fn hooks() -> impl Iterator<Item = &'static str> {
    let all = ["connect", "open", "read", "write", "expt", "eof", "high", "low", "timeout", "error"];
    all.into_iter().filter(|hook| *hook != "expt" || cfg!(target_os = "linux"))
}

/// Connect a channel on which `hook` will run as soon as the loop turns; and its far end. For
/// `error`, `handle_read` fails.
pub fn provoke(
    map: &mut ChannelMap,
    on: SocketAddr,
    hook: &'static str,
    dispatcher: Recorder,
) -> (Handle<Recorder>, TcpStream) {
    let dispatcher = match hook {
        "write" => dispatcher.writable(|_| true),
        "error" => dispatcher.on("read", |_| Err(io::Error::other("provoked"))),
        _ => dispatcher,
    };
    let listener = TcpListener::bind(on).unwrap();
    let handle = map.connect(listener.local_addr().unwrap(), dispatcher).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    far.set_read_timeout(Some(DEADLINE)).unwrap();
    far.set_write_timeout(Some(DEADLINE)).unwrap();
    let mut ch = map.channel(handle).unwrap();
    match hook {
        "read" | "error" => far.write_all(b"input").unwrap(),
        "expt" => drop(SockRef::from(&far).send_out_of_band(b"!").unwrap()),
        "eof" => far.shutdown(Shutdown::Write).unwrap(),
        "timeout" => ch.set_timeout(Some(Duration::from_millis(1))),
        "high" | "low" => {
            ch.set_watermarks(10, 20);
            ch.push(&[b'.'; 100]).unwrap();
        }
        _ => {}
    }
    (handle, far)
}

/// A channel that gives back what it gets, to see whether the loop is well.
pub fn echo(map: &mut ChannelMap, on: SocketAddr, log: &Log) -> (Token, TcpStream) {
    let (near, far) = pair(on);
    let recorder = Recorder::new("echo", log).on("read", |ch| ch.read_with(|ch, data| ch.push(data))).quiet();
    (map.add(near, recorder).unwrap().token(), far)
}

/// It still does.
#[track_caller]
pub fn assert_echoes(map: &mut ChannelMap, log: &Log, far: &mut TcpStream) {
    far.set_nonblocking(true).unwrap();
    far.write_all(b"are you well?").unwrap();
    let mut got = Vec::new();
    turn_until(map, log, |_| {
        got.extend(read_now(far).0);
        got == b"are you well?"
    });
    assert_eq!(log.of("echo"), ["open"]);
}

/// All that comes, until the end or the error.
pub fn read_all(far: &mut TcpStream) -> (Vec<u8>, io::Result<()>) {
    let mut got = Vec::new();
    let end = far.read_to_end(&mut got).map(drop);
    (got, end)
}

/// As [`read_all`], on a thread of its own.
pub fn reader(mut far: TcpStream) -> JoinHandle<(Vec<u8>, io::Result<()>)> {
    thread::spawn(move || read_all(&mut far))
}

/// All that is there now; whether the end was among it.
pub fn read_now(far: &mut impl Read) -> (Vec<u8>, bool) {
    let mut got = Vec::new();
    match far.read_to_end(&mut got) {
        Ok(_) => (got, true),
        Err(error) if error.kind() == ErrorKind::WouldBlock => (got, false),
        Err(error) => panic!("instead of the end of the stream: {error}"),
    }
}

/// All that has come by now, as text.
pub fn text_now(far: &mut TcpStream) -> String {
    far.set_nonblocking(true).unwrap();
    String::from_utf8(read_now(far).0).unwrap()
}

/// Bytes that do not look alike.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + at / 251) as u8).collect()
}

/// Not much room between the two, so that a queue is soon full.
pub fn narrow(near: &TcpStream, far: &TcpStream) {
    SockRef::from(near).set_send_buffer_size(16 * 1024).unwrap();
    SockRef::from(far).set_recv_buffer_size(16 * 1024).unwrap();
}
