//! The example echo_server, as its users meet it: with plain sockets.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use crate::support::peers::{connect, loopbacks, read_to_end, reset};
use crate::support::programs::{Program, flood, read_piece};
use crate::support::waiting::{DEADLINE, wait_until};

/// The most that a test sends without reading: more than the buffers of a kernel take, and the 16 MiB
/// that a channel queues by default.
const LOAD: usize = 64 * 1024 * 1024;

#[test]
fn it_listens_on_several_addresses() {
    let mut args: Vec<String> = loopbacks().iter().map(SocketAddr::to_string).collect();
    let literal = args.len();
    args.push("localhost:0".to_owned());
    let server = Program::start("echo_server", &args);
    // The name stands for one address, or one of each family.
    let addresses: Vec<SocketAddr> = (0..literal + 1).map(|_| server.listening()).collect();
    let mut peers: Vec<TcpStream> = addresses.iter().map(connect).collect();
    for (address, peer) in addresses.iter().zip(&mut peers) {
        assert_ne!(address.port(), 0);
        peer.write_all(address.to_string().as_bytes()).unwrap();
    }
    for (address, peer) in addresses.iter().zip(&mut peers) {
        assert_eq!(read_piece(peer), address.to_string().as_bytes());
        peer.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(peer), b"");
    }
    server.finish("TERM");
}

#[test]
fn it_puts_prefix_and_suffix_around_each_chunk() {
    let prefix = OsStr::from_bytes(b"\xff<");
    let args = ["--prefix".as_ref(), prefix, "--suffix=>\n".as_ref(), "127.0.0.1:0".as_ref()];
    let server = Program::start("echo_server", args);
    let mut peer = connect(&server.listening());
    // Often: that the parts of an answer come apart would not show every time.
    for round in 0..100 {
        let chunk = round.to_string();
        peer.write_all(chunk.as_bytes()).unwrap();
        assert_eq!(read_piece(&mut peer), [b"\xff<", chunk.as_bytes(), b">\n"].concat());
    }
}

/// A client that sends for a long time before it reads: the server must stop reading as well, or it
/// runs into the 16 MiB that a channel may queue. All comes back in the end.
#[test]
fn it_waits_for_a_client_that_does_not_read() {
    let (server, address) = Program::serve("echo_server", ["127.0.0.1:0"]);
    let mut peer = connect(&address);
    let (sent, end) = flood(&mut peer, LOAD, |at| at as u8);
    end.unwrap();
    assert!(sent < LOAD, "the server went on reading");

    // It serves others meanwhile.
    let mut other = connect(&address);
    other.write_all(b"and me?").unwrap();
    assert_eq!(read_piece(&mut other), b"and me?");

    peer.shutdown(Shutdown::Write).unwrap();
    let back = read_to_end(&mut peer);
    assert_eq!(back.len(), sent);
    assert!(back.iter().enumerate().all(|(at, byte)| *byte == at as u8));
    server.finish("TERM");
}

#[test]
fn it_survives_resets() {
    let (server, address) = Program::serve("echo_server", ["127.0.0.1:0"]);
    for round in 0..100 {
        let mut peer = connect(&address);
        if round % 2 == 0 {
            peer.write_all(b"never mind").unwrap();
        }
        reset(peer);
    }
    let mut peer = connect(&address);
    peer.write_all(b"still there?").unwrap();
    assert_eq!(read_piece(&mut peer), b"still there?");
    server.finish("TERM");
}

#[test]
fn it_fails_when_the_address_is_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = Program::start("echo_server", [&address]).end();
    ended.assert_failure(&address);
    assert_eq!((ended.stderr.lines().count(), ended.stdout.as_str()), (1, ""), "{ended:?}");
}

#[test]
fn it_logs_what_it_is_asked_to() {
    for (level, expected) in [("info", 2), ("WARN", 0), ("off", 0)] {
        let server = Program::start("echo_server", ["--log", level, "127.0.0.1:0"]);
        let mut peer = connect(&server.listening());
        let name = peer.local_addr().unwrap().to_string();
        peer.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&mut peer), b"");
        let ended = server.end_by("INT");
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(ended.stderr.lines().filter(|line| line.contains(&name)).count(), expected, "{ended:?}");
    }
}

/// EDGE_CASES 314.
#[test]
fn it_logs_what_became_of_each_connection() {
    let server = Program::start("echo_server", ["--log", "info", "--suffix", "..", "127.0.0.1:0"]);
    let mut peer = connect(&server.listening());
    let name = peer.local_addr().unwrap().to_string();
    peer.write_all(b"hello").unwrap();
    peer.read_exact(&mut [0; 7]).unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut peer), b"");
    let ended = server.end_by("INT");
    let begin = format!("{name} disconnected: end of stream; 5 bytes in, 7 out, ");
    let line = ended.stderr.lines().find_map(|line| line.split_once(&begin)).expect(&ended.stderr);
    let seconds: f64 = line.1.strip_suffix(" s").and_then(|time| time.parse().ok()).expect(line.1);
    assert!((0.0..DEADLINE.as_secs_f64()).contains(&seconds), "{seconds}");
}

/// More is queued than the socket takes, and more has come than was read: all that is queued is sent
/// before the end, to the suffix of the last chunk, and the connection is not reset.
#[test]
fn it_sends_what_is_queued_when_it_is_ended() {
    for signal in ["TERM", "INT"] {
        let server = Program::start("echo_server", ["--prefix", "<", "--suffix", ">", "127.0.0.1:0"]);
        let mut peer = connect(&server.listening());
        let (sent, end) = flood(&mut peer, LOAD, |_| b'x');
        end.unwrap();
        server.signal(signal);
        let back = read_to_end(&mut peer);
        assert_eq!((back.first(), back.last()), (Some(&b'<'), Some(&b'>')));
        assert!(back.len() > 64 * 1024 && back.iter().filter(|byte| **byte == b'x').count() <= sent);
        drop(peer);
        server.end().assert_quiet_success();
    }
}

#[test]
fn it_does_not_wait_for_a_client_that_is_owed_nothing() {
    let server = Program::start("echo_server", ["127.0.0.1:0"]);
    let mut peer = connect(&server.listening());
    peer.write_all(b"here").unwrap();
    assert_eq!(read_piece(&mut peer), b"here");
    let begin = Instant::now();
    server.finish("TERM");
    // It gets FIN, and 2 s to end.
    assert!(begin.elapsed() < Duration::from_secs(10), "took {:?}", begin.elapsed());
    assert_eq!(read_to_end(&mut peer), b"");
}

#[test]
fn it_does_not_wait_for_ever_for_a_client_that_does_not_read() {
    let server = Program::start("echo_server", ["127.0.0.1:0"]);
    let mut peer = connect(&server.listening());
    flood(&mut peer, LOAD, |_| 0).1.unwrap();
    let begin = Instant::now();
    let ended = server.end_by("TERM");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(begin.elapsed() >= Duration::from_secs(3), "gave up after {:?}", begin.elapsed());
}

#[test]
fn it_ends_at_once_at_the_second_signal() {
    for (signal, status) in [("INT", 128 + 2), ("TERM", 128 + 15)] {
        let (server, address) = Program::serve("echo_server", ["127.0.0.1:0"]);
        let mut peer = connect(&address);
        flood(&mut peer, LOAD, |_| 0).1.unwrap();
        server.signal("TERM");
        // That it accepts no more shows that it has seen the first one.
        wait_until("the listener is closed", || TcpStream::connect(address).is_err());
        assert_eq!(server.end_by(signal).code, Some(status));
    }
}
