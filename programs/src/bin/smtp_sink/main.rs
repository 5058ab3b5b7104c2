//! Takes mail for anybody, and prints or stores it: Python's `smtpd.DebuggingServer`, for programs that send mail and
//! are to be tested.
//!
//! It shows an upgrade in mid-stream: `start_tls` after the answer to STARTTLS, which leaves in the clear, and
//! `handle_wrapped` when the rest is encrypted. What a client says is parsed in `session.rs`, without a socket.
//!
//! ```sh
//! cargo run --release -p programs --bin smtp_sink
//! ```

mod session;

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dispatch_loop::tls::TlsServer;
use dispatch_loop::{Address, Channel, Dispatcher, Socket, ToAddress};
use lexopt::prelude::*;
use programs::Exit;

use crate::session::{Event, Message, Session};

const HELP: &str = "\
usage: smtp_sink [--tls-cert FILE --tls-key FILE] [--maildir DIR] [--threads N] [ADDR]

Takes mail for anybody, and prints each message, until Ctrl-C.

  ADDR               HOST:PORT, [IPV6]:PORT or unix:PATH (127.0.0.1:8025)
  --tls-cert FILE    offer STARTTLS, with this certificate (PEM)
  --tls-key FILE     and this key (PEM)
  --maildir DIR      store each message as a file in DIR/new instead, whole or not at all
  --threads N        on how many loops, each with a thread of its own (1); 0: one for each core";

/// How long a client may be idle.
const IDLE: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    programs::main(HELP, run)
}

fn run(mut args: lexopt::Parser) -> Result<(), Exit> {
    let (mut address, mut maildir, mut certificate, mut key) = (None, None, None::<PathBuf>, None::<PathBuf>);
    let mut threads = 1;
    while let Some(arg) = args.next()? {
        match arg {
            Long("tls-cert") => certificate = Some(args.value()?.into()),
            Long("tls-key") => key = Some(args.value()?.into()),
            Long("maildir") => maildir = Some(PathBuf::from(args.value()?)),
            Long("threads") => threads = programs::threads(args.value()?)?,
            Long("help") | Short('h') => return Err(Exit::Help),
            Value(text) if address.is_none() => address = Some(text.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    let address = address.unwrap_or("127.0.0.1:8025".to_owned());
    address.to_address().map_err(|error| Exit::Usage(error.to_string()))?;
    let tls = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(TlsServer::from_files(certificate, key)?),
        (None, None) => None,
        _ => return Err(Exit::Usage("--tls-cert and --tls-key need each other".to_owned())),
    };
    for folder in ["tmp", "new", "cur"] {
        if let Some(folder) = maildir.as_ref().map(|maildir| maildir.join(folder)) {
            let cannot = |error| Exit::Failure(format!("cannot make {}: {error}", folder.display()));
            fs::create_dir_all(&folder).map_err(cannot)?;
        }
    }
    let service = Arc::new(Service { tls, maildir });
    programs::serve(threads, &address, move || Server { service: service.clone() })
}

struct Service {
    tls: Option<TlsServer>,
    maildir: Option<PathBuf>,
}

struct Server {
    service: Arc<Service>,
}

impl Dispatcher for Server {
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
        let session = Session::new(self.service.tls.is_some());
        ch.map_mut().add(socket, Client { service: self.service.clone(), session }).map(drop)
    }
}

struct Client {
    service: Arc<Service>,
    session: Session,
}

impl Dispatcher for Client {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.set_auto_pause(true);
        ch.set_timeout(Some(IDLE));
        ch.push(b"220 smtp_sink ESMTP\r\n")
    }

    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, data| {
            self.session.take(data);
            let mut out = Vec::new();
            let event = loop {
                match self.session.next(&mut out) {
                    Some(Event::Message(message)) => out.extend_from_slice(self.keep(ch, &message)),
                    event => break event,
                }
            };
            ch.push_vec(out)?;
            ch.set_busy(self.session.is_busy());
            match (event, &self.service.tls) {
                (Some(Event::Quit), _) => ch.close(),
                // Whoever gets between may have put it there (CVE-2011-0411).
                (Some(Event::StartTls), Some(_)) if self.session.has_input() => ch.abort(),
                (Some(Event::StartTls), Some(tls)) => ch.start_tls(tls)?,
                _ => {}
            }
            Ok(())
        })
    }

    /// The handshake is done.
    fn handle_wrapped(&mut self, _: &mut Channel<'_>) -> io::Result<()> {
        self.session.encrypted();
        Ok(())
    }

    fn handle_timeout(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.push(b"421 4.4.2 nothing was said for too long\r\n")?;
        ch.close();
        Ok(())
    }
}

impl Client {
    /// Print or store a message; returns the answer.
    fn keep(&self, ch: &mut Channel<'_>, message: &Message) -> &'static [u8] {
        let kept = match &self.service.maildir {
            Some(maildir) => store(maildir, message),
            None => print(ch, message),
        };
        match kept {
            Ok(()) => b"250 2.0.0 taken\r\n",
            // Nobody reads any more (`| head`).
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                ch.map_mut().stop();
                b"451 4.3.0 not taken\r\n"
            }
            Err(error) => {
                eprintln!("error: a message was not taken: {error}");
                b"451 4.3.0 not taken\r\n"
            }
        }
    }
}

fn print(ch: &Channel<'_>, message: &Message) -> io::Result<()> {
    let peer = ch.peer_addr().map_or_else(|_| "-".to_owned(), |peer| peer.to_string());
    let mut text = b"---------- MESSAGE FOLLOWS ----------\n".to_vec();
    let mut in_headers = true;
    for line in message.content.split_inclusive(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if in_headers && line.is_empty() {
            text.extend_from_slice(format!("X-Peer: {peer}\n").as_bytes());
            in_headers = false;
        }
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    text.extend_from_slice(b"------------ END MESSAGE ------------\n");
    let mut stdout = io::stdout().lock();
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
