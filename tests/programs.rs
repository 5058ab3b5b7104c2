//! The example programs as their users meet them: processes with arguments, output, an exit status,
//! and sockets. `cargo test` builds them first; after `cargo build --examples`,
//! `cargo test --test programs` alone will do.

mod util;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use util::{DEADLINE, loopbacks, reset, wait_until};

const PROGRAMS: [&str; 2] = ["echo_server", "echo_client"];

/// The most that a test sends without reading: more than the buffers of a kernel take, and the 16 MiB
/// that a channel queues by default.
const LOAD: usize = 64 * 1024 * 1024;

// What all programs have in common.

#[test]
fn help() {
    for name in PROGRAMS {
        for option in ["--help", "-h"] {
            let ended = Program::start(name, [option]).end();
            ended.assert_quiet_success();
            assert!(ended.stdout.starts_with(&format!("usage: {name} ")), "{ended:?}");
            assert!(ended.stdout.contains("--log LEVEL"), "{ended:?}");
        }
    }
}

#[test]
fn wrong_usage() {
    for name in PROGRAMS {
        let wrong: [&[&str]; 8] = [
            &["--bogus"],
            &["--log"],
            &["--log", "loud", "127.0.0.1:1"],
            &["127.0.0.1"],
            &["127.0.0.1:65536"],
            &["127.0.0.1:"],
            &[":80"],
            &["::1:80"],
        ];
        for args in wrong {
            Program::start(name, args).end().assert_wrong_usage(name);
        }
        let not_utf8 = OsString::from_vec(b"\xff:80".into());
        Program::start(name, [not_utf8]).end().assert_wrong_usage(name);
    }
    let wrong: [&[&str]; 5] = [
        &[],
        &["127.0.0.1:1", "127.0.0.1:2"],
        &["--connections", "0", "127.0.0.1:1"],
        &["--connections", "many", "127.0.0.1:1"],
        &["127.0.0.1:1", "--message"],
    ];
    for args in wrong {
        Program::start("echo_client", args).end().assert_wrong_usage("echo_client");
    }
}

/// The name is too long for any name server to be asked.
#[test]
fn unknown_name() {
    let address = format!("{}\n:80", "x".repeat(300));
    for name in PROGRAMS {
        let ended = Program::start(name, [&address]).end();
        ended.assert_failure(&address.replace('\n', "\\n"));
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    }
}

/// As with `| head`, but with the reader gone from the start.
#[test]
fn closed_stdout() {
    let unread = || {
        let (theirs, ours) = UnixStream::pair().unwrap();
        drop(ours);
        Stdio::from(OwnedFd::from(theirs))
    };
    let echo = Program::start("echo_server", ["127.0.0.1:0"]);
    let address = echo.listening();
    for (name, argument) in [
        ("echo_server", "127.0.0.1:0"),
        ("echo_server", "--help"),
        ("echo_client", address.to_string().as_str()),
        ("echo_client", "--help"),
    ] {
        let mut command = command(name);
        command.arg(argument).stdout(unread());
        Program::spawn(command).end().assert_quiet_success();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn full_stdout() {
    for name in PROGRAMS {
        let mut command = command(name);
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        command.arg("--help").stdout(full);
        Program::spawn(command).end().assert_failure("stdout");
    }
}

// echo_server

#[test]
fn echo_server_on_several_addresses() {
    let mut args: Vec<String> = loopbacks().iter().map(SocketAddr::to_string).collect();
    args.push("localhost:0".to_owned());
    let server = Program::start("echo_server", &args);
    let addresses: Vec<SocketAddr> = args.iter().map(|_| server.listening()).collect();
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
    server.signal("TERM");
    server.end().assert_quiet_success();
}

#[test]
fn echo_server_puts_prefix_and_suffix_around_each_chunk() {
    let prefix = OsStr::from_bytes(b"\xff<");
    let args = ["--prefix".as_ref(), prefix, "--suffix=>\n".as_ref(), "127.0.0.1:0".as_ref()];
    let server = Program::start("echo_server", args);
    let mut peer = connect(&server.listening());
    for chunk in ["one", "two"] {
        peer.write_all(chunk.as_bytes()).unwrap();
        assert_eq!(read_piece(&mut peer), [b"\xff<", chunk.as_bytes(), b">\n"].concat());
    }
}

/// A client that sends for a long time before it reads: the server must stop reading as well, or it
/// runs into the 16 MiB that a channel may queue. All comes back in the end.
#[test]
fn echo_server_waits_for_a_client_that_does_not_read() {
    let server = Program::start("echo_server", ["127.0.0.1:0"]);
    let address = server.listening();
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
    server.signal("TERM");
    server.end().assert_quiet_success();
}

#[test]
fn echo_server_survives_resets() {
    let server = Program::start("echo_server", ["127.0.0.1:0"]);
    let address = server.listening();
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
    server.signal("TERM");
    server.end().assert_quiet_success();
}

#[test]
fn echo_server_address_in_use() {
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
        server.signal("INT");
        let ended = server.end();
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
fn echo_server_does_not_wait_for_ever_for_a_client_that_does_not_read() {
    let server = Program::start("echo_server", ["127.0.0.1:0"]);
    let mut peer = connect(&server.listening());
    fill(&mut peer, |_| 0);
    let begin = Instant::now();
    server.signal("TERM");
    let ended = server.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(begin.elapsed() >= Duration::from_secs(3), "gave up after {:?}", begin.elapsed());
}

#[test]
fn echo_server_ends_at_once_at_the_second_signal() {
    for (signal, status) in [("INT", 128 + 2), ("TERM", 128 + 15)] {
        let server = Program::start("echo_server", ["127.0.0.1:0"]);
        let address = server.listening();
        let mut peer = connect(&address);
        fill(&mut peer, |_| 0);
        server.signal("TERM");
        // That it accepts no more shows that it has seen the first one.
        wait_until("the listener is closed", || TcpStream::connect(address).is_err());
        server.signal(signal);
        assert_eq!(server.end().code, Some(status));
    }
}

// echo_client

#[test]
fn echo_client_with_many_connections() {
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
        server.signal("INT");
        server.end().assert_quiet_success();
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
fn echo_client_with_nothing_to_send() {
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
    let address = util::closed_port("127.0.0.1:0".parse().unwrap()).to_string();
    for options in [["--connections", "3"], ["--message", ""]] {
        let args = options.into_iter().chain(["--log", "off", &address]);
        let ended = Program::start("echo_client", args).end();
        ended.assert_failure(&address);
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    }
}

#[test]
fn echo_client_interrupted() {
    for signal in ["INT", "TERM"] {
        let (client, mut peer, address) = client_of(&[]);
        read_exactly(&mut peer, 44);
        client.signal(signal);
        client.end().assert_failure(&address);
    }
}

// What the tests are made of.

/// A running program; killed if a test ends before it does.
struct Program {
    child: Child,
    stdout: Receiver<String>,
    stderr: Option<JoinHandle<String>>,
}

/// What is left of a program.
#[derive(Debug)]
struct Ended {
    /// `None` if a signal ended it.
    code: Option<i32>,
    /// What no test has taken with `line` before.
    stdout: String,
    stderr: String,
}

/// Where cargo puts examples, seen from the test: `target/debug/deps/programs-…`.
fn command(name: &str) -> Command {
    let mut path: PathBuf = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.push("examples");
    path.push(name);
    assert!(path.is_file(), "{} is missing: run `cargo build --examples`", path.display());
    Command::new(path)
}

impl Program {
    fn start(name: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Program {
        let mut command = command(name);
        command.args(args).stdout(Stdio::piped());
        Program::spawn(command)
    }

    /// With descriptors for some hundred connections, also where 256 are the default.
    fn start_with_descriptors(name: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Program {
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"ulimit -n 1024; exec "$0" "$@""#]);
        shell.arg(command(name).get_program()).args(args).stdout(Stdio::piped());
        Program::spawn(shell)
    }

    fn spawn(mut command: Command) -> Program {
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (lines, stdout) = channel();
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || {
                BufReader::new(stdout).lines().map_while(Result::ok).for_each(|line| drop(lines.send(line)));
            });
        }
        let mut stderr = child.stderr.take().unwrap();
        let stderr = thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        });
        Program { child, stdout, stderr: Some(stderr) }
    }

    /// The next line of its output.
    #[track_caller]
    fn line(&self) -> String {
        self.stdout.recv_timeout(DEADLINE).expect("a line of output")
    }

    /// Wait until it listens, and where.
    #[track_caller]
    fn listening(&self) -> SocketAddr {
        let line = self.line();
        line.strip_prefix("listening on ").and_then(|address| address.parse().ok()).expect(&line)
    }

    /// `signal` without `SIG`.
    #[track_caller]
    fn signal(&self, signal: &str) {
        let kill = format!("kill -{signal} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    #[track_caller]
    fn end(mut self) -> Ended {
        let mut status = None;
        wait_until("the program ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let stdout = self.stdout.iter().map(|line| line + "\n").collect();
        let stderr = self.stderr.take().unwrap().join().unwrap();
        Ended { code: status.unwrap().code(), stdout, stderr }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    #[track_caller]
    fn assert_quiet_success(&self) {
        assert!(self.code == Some(0) && self.stderr.is_empty(), "{self:?}");
    }

    #[track_caller]
    fn assert_wrong_usage(&self, name: &str) {
        let says_how = self.stderr.lines().any(|line| line.starts_with(&format!("usage: {name} ")));
        assert!(self.code == Some(2) && says_how && self.stdout.is_empty(), "{self:?}");
    }

    /// One line of the program's own says what failed, and names what it was about.
    #[track_caller]
    fn assert_failure(&self, about: &str) {
        let errors: Vec<&str> = self.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        let said = matches!(errors[..], [line] if line.contains(about));
        assert!(self.code == Some(1) && said && !self.stderr.contains("panicked"), "{self:?}");
    }
}

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
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let client = Program::start("echo_client", options.iter().chain([&OsStr::new(&address)]));
    listener.set_nonblocking(true).unwrap();
    let mut accepted = None;
    wait_until("the client connects", || {
        accepted = listener.accept().ok();
        accepted.is_some()
    });
    let peer = accepted.unwrap().0;
    peer.set_nonblocking(false).unwrap();
    limit_time(&peer);
    (client, peer, address)
}

fn limit_time(stream: &TcpStream) {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
}

#[track_caller]
fn connect(to: &SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    limit_time(&stream);
    stream
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

/// What one read gives.
#[track_caller]
fn read_piece(peer: &mut TcpStream) -> Vec<u8> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match peer.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            read => {
                buffer.truncate(read.unwrap());
                return buffer;
            }
        }
    }
}

#[track_caller]
fn read_exactly(peer: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut buffer = vec![0; len];
    peer.read_exact(&mut buffer).unwrap();
    buffer
}

#[track_caller]
fn read_to_end(peer: &mut TcpStream) -> Vec<u8> {
    let mut buffer = Vec::new();
    peer.read_to_end(&mut buffer).unwrap();
    buffer
}
