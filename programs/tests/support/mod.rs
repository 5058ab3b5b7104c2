//! What the tests of servers share: a server as a process, and conditions that are waited for.

// No test needs all of it.
#![allow(dead_code)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(60);

pub struct Server {
    child: Child,
    is_told: bool,
    pub address: String,
}

impl Server {
    pub fn start(program: &str, args: &[&str]) -> Server {
        let mut command = Command::new(program);
        let mut child = command.args(args).arg("127.0.0.1:0").stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on ").expect(&line).to_owned();
        Server { child, is_told: false, address }
    }

    pub fn port(&self) -> String {
        self.address.rsplit(':').next().unwrap().to_owned()
    }

    pub fn connect(&self) -> TcpStream {
        connect(&self.address)
    }

    /// The most memory that it has taken, in KiB.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        most.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Tell it to end.
    pub fn terminate(&mut self) {
        self.is_told = true;
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }

    /// End it in order.
    pub fn finish(mut self) {
        // A second signal would end it at once.
        if !self.is_told {
            self.terminate();
        }
        assert!(self.child.wait().unwrap().success());
    }
}

/// Also when the test fails.
impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// Ask until it is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < end, "waited for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Whether there is such a program; without it a test is skipped, but not where everything must be tested.
pub fn has(program: &str) -> bool {
    let is_there = Command::new("which").arg(program).stdout(Stdio::null()).status().unwrap().success();
    assert!(is_there || std::env::var_os("CI").is_none(), "there is no {program}");
    if !is_there {
        println!("skipped: there is no {program}");
    }
    is_there
}

pub fn wrong_usage(program: &str, wrong: &[&[&str]]) {
    for args in wrong {
        let output = Command::new(program).args(*args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("usage: "), "{args:?}");
    }
}

/// A folder that goes with the test.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("programs-{name}-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
