//! The example echo_client, as its users meet it: against plain sockets, and against echo_server.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::peers::{accept, loopbacks, pattern, read_exactly, read_to_end, reset};
use crate::support::programs::{Ended, Program, command, listener, refuser};

#[test]
fn it_has_every_message_back_on_many_connections() {
    for (count, address) in [300, 1].into_iter().zip(loopbacks()) {
        let server = Program::start_with_descriptors("echo_server", [address.to_string()]);
        let address = server.listening().to_string();
        let count_text = count.to_string();
        let client = Program::start_with_descriptors("echo_client", ["--connections", &count_text, &address]);
        let ended = client.end();
        ended.assert_quiet_success();
        let received = received(&ended);
        assert!(received.keys().copied().eq(1..=count), "{ended:?}");
        for text in received.values() {
            assert_eq!(text, "Message 1 from client.Message 2 from client.");
        }
        server.finish("INT");
    }
}

#[test]
fn it_prints_pieces_escaped() {
    let message = OsStr::from_bytes(b"a \"b\"\t\xff\n");
    let (client, mut peer, _) = client_of(&["--message".as_ref(), message, "--message=\\".as_ref()]);
    assert_eq!(read_exactly(&mut peer, 9), b"a \"b\"\t\xff\n\\");
    peer.write_all(b"a \"b\"").unwrap();
    assert_eq!(client.line(), r#"received "a \"b\"" from connection 1"#);
    peer.write_all(b"\t\xff\n\\").unwrap();
    assert_eq!(client.line(), r#"received "\t\xff\n\\" from connection 1"#);
    assert_eq!(read_to_end(&mut peer), b"", "it closes when all came back");
    client.end().assert_quiet_success();
}

#[test]
fn with_nothing_to_send_it_ends_in_order() {
    let (client, mut peer, _) = client_of(&["--message".as_ref(), "".as_ref()]);
    assert_eq!(read_to_end(&mut peer), b"");
    client.end().assert_quiet_success();
}

#[test]
fn it_fails_when_the_peer_ends_early() {
    for (answer, how) in [("", "FIN"), ("Message 1 fr", "FIN"), ("Message 1 fr", "reset")] {
        let (client, mut peer, address) = client_of(&[]);
        read_exactly(&mut peer, 44);
        peer.write_all(answer.as_bytes()).unwrap();
        if !answer.is_empty() {
            assert_eq!(client.line(), format!("received \"{answer}\" from connection 1"));
        }
        match how {
            "FIN" => drop(peer),
            _ => reset(peer),
        }
        client.end().assert_failure(&address);
    }
}

#[test]
fn it_fails_when_something_else_comes_back() {
    for answer in ["Massage 1", "Message 1 from client.Message 2 from client. And more."] {
        let (client, mut peer, address) = client_of(&[]);
        read_exactly(&mut peer, 44);
        peer.write_all(answer.as_bytes()).unwrap();
        let ended = client.end();
        ended.assert_failure(&address);
        assert_eq!(ended.stdout, format!("received \"{answer}\" from connection 1\n"));
    }
}

/// 103: also when it comes after all that was expected.
#[test]
fn it_fails_when_more_comes_back_later() {
    let (client, mut peer, address) = client_of(&["--message".as_ref(), "hello".as_ref()]);
    let sent = read_exactly(&mut peer, 5);
    peer.write_all(&sent).unwrap();
    assert_eq!(read_to_end(&mut peer), b"", "it ends its side when all came back");
    peer.write_all(b"hello").unwrap();
    drop(peer);
    client.end().assert_failure(&address);
}

/// 103: it does not wait for ever for a server that does not end, but for 2 s once.
#[test]
fn it_ends_when_all_came_back_though_the_server_does_not() {
    let (client, mut peer, _) = client_of(&["--message".as_ref(), "hello".as_ref()]);
    let sent = read_exactly(&mut peer, 5);
    peer.write_all(&sent).unwrap();
    let begun = Instant::now();
    client.end().assert_quiet_success();
    assert!(begun.elapsed() < Duration::from_millis(3900), "after {:?}", begun.elapsed());
    drop(peer);
}

#[test]
fn it_fails_when_nobody_listens() {
    let (_held, address) = refuser();
    for options in [["--connections", "3"], ["--message", ""]] {
        let args = options.into_iter().chain(["--log", "off", &address]);
        let ended = Program::start("echo_client", args).end();
        ended.assert_failure(&address);
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    }
}

#[test]
fn it_fails_when_it_is_interrupted() {
    for signal in ["INT", "TERM"] {
        let (client, mut peer, address) = client_of(&[]);
        read_exactly(&mut peer, 44);
        client.signal(signal);
        client.end().assert_failure(&address);
    }
}

#[test]
fn it_passes_lines_both_ways_when_interactive() {
    let (listener, address) = listener();
    let mut client = Program::start_typed("echo_client", ["--interactive", &address]);
    let mut peer = accept(&listener);
    for line in ["one\n", "two\r\n"] {
        client.type_in(line.as_bytes());
        assert_eq!(read_exactly(&mut peer, line.len()), line.as_bytes());
    }
    peer.write_all(b"and back\n").unwrap();
    assert_eq!(client.line(), "and back");
    client.type_in(b"no newline");
    drop(client.take_input());
    assert_eq!(read_to_end(&mut peer), b"no newline", "FIN follows the end of stdin");
    peer.write_all(b"still here\n").unwrap();
    assert_eq!(client.line(), "still here");
    drop(peer);
    client.end().assert_quiet_success();
}

#[test]
fn it_passes_a_large_pipe_whole_when_interactive() {
    const LEN: usize = 16 * 1024 * 1024;
    let server = Program::start("echo_server", ["127.0.0.1:0"]);
    let mut command = command("echo_client");
    command.args(["--interactive", &server.listening().to_string()]);
    command.stdin(Stdio::piped());
    let (mut client, mut output) = Program::spawn_raw(command);
    let sent = pattern(LEN);
    let (mut input, typed) = (client.take_input(), sent.clone());
    let writer = thread::spawn(move || input.write_all(&typed).unwrap());
    let back = read_to_end(&mut output);
    assert!(back == sent, "{} bytes", back.len());
    writer.join().unwrap();
    client.end().assert_quiet_success();
}

#[test]
fn it_fails_when_the_peer_ends_early_while_interactive() {
    for how in ["FIN", "reset", "INT"] {
        let (listener, address) = listener();
        let mut client = Program::start_typed("echo_client", ["--interactive", &address]);
        let mut peer = accept(&listener);
        client.type_in(b"one\n");
        read_exactly(&mut peer, 4);
        match how {
            "FIN" => drop(peer),
            "reset" => reset(peer),
            _ => client.signal(how),
        }
        client.end().assert_failure(&address);
    }
}

// What the tests are made of.

/// What echo_client printed, put together for each connection.
fn received(ended: &Ended) -> BTreeMap<u32, String> {
    let mut all: BTreeMap<u32, String> = BTreeMap::new();
    for line in ended.stdout.lines() {
        let (text, number) = line.rsplit_once("\" from connection ").expect(line);
        let text = text.strip_prefix("received \"").expect(line);
        all.entry(number.parse().expect(line)).or_default().push_str(text);
    }
    all
}

/// An echo_client, and the server's end of its one connection.
#[track_caller]
fn client_of(options: &[&OsStr]) -> (Program, TcpStream, String) {
    let (listener, address) = listener();
    let client = Program::start("echo_client", options.iter().chain([&OsStr::new(&address)]));
    (client, accept(&listener), address)
}
