//! Example programs as processes, for the tests that meet them as their users do. `cargo test` builds
//! them first; for a single test, `cargo build --examples` does.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::memory;
use super::peers::{limit_time, refusing};
use super::waiting::{DEADLINE, wait_until};

/// A running program; killed if a test ends before it does.
pub struct Program {
    child: Child,
    /// Its stdin, if it was started with `start_typed`.
    input: Option<ChildStdin>,
    stdout: Receiver<String>,
    stderr: Option<JoinHandle<String>>,
}

/// What is left of a program.
#[derive(Debug)]
pub struct Ended {
    /// `None` if a signal ended it.
    pub code: Option<i32>,
    /// What no test has taken with `line` before.
    pub stdout: String,
    pub stderr: String,
}

/// A program where cargo puts examples, seen from the test: `target/debug/deps/programs-…`. Its stdin
/// is empty, its output goes to us.
pub fn command(name: &str) -> Command {
    let mut path: PathBuf = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.push("examples");
    path.push(name);
    assert!(path.is_file(), "{} is missing: run `cargo build --examples`", path.display());
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    // To try all that is asked of a server on several loops: see CONTRIBUTING.
    if let Some(threads) = std::env::var_os("DISPATCH_LOOP_TEST_THREADS").filter(|_| SERVERS.contains(&name))
    {
        command.arg("--threads").arg(threads);
    }
    command
}

const SERVERS: [&str; 8] = [
    "agent_server",
    "app_server",
    "chat_server",
    "echo_server",
    "http_server",
    "poetry_server",
    "tcp_proxy",
    "udp_echo",
];

impl Program {
    pub fn start(name: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Program {
        let mut command = command(name);
        command.args(args);
        Program::spawn(command)
    }

    /// A server that prints where it listens.
    #[track_caller]
    pub fn serve(name: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> (Program, SocketAddr) {
        let server = Program::start(name, args);
        let address = server.listening();
        (server, address)
    }

    /// With a stdin that the test writes to.
    pub fn start_typed(name: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Program {
        let mut command = command(name);
        command.args(args).stdin(Stdio::piped());
        Program::spawn(command)
    }

    /// With descriptors for some hundred connections, also where 256 are the default.
    pub fn start_with_descriptors(name: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Program {
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"ulimit -n 1024; exec "$0" "$@""#]);
        shell.arg(command(name).get_program()).args(args).stdin(Stdio::null()).stdout(Stdio::piped());
        Program::spawn(shell)
    }

    pub fn spawn(mut command: Command) -> Program {
        command.stderr(Stdio::piped());
        // Another test that starts a program may still hold one open for writing that was just copied.
        let mut spawned = command.spawn();
        wait_until("the program can be started", || {
            let busy = matches!(&spawned, Err(error) if error.kind() == ErrorKind::ExecutableFileBusy);
            if busy {
                spawned = command.spawn();
            }
            !busy
        });
        let mut child = spawned.unwrap();
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
        let input = child.stdin.take();
        Program { child, input, stdout, stderr: Some(stderr) }
    }

    /// With its output as bytes, which nobody reads but the test.
    pub fn spawn_raw(mut command: Command) -> (Program, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(DEADLINE)).unwrap();
        command.stdout(OwnedFd::from(theirs));
        (Program::spawn(command), ours)
    }

    /// The next line of its output.
    #[track_caller]
    pub fn line(&self) -> String {
        self.stdout.recv_timeout(DEADLINE).expect("a line of output")
    }

    /// The next line of its output, if it is there already.
    pub fn try_line(&self) -> Option<String> {
        self.stdout.try_recv().ok()
    }

    /// Write to its stdin, which may take until it has read some of it.
    #[track_caller]
    pub fn type_in(&mut self, bytes: &[u8]) {
        self.input.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// The writing end of its stdin; dropping it ends it.
    pub fn take_input(&mut self) -> ChildStdin {
        self.input.take().unwrap()
    }

    /// Its number with the system.
    pub fn number(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that it has had, in KiB (Linux).
    pub fn peak_memory(&self) -> usize {
        match memory::peak_memory(self.child.id()) {
            0 => panic!("the program has ended"),
            peak => peak,
        }
    }

    /// Wait until it listens, and where.
    #[track_caller]
    pub fn listening(&self) -> SocketAddr {
        let line = self.line();
        line.strip_prefix("listening on ").and_then(|address| address.parse().ok()).expect(&line)
    }

    /// `signal` without `SIG`.
    #[track_caller]
    pub fn signal(&self, signal: &str) {
        let kill = format!("kill -{signal} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Wait until it has ended. Its stdin stays open meanwhile, if it was not taken.
    #[track_caller]
    pub fn end(mut self) -> Ended {
        let mut status = None;
        wait_until("the program ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let stdout = self.stdout.iter().map(|line| line + "\n").collect();
        let stderr = self.stderr.take().unwrap().join().unwrap();
        Ended { code: status.unwrap().code(), stdout, stderr }
    }

    /// End it with a signal, named without `SIG`.
    #[track_caller]
    pub fn end_by(self, signal: &str) -> Ended {
        self.signal(signal);
        self.end()
    }

    /// The same, and all is well. What it printed that no test has taken.
    #[track_caller]
    pub fn finish(self, signal: &str) -> String {
        let ended = self.end_by(signal);
        ended.assert_quiet_success();
        ended.stdout
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
    pub fn assert_quiet_success(&self) {
        assert!(self.code == Some(0) && self.stderr.is_empty(), "{self:?}");
    }

    #[track_caller]
    pub fn assert_wrong_usage(&self, name: &str) {
        let says_how = self.stderr.lines().any(|line| line.starts_with(&format!("usage: {name} ")));
        assert!(self.code == Some(2) && says_how && self.stdout.is_empty(), "{self:?}");
    }

    /// One line of the program's own says what failed, and names what it was about.
    #[track_caller]
    pub fn assert_failure(&self, about: &str) {
        let errors: Vec<&str> = self.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        let said = matches!(errors[..], [line] if line.contains(about));
        assert!(self.code == Some(1) && said && !self.stderr.contains("panicked"), "{self:?}");
    }
}

/// It says how it is used.
#[track_caller]
pub fn assert_help(name: &str) {
    for option in ["--help", "-h"] {
        let ended = Program::start(name, [option]).end();
        ended.assert_quiet_success();
        assert!(ended.stdout.starts_with(&format!("usage: {name} ")), "{ended:?}");
        assert!(ended.stdout.contains("--log LEVEL"), "{ended:?}");
    }
}

/// The output of a program that nobody reads any more, as with `| head`.
pub fn unread() -> Stdio {
    let (theirs, ours) = UnixStream::pair().unwrap();
    read_no_more(&ours);
    Stdio::from(OwnedFd::from(theirs))
}

/// From now on this output is read by nobody. Dropping it would not do: a program that another test
/// has just started has it, too, until it is under way.
pub fn read_no_more(output: &UnixStream) {
    output.shutdown(Shutdown::Both).unwrap();
}

/// What one read gives.
#[track_caller]
pub fn read_piece(peer: &mut TcpStream) -> Vec<u8> {
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

/// Write until nothing was taken for half a second, or so many bytes, or an error: how many bytes that
/// were. The byte at each place is what `byte` says.
pub fn flood(peer: &mut TcpStream, most: usize, byte: impl Fn(usize) -> u8) -> (usize, io::Result<()>) {
    peer.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let (mut sent, mut end) = (0, Ok(()));
    while sent < most && end.is_ok() {
        let piece: Vec<u8> = (sent..most.min(sent + 64 * 1024)).map(&byte).collect();
        match peer.write(&piece) {
            Ok(written) => sent += written,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => end = Err(error),
        }
    }
    limit_time(peer);
    (sent, end)
}

/// A listener of the test, and its address as a program takes it.
pub fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// An address that nobody listens on for as long as the socket lives, as a program takes it.
pub fn refuser() -> (socket2::Socket, String) {
    let (held, address) = refusing("127.0.0.1:0".parse().unwrap());
    (held, address.to_string())
}
