//! The example stream_client, as its users meet it: against plain sockets, and against echo_server.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use crate::support::peers::{accept, connect, read_exactly, read_to_end, reset};
use crate::support::programs::{Program, command, listener, read_no_more, refuser};
use crate::support::waiting::DEADLINE;

/// A stream_client with a stdin to write to, the server's end of its connection, and its address.
#[track_caller]
fn client_of(options: &[&str]) -> (Program, TcpStream, String) {
    let (listener, address) = listener();
    let client = Program::start_typed("stream_client", options.iter().chain([&address.as_str()]));
    (client, accept(&listener), address)
}

#[test]
fn a_line_is_sent_when_the_one_before_it_is_answered() {
    let (mut client, mut server, _) = client_of(&[]);
    client.type_in(b"one\ntwo\r\n\n\xff\nlast");
    drop(client.take_input());
    let lines: [&[u8]; 5] = [b"one\n", b"two\r\n", b"\n", b"\xff\n", b"last\n"];
    for (number, line) in lines.into_iter().enumerate() {
        assert_eq!(read_exactly(&mut server, line.len()), line);
        // Not before it has its answer, which comes in two pieces.
        server.write_all(b"answer ").unwrap();
        server.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let early = server.read(&mut [0]).unwrap_err().kind();
        // A wait with a time limit may be interrupted when the whole machine is stopped for a moment.
        let kinds = [ErrorKind::WouldBlock, ErrorKind::TimedOut, ErrorKind::Interrupted];
        assert!(kinds.contains(&early), "{early}");
        server.set_read_timeout(Some(DEADLINE)).unwrap();
        server.write_all(format!("{number}\n").as_bytes()).unwrap();
        assert_eq!(client.line(), format!("answer {number}"));
    }
    assert_eq!(read_to_end(&mut server), b"");
    client.end().assert_quiet_success();
}

/// Its server would go on.
#[test]
fn a_client_with_nothing_to_ask_ends_in_order() {
    let (mut client, mut server, _) = client_of(&[]);
    drop(client.take_input());
    assert_eq!(read_to_end(&mut server), b"");
    let ended = client.end();
    ended.assert_quiet_success();
    assert_eq!(ended.stdout, "");
}

#[test]
fn long_lines_go_and_come_whole() {
    const LEN: usize = 200_000;
    let (mut client, mut server, _) = client_of(&[]);
    let question = [vec![b'q'; LEN], vec![b'\n']].concat();
    client.type_in(&question);
    assert!(read_exactly(&mut server, LEN + 1) == question);
    server.write_all(&[vec![b'a'; LEN], vec![b'\n']].concat()).unwrap();
    assert_eq!(client.line(), "a".repeat(LEN));
    drop(client.take_input());
    client.end().assert_quiet_success();
}

#[test]
fn four_clients_of_echo_server_have_their_lines_back() {
    let (server, address) = Program::serve("echo_server", ["127.0.0.1:0"]);
    let clients: Vec<_> = (0..4)
        .map(|number| {
            let mut client = Program::start_typed("stream_client", [address.to_string()]);
            thread::spawn(move || {
                for round in 0..200 {
                    client.type_in(format!("{number} {round}\n").as_bytes());
                    assert_eq!(client.line(), format!("{number} {round}"));
                }
                drop(client.take_input());
                client.end().assert_quiet_success();
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    drop(connect(&address));
    server.finish("TERM");
}

#[test]
fn a_server_that_does_not_answer_is_a_failure() {
    let (mut client, mut server, address) = client_of(&[]);
    client.type_in(b"one\n");
    read_exactly(&mut server, 4);
    server.write_all(b"bye").unwrap();
    server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.line(), "bye");
    client.type_in(b"two\n");
    client.end().assert_failure(&address);

    let (mut client, server, address) = client_of(&[]);
    client.type_in(b"one\n");
    reset(server);
    client.end().assert_failure(&address);

    // While nobody waits for it: told with the next line.
    for _ in 0..20 {
        let (mut client, server, address) = client_of(&[]);
        reset(server);
        client.type_in(b"one\n");
        let ended = client.end();
        ended.assert_failure(&address);
        assert!(ended.stderr.contains("lost"), "{ended:?}");
    }
}

#[test]
fn an_interrupted_client_fails() {
    for signal in ["INT", "TERM"] {
        // While it waits for an answer; for a line; for a line, and the connection is lost.
        for (asks, loses) in [(true, false), (false, false), (false, true)] {
            let (mut client, mut server, address) = client_of(&[]);
            client.type_in(b"one\n");
            read_exactly(&mut server, 4);
            if !asks {
                server.write_all(b"answer\n").unwrap();
                assert_eq!(client.line(), "answer");
            }
            match loses {
                true => reset(server),
                false => drop(thread::spawn(move || read_to_end(&mut server))),
            }
            client.signal(signal);
            client.end().assert_failure(&address);
        }
    }
}

#[test]
fn a_client_that_fails_says_why() {
    let (_held, address) = refuser();
    Program::start_typed("stream_client", [&address]).end().assert_failure(&address);

    // A directory cannot be read.
    let (listener, address) = listener();
    let mut command = command("stream_client");
    command.arg(&address).stdin(Stdio::from(File::open(".").unwrap()));
    let client = Program::spawn(command);
    assert_eq!(read_to_end(&mut accept(&listener)), b"");
    client.end().assert_failure("stdin");

    for arguments in [&[][..], &["nonsense"], &["127.0.0.1:1", "127.0.0.1:2"], &["--what", "127.0.0.1:1"]] {
        Program::start("stream_client", arguments).end().assert_wrong_usage("stream_client");
    }
    let help = Program::start("stream_client", ["--help"]).end();
    help.assert_quiet_success();
    assert!(help.stdout.contains("usage: stream_client"));
}

/// As `| head` does it.
#[test]
fn a_closed_stdout_is_no_failure() {
    let (listener, address) = listener();
    let mut command = command("stream_client");
    command.arg(&address).stdin(Stdio::piped());
    let (mut client, output) = Program::spawn_raw(command);
    let mut server = accept(&listener);
    read_no_more(&output);
    client.type_in(b"one\n");
    read_exactly(&mut server, 4);
    server.write_all(b"answer\n").unwrap();
    client.end().assert_quiet_success();
}
