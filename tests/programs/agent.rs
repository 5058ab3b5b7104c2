//! The examples agent_server and agent_client, as their users meet them: each against plain sockets, then
//! both together; and the lines that they cut.

#[path = "../../examples/common/lines.rs"]
mod lines;
#[allow(dead_code)]
#[path = "../../examples/common/shown.rs"]
mod shown;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Stdio;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use lines::Lines;

use crate::support::peers::{accept, connect, read_exactly, read_to_end, reset};
use crate::support::programs::{Program, command, listener, refuser};

const PIECE: usize = 64 * 1024;

// Lines

#[test]
fn lines_come_out_the_same_however_they_come_in() {
    let text = b"one\ntwo\r\n\n\r\nth\rree\r\r\n\xff\n last \r";
    let expected: [&[u8]; 7] = [b"one", b"two", b"", b"", b"th\rree\r", b"\xff", b" last \r"];
    for size in 1..=text.len() {
        assert_eq!(cut(text.chunks(size)), expected, "in pieces of {size} bytes");
    }
    assert!(cut([&b""[..]]).is_empty());
    assert_eq!(cut([&b"whole\n"[..]]), [b"whole"]);
}

#[test]
fn long_lines_come_in_pieces() {
    for (len, pieces) in [
        (PIECE - 1, &[PIECE - 1][..]),
        (PIECE, &[PIECE]),
        (PIECE + 1, &[PIECE, 1]),
        (2 * PIECE, &[PIECE, PIECE]),
        (3 * PIECE + 5, &[PIECE, PIECE, PIECE, 5]),
    ] {
        for end in ["", "\n", "\r\n", "\nnext", "\r\nnext"] {
            let text = "x".repeat(len) + end;
            let mut expected = pieces.to_vec();
            expected.extend(end.ends_with("next").then_some(4));
            for size in [1000, PIECE - 1, PIECE, PIECE + 1, text.len()] {
                let got: Vec<usize> = cut(text.as_bytes().chunks(size)).iter().map(Vec::len).collect();
                assert_eq!(got, expected, "{len} bytes and {end:?}, in pieces of {size}");
            }
        }
    }
}

/// 105.
#[test]
fn long_lines_are_not_cut_inside_a_character() {
    for text in ["\u{e4}", "\u{20ac}", "\u{1f430}"] {
        for before in 0..text.len() {
            let line = "x".repeat(before) + &text.repeat(2 * PIECE / text.len());
            for size in [1000, PIECE, line.len()] {
                let got = cut(line.as_bytes().chunks(size));
                let whole: Vec<&str> = got.iter().map(|piece| std::str::from_utf8(piece).unwrap()).collect();
                assert!(whole.concat() == line && got.iter().all(|piece| piece.len() <= PIECE));
            }
        }
    }
    // What is no text has no characters.
    let binary = vec![0xff; 2 * PIECE];
    assert_eq!(cut(binary.chunks(1000)).concat(), binary);
}

fn cut<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let (mut lines, mut all) = (Lines::default(), Vec::new());
    for piece in pieces {
        lines.add(piece, |line| all.push(line.to_vec()));
    }
    lines.end(|line| all.push(line.to_vec()));
    all
}

// agent_server

#[test]
fn what_is_typed_reaches_all_clients() {
    let (mut server, address) = serve();
    let mut clients: Vec<TcpStream> = (0..3).map(|_| join(&server, &address)).collect();
    for line in ["one\n", "\n", "two\r\n"] {
        server.type_in(line.as_bytes());
        for client in &mut clients {
            assert_eq!(read_exactly(client, line.len()), line.as_bytes());
        }
    }
    // One goes: the others have the next line, and so has one that comes.
    leave(&server, clients.remove(1));
    clients.push(join(&server, &address));
    server.type_in(b"three\nand no newline");
    drop(server.take_input());
    for client in &mut clients {
        assert_eq!(read_exactly(client, 20), b"three\nand no newline"[..20]);
    }
    // The end of stdin is not the end of the server.
    let mut late = join(&server, &address);
    late.write_all(b"still there?\n").unwrap();
    assert_eq!(server.line(), "recv: still there?");
    server.signal("TERM");
    assert_eq!(read_to_end(&mut late), b"");
    server.end().assert_quiet_success();
}

#[test]
fn what_clients_send_is_printed() {
    let (server, address) = serve();
    let mut client = join(&server, &address);
    client.write_all(b"one\r\n\n\xffbad\xc3\n").unwrap();
    for line in ["recv: one", "recv: ", "recv: \u{fffd}bad\u{fffd}"] {
        assert_eq!(server.line(), line);
    }
    client.write_all(&vec![b'x'; PIECE + 3]).unwrap();
    client.write_all(b"\n").unwrap();
    assert_eq!(server.line().len(), "recv: ".len() + PIECE);
    assert_eq!(server.line(), "recv: xxx");
    client.write_all(b"last").unwrap();
    let name = client.local_addr().unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(server.line(), "recv: last");
    assert_eq!(server.line(), format!("disconnected: {name}"));
    assert_eq!(read_to_end(&mut client), b"");
    finish(server);
}

#[test]
fn twenty_thousand_lines_arrive_in_order() {
    let (mut server, address) = serve();
    let clients: Vec<TcpStream> = (0..2).map(|_| join(&server, &address)).collect();
    let mut input = server.take_input();
    let typed: String = (0..20_000).map(|number| format!("line {number}\n")).collect();
    let writer = thread::spawn(move || input.write_all(typed.as_bytes()).unwrap());
    for client in clients {
        let mut lines = BufReader::new(client).lines();
        for number in 0..20_000 {
            assert_eq!(lines.next().unwrap().unwrap(), format!("line {number}"));
        }
    }
    writer.join().unwrap();
    finish(server);
}

/// One client never reads. Lines are typed for as long as it takes to cut it off; the other client has
/// them all, each before the next.
#[test]
fn who_does_not_read_is_cut_off() {
    let (mut server, address) = serve();
    let deaf = join(&server, &address);
    let mut client = join(&server, &address);
    let disconnected = format!("disconnected: {}", deaf.local_addr().unwrap());
    let line = [vec![b'x'; PIECE - 1], vec![b'\n']].concat();
    let mut typed = 0;
    let told = loop {
        assert!(typed < 64 * 1024 * 1024, "it was not cut off");
        server.type_in(&line);
        assert!(read_exactly(&mut client, line.len()) == line);
        typed += line.len();
        if let Some(told) = server.try_line() {
            break told;
        }
    };
    assert_eq!(told, disconnected);
    server.type_in(b"after it\n");
    assert_eq!(read_exactly(&mut client, 9), b"after it\n");
    assert_eq!(server.end_by("TERM").code, Some(0));
}

/// 117: however short the lines are, until all of them are cut off; who reads misses nothing meanwhile.
#[cfg(target_os = "linux")]
#[test]
fn many_that_do_not_read_cost_bounded_memory() {
    let (mut server, address) = serve_with(&["--log", "off"]);
    let deaf: Vec<TcpStream> = (0..40).map(|_| join(&server, &address)).collect();
    let mut client = join(&server, &address);
    let lines = [vec![b'x'; 199], vec![b'\n']].concat().repeat(200);
    let mut left = 0;
    for typed in (0..).step_by(lines.len()) {
        assert!(typed < 64 * 1024 * 1024, "{left} of {} were cut off", deaf.len());
        server.type_in(&lines);
        assert!(read_exactly(&mut client, lines.len()) == lines);
        left += std::iter::from_fn(|| server.try_line()).count();
        if left == deaf.len() {
            break;
        }
    }
    let peak = server.peak_memory();
    assert!(peak < 64 * 1024, "{peak} KiB for 40 clients");
    assert_eq!(server.end_by("TERM").code, Some(0));
}

// agent_client

#[test]
fn typed_lines_go_out_and_lines_come_in() {
    let (mut client, mut server) = client_of(&[]);
    client.type_in(b"one\n");
    assert_eq!(read_exactly(&mut server, 4), b"one\n");
    server.write_all(b"and\r\nback\n\xff\n").unwrap();
    for line in ["recv: and", "recv: back", "recv: \u{fffd}"] {
        assert_eq!(client.line(), line);
    }
    client.type_in(b"\xfftwo\r\n, without newline");
    drop(client.take_input());
    assert_eq!(read_to_end(&mut server), b"\xfftwo\r\n, without newline", "FIN follows the end of stdin");
    // What still comes is printed.
    server.write_all(b"still here\nlast").unwrap();
    assert_eq!(client.line(), "recv: still here");
    drop(server);
    let ended = client.end();
    ended.assert_quiet_success();
    assert_eq!(ended.stdout, "recv: last\n");
}

/// While its stdin is open.
#[test]
fn the_peer_may_end_first() {
    let (mut client, mut server) = client_of(&[]);
    client.type_in(b"hello\n");
    read_exactly(&mut server, 6);
    server.write_all(b"bye").unwrap();
    drop(server);
    let ended = client.end();
    ended.assert_quiet_success();
    assert_eq!(ended.stdout, "recv: bye\n");

    let (client, server) = client_of(&["--log", "off"]);
    reset(server);
    client.end().assert_quiet_success();
}

/// 102: as a `kill` of a server does that has not read all: the rest of the file goes nowhere, nobody waits,
/// and nobody believes that it has arrived.
#[test]
fn a_peer_that_ends_in_the_middle_of_a_pipe_is_a_failure() {
    let (mut client, mut server) = client_of(&["--log", "off"]);
    let address = server.local_addr().unwrap().to_string();
    let mut input = client.take_input();
    let writer = thread::spawn(move || {
        let chunk = vec![0; PIECE];
        while input.write_all(&chunk).is_ok() {}
    });
    read_exactly(&mut server, 100_000);
    drop(server);
    client.end().assert_failure(&address);
    writer.join().unwrap();
}

#[test]
fn a_large_pipe_takes_bounded_memory() {
    const LEN: usize = 64 * 1024 * 1024;
    let (mut client, mut server) = client_of(&[]);
    let mut input = client.take_input();
    let chunk = |index: usize| -> Vec<u8> { (0..PIECE).map(|at| ((at + index) % 251) as u8).collect() };
    let (written, is_written) = channel();
    thread::spawn(move || {
        for index in 0..LEN / PIECE {
            input.write_all(&chunk(index)).unwrap();
        }
        let _ = written.send(());
    });
    for index in 0..LEN / PIECE {
        assert!(read_exactly(&mut server, PIECE) == chunk(index), "chunk {index}");
        // A slow reader.
        thread::sleep(Duration::from_millis(1));
        if index == LEN / PIECE / 4 {
            // The kernel holds some MiB, the program next to nothing: 48 MiB are nowhere but here.
            assert!(is_written.try_recv().is_err(), "nothing made the writer wait");
        }
    }
    assert_eq!(read_to_end(&mut server), b"");
    if cfg!(target_os = "linux") {
        let peak = client.peak_memory();
        assert!(peak < 30 * 1024, "{peak} KiB");
    }
    drop(server);
    client.end().assert_quiet_success();
}

#[test]
fn an_interrupted_client_ends_in_order() {
    for signal in ["INT", "TERM"] {
        let (mut client, mut server) = client_of(&[]);
        client.type_in(b"one\n");
        read_exactly(&mut server, 4);
        client.signal(signal);
        assert_eq!(read_to_end(&mut server), b"");
        client.end().assert_quiet_success();
    }
}

#[test]
fn a_client_that_fails_says_why() {
    let (_held, address) = refuser();
    Program::start("agent_client", [&address]).end().assert_failure(&address);

    // A directory cannot be read.
    let (listener, address) = listener();
    let mut command = command("agent_client");
    command.arg(&address).stdin(Stdio::from(File::open(".").unwrap()));
    let client = Program::spawn(command);
    let mut server = accept(&listener);
    assert_eq!(read_to_end(&mut server), b"");
    drop(server);
    client.end().assert_failure("stdin");
}

// Both.

#[test]
fn server_and_client_understand_each_other() {
    let (mut server, address) = serve();
    let mut client = Program::start_typed("agent_client", [address.to_string()]);
    let connected = server.line();
    let name = connected.strip_prefix("connected: ").expect(&connected);
    client.type_in(b"from client\n");
    assert_eq!(server.line(), "recv: from client");
    server.type_in(b"from server\n");
    assert_eq!(client.line(), "recv: from server");
    client.type_in(b"last");
    drop(client.take_input());
    assert_eq!(server.line(), "recv: last");
    client.end().assert_quiet_success();
    assert_eq!(server.line(), format!("disconnected: {name}"));
    finish(server);
}

// What the tests are made of.

fn serve() -> (Program, SocketAddr) {
    serve_with(&[])
}

fn serve_with(options: &[&str]) -> (Program, SocketAddr) {
    let server = Program::start_typed("agent_server", options.iter().chain(&["127.0.0.1:0"]));
    let address = server.listening();
    (server, address)
}

/// A client that the server knows of.
#[track_caller]
fn join(server: &Program, address: &SocketAddr) -> TcpStream {
    let client = connect(address);
    assert_eq!(server.line(), format!("connected: {}", client.local_addr().unwrap()));
    client
}

#[track_caller]
fn leave(server: &Program, client: TcpStream) {
    let name = client.local_addr().unwrap();
    drop(client);
    assert_eq!(server.line(), format!("disconnected: {name}"));
}

#[track_caller]
fn finish(server: Program) {
    server.finish("INT");
}

/// An agent_client with a stdin to write to, and the server's end of its connection.
#[track_caller]
fn client_of(options: &[&str]) -> (Program, TcpStream) {
    let (listener, address) = listener();
    let client = Program::start_typed("agent_client", options.iter().chain([&address.as_str()]));
    (client, accept(&listener))
}
