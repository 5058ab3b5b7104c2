//! One client: requests are cut out of its bytes, and answered in order. What an answer says is
//! decided in `answer.rs`.

use std::io::{self, ErrorKind, Read};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use dispatch_loop::{Channel, Dispatcher, More, TimerId};

use crate::answer::{self, Answer, Body, REQUEST_TIMEOUT, Status};
use crate::request::{self, Request};
use crate::site::Site;

/// How long the connection may be idle.
const IDLE: Duration = Duration::from_secs(60);

/// How long a head may take from its first byte to its last.
const HEAD: Duration = Duration::from_secs(30);

/// How many bytes are read from a file at once; a smaller file is sent together with its head.
const PIECE: u64 = 64 * 1024;

pub struct Connection {
    site: Rc<Site>,
    /// The beginning of a request that is not complete yet.
    begun: Vec<u8>,
    /// Runs while there is one.
    deadline: Option<TimerId>,
}

impl Connection {
    pub fn new(site: Rc<Site>) -> Connection {
        Connection { site, begun: Vec::new(), deadline: None }
    }
}

impl Dispatcher for Connection {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.set_timeout(Some(IDLE));
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

    // There is no `handle_eof`: by default what is queued is sent, then the connection is closed. And no
    // `handle_error`: by default a file that cannot be read ends the connection, and is logged.
}

impl Connection {
    /// Answer the requests that `input` begins with, as long as the client reads the answers. Returns how
    /// many bytes were used.
    fn serve(&self, ch: &mut Channel<'_>, input: &[u8]) -> io::Result<usize> {
        let mut used = 0;
        while used < input.len() && !ch.is_paused() {
            match request::parse(&input[used..]) {
                Ok(None) => break,
                Ok(Some((request, len))) => {
                    used += len;
                    let answer = answer::to(&self.site, &request).unwrap_or_else(Answer::error);
                    send(ch, answer, Some(&request))?;
                    if !request.keeps_alive() {
                        ch.close();
                    }
                }
                Err(status) => refuse(ch, status)?,
            }
            if ch.is_closing() {
                return Ok(input.len());
            }
        }
        Ok(used)
    }

    /// Limit the time that a head may take; `answered`: what has begun now is another head.
    fn watch_the_clock(&mut self, ch: &mut Channel<'_>, answered: bool) {
        if let Some(deadline) = self.deadline.take_if(|_| answered) {
            ch.cancel(deadline);
        }
        if !self.begun.is_empty() && self.deadline.is_none() {
            self.deadline = Some(ch.call_later(HEAD, |ch| refuse(ch, REQUEST_TIMEOUT)));
        }
    }
}

/// The last answer: to something that is not a request, so that it is unknown where it ends.
fn refuse(ch: &mut Channel<'_>, status: Status) -> io::Result<()> {
    send(ch, Answer::error(status), None)?;
    // The library makes sure that the answer arrives, whatever is still on its way to us.
    ch.close();
    Ok(())
}

fn send(ch: &mut Channel<'_>, answer: Answer, request: Option<&Request<'_>>) -> io::Result<()> {
    let Status(code, reason) = answer.status;
    let connection = match request {
        Some(request) if request.keeps_alive() && request.is_old => "Connection: keep-alive\r\n",
        Some(request) if request.keeps_alive() => "",
        _ => "Connection: close\r\n",
    };
    let date = answer::http_date(SystemTime::now());
    let mut out = format!("HTTP/1.1 {code} {reason}\r\nDate: {date}\r\n{connection}{}", answer.fields);
    if let Some(body) = &answer.body {
        out += &format!("Content-Length: {}\r\n", body.len);
    }
    out += "\r\n";

    let (method, target) = request.map_or(("-", "-"), |request| (request.method, request.target));
    let body = answer.body.filter(|_| method != "HEAD");
    let len = body.as_ref().map_or(0, |body| body.len);
    log::info!("{} {method} {} {code} {len}", peer(ch), target.escape_debug());

    let mut out = out.into_bytes();
    match body {
        Some(mut body) if body.len <= PIECE => {
            body.read_piece(&mut out)?;
            ch.push_vec(out)
        }
        Some(mut body) => {
            ch.push_vec(out)?;
            ch.push_producer(move |buffer: &mut Vec<u8>| {
                body.read_piece(buffer)?;
                Ok(if body.len > 0 { More::Again } else { More::Done })
            })
        }
        None => ch.push_vec(out),
    }
}

impl Body {
    /// Append the next piece. Exactly what was promised must come: if the file has shrunk, the connection
    /// ends to tell the client.
    fn read_piece(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        let wanted = self.len.min(PIECE);
        buffer.reserve(wanted as usize);
        let read = self.from.by_ref().take(wanted).read_to_end(buffer)? as u64;
        self.len -= read;
        match read == wanted {
            true => Ok(()),
            false => Err(io::Error::new(ErrorKind::UnexpectedEof, "a file shrank while it was sent")),
        }
    }
}

fn peer(ch: &Channel<'_>) -> String {
    ch.peer_addr().map_or_else(|_| "-".to_owned(), |peer| peer.to_string())
}
