//! The limits that every server takes on its command line: EDGE_CASES 213 to 215.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::support::dirs::Dir;
use crate::support::limits::raise_descriptor_limit;
use crate::support::peers::{connect, limit_time, read_all, read_exactly};
use crate::support::process::open_descriptors_of;
use crate::support::programs::Program;

const SERVERS: [&str; 7] =
    ["echo_server", "poetry_server", "agent_server", "chat_server", "app_server", "http_server", "tcp_proxy"];

/// A client with this address of its own.
fn connect_from(from: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let client = TcpStream::from(socket);
    limit_time(&client);
    client
}

fn is_served(client: &mut TcpStream) {
    client.write_all(b"hello").unwrap();
    assert_eq!(read_exactly(client, 5), b"hello");
}

/// EDGE_CASES 213.
#[test]
fn every_server_says_that_it_has_limits() {
    for name in SERVERS {
        let help = Program::start(name, ["--help"]).end();
        for option in ["--threads N", "--public", "--max-connections N", "--max-per-peer N", "--idle SECONDS"]
        {
            assert!(help.stdout.contains(option), "{help:?}");
        }
        let wrong: [&[&str]; 6] = [
            &["--max-connections", "0"],
            &["--max-connections", "many"],
            &["--max-per-peer", "-1"],
            &["--idle", "0"],
            &["--idle", "-3"],
            &["--public=yes"],
        ];
        for args in wrong {
            Program::start(name, args).end().assert_wrong_usage(name);
        }
    }
}

/// EDGE_CASES 213. On all addresses of the server together.
#[test]
fn who_comes_when_there_are_enough_waits() {
    for threads in ["1", "3"] {
        who_comes_waits(threads);
    }
}

fn who_comes_waits(threads: &str) {
    let limit = ["--threads", threads, "--max-connections", "2"];
    let server = Program::start("echo_server", limit.iter().chain(&["127.0.0.1:0", "127.0.0.1:0"]));
    let addresses = [server.listening(), server.listening()];
    let mut first = connect(&addresses[0]);
    let mut second = connect(&addresses[1]);
    is_served(&mut first);
    is_served(&mut second);
    let mut third = connect(&addresses[0]);
    third.write_all(b"hello").unwrap();
    is_served(&mut first);
    third.set_nonblocking(true).unwrap();
    assert!(third.read(&mut [0]).is_err(), "it waits");
    third.set_nonblocking(false).unwrap();
    drop(second);
    assert_eq!(read_exactly(&mut third, 5), b"hello");
    server.finish("TERM");
}

/// EDGE_CASES 213.
#[test]
fn who_has_enough_connections_is_refused_and_others_are_not() {
    for options in [&["--max-per-peer", "3"][..], &["--public", "--max-per-peer", "3"]] {
        let (server, address) = Program::serve("echo_server", ["127.0.0.1:0"].iter().chain(options));
        let mut greedy: Vec<_> = (0..3).map(|_| connect_from([127, 0, 0, 2], address)).collect();
        greedy.iter_mut().for_each(is_served);
        let (said, _) = read_all(&mut connect_from([127, 0, 0, 2], address));
        assert_eq!(said, b"");
        is_served(&mut connect_from([127, 0, 0, 3], address));
        let ended = server.end_by("TERM");
        assert_eq!(ended.code, Some(0));
        assert!(ended.stderr.contains("connections are refused at the limit of 3 connections per peer"));
        assert!(ended.stderr.contains("127.0.0.2"), "{ended:?}");
    }
}

/// EDGE_CASES 214.
#[test]
fn who_says_nothing_is_let_go() {
    for name in ["echo_server", "agent_server", "chat_server", "app_server", "http_server"] {
        let (server, address) = Program::serve(name, ["--idle", "0.2", "--log", "off", "127.0.0.1:0"]);
        let _ = read_all(&mut connect(&address));
        drop(server);
    }
}

/// EDGE_CASES 215. Slowloris: as many as they are, they hold no more than the limit of each address.
#[test]
fn two_thousand_attackers_of_twenty_addresses_keep_nobody_out() {
    let attackers = (raise_descriptor_limit(2300).saturating_sub(300) as usize).min(2000);
    let dir = Dir::new();
    dir.file("file", b"content");
    let root = dir.path().to_str().unwrap();
    let server = Program::start_with_descriptors("http_server", ["--public", "--root", root, "127.0.0.1:0"]);
    let address = server.listening();
    let get = || {
        let mut client = connect_from([127, 0, 1, 1], address);
        client.write_all(b"GET /file HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let (answer, end) = read_all(&mut client);
        end.unwrap();
        assert!(answer.ends_with(b"\r\n\r\ncontent"), "{}", answer.escape_ascii());
    };
    get();
    let mut crowd = Vec::new();
    for at in 0..attackers {
        let mut attacker = connect_from([127, 0, 2, (at % 20) as u8 + 1], address);
        // It may have been refused by now.
        let _ = attacker.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ");
        crowd.push(attacker);
        if at % 100 == 0 {
            get();
        }
    }
    get();
    if cfg!(target_os = "linux") {
        let held = open_descriptors_of(server.number());
        assert!(held < 20 * 15 + 100, "{held} descriptors");
    }
    assert_eq!(server.end_by("TERM").code, Some(0));
}
