//! How servers end when they are told to: what was begun is answered.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::dirs::Dir;
use crate::support::peers::{connect, cut_short, pattern, read_exactly, read_to_end};
use crate::support::programs::{Program, flood};
use crate::support::waiting::wait_until;

const GET: &[u8] = b"GET /file HTTP/1.1\r\nHost: x\r\n\r\n";

fn serve(dir: &Dir, options: &[&str]) -> (Program, SocketAddr) {
    let root = dir.path().to_str().unwrap();
    let args = ["--root", root].into_iter().chain(options.iter().copied()).chain(["127.0.0.1:0"]);
    Program::serve("http_server", args)
}

/// The server has seen the signal.
#[track_caller]
fn wait_for_the_end_of_the_listener(address: SocketAddr) {
    wait_until("the listener is closed", || TcpStream::connect(address).is_err());
}

/// An answer with its body: whether it is said to be the last. `None` if the connection ended before the
/// first byte.
#[track_caller]
fn answer(stream: &mut BufReader<TcpStream>, body: &[u8]) -> Option<bool> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        match stream.read_line(&mut head) {
            Ok(1..) => {}
            end if head.is_empty() => {
                assert!(end.is_ok_and(|read| read == 0) || stream.buffer().is_empty());
                return None;
            }
            end => panic!("{end:?} after {head:?}"),
        }
    }
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let mut got = vec![0; body.len()];
    stream.read_exact(&mut got).unwrap();
    assert!(got == body);
    Some(head.contains("\r\nConnection: close\r\n"))
}

/// 289: keep-alive clients that never pause.
#[test]
fn every_request_that_a_server_has_begun_is_answered_whole() {
    let dir = Dir::new();
    let content = pattern(20_000);
    dir.file("file", &content);
    let (server, address) = serve(&dir, &["--log", "info"]);
    let (answered, last) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let ended = thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut stream = BufReader::new(connect(&address));
                // An end before the answer's first byte: the server has not seen the question.
                while stream.get_mut().write_all(GET).is_ok() {
                    let Some(is_last) = answer(&mut stream, &content) else { return };
                    answered.fetch_add(1, Ordering::Relaxed);
                    if is_last {
                        last.fetch_add(1, Ordering::Relaxed);
                        assert_eq!(read_to_end(&mut stream), b"");
                        return;
                    }
                }
            });
        }
        wait_until("it is busy", || answered.load(Ordering::Relaxed) > 200);
        server.end_by("TERM")
    });
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let begun = ended.stderr.lines().filter(|line| line.contains(" GET /file 200 ")).count();
    assert_eq!(answered.into_inner(), begun);
    assert!(last.into_inner() > 0);
    assert!(!ended.stderr.contains("cut off"));
}

/// 289: half of a request has come.
#[test]
fn a_request_that_was_begun_may_be_completed() {
    let dir = Dir::new();
    dir.file("file", b"content");
    let (server, address) = serve(&dir, &["--drain", "20"]);
    let mut idle = connect(&address);
    let mut client = connect(&address);
    client.write_all(GET).unwrap();
    let mut client = BufReader::new(client);
    assert_eq!(answer(&mut client, b"content"), Some(false));
    client.get_mut().write_all(&GET[..10]).unwrap();
    let mut two = connect(&address);
    two.write_all(&[GET, &GET[..10]].concat()).unwrap();
    let mut two = BufReader::new(two);
    assert_eq!(answer(&mut two, b"content"), Some(false));
    server.signal("TERM");
    wait_for_the_end_of_the_listener(address);
    assert_eq!(read_to_end(&mut idle), b"");
    for client in [&mut client, &mut two] {
        client.get_mut().write_all(&[&GET[10..], GET].concat()).unwrap();
        assert_eq!(answer(client, b"content"), Some(false), "another one follows");
        assert_eq!(answer(client, b"content"), Some(true));
        assert_eq!(read_to_end(client), b"");
    }
    server.end().assert_quiet_success();
}

/// 289: it is not waited for longer than was said, and status 0 it is.
#[test]
fn a_request_that_is_never_completed_is_cut_off_in_time() {
    let dir = Dir::new();
    for seconds in ["0", "0.2"] {
        let (server, address) = serve(&dir, &["--drain", seconds]);
        let mut client = connect(&address);
        client.write_all(GET).unwrap();
        let mut head = [0; 12];
        client.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 404");
        client.write_all(&GET[..10]).unwrap();
        // The server has the rest when it answers a later one.
        let mut other = connect(&address);
        other.write_all(GET).unwrap();
        read_exactly(&mut other, 12);
        let ended = server.end_by("TERM");
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stderr.contains("1 connections were cut off"), "{ended:?}");
        cut_short(client);
    }
}

/// 289: nobody is waited for who has all, however long the server may.
#[test]
fn idle_connections_do_not_hold_it_up() {
    let dir = Dir::new();
    dir.file("file", b"content");
    let (server, address) = serve(&dir, &["--drain", "3600"]);
    let mut clients: Vec<_> = (0..20).map(|_| BufReader::new(connect(&address))).collect();
    for client in clients.iter_mut().skip(10) {
        client.get_mut().write_all(GET).unwrap();
        assert_eq!(answer(client, b"content"), Some(false));
    }
    server.finish("TERM");
    for mut client in clients {
        assert_eq!(read_to_end(&mut client), b"");
    }
}

/// 289: those that wait in the backlog are let in and answered.
#[test]
fn who_has_connected_is_answered() {
    let dir = Dir::new();
    dir.file("file", b"content");
    let (server, address) = serve(&dir, &["--drain", "20"]);
    // While it is stopped, nobody is accepted.
    server.signal("STOP");
    let clients: Vec<_> = (0..40).map(|_| connect(&address)).collect();
    for mut client in &clients {
        client.write_all(GET).unwrap();
    }
    server.signal("TERM");
    server.signal("CONT");
    for client in clients {
        let mut client = BufReader::new(client);
        assert_eq!(answer(&mut client, b"content"), Some(true));
        assert_eq!(read_to_end(&mut client), b"");
    }
    server.end().assert_quiet_success();
}

/// 289: what never pauses, because the peer sends faster than it reads, is closed in order after half of the
/// time.
#[test]
fn a_flood_is_ended_in_order() {
    let (server, address) = Program::serve("echo_server", ["--drain", "6", "127.0.0.1:0"]);
    let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    client.set_recv_buffer_size(16 * 1024).unwrap();
    client.connect(&address.into()).unwrap();
    let mut client = TcpStream::from(client);
    flood(&mut client, 64 << 20, |_| b'x').1.unwrap();
    let mut writer = client.try_clone().unwrap();
    let ended = thread::scope(|scope| {
        scope.spawn(move || while writer.write(&[b'x'; 64 * 1024]).is_ok() {});
        scope.spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            // To the end, or to the reset that what is written after it brings.
            while client.read(&mut buffer).is_ok_and(|read| read > 0) {
                thread::sleep(Duration::from_millis(1)); // its pace
            }
        });
        server.end_by("TERM")
    });
    ended.assert_quiet_success();
}

/// 289.
#[test]
fn every_server_takes_the_time_and_refuses_what_is_none() {
    for name in ["echo_server", "http_server", "poetry_server", "agent_server", "tcp_proxy"] {
        let help = Program::start(name, ["--help"]).end();
        assert!(help.stdout.contains("--drain SECONDS"), "{help:?}");
        for wrong in [&["--drain"][..], &["--drain", "soon"], &["--drain", "-1"], &["--drain", "inf"]] {
            Program::start(name, wrong).end().assert_wrong_usage(name);
        }
    }
}

/// 289: a peer that does not read is given that long, and no longer.
#[test]
fn who_does_not_read_is_cut_off_in_time() {
    let (server, address) = Program::serve("echo_server", ["--drain", "0.3", "127.0.0.1:0"]);
    let mut peer = connect(&address);
    flood(&mut peer, 64 << 20, |_| 0).1.unwrap();
    let begun = Instant::now();
    let ended = server.end_by("TERM");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("cut off"), "{ended:?}");
    assert!(begun.elapsed() >= Duration::from_millis(300));
}
