//! The server as a process of its own: how it is started, asked, and ended.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use crate::plan::Plan;
use crate::ports::PORTS;
use crate::server::END;
use crate::shared::Addresses;

/// The argument that makes this program the server.
pub const SERVE: &str = "serve";

/// The longest that an answer, or the end, may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// It is killed, if it still runs, when this is dropped.
pub struct Server {
    child: Child,
    commands: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Server {
    /// # Errors
    /// It did not start, or did not say where it listens.
    pub fn start(plan: &Plan) -> io::Result<(Server, Addresses)> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([SERVE, &plan.descriptors.to_string()]);
        command.args((!plan.is_limited).then_some("--no-limits")).args(plan.shows_log.then_some("--log"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (sender, lines) = mpsc::channel();
        let (commands, stdout) = (child.stdin.take(), child.stdout.take());
        let server = Server { child, commands, lines };
        thread::spawn(move || {
            for line in stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines()).flatten() {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut addresses = Vec::new();
        for _ in PORTS {
            let line = server.line()?;
            let address = line.strip_prefix("listening on ").and_then(|address| address.parse().ok());
            addresses.push(address.ok_or_else(|| io::Error::other(format!("the server said {line:?}")))?);
        }
        Ok((server, Addresses(addresses)))
    }

    fn line(&self) -> io::Result<String> {
        self.lines.recv_timeout(PATIENCE).map_err(|_| io::Error::other("the server does not answer"))
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// # Errors
    /// It has ended by itself.
    pub fn check(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("the server died: {status}")),
            Err(error) => Err(format!("the server is lost: {error}")),
        }
    }

    /// # Errors
    /// There is no answer.
    pub fn ask(&mut self, command: u8) -> io::Result<String> {
        self.command(command)?;
        self.line()
    }

    fn command(&mut self, command: u8) -> io::Result<()> {
        let commands = self.commands.as_mut().ok_or(ErrorKind::NotConnected)?;
        commands.write_all(&[command])
    }

    /// Let it end, and wait for that: what it says about it, and its status, `None` if it does not end.
    ///
    /// # Errors
    /// It could not be told, or says nothing.
    pub fn end(mut self) -> io::Result<(String, Option<ExitStatus>)> {
        let said = self.ask(END)?;
        let told = Instant::now();
        while told.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                return Ok((said, Some(status)));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok((said, None))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
