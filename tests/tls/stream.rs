//! What passes over a session, how it ends, and what it may hold.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use dispatch_loop::tls::TlsSession;
use dispatch_loop::{Channel, ChannelMap, Eof, Source};

use crate::support::authority::{AUTHORITY, LOCALHOST};
use crate::support::ends::{Kind, Wire};
use crate::support::peers::{narrow_pair, pair, pattern, pattern_at, unix_pair};
use crate::support::recorder::{Log, Recorder};
use crate::support::records::Options;
use crate::support::turning::{comes_to_rest, run_out, turn_until};

const TCP: Kind = Kind { on: Some("127.0.0.1:0"), layers: 1, client: true, options: OPTIONS };
const OPTIONS: Options = Options { with: crate::WITH, ..Options::RECORDS };

/// A relay between two sockets that passes on `most` bytes of what the server says, changes the byte there if it
/// is told to, or ends.
fn relay(most: usize, changes: bool) -> (UnixStream, UnixStream) {
    let (client, mut from_client) = unix_pair();
    let (server, mut from_server) = unix_pair();
    let mut to_server = from_server.try_clone().unwrap();
    let mut to_client = from_client.try_clone().unwrap();
    thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_server);
    });
    thread::spawn(move || {
        let mut passed = 0;
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = from_server.read(&mut buffer) {
            let until_there = most - passed;
            if until_there < read && changes {
                buffer[until_there] ^= 1;
            }
            let read = if changes { read } else { read.min(until_there) };
            if to_client.write_all(&buffer[..read]).is_err() || (until_there <= read && !changes) {
                break;
            }
            passed += read.min(until_there);
        }
        let _ = to_client.shutdown(std::net::Shutdown::Both);
        let _ = from_server.shutdown(std::net::Shutdown::Both);
    });
    (client, server)
}

/// A client that reads what a server sends it through a relay; why its channel ended, and what it got.
fn read_through(relay: (UnixStream, UnixStream), sent: usize) -> (String, Vec<u8>) {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let sends = Recorder::new("server", &log).on("open", move |ch| {
        ch.push(&pattern(sent))?;
        ch.close();
        Ok(())
    });
    map.add_tls(relay.1, &LOCALHOST.server(), sends).unwrap();
    let handle = map.add(relay.0, Recorder::new("client", &log)).unwrap();
    map.channel(handle).unwrap().start_tls_client(&AUTHORITY.client(), "localhost").unwrap();
    run_out(&mut map, &log);
    (log.of("client").pop().unwrap(), log.input("client"))
}

/// EDGE_CASES 380.
#[test]
fn a_stream_that_is_cut_without_close_notify_is_told_apart_from_one_that_ended() {
    let (whole, got) = read_through(relay(usize::MAX, false), 50_000);
    assert_eq!((&*whole, got.len()), ("close: end of stream", 50_000));
    for cut in [5_000, 20_000, 40_000] {
        let (end, got) = read_through(relay(cut, false), 50_000);
        assert_eq!(end, "close: TLS: the connection ended without close_notify, so bytes may be missing");
        assert!(got.len() < cut && got == pattern(50_000)[..got.len()], "{cut}: {}", got.len());
    }
}

/// EDGE_CASES 381.
#[test]
fn a_byte_that_was_changed_on_its_way_ends_the_channel_and_is_not_delivered() {
    for at in [4_000, 20_001, 39_999] {
        let (end, got) = read_through(relay(at, true), 50_000);
        assert!(end.starts_with("close: TLS: ") && end.contains("decrypt"), "{end}");
        assert!(got.len() < at && got == pattern(50_000)[..got.len()], "{at}: {}", got.len());
    }
}

/// EDGE_CASES 382: TLS 1.3 has a close_notify for each direction.
#[test]
fn one_direction_may_end_before_the_other() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, far) = pair("127.0.0.1:0".parse().unwrap());
    let answers = Recorder::new("server", &log).eof(Eof::KeepWriting).on("eof", |ch| {
        ch.push(&pattern(200_000))?;
        ch.shutdown_write();
        Ok(())
    });
    map.add_tls(far, &LOCALHOST.server(), answers).unwrap();
    let asks = Recorder::new("client", &log).on("open", |ch| {
        ch.push(b"question")?;
        ch.shutdown_write();
        Ok(())
    });
    let handle = map.add(near, asks).unwrap();
    map.channel(handle).unwrap().start_tls_client(&AUTHORITY.client(), "localhost").unwrap();
    run_out(&mut map, &log);
    assert_eq!(log.input("server"), b"question");
    assert!(log.input("client") == pattern(200_000));
    for name in ["client", "server"] {
        assert_eq!(log.of(name).last().unwrap(), "close: end of stream");
    }
}

/// A session is a source like any other.
#[test]
fn a_session_is_added_as_any_source_and_can_be_asked_as_such() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, far) = TCP.sockets();
    near.set_nonblocking(true).unwrap();
    let session = TlsSession::client(Box::new(Wire(near)), &AUTHORITY.client(), "localhost").unwrap();
    let handle = map.add_source(session, Recorder::new("a", &log)).unwrap();
    let far = TCP.far(far, |far| {
        far.write(b"hello").unwrap();
        far.read_to_end().unwrap()
    });
    turn_until(&mut map, &log, |_| log.input("a") == b"hello");
    let mut ch = map.channel(handle).unwrap();
    assert!(ch.source::<TlsSession>().is_some() && ch.source::<Wire>().is_none());
    assert!(format!("{:?}", ch.tls().unwrap()).contains("V1_3"));
    ch.push(b"bye").unwrap();
    ch.close();
    run_out(&mut map, &log);
    assert_eq!(far.join().unwrap(), b"bye");
}

/// A channel whose peer does not read, and whose session takes no more.
fn stuck(map: &mut ChannelMap, log: &Log, near: TcpStream, piece: usize) -> dispatch_loop::Token {
    let token = map.add_tls(near, &LOCALHOST.server(), Recorder::new("a", log)).unwrap().token();
    turn_until(map, log, |_| log.has("a open"));
    let mut pushed = 0;
    // Until neither the system nor the session takes any more.
    while map.channel(token).unwrap().queued() == 0 {
        map.channel(token).unwrap().push(&vec![7; piece]).unwrap();
        map.turn(Some(Duration::ZERO)).unwrap();
        pushed += piece;
        assert!(pushed < 64 << 20);
    }
    token
}

/// EDGE_CASES 383: the limits are in `channels::held`.
#[test]
fn what_a_session_holds_is_known_and_leaves_with_the_close() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, far) = narrow_pair("127.0.0.1:0".parse().unwrap());
    let kind = Kind { client: false, ..TCP };
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let far = kind.far(far.into(), move |far| {
        let _ = wait.recv();
        far.read_to_end().map(|got| got.len())
    });
    let token = stuck(&mut map, &log, near, 1000);
    assert!(map.channel(token).unwrap().tls().unwrap().output_held() > 0);
    assert!(comes_to_rest(&mut map), "it spins");
    map.channel(token).unwrap().close();
    drop(done);
    run_out(&mut map, &log);
    far.join().unwrap().unwrap();
    assert_eq!(log.of("a").last().unwrap(), "close: closed");
}

/// EDGE_CASES 384: the close timeout, over a session as without.
#[test]
fn a_peer_that_reads_nothing_is_cut_off_at_the_close_timeout() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, far) = narrow_pair("127.0.0.1:0".parse().unwrap());
    let kind = Kind { client: false, ..TCP };
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let far = kind.far(far.into(), move |far| {
        let _ = wait.recv();
        far.read_to_end().map(|got| got.len())
    });
    let token = stuck(&mut map, &log, near, 100_000);
    let mut ch = map.channel(token).unwrap();
    ch.set_close_timeout(Duration::from_millis(50));
    ch.close();
    run_out(&mut map, &log);
    assert_eq!(log.of("a").last().unwrap(), "close: timed out");
    drop(done);
    // What is cut short does not look like an end.
    assert!(far.join().unwrap().is_err());
}

/// As many bytes as `DISPATCH_LOOP_TLS_BYTES` says, or 16 MiB, each way at once; each byte is looked at.
#[test]
fn much_passes_both_ways_unchanged() {
    let total: usize =
        std::env::var("DISPATCH_LOOP_TLS_BYTES").map_or(16 << 20, |text| text.parse().unwrap());
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, far) = pair("127.0.0.1:0".parse().unwrap());
    let got: [Rc<Cell<usize>>; 2] = Default::default();
    let mut recorders = Vec::new();
    for (name, got) in ["client", "server"].into_iter().zip(&got) {
        let got = got.clone();
        let sends = move |ch: &mut Channel<'_>| {
            ch.push_producer(Counting { at: 0, total })?;
            ch.shutdown_write();
            Ok(())
        };
        let reads = move |ch: &mut Channel<'_>| {
            ch.read_with(|_, data| {
                let at = got.get();
                let right = data.iter().zip(at..).all(|(byte, at)| *byte == pattern_at(at));
                assert!(right, "within {} bytes from {at}", data.len());
                got.set(at + data.len());
                Ok(())
            })
        };
        recorders.push(
            Recorder::new(name, &log).quiet().eof(Eof::KeepWriting).on("open", sends).on("read", reads),
        );
    }
    let server = recorders.pop().unwrap();
    map.add_tls(far, &LOCALHOST.server(), server).unwrap();
    let handle = map.add(near, recorders.pop().unwrap()).unwrap();
    map.channel(handle).unwrap().start_tls_client(&AUTHORITY.client(), "localhost").unwrap();
    dispatch_loop::run(&mut map).unwrap();
    assert_eq!(got.map(|got| got.get()), [total, total], "{:?}", log.events());
}

/// Makes the pattern.
struct Counting {
    at: usize,
    total: usize,
}

impl dispatch_loop::Producer for Counting {
    fn more(&mut self, out: &mut Vec<u8>) -> std::io::Result<dispatch_loop::More> {
        let end = (self.at + 32 * 1024).min(self.total);
        out.extend((self.at..end).map(pattern_at));
        self.at = end;
        Ok(if end < self.total { dispatch_loop::More::Again } else { dispatch_loop::More::Done })
    }
}
