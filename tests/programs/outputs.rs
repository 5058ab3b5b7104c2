//! What programs print of what peers send: when nobody reads it, and when a terminal shows it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use crate::support::dirs::Dir;
use crate::support::peers::{accept, connect, read_exactly, read_to_end};
use crate::support::programs::{Program, command, flood, listener};
use crate::support::waiting::wait_for_input;

/// More than all buffers on the way hold together.
const MUCH: usize = 64 * 1024 * 1024;

const LINE: usize = 100;

/// 104: what is not printed stays with its sender. Typed lines go out, newcomers come in, and all that was
/// sent is printed when somebody reads again.
#[test]
fn a_server_whose_stdout_nobody_reads_serves_on() {
    let (mut server, mut stdout) = start_unread("agent_server", "127.0.0.1:0");
    let listening = line(&mut stdout);
    let address = listening.strip_prefix("listening on ").unwrap().parse().unwrap();
    let mut talker = connect(&address);
    line(&mut stdout);
    let (sent, _) = flood(&mut talker, MUCH, text);
    assert!(sent < MUCH, "nothing made the sender wait");
    let mut other = connect(&address);
    for typed in [b"one\n", b"two\n"] {
        server.type_in(typed);
        assert_eq!(read_exactly(&mut other, 4), typed);
        assert_eq!(read_exactly(&mut talker, 4), typed);
    }
    drop(other);
    for number in 0..sent / LINE {
        let mut got = line(&mut stdout);
        while !got.starts_with("recv: ") {
            got = line(&mut stdout);
        }
        assert_eq!(got, format!("recv: {}", (number % 10).to_string().repeat(LINE - 1)), "line {number}");
    }
    server.signal("TERM");
    drop(talker);
    read_to_end(&mut stdout);
    assert_eq!(server.end().code, Some(0));
}

/// 104.
#[test]
fn a_signal_ends_a_program_whose_stdout_nobody_reads() {
    let (server, mut stdout) = start_unread("agent_server", "127.0.0.1:0");
    let listening = line(&mut stdout);
    let mut talker = connect(&listening.strip_prefix("listening on ").unwrap().parse().unwrap());
    assert!(flood(&mut talker, MUCH, text).0 < MUCH);
    assert_eq!(server.end_by("TERM").code, Some(0), "a server");

    let (listener, address) = listener();
    let (mut client, stdout) = start_unread("agent_client", &address);
    let mut peer = accept(&listener);
    assert!(flood(&mut peer, MUCH, text).0 < MUCH);
    client.type_in(b"typed\n");
    assert_eq!(read_exactly(&mut peer, 6), b"typed\n", "an agent sends what is typed");
    assert_eq!(client.end_by("TERM").code, Some(0), "an agent");
    drop(stdout);
}

/// 104.
#[cfg(feature = "layers")]
#[test]
fn a_signal_ends_a_client_whose_stdout_nobody_reads_as_interrupted() {
    let (listener, address) = listener();
    let mut command = command("http_client");
    command.args([&address, "/"]);
    let (client, _stdout) = Program::spawn_raw(command);
    let mut peer = accept(&listener);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(read_exactly(&mut peer, 1));
    }
    peer.write_all(b"HTTP/1.0 200 OK\r\n\r\n").unwrap();
    assert!(flood(&mut peer, MUCH, |_| b'x').0 < MUCH);
    client.end_by("TERM").assert_failure(&address);
}

/// 105: a terminal gets nothing that could steer it, and characters whole, however they came; other outputs
/// get what was sent.
#[cfg(target_os = "linux")]
#[test]
fn what_peers_send_does_not_steer_a_terminal() {
    let sent = "\x1b[2J\x07\u{9b}\u{202e}t\u{e4}b\t\u{1f430}\rover\r\n".as_bytes();
    let shown = "\\u{1b}[2J\\u{7}\\u{9b}\\u{202e}t\u{e4}b\t\u{1f430}\\rover\r\n";
    let (listener, address) = listener();
    for (name, before) in [("agent_client", "recv: "), ("echo_client", "")] {
        let mut command = command(name);
        let (terminal, other_side) = terminal();
        command.args(["--interactive"].iter().filter(|_| name == "echo_client")).arg(&address);
        command.stdin(Stdio::piped()).stdout(other_side);
        let mut client = Program::spawn(command);
        let mut peer = accept(&listener);
        peer.set_nodelay(true).unwrap();
        for byte in sent {
            peer.write_all(&[*byte]).unwrap();
        }
        let expected = format!("{before}{shown}");
        let mut got = Vec::new();
        while got.len() < expected.len() {
            wait_for_input(&terminal);
            got.extend(read_exactly(&mut &terminal, 1));
        }
        assert_eq!(String::from_utf8(got).unwrap(), expected, "{name}");
        drop(client.take_input());
        read_to_end(&mut peer);
        drop(peer);
        client.end().assert_quiet_success();
    }
}

/// 105: the head that `-v` prints, too.
#[cfg(feature = "layers")]
#[test]
fn a_head_does_not_steer_a_terminal() {
    let (listener, address) = listener();
    let client = Program::start("http_client", ["-v", &address, "/"]);
    let mut peer: std::net::TcpStream = accept(&listener);
    peer.write_all(b"HTTP/1.0 200 OK\r\nX: \x1b[2J\xe2\x80\xae\r\n\r\n").unwrap();
    let ended = client.end();
    assert!(ended.stderr.contains("X: \\u{1b}[2J\\u{202e}\n"), "{ended:?}");
}

/// 105: a client may have bound its socket to any path.
#[test]
fn the_path_of_a_client_forges_no_lines() {
    let dir = Dir::new();
    let (path, address) = dir.socket("server");
    let server = Program::start("agent_server", ["--log", "info", &address]);
    server.line();
    let odd = dir.join("a\u{1b}[31m\nrecv: forged");
    let client = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    client.bind(&socket2::SockAddr::unix(&odd).unwrap()).unwrap();
    client.connect(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    let shown = format!("unix:{}", dir.join("a\\u{1b}[31m\\nrecv: forged").display());
    assert_eq!(server.line(), format!("connected: {shown}"));
    drop(client);
    assert_eq!(server.line(), format!("disconnected: {shown}"));
    let ended = server.end_by("TERM");
    assert!(ended.stderr.lines().all(|line| line.contains("[INFO]")), "{ended:?}");
}

fn start_unread(name: &str, address: &str) -> (Program, BufReader<UnixStream>) {
    let mut command = command(name);
    command.args(["--log", "error", address]).stdin(Stdio::piped());
    let (program, stdout) = Program::spawn_raw(command);
    (program, BufReader::new(stdout))
}

/// What is flooded: lines, each of the same digit.
fn text(at: usize) -> u8 {
    if at % LINE == LINE - 1 { b'\n' } else { b'0' + (at / LINE % 10) as u8 }
}

/// The next line of an output.
#[track_caller]
fn line(stdout: &mut BufReader<UnixStream>) -> String {
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    line.trim_end_matches('\n').to_owned()
}

/// Both sides of a terminal: who looks at it, and who writes to it.
#[cfg(target_os = "linux")]
fn terminal() -> (std::fs::File, std::fs::File) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
    let theirs = std::fs::File::options().write(true).open(name).unwrap();
    (ours.into(), theirs)
}
