//! One client: requests are cut out of its bytes, and answered in order. What an answer says is
//! decided in `answer.rs`.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use dispatch_loop::{Channel, Dispatcher, More, Reason, TimerId};

use crate::Service;
use crate::answer::{self, Answer, Body, REQUEST_TIMEOUT, Reply, Status};
use crate::listings::{self, Directory, Page};
use crate::request::{self, Request};

/// How long a connection may be idle, unless an option says otherwise.
pub const IDLE: Duration = Duration::from_secs(60);

/// How long a head may take from its first byte to its last.
const HEAD: Duration = Duration::from_secs(30);

/// How many bytes are read from a file at once; a smaller file is sent together with its head.
const PIECE: u64 = 64 * 1024;

pub struct Connection {
    service: Rc<Service>,
    /// The beginning of a request that is not complete yet.
    begun: Vec<u8>,
    /// The listing that it has waited for, and of what.
    listing: Option<(PathBuf, Page)>,
    /// Runs while there is one.
    deadline: Option<TimerId>,
}

impl Connection {
    pub fn new(service: Rc<Service>) -> Connection {
        Connection { service, begun: Vec::new(), listing: None, deadline: None }
    }

    /// The listing that it waits for is there: now it answers the request that was put back.
    pub fn take(&mut self, ch: &mut Channel<'_>, path: PathBuf, page: Page) {
        self.listing = Some((path, page));
        ch.resume_reading();
    }
}

impl Dispatcher for Connection {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.set_timeout(Some(self.service.idle));
        // Answer no more while some KiB of answers wait for the client to take them. A producer counts
        // for 4 KiB, so one is enough: a connection never has two files open.
        ch.set_auto_pause(true);
        ch.set_watermarks(0, 4 * 1024 - 1);
        Ok(())
    }

    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, data| {
            let mut input = std::mem::take(&mut self.begun);
            input.extend_from_slice(data);
            let used = self.serve(ch, &input)?;
            let rest = &input[used..];
            match ch.is_paused() {
                // It comes again when reading resumes.
                true => ch.unread(rest),
                false => self.begun = rest.to_vec(),
            }
            ch.set_busy(!self.begun.is_empty()); // the program may be told to end
            self.watch_the_clock(ch, used > 0);
            Ok(())
        })
    }

    fn handle_timeout(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        match ch.is_paused() {
            // It does not read what it has asked for. After a mere close, the system would keep trying.
            true => ch.abort(),
            false => ch.close(),
        }
        Ok(())
    }

    fn handle_close(&mut self, ch: &mut Channel<'_>, _: &Reason) {
        self.service.listings.borrow_mut().tidy();
        self.service.places.give_back(ch.map_mut(), 2);
    }

    // There is no `handle_eof`: by default what is queued is sent, then the connection is closed. And no
    // `handle_error`: by default a file that cannot be read ends the connection, and is logged.
}

impl Connection {
    /// Answer the requests that `input` begins with, as long as the client reads the answers, and as they
    /// are there. Returns how many bytes were used.
    fn serve(&mut self, ch: &mut Channel<'_>, input: &[u8]) -> io::Result<usize> {
        let mut used = 0;
        while used < input.len() && !ch.is_paused() {
            match request::parse(&input[used..]) {
                Ok(None) => break,
                Ok(Some((request, len))) => {
                    let answer = match answer::to(&self.service.site, &request) {
                        Ok(Reply::Now(answer)) => answer,
                        Ok(Reply::Listing(directory)) => match self.listing(ch, &request, directory) {
                            Some(answer) => answer,
                            None => break, // the request is put back until its listing is made
                        },
                        Err(status) => Answer::error(status),
                    };
                    used += len;
                    // Of a server that is told to end, the client hears so with the last answer.
                    let is_last = !request.keeps_alive() || (ch.map().is_draining() && used == input.len());
                    send(ch, answer, &request, is_last)?;
                    if is_last {
                        ch.close();
                    }
                }
                Err(status) => refuse(ch, status, request::is_head(&input[used..]))?,
            }
            if ch.is_closing() {
                return Ok(input.len());
            }
        }
        Ok(used)
    }

    /// `None`: it is to be made, and reading is paused.
    fn listing(
        &mut self,
        ch: &mut Channel<'_>,
        request: &Request<'_>,
        directory: Directory,
    ) -> Option<Answer> {
        let waited_for = self.listing.take().filter(|(path, _)| *path == directory.path);
        let at_hand = || self.service.listings.borrow().at_hand(&directory).map(Ok);
        match waited_for.map(|(_, page)| page).or_else(at_hand) {
            Some(Ok(page)) => Some(Answer::listing(Some(page))),
            Some(Err(status)) => Some(Answer::error(status)),
            None if request.method == "HEAD" => Some(Answer::listing(None)),
            None => {
                let me = ch.token().typed();
                listings::want(&self.service, ch.map_mut(), directory, me);
                ch.pause_reading();
                None
            }
        }
    }

    /// Limit the time that a head may take; `answered`: what has begun now is another head.
    fn watch_the_clock(&mut self, ch: &mut Channel<'_>, answered: bool) {
        if let Some(deadline) = self.deadline.take_if(|_| answered) {
            ch.cancel(deadline);
        }
        if !self.begun.is_empty() && self.deadline.is_none() {
            let is_head = request::is_head(&self.begun);
            self.deadline = Some(ch.call_later(HEAD, move |ch| refuse(ch, REQUEST_TIMEOUT, is_head)));
        }
    }
}

/// The last answer: to something that is not a request, so that it is unknown where it ends.
fn refuse(ch: &mut Channel<'_>, status: Status, is_head: bool) -> io::Result<()> {
    let mut answer = Answer::error(status);
    let out = head(&answer, "Connection: close\r\n");
    answer.body.take_if(|_| is_head);
    note(ch, "-", "-", &answer);
    send_body(ch, out, answer.body)?;
    // The library makes sure that the answer arrives, whatever is still on its way to us.
    ch.close();
    Ok(())
}

fn send(ch: &mut Channel<'_>, mut answer: Answer, request: &Request<'_>, is_last: bool) -> io::Result<()> {
    let connection = match request {
        _ if is_last => "Connection: close\r\n",
        request if request.is_old => "Connection: keep-alive\r\n",
        _ => "",
    };
    let out = head(&answer, connection);
    answer.body.take_if(|_| request.method == "HEAD");
    note(ch, request.method, request.target, &answer);
    send_body(ch, out, answer.body)
}

fn head(answer: &Answer, connection: &str) -> Vec<u8> {
    let Answer { status: Status(code, reason), fields, body } = answer;
    let date = answer::http_date(SystemTime::now());
    let length = body.as_ref().map(|body| format!("Content-Length: {}\r\n", body.len()));
    // A browser is to believe what we say of a file, and not to look for a script in it.
    let nosniff = "X-Content-Type-Options: nosniff\r\n";
    let length = length.unwrap_or_default();
    format!("HTTP/1.1 {code} {reason}\r\nDate: {date}\r\n{connection}{nosniff}{fields}{length}\r\n")
        .into_bytes()
}

/// A line in the log.
fn note(ch: &Channel<'_>, method: &str, target: &str, answer: &Answer) {
    let peer = ch.peer_addr().map_or_else(|_| "-".to_owned(), |peer| peer.to_string());
    let len = answer.body.as_ref().map_or(0, Body::len);
    log::info!("{peer} {method} {} {} {len}", target.escape_debug(), answer.status.0);
}

fn send_body(ch: &mut Channel<'_>, mut head: Vec<u8>, body: Option<Body>) -> io::Result<()> {
    match body {
        None => ch.push_vec(head),
        Some(Body::Bytes(bytes)) => ch.push_vec([head, bytes].concat()),
        Some(Body::Page(page)) => {
            ch.push_vec(head)?;
            ch.push_shared(page)
        }
        Some(Body::File { mut from, mut len }) if len <= PIECE => {
            read_piece(&mut from, &mut len, &mut head)?;
            ch.push_vec(head)
        }
        Some(Body::File { mut from, mut len }) => {
            ch.push_vec(head)?;
            ch.push_producer(move |buffer: &mut Vec<u8>| {
                read_piece(&mut from, &mut len, buffer)?;
                Ok(if len > 0 { More::Again } else { More::Done })
            })
        }
    }
}

/// Append the next piece. Exactly what was promised must come: if the file has shrunk, the connection
/// ends to tell the client.
fn read_piece(from: &mut File, len: &mut u64, buffer: &mut Vec<u8>) -> io::Result<()> {
    let wanted = (*len).min(PIECE);
    buffer.reserve(wanted as usize);
    let read = from.take(wanted).read_to_end(buffer)? as u64;
    *len -= read;
    match read == wanted {
        true => Ok(()),
        false => Err(io::Error::new(ErrorKind::UnexpectedEof, "a file shrank while it was sent")),
    }
}
