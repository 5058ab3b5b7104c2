//! `--stats`: the numbers of a running server.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};

use crate::support::peers::{connect, limit_time, read_to_end};
use crate::support::programs::Program;
use crate::support::waiting::wait_until;

/// Every server, with what it needs besides.
const SERVERS: [(&str, &[&str]); 8] = [
    ("agent_server", &["127.0.0.1:0"]),
    ("app_server", &["127.0.0.1:0"]),
    ("chat_server", &["127.0.0.1:0"]),
    ("echo_server", &["127.0.0.1:0", "127.0.0.1:0"]),
    ("http_server", &["127.0.0.1:0"]),
    ("poetry_server", &["--port", "0", "--port", "0"]),
    ("tcp_proxy", &["127.0.0.1:0", "127.0.0.1:1"]),
    ("udp_echo", &["127.0.0.1:0"]),
];

/// A server with `--stats`: where it listens, and where its numbers are.
fn start(name: &str, args: &[&str]) -> (Program, SocketAddr, SocketAddr) {
    let server = Program::start(name, ["--stats", "127.0.0.1:0"].iter().chain(args));
    let address = server.listening();
    loop {
        let line = server.line();
        if let Some(stats) = line.strip_prefix("stats on ") {
            return (server, address, stats.parse().unwrap());
        }
        assert!(line.starts_with("listening on "), "{line}");
    }
}

fn get(address: SocketAddr, target: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    limit_time(&stream);
    write!(stream, "GET {target} HTTP/1.1\r\nHost: stats\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// EDGE_CASES 312.
#[test]
fn every_server_says_where_its_numbers_are_and_serves_them() {
    for (name, args) in SERVERS {
        let (server, _, stats) = start(name, args);
        let answer = get(stats, "/metrics");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{name}: {answer}");
        assert!(answer.contains("\ndispatch_loop_accepts_total 1\n"), "{name}: {answer}");
        assert!(get(stats, "/healthz").ends_with("\r\n\r\nok\n"), "{name}");
        server.finish("TERM");
    }
}

/// EDGE_CASES 312.
#[test]
fn the_numbers_are_those_of_the_server() {
    let (server, address, stats) = start("echo_server", &["127.0.0.1:0"]);
    let mut client = connect(&address);
    client.write_all(&[b'x'; 10_000]).unwrap();
    client.read_exact(&mut [0; 10_000]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut client), b"");
    wait_until("the connection is counted", || {
        get(stats, "/metrics").contains("\ndispatch_loop_closes_total{reason=\"end of stream\"} 1\n")
    });
    let count = |answer: &str, name: &str| -> u64 {
        let line = answer.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().parse().unwrap()
    };
    let answer = get(stats, "/metrics");
    assert!(count(&answer, "dispatch_loop_sent_bytes_total ") >= 10_000);
    assert!(count(&answer, "dispatch_loop_accepts_total ") >= 3);
    server.finish("TERM");

    let (server, address, stats) = start("udp_echo", &["127.0.0.1:0"]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    limit_time(&socket);
    socket.send_to(&[b'x'; 1000], address).unwrap();
    socket.recv_from(&mut [0; 2000]).unwrap();
    assert!(count(&get(stats, "/metrics"), "dispatch_loop_received_bytes_total ") >= 1000);
    server.finish("TERM");
}

/// EDGE_CASES 313.
#[test]
fn a_server_that_cannot_offer_its_numbers_fails() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (name, args) in SERVERS {
        let ended = Program::start(name, ["--stats", &address].iter().chain(args)).end();
        ended.assert_failure(&address);
        for wrong in ["127.0.0.1", "127.0.0.1:http"] {
            Program::start(name, ["--stats", wrong].iter().chain(args)).end().assert_wrong_usage(name);
        }
    }
}
