//! Prints or stores messages, in a thread of its own: a disk that is slow, or a stdout that nobody reads, holds up
//! whoever sends the message, and nobody else.

use std::fs::{self, File};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};

use programs::shown;

use crate::session::Message;

/// How many messages may wait; more are refused. Clients that are still there wait for the answer, so that these are
/// mostly of clients that are not.
const WAITING: usize = 64;

struct Job {
    message: Message,
    peer: String,
    done: Box<dyn FnOnce(io::Result<()>) + Send>,
}

/// Ends, when all clones are dropped and everything is kept.
#[derive(Clone)]
pub struct Keeper {
    jobs: SyncSender<Job>,
}

impl Keeper {
    /// Stores messages in a maildir, or prints them.
    pub fn start(maildir: Option<PathBuf>) -> io::Result<(Keeper, JoinHandle<()>)> {
        let (jobs, waiting) = sync_channel(WAITING);
        let thread = thread::Builder::new().name("keeper".to_owned());
        let thread = thread.spawn(move || keep_all(maildir.as_deref(), &waiting))?;
        Ok((Keeper { jobs }, thread))
    }

    /// Keep a message, and then say so, on the keeper's thread. `false` if too many wait already.
    pub fn keep(
        &self,
        message: Message,
        peer: String,
        done: impl FnOnce(io::Result<()>) + Send + 'static,
    ) -> bool {
        self.jobs.try_send(Job { message, peer, done: Box::new(done) }).is_ok()
    }
}

fn keep_all(maildir: Option<&Path>, waiting: &Receiver<Job>) {
    for Job { message, peer, done } in waiting {
        let kept = match maildir {
            Some(maildir) => store(maildir, &message),
            None => print(&peer, &message.content),
        };
        // Whoever reads no further (`| head`) has seen enough.
        if let Some(error) = kept.as_ref().err().filter(|error| error.kind() != ErrorKind::BrokenPipe) {
            // If that fails, too, there is nobody left to be told.
            let _ = writeln!(io::stderr(), "error: a message was not taken: {error}");
        }
        drop(message);
        done(kept);
    }
}

fn print(peer: &str, content: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    let is_terminal = stdout.is_terminal();
    let mut text = b"---------- MESSAGE FOLLOWS ----------\n".to_vec();
    let mut in_headers = true;
    for line in content.split_inclusive(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if in_headers && line.is_empty() {
            text.extend_from_slice(format!("X-Peer: {peer}\n").as_bytes());
            in_headers = false;
        }
        match is_terminal {
            true => text.extend_from_slice(shown(&String::from_utf8_lossy(line)).as_bytes()),
            false => text.extend_from_slice(line),
        }
        text.push(b'\n');
    }
    text.extend_from_slice(b"------------ END MESSAGE ------------\n");
    stdout.write_all(&text)?;
    stdout.flush()
}

/// A file is in `new` when all of it is on the disk, and not before.
fn store(maildir: &Path, message: &Message) -> io::Result<()> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("{}.M{}P{}Q{number}.sink", now.as_secs(), now.subsec_micros(), std::process::id());
    let (unfinished, whole) = (maildir.join("tmp").join(&name), maildir.join("new").join(&name));
    let stored = write(&unfinished, message).and_then(|()| fs::rename(&unfinished, &whole));
    stored.map_err(|error| {
        let _ = fs::remove_file(&unfinished);
        io::Error::new(error.kind(), format!("cannot store {}: {error}", whole.display()))
    })
}

fn write(path: &Path, message: &Message) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    write!(file, "Return-Path: <{}>\r\nDelivered-To: {}\r\n", message.from, message.to.join(", "))?;
    file.write_all(&message.content)?;
    file.sync_all()
}
