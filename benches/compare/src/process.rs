//! A server as a process of its own. It announces its address in a line on standard output, and is killed
//! when the `Process` is dropped.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, Signal};

use crate::servers::{Program, Server};
use crate::system::{self, Processors};

/// The argument that makes this program a server.
pub const SERVE: &str = "serve";

/// The longest that a server may take to start; under valgrind it takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long valgrind may take to end.
const FAREWELL: Duration = Duration::from_secs(5);

/// What a server runs under.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Under {
    Nothing,
    Callgrind,
}

pub struct Process {
    child: Child,
    under: Under,
    pub address: SocketAddr,
}

impl Process {
    /// # Errors
    /// It did not start, or did not announce its address.
    pub fn start(server: &Server, under: Under, processors: Option<Processors>) -> io::Result<Process> {
        let program = match server.program {
            Program::Rust(_) => std::env::current_exe()?,
            Program::C { file, library } => compile(file, library).map_err(io::Error::other)?,
        };
        let mut command = match under {
            Under::Nothing => Command::new(program),
            Under::Callgrind => {
                let mut command = Command::new("valgrind");
                command.args(["-q", "--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program);
                command
            }
        };
        if let Program::Rust(_) = server.program {
            command.args([SERVE, server.name]);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        // From here on it is killed whatever happens.
        let mut process = Process { child, under, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        process.address = process.announced()?;
        if let Some(processors) = processors {
            system::pin(Some(Pid::from_child(&process.child)), processors.server)?;
        }
        Ok(process)
    }

    fn announced(&mut self) -> io::Result<SocketAddr> {
        let stdout = self.child.stdout.take().expect("it is piped");
        let patience = Timespec::try_from(PATIENCE).expect("a minute");
        if rustix::event::poll(&mut [PollFd::new(&stdout, PollFlags::IN)], Some(&patience))? == 0 {
            return Err(io::Error::other("it did not start in time"));
        }
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening on ").and_then(|address| address.parse().ok());
        address.ok_or_else(|| io::Error::other("it ended before it listened"))
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// # Errors
    /// The server has ended by itself.
    pub fn check(&mut self) -> io::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(io::Error::other(format!("the server ended by itself: {status}"))),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.under == Under::Callgrind {
            // Asked to end, valgrind removes the pipes that it keeps in the temporary folder.
            let _ = rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM);
            let asked = Instant::now();
            while asked.elapsed() < FAREWELL && matches!(self.child.try_wait(), Ok(None)) {
                thread::sleep(Duration::from_millis(5));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a server can run here.
///
/// # Errors
/// The reason why it cannot.
pub fn is_available(server: &Server) -> Result<(), String> {
    match server.program {
        Program::Rust(_) => Ok(()),
        Program::C { file, library } => compile(file, library).map(|_| ()),
    }
}

/// Compiles a server in C next to this program, unless it is up to date.
fn compile(file: &str, library: &str) -> Result<PathBuf, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("c").join(file);
    let program = std::env::current_exe().map_err(|error| error.to_string())?.with_file_name(file);
    let program = program.with_extension("");
    let changed = |path: &Path| path.metadata().and_then(|data| data.modified()).ok();
    if changed(&program) > changed(&source) {
        return Ok(program);
    }
    let flags = system::first_line("pkg-config", &["--cflags", "--libs", library])
        .ok_or_else(|| format!("pkg-config finds no headers of {library}"))?;
    let compiled = Command::new("cc")
        .args(["-O2", "-Wall", "-o"])
        .args([&program, &source])
        .args(flags.split_whitespace())
        .status();
    match compiled {
        Ok(status) if status.success() => Ok(program),
        Ok(status) => Err(format!("cc ended with {status}")),
        Err(error) => Err(format!("no C compiler: {error}")),
    }
}
