//! How long programs take to end when their work is done: no longer than it needs, whatever the peer does.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::dirs::Dir;
use crate::support::peers::{accept, connect, limit_time, pattern, read_exactly, read_to_end};
use crate::support::programs::{Ended, Program, listener, read_piece};

/// A connection that is closed with all sent may wait for its peer's end until so long nothing comes.
const LINGERS: Duration = Duration::from_secs(2);

/// 119: the server has sent all, and keeps the connection.
#[test]
fn a_client_that_has_its_answer_does_not_wait_for_the_server() {
    const HEADER: &[u8] =
        br#"{"byteorder":"big","content-type":"text/json","content-encoding":"utf-8","content-length":15}"#;
    let message = [&(HEADER.len() as u16).to_be_bytes(), HEADER, br#"{"result": "a"}"#].concat();
    let answers: [(&str, &[&str], &[u8], &str); 3] = [
        ("http_client", &["/"], b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello\n"),
        ("http_client", &["/"], b"HTTP/1.1 204 No Content\r\n\r\n", ""),
        ("app_client", &["search", "x"], &message, "a\n"),
    ];
    for (name, words, answer, printed) in answers {
        let (listener, address) = listener();
        let client = Program::start(name, [&address as &str].iter().chain(words));
        let mut server = accept(&listener);
        read_piece(&mut server);
        server.write_all(answer).unwrap();
        let ended = ends_soon(client, name);
        ended.assert_quiet_success();
        assert_eq!(ended.stdout, printed, "{name}");
    }
}

/// 119: nor does a conversation that is over.
#[test]
fn a_conversation_that_is_over_does_not_wait_for_the_server() {
    let (listener, address) = listener();
    let mut client = Program::start_typed("stream_client", [&address]);
    let mut server = accept(&listener);
    client.type_in(b"question\n");
    assert_eq!(read_exactly(&mut server, 9), b"question\n");
    server.write_all(b"answer\n").unwrap();
    assert_eq!(client.line(), "answer");
    drop(client.take_input());
    ends_soon(client, "stream_client").assert_quiet_success();
}

/// 120: clients that have all that was sent to them, and neither send nor end, hold up no server; each is
/// told the end.
#[test]
fn a_server_does_not_wait_for_clients_that_have_all() {
    let (echo, unknown) = ("hello", "* unknown command\r\n");
    let servers =
        [("echo_server", echo), ("agent_server", ""), ("http_server", ""), ("chat_server", unknown)];
    for (name, answer) in servers {
        let (server, address) = Program::serve(name, ["127.0.0.1:0"]);
        let mut clients: Vec<TcpStream> = (0..5).map(|_| connect(&address)).collect();
        if !answer.is_empty() {
            let question = if name == "echo_server" { answer } else { "/what\n" };
            clients[4].write_all(question.as_bytes()).unwrap();
            assert_eq!(read_exactly(&mut clients[4], answer.len()), answer.as_bytes());
        }
        server.signal("TERM");
        ends_soon(server, name).assert_quiet_success();
        for mut client in clients {
            read_to_end(&mut client);
        }
    }
}

/// 121: a client goes on sending to a connection that the server has closed with all sent. Nothing is cut
/// off by a signal then, and the log does not say so.
#[test]
fn a_connection_that_only_lingers_is_not_cut_off() {
    let dir = Dir::new();
    dir.file("a", b"content");
    let root = dir.path().to_str().unwrap();
    let (server, address) = Program::serve("http_server", ["--root", root, "127.0.0.1:0"]);
    let (sender, mut client) = closed_by(&address);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert!(answer.ends_with(b"content"));
    server.signal("TERM");
    let ended = server.end();
    sender.join().unwrap();
    ended.assert_quiet_success();
}

/// 121: a client reads nothing for as long as the server waits for it; all of its answer was sent, is with the
/// system, and arrives when the server has ended.
#[cfg(target_os = "linux")]
#[test]
fn what_the_system_holds_when_a_server_ends_is_not_cut_off() {
    const LEN: usize = 1_000_000;
    let dir = Dir::new();
    dir.file("a", &pattern(LEN));
    let root = dir.path().to_str().unwrap();
    let (server, address) = Program::serve("http_server", ["--root", root, "127.0.0.1:0"]);
    let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    client.set_recv_buffer_size(16 * 1024).unwrap();
    client.connect(&address.into()).unwrap();
    let mut client = TcpStream::from(client);
    limit_time(&client);
    client.write_all(b"GET /a HTTP/1.0\r\n\r\n").unwrap();
    let begin = read_exactly(&mut client, 1);
    server.signal("TERM");
    server.end().assert_quiet_success();
    let answer = [begin, read_to_end(&mut client)].concat();
    assert!(answer.ends_with(&pattern(LEN)), "{} bytes", answer.len());
}

/// A client that asks for a page and then sends, a byte at a time, until it cannot.
fn closed_by(address: &SocketAddr) -> (thread::JoinHandle<()>, TcpStream) {
    let mut client = connect(address);
    client.write_all(b"GET /a HTTP/1.0\r\n\r\n").unwrap();
    let mut sender = client.try_clone().unwrap();
    let sender = thread::spawn(move || {
        while sender.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(20)); // its pace, not to wait for anything
        }
    });
    (sender, client)
}

/// It ends, and has not waited for a peer.
#[track_caller]
fn ends_soon(program: Program, name: &str) -> Ended {
    let begun = Instant::now();
    let ended = program.end();
    let took = begun.elapsed();
    assert!(took < LINGERS, "{name} took {took:?}: {ended:?}");
    ended
}
