//! Takes mail for anybody, and prints or stores it: Python's `smtpd.DebuggingServer`, for programs that send mail and
//! are to be tested.
//!
//! It shows an upgrade in mid-stream: `start_tls` after the answer to STARTTLS, which leaves in the clear, and
//! `handle_wrapped` when the rest is encrypted. And an answer that another thread gives: a client is not read while
//! `keeper.rs` prints or stores its message, and is told by a `Remote`. What a client says is parsed in `session.rs`,
//! without a socket.
//!
//! ```sh
//! cargo run --release -p programs --bin smtp_sink
//! ```

mod keeper;
mod session;

use std::fs;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use dispatch_loop::tls::TlsServer;
use dispatch_loop::{Address, Channel, ChannelMap, Deadline, Deadlines, Dispatcher, Socket, ToAddress};
use lexopt::prelude::*;
use programs::Exit;

use crate::keeper::Keeper;
use crate::session::{Event, Message, Reserved, Room, SIZE, Session};

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
/// How long the content of a message may take: meanwhile others are short of its part of `ROOM`.
const MESSAGE: Duration = Duration::from_secs(600);
/// How much memory all messages may take.
const ROOM: usize = 8 * SIZE;

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
    let stores = maildir.is_some();
    let (keeper, thread) = Keeper::start(maildir)?;
    let service = Arc::new(Service { tls, keeper, room: Room::new(ROOM) });
    programs::serve(threads, &address, move || Server { service: service.clone() })?;
    // A stdout that nobody reads is not waited for.
    if stores {
        let _ = thread.join();
    }
    Ok(())
}

struct Service {
    tls: Option<TlsServer>,
    keeper: Keeper,
    room: Arc<Room>,
}

struct Server {
    service: Arc<Service>,
}

impl Dispatcher for Server {
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
        let session = Session::new(self.service.tls.is_some(), self.service.room.clone());
        ch.map_mut()
            .add(socket, Client { service: self.service.clone(), session, is_waiting: false })
            .map(drop)
    }
}

struct Client {
    service: Arc<Service>,
    session: Session,
    /// Its message is being kept.
    is_waiting: bool,
}

impl Dispatcher for Client {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.set_auto_pause(true);
        ch.set_timeout(Some(IDLE));
        ch.set_deadlines(&Deadlines::default().with_message(MESSAGE));
        ch.push(b"220 smtp_sink ESMTP\r\n")
    }

    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, data| {
            self.session.take(data);
            self.go_on(ch)
        })
    }

    /// The handshake is done.
    fn handle_wrapped(&mut self, _: &mut Channel<'_>) -> io::Result<()> {
        self.session.encrypted();
        Ok(())
    }

    fn handle_deadline(&mut self, ch: &mut Channel<'_>, _: Deadline) -> io::Result<()> {
        ch.push(b"421 4.4.2 the message took too long\r\n")?;
        ch.close();
        Ok(())
    }

    fn handle_timeout(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.push(b"421 4.4.2 nothing was said for too long\r\n")?;
        ch.close();
        Ok(())
    }
}

impl Client {
    /// Deal with what has come, up to the end of a message: what follows waits until that is kept.
    fn go_on(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        let (mut out, mut event) = (Vec::new(), None);
        while !self.is_waiting {
            match self.session.next(&mut out) {
                Some(Event::Message(message, reserved)) => match self.keep(ch, message, reserved) {
                    true => self.is_waiting = true,
                    false => out.extend_from_slice(b"451 4.3.2 too many messages wait\r\n"),
                },
                other => {
                    event = other;
                    break;
                }
            }
        }
        ch.push_vec(out)?;
        ch.set_busy(self.is_waiting || self.session.is_busy());
        match self.session.takes_room() {
            true => ch.begin_message(),
            false => ch.end_message(),
        }
        match (event, &self.service.tls) {
            (Some(Event::Quit), _) => ch.close(),
            // Whoever gets between may have put it there (CVE-2011-0411).
            (Some(Event::StartTls), Some(_)) if self.session.has_input() => ch.abort(),
            (Some(Event::StartTls), Some(tls)) => ch.start_tls(tls)?,
            _ => {}
        }
        Ok(())
    }

    /// Have a message kept, and read no more until it is. `false` if too many wait for that.
    fn keep(&self, ch: &mut Channel<'_>, message: Message, reserved: Reserved) -> bool {
        ch.end_message();
        let peer = ch.peer_addr().map_or_else(|_| "-".to_owned(), |peer| peer.to_string());
        let (remote, client) = (ch.map_mut().remote(), ch.token().typed::<Client>());
        let is_taken = self.service.keeper.keep(message, peer, move |kept| {
            drop(reserved);
            let is_kept = kept.is_ok();
            // Refused if the loop has ended, and its channels with it.
            let _ = remote.with(client, move |client, ch| client.answer(ch, is_kept));
            // Nobody reads any more (`| head`).
            if kept.is_err_and(|error| error.kind() == ErrorKind::BrokenPipe) {
                let _ = remote.call(ChannelMap::stop);
            }
        });
        if is_taken {
            ch.pause_reading();
        }
        is_taken
    }

    fn answer(&mut self, ch: &mut Channel<'_>, is_kept: bool) -> io::Result<()> {
        if ch.is_closing() {
            return Ok(());
        }
        self.is_waiting = false;
        ch.push(if is_kept { b"250 2.0.0 taken\r\n" } else { b"451 4.3.0 not taken\r\n" })?;
        ch.resume_reading();
        self.go_on(ch)
    }
}
