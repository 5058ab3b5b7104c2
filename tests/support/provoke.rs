//! Makes each hook of a channel run, so that a test can do its worst in every one of them; and looks
//! whether the loop is well after that.

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use dispatch_loop::{Channel, ChannelMap, Handle, Token};
use socket2::SockRef;

use super::peers::{limit_time, pair, read_now};
use super::recorder::{Log, Recorder};
use super::turning::turn_until;

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
    let listener = TcpListener::bind(on).unwrap();
    let handle = map.connect(listener.local_addr().unwrap(), willing(hook, dispatcher)).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    limit_time(&far);
    bring_about(hook, &mut map.channel(handle).unwrap(), &mut far).unwrap();
    (handle, far)
}

/// A dispatcher that lets `hook` come about.
pub fn willing(hook: &str, dispatcher: Recorder) -> Recorder {
    match hook {
        "write" => dispatcher.writable(|_| true),
        "error" => dispatcher.on("read", |_| Err(io::Error::other("provoked"))),
        _ => dispatcher,
    }
}

/// Do, on either end, what `hook` tells of. It fails where the system has no such thing.
pub fn bring_about(hook: &str, ch: &mut Channel<'_>, far: &mut (impl Write + AsFd)) -> io::Result<()> {
    match hook {
        "read" | "error" => far.write_all(b"input")?,
        "expt" => _ = SockRef::from(&*far).send_out_of_band(b"!")?,
        "eof" => SockRef::from(&*far).shutdown(Shutdown::Write)?,
        "timeout" => ch.set_timeout(Some(Duration::from_millis(1))),
        "high" | "low" => {
            ch.set_watermarks(10, 20);
            ch.push(&[b'.'; 100])?;
        }
        _ => {}
    }
    Ok(())
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
