//! The example programs as their users meet them: processes with arguments, output, an exit status,
//! and sockets. `cargo test` builds them first; after `cargo build --examples`,
//! `cargo test --test programs` alone will do.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::dirs::Dir;
use crate::support::peers::{accept, connect, loopbacks, pattern, read_exactly, read_to_end, reset};
use crate::support::programs::{Ended, Program, assert_help, command, listener, read_piece, refuser, unread};
use crate::support::waiting::wait_until;

const PROGRAMS: [&str; 9] = [
    "echo_server",
    "echo_client",
    "poetry_server",
    "poetry_client",
    "agent_server",
    "agent_client",
    "http_server",
    "tcp_proxy",
    "udp_echo",
];

/// Those that are given addresses, of which the clients need one.
const WITH_ADDRESS: [&str; 5] = ["echo_server", "echo_client", "agent_server", "agent_client", "http_server"];
const CLIENTS: [&str; 3] = ["echo_client", "poetry_client", "agent_client"];

/// The most that a test sends without reading: more than the buffers of a kernel take, and the 16 MiB
/// that a channel queues by default.
const LOAD: usize = 64 * 1024 * 1024;

// What all programs have in common.

#[test]
fn help_says_how_each_program_is_used() {
    for name in PROGRAMS {
        assert_help(name);
    }
}

#[test]
fn wrong_usage_is_answered_with_the_usage() {
    for name in PROGRAMS {
        let wrong: [&[&str]; 4] = [&["--bogus"], &["-x"], &["--log"], &["--log", "loud", "127.0.0.1:1"]];
        for args in wrong {
            Program::start(name, args).end().assert_wrong_usage(name);
        }
    }
    for name in CLIENTS {
        Program::start(name, [] as [&str; 0]).end().assert_wrong_usage(name);
    }
    for name in WITH_ADDRESS.into_iter().chain(["poetry_client"]) {
        let wrong: [&[&str]; 5] =
            [&["127.0.0.1"], &["127.0.0.1:65536"], &["127.0.0.1:"], &[":80"], &["::1:80"]];
        for args in wrong {
            Program::start(name, args).end().assert_wrong_usage(name);
        }
        let not_utf8 = OsString::from_vec(b"\xff:80".into());
        Program::start(name, [not_utf8]).end().assert_wrong_usage(name);
    }
    for name in ["echo_client", "agent_server", "agent_client"] {
        let ended = Program::start(name, ["127.0.0.1:1", "127.0.0.1:2"]).end();
        ended.assert_wrong_usage(name);
    }
    let wrong: [&[&str]; 5] = [
        &["--interactive", "--connections", "2", "127.0.0.1:1"],
        &["--interactive", "--message", "x", "127.0.0.1:1"],
        &["--connections", "0", "127.0.0.1:1"],
        &["--connections", "many", "127.0.0.1:1"],
        &["127.0.0.1:1", "--message"],
    ];
    for args in wrong {
        Program::start("echo_client", args).end().assert_wrong_usage("echo_client");
    }
}

/// No name server could be asked about these.
#[test]
fn impossible_names_are_wrong_usage() {
    for address in ["a name:80", "..:80", "localhost\n:80", "unix:"] {
        for name in WITH_ADDRESS {
            let ended = Program::start(name, [address]).end();
            ended.assert_wrong_usage(name);
            assert!(ended.stderr.contains(&format!("{address:?}")), "{ended:?}");
        }
    }
}

/// Wherever a TCP address is taken, so is that of a Unix-domain socket.
#[test]
fn a_unix_domain_address_is_taken_wherever_a_tcp_one_is() {
    let dir = Dir::new();
    let (path, address) = dir.socket("echo.sock");
    let server = Program::start("echo_server", [&address]);
    assert_eq!(server.line(), format!("listening on {address}"));
    let client = Program::start("echo_client", ["--connections", "3", &address]).end();
    client.assert_quiet_success();
    let taken = Program::start("echo_server", [&address]).end();
    taken.assert_failure(&address);
    server.finish("TERM");
    assert!(!path.exists());
    let gone = Program::start("echo_client", [&address]).end();
    gone.assert_failure(&address);
}

/// As with `| head`, but with the reader gone from the start.
#[test]
fn a_closed_stdout_is_no_failure() {
    let (_echo, address) = Program::serve("echo_server", ["127.0.0.1:0"]);
    for (name, argument) in [
        ("echo_server", "127.0.0.1:0"),
        ("echo_server", "--help"),
        ("echo_client", address.to_string().as_str()),
        ("echo_client", "--help"),
        ("agent_server", "127.0.0.1:0"),
        ("poetry_server", "--port=0"),
        ("poetry_client", "--help"),
    ] {
        let mut command = command(name);
        command.arg(argument).stdout(unread());
        Program::spawn(command).end().assert_quiet_success();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_stdout_is_a_failure() {
    for name in PROGRAMS {
        let mut command = command(name);
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        command.arg("--help").stdout(full);
        Program::spawn(command).end().assert_failure("stdout");
    }
}

// echo_server

#[test]
fn echo_server_listens_on_several_addresses() {
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
fn echo_server_puts_prefix_and_suffix_around_each_chunk() {
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
fn echo_server_waits_for_a_client_that_does_not_read() {
    let (server, address) = Program::serve("echo_server", ["127.0.0.1:0"]);
    let mut peer = connect(&address);
    let sent = fill(&mut peer, |at| at as u8);
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
fn echo_server_survives_resets() {
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
fn echo_server_fails_when_the_address_is_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = Program::start("echo_server", [&address]).end();
    ended.assert_failure(&address);
    assert_eq!((ended.stderr.lines().count(), ended.stdout.as_str()), (1, ""), "{ended:?}");
}

#[test]
fn echo_server_logs_what_it_is_asked_to() {
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

/// More is queued than the socket takes, and more has come than was read: all that is queued is sent
/// before the end, to the suffix of the last chunk, and the connection is not reset.
#[test]
fn echo_server_sends_what_is_queued_when_it_is_ended() {
    for signal in ["TERM", "INT"] {
        let server = Program::start("echo_server", ["--prefix", "<", "--suffix", ">", "127.0.0.1:0"]);
        let mut peer = connect(&server.listening());
        let sent = fill(&mut peer, |_| b'x');
        server.signal(signal);
        let back = read_to_end(&mut peer);
        assert_eq!((back.first(), back.last()), (Some(&b'<'), Some(&b'>')));
        assert!(back.len() > 64 * 1024 && back.iter().filter(|byte| **byte == b'x').count() <= sent);
        drop(peer);
        server.end().assert_quiet_success();
    }
}

#[test]
fn echo_server_does_not_wait_for_a_client_that_is_owed_nothing() {
    let server = Program::start("echo_server", ["127.0.0.1:0"]);
    let mut peer = connect(&server.listening());
    peer.write_all(b"here").unwrap();
    assert_eq!(read_piece(&mut peer), b"here");
    let begin = Instant::now();
    server.finish("TERM");
    assert!(begin.elapsed() < Duration::from_secs(2), "took {:?}", begin.elapsed());
    assert_eq!(read_to_end(&mut peer), b"");
}

#[test]
fn echo_server_does_not_wait_for_ever_for_a_client_that_does_not_read() {
    let server = Program::start("echo_server", ["127.0.0.1:0"]);
    let mut peer = connect(&server.listening());
    fill(&mut peer, |_| 0);
    let begin = Instant::now();
    let ended = server.end_by("TERM");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(begin.elapsed() >= Duration::from_secs(3), "gave up after {:?}", begin.elapsed());
}

#[test]
fn echo_server_ends_at_once_at_the_second_signal() {
    for (signal, status) in [("INT", 128 + 2), ("TERM", 128 + 15)] {
        let (server, address) = Program::serve("echo_server", ["127.0.0.1:0"]);
        let mut peer = connect(&address);
        fill(&mut peer, |_| 0);
        server.signal("TERM");
        // That it accepts no more shows that it has seen the first one.
        wait_until("the listener is closed", || TcpStream::connect(address).is_err());
        assert_eq!(server.end_by(signal).code, Some(status));
    }
}

// echo_client

#[test]
fn echo_client_has_every_message_back_on_many_connections() {
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
fn echo_client_prints_pieces_escaped() {
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
fn echo_client_with_nothing_to_send_ends_in_order() {
    let (client, mut peer, _) = client_of(&["--message".as_ref(), "".as_ref()]);
    assert_eq!(read_to_end(&mut peer), b"");
    client.end().assert_quiet_success();
}

#[test]
fn echo_client_fails_when_the_peer_ends_early() {
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
fn echo_client_fails_when_something_else_comes_back() {
    for answer in ["Massage 1", "Message 1 from client.Message 2 from client. And more."] {
        let (client, mut peer, address) = client_of(&[]);
        read_exactly(&mut peer, 44);
        peer.write_all(answer.as_bytes()).unwrap();
        let ended = client.end();
        ended.assert_failure(&address);
        assert_eq!(ended.stdout, format!("received \"{answer}\" from connection 1\n"));
    }
}

#[test]
fn echo_client_fails_when_nobody_listens() {
    let (_held, address) = refuser();
    for options in [["--connections", "3"], ["--message", ""]] {
        let args = options.into_iter().chain(["--log", "off", &address]);
        let ended = Program::start("echo_client", args).end();
        ended.assert_failure(&address);
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    }
}

#[test]
fn echo_client_fails_when_it_is_interrupted() {
    for signal in ["INT", "TERM"] {
        let (client, mut peer, address) = client_of(&[]);
        read_exactly(&mut peer, 44);
        client.signal(signal);
        client.end().assert_failure(&address);
    }
}

#[test]
fn echo_client_passes_lines_both_ways_when_interactive() {
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
fn echo_client_passes_a_large_pipe_whole_when_interactive() {
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
fn echo_client_interactive_fails_when_the_peer_ends_early() {
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

/// Send without reading until the server has taken nothing for half a second; how many bytes that
/// were.
#[track_caller]
fn fill(peer: &mut TcpStream, byte: impl Fn(usize) -> u8) -> usize {
    peer.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut sent = 0;
    while sent < LOAD {
        let piece: Vec<u8> = (sent..sent + (LOAD - sent).min(64 * 1024)).map(&byte).collect();
        match peer.write(&piece) {
            Ok(written) => sent += written,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => panic!("after {sent} bytes: {error}"),
        }
    }
    sent
}
