//! A source as TLS is one: a handshake of two round trips, records with a header and a body under a
//! rolling key, key updates that stop writing until the other side has answered and stop reading
//! until the answer is out, a farewell before FIN. The ends of connections are in `ends`.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use dispatch_loop::{Interest, Source};

/// The kinds of record; a header is the kind and the length of the body, big-endian.
const HELLO: u8 = 1;
const FINISHED: u8 = 2;
const DATA: u8 = 3;
const UPDATE: u8 = 4;
const ANSWER: u8 = 5;
const FAREWELL: u8 = 6;
const HEADER: usize = 5;
const LONGEST: usize = 1 << 20;
/// What may be read ahead for the sake of an answer that is behind it.
const AHEAD: usize = 16 << 20;

#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Plain bytes in one record, at most.
    pub record: usize,
    /// Ask for a new key after so many bytes.
    pub update_every: usize,
    /// Take no more bytes while so many are not yet sent.
    pub out_limit: usize,
    /// Say the wrong thing at the end of the handshake.
    pub liar: bool,
    /// What makes the source.
    pub with: With,
}

/// `None`: records. `Some`: something else, of a wire and whether this is the client's end.
pub type With = Option<fn(Box<dyn Source>, bool, Options) -> Box<dyn Source>>;

impl Options {
    pub const RECORDS: Options =
        Options { record: 16 * 1024, update_every: 200_000, out_limit: 64 * 1024, liar: false, with: None };

    /// The error of a handshake that went wrong; `in_tls` is what TLS says.
    pub fn says(self, in_tls: &str) -> String {
        match self.with {
            Some(_) => format!("TLS: {in_tls}"),
            None => "the handshake failed, or a record is out of its place".to_owned(),
        }
    }

    /// Put a source around the wire.
    pub fn around(self, wire: Box<dyn Source>, client: bool, blocking: bool) -> Box<dyn Source> {
        match self.with {
            Some(with) => with(wire, client, self),
            None => {
                let mut records = Records::new(wire, client, self);
                records.blocking = blocking;
                Box::new(records)
            }
        }
    }
}

/// What the binary that includes this tests: records, or TLS.
impl Default for Options {
    fn default() -> Options {
        Options { with: crate::WITH, ..Options::RECORDS }
    }
}

/// What a test sees of a source that a map owns, and how it makes it panic.
#[derive(Default)]
pub struct Probe {
    pub panic_in: Cell<&'static str>,
    /// Bytes taken and not yet given to the wire.
    pub unsent: Cell<usize>,
    /// Plain bytes that wait to be received.
    pub inside: Cell<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Start,
    Hello,
    Finished,
    Up,
}

pub struct Records {
    wire: Box<dyn Source>,
    options: Options,
    client: bool,
    /// The wire waits: a `drive` reads from it once only.
    pub blocking: bool,
    stage: Stage,
    read_key: Key,
    write_key: Key,
    raw: Vec<u8>,
    plain: VecDeque<u8>,
    out: VecDeque<u8>,
    until_update: usize,
    /// We asked for a new key: no data may be sent until the answer comes.
    awaiting: bool,
    /// The peer asked: nothing is read until the answer is out.
    answering: bool,
    farewell_said: bool,
    farewell_due: bool,
    ended: bool,
    read_error: Option<io::Error>,
    write_error: Option<ErrorKind>,
    pub probe: Rc<Probe>,
}

impl Records {
    pub fn new(wire: Box<dyn Source>, client: bool, options: Options) -> Records {
        let stage = if client { Stage::Start } else { Stage::Hello };
        Records {
            wire,
            options,
            client,
            blocking: false,
            stage,
            read_key: Key(if client { 11 } else { 7 }),
            write_key: Key(if client { 7 } else { 11 }),
            raw: Vec::new(),
            plain: VecDeque::new(),
            out: VecDeque::new(),
            until_update: options.update_every,
            awaiting: false,
            answering: false,
            farewell_said: false,
            farewell_due: false,
            ended: false,
            read_error: None,
            write_error: None,
            probe: Rc::default(),
        }
    }

    fn put(&mut self, kind: u8, body: &[u8]) {
        self.out.push_back(kind);
        self.out.extend((body.len() as u32).to_be_bytes());
        self.out.extend(body);
    }

    fn flush(&mut self) -> io::Result<bool> {
        let mut moved = false;
        while !self.out.is_empty() {
            match self.wire.send(self.out.as_slices().0) {
                Ok(0) => break,
                Ok(sent) => drop(self.out.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // It passes.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM)) => break,
                Err(error) => {
                    self.write_error = Some(error.kind());
                    self.out.clear();
                    self.answering = false;
                    return Err(error);
                }
            }
            moved = true;
        }
        if self.out.is_empty() {
            self.answering = false;
            if std::mem::take(&mut self.farewell_due) {
                self.wire.shutdown_write()?;
            }
        }
        Ok(moved)
    }

    /// Where the first record in `raw` ends, if it is complete.
    fn record_end(&self) -> Option<usize> {
        let len = self.raw.get(1..HEADER)?;
        let end = HEADER + u32::from_be_bytes(len.try_into().unwrap()) as usize;
        (end <= self.raw.len() || end > LONGEST).then_some(end)
    }

    /// Act on the records that are complete, until there is something to give.
    fn digest(&mut self) -> io::Result<bool> {
        let mut moved = false;
        while (self.plain.is_empty() || self.awaiting) && !self.answering && !self.ended {
            let Some(end) = self.record_end() else { break };
            if end > LONGEST {
                return Err(invalid("a record that is too long"));
            }
            let mut record: Vec<u8> = self.raw.drain(..end).collect();
            self.act(record[0], &mut record[HEADER..])?;
            moved = true;
        }
        Ok(moved)
    }

    fn act(&mut self, kind: u8, body: &mut [u8]) -> io::Result<()> {
        match (kind, self.stage) {
            (HELLO, Stage::Hello) => {
                let greeting: &[u8] = if self.options.liar { b"lie!" } else { b"done" };
                match self.client {
                    true => self.put(FINISHED, greeting),
                    false => self.put(HELLO, b"server"),
                }
                self.stage = Stage::Finished;
            }
            (FINISHED, Stage::Finished) if body == b"done" => {
                if !self.client {
                    self.put(FINISHED, if self.options.liar { b"lie!" } else { b"done" });
                }
                self.stage = Stage::Up;
            }
            (DATA, Stage::Up) => {
                self.read_key.apply(body);
                self.plain.extend(&*body);
            }
            (UPDATE, Stage::Up) => {
                self.read_key.turn();
                // Who has said farewell says no more, and nobody waits for his answer.
                if !self.farewell_said {
                    self.put(ANSWER, b"");
                    self.answering = true;
                    // What cannot be answered may be read all the same.
                    let _ = self.flush();
                }
            }
            (ANSWER, Stage::Up) if self.awaiting => self.awaiting = false,
            (FAREWELL, Stage::Up) => {
                self.ended = true;
                self.awaiting = false;
            }
            _ => return Err(invalid("the handshake failed, or a record is out of its place")),
        }
        Ok(())
    }

    /// Read from the wire once.
    fn fill(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        match self.wire.recv(&mut chunk)? {
            0 => Err(io::Error::new(ErrorKind::UnexpectedEof, "an end without a farewell")),
            read => {
                self.raw.extend_from_slice(&chunk[..read]);
                Ok(())
            }
        }
    }

    /// Let the probe see; panic if it says so.
    fn look(&self, place: &str) {
        self.probe.unsent.set(self.out.len());
        self.probe.inside.set(self.plain.len());
        let panics = !place.is_empty() && self.probe.panic_in.get() == place;
        assert!(!panics, "the source panics in {place}");
    }
}

impl Source for Records {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.wire.descriptor()
    }
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.look("recv");
        while self.stage == Stage::Up {
            if !self.plain.is_empty() {
                let read = self.plain.read(buffer);
                self.look("");
                return read;
            }
            if self.ended {
                // The end is the end of the wire: to close it before would reset the connection.
                return self.wire.recv(buffer).map(|_| 0);
            }
            if self.answering {
                let _ = self.flush();
                if self.answering {
                    break;
                }
            }
            if !self.digest()? {
                match self.read_error.take() {
                    Some(error) => return Err(error),
                    None => self.fill()?,
                }
            }
        }
        Err(ErrorKind::WouldBlock.into())
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.look("send");
        if let Some(kind) = self.write_error {
            return Err(kind.into());
        }
        if self.out.len() >= self.options.out_limit {
            self.flush()?;
        }
        if self.stage != Stage::Up
            || self.awaiting
            || self.answering
            || self.out.len() >= self.options.out_limit
        {
            return Err(ErrorKind::WouldBlock.into());
        }
        let taken = bytes.len().min(self.options.record).min(self.until_update);
        let mut body = bytes[..taken].to_vec();
        self.write_key.apply(&mut body);
        self.put(DATA, &body);
        self.until_update -= taken;
        if self.until_update == 0 {
            self.until_update = self.options.update_every;
        }
        if self.until_update == self.options.update_every && !self.ended {
            self.put(UPDATE, b"");
            self.write_key.turn();
            self.awaiting = true;
        }
        self.flush()?;
        self.look("");
        Ok(taken)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        self.look("shutdown_write");
        self.put(FAREWELL, b"");
        self.farewell_said = true;
        self.farewell_due = true;
        self.flush().map(drop)
    }

    fn is_established(&self) -> bool {
        self.stage == Stage::Up && self.wire.is_established()
    }

    fn interest(&self, wanted: Interest) -> Interest {
        self.look("interest");
        let mut interest = wanted;
        if self.stage != Stage::Up {
            interest = Interest { read: self.stage != Stage::Start, write: self.stage == Stage::Start };
        } else if self.awaiting {
            interest.read |= self.plain.len() < AHEAD;
            interest.write = false;
        }
        interest.read &= !self.answering;
        interest.write |= !self.out.is_empty();
        self.wire.interest(interest)
    }

    fn drive(&mut self, ready: Interest) -> io::Result<bool> {
        self.look("drive");
        let mut moved = self.wire.drive(ready)?;
        if !self.wire.is_established() {
            return Ok(moved);
        }
        if self.stage == Stage::Start {
            self.put(HELLO, b"client");
            self.stage = Stage::Hello;
        }
        let mut reads = ready.read || self.wire.input_pending();
        loop {
            match self.flush() {
                Ok(flushed) => moved |= flushed,
                Err(error) if self.stage != Stage::Up => return Err(error),
                // Told by the next `send`: what has come may still be read.
                Err(_) => {}
            }
            let waits = self.stage != Stage::Up || self.awaiting && !self.answering;
            if !waits || self.plain.len() >= AHEAD {
                break;
            }
            if self.digest()? {
                moved = true;
                continue;
            }
            if !reads {
                break;
            }
            reads = !self.blocking;
            match self.fill() {
                Ok(()) => moved = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if self.stage != Stage::Up => return Err(error),
                Err(error) => {
                    self.read_error = Some(error);
                    self.write_error = Some(ErrorKind::BrokenPipe);
                    self.awaiting = false;
                }
            }
        }
        self.look("");
        Ok(moved)
    }

    fn input_pending(&self) -> bool {
        let inside = !self.plain.is_empty() || self.read_error.is_some();
        self.stage == Stage::Up
            && (inside || !self.answering && (self.record_end().is_some() || self.wire.input_pending()))
    }

    fn output_pending(&self) -> bool {
        !self.out.is_empty() || self.wire.output_pending()
    }
}

/// Every byte under another key: one that is lost, doubled or out of its place spoils all that
/// follow.
struct Key(u32);

impl Key {
    fn apply(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte ^= (self.0 >> 24) as u8;
        }
    }

    fn turn(&mut self) {
        self.0 ^= 0x5a5a_5a5a;
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}
