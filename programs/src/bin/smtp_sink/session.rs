//! What a client of SMTP says (RFC 5321), cut out of its bytes, and what it is answered. No socket is in here.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The most bytes of a message.
pub const SIZE: usize = 32 * 1024 * 1024;

/// The most recipients of one, and the most bytes of a command.
const RECIPIENTS: usize = 1000;
const COMMAND: usize = 2048;

/// How many bytes all sessions may hold of messages that are under way or wait to be kept.
pub struct Room {
    left: AtomicUsize,
}

impl Room {
    pub fn new(bytes: usize) -> Arc<Room> {
        Arc::new(Room { left: AtomicUsize::new(bytes) })
    }
}

/// What a message takes of it, until it is dropped.
pub struct Reserved {
    room: Arc<Room>,
    bytes: usize,
}

impl Reserved {
    fn none(room: Arc<Room>) -> Reserved {
        Reserved { room, bytes: 0 }
    }

    fn grow(&mut self, bytes: usize) -> bool {
        let left = &self.room.left;
        let has_room = left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(bytes)).is_ok();
        self.bytes += if has_room { bytes } else { 0 };
        has_room
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.room.left.fetch_add(self.bytes, Relaxed);
    }
}

/// A message that has come whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    pub from: String,
    pub to: Vec<String>,
    /// Its lines end as the client has ended them.
    pub content: Vec<u8>,
}

/// What is to be done beside answering.
pub enum Event {
    /// It has the answer itself, when it is stored; until then it takes this room.
    Message(Message, Reserved),
    /// Answered; what follows is to be encrypted.
    StartTls,
    /// Answered; that was all.
    Quit,
}

enum Expects {
    Command,
    /// The rest of a command that is too long.
    EndOfCommand,
    /// Lines, up to one with a dot.
    Lines,
    /// So many bytes, of a chunk.
    Bytes(usize, Chunk),
}

#[derive(Clone, Copy)]
enum Chunk {
    More,
    Last,
    /// It is read, as what follows it is the next command, and dropped.
    Refused,
}

pub struct Session {
    has_tls: bool,
    is_encrypted: bool,
    greeted: bool,
    expects: Expects,
    from: Option<String>,
    /// MAIL had SMTPUTF8.
    is_utf8: bool,
    to: Vec<String>,
    content: Vec<u8>,
    reserved: Reserved,
    /// The answer to what cannot be taken.
    refusal: Option<&'static str>,
    /// Chunks of a message have come.
    in_chunks: bool,
    /// CRLF did not come last. Nothing else ends a line: servers that take a line feed alone for one see a
    /// message where others see two (CVE-2023-51764).
    in_line: bool,
    input: Vec<u8>,
}

impl Session {
    pub fn new(has_tls: bool, room: Arc<Room>) -> Session {
        Session {
            has_tls,
            is_encrypted: false,
            greeted: false,
            expects: Expects::Command,
            from: None,
            is_utf8: false,
            to: Vec::new(),
            content: Vec::new(),
            reserved: Reserved::none(room),
            refusal: None,
            in_chunks: false,
            in_line: false,
            input: Vec::new(),
        }
    }

    pub fn take(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// Everything that was said before is forgotten.
    pub fn encrypted(&mut self) {
        *self = Session { is_encrypted: true, ..Session::new(self.has_tls, self.reserved.room.clone()) };
    }

    /// Whether something has come that was not dealt with. After STARTTLS that is an attack.
    pub fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// Whether a message is on its way.
    pub fn is_busy(&self) -> bool {
        self.from.is_some() || self.has_input()
    }

    /// Whether a part of a message has come.
    pub fn takes_room(&self) -> bool {
        self.reserved.bytes > 0
    }

    /// Deal with what has come, up to the first event. Answers are appended to `out`.
    pub fn next(&mut self, out: &mut Vec<u8>) -> Option<Event> {
        let input = std::mem::take(&mut self.input);
        let mut used = 0;
        let event = self.go_through(&input, &mut used, out);
        self.input = input[used..].to_vec();
        event
    }

    fn go_through(&mut self, input: &[u8], used: &mut usize, out: &mut Vec<u8>) -> Option<Event> {
        loop {
            let rest = &input[*used..];
            let event = match self.expects {
                Expects::Bytes(left, chunk) => {
                    let now = left.min(rest.len());
                    *used += now;
                    if !matches!(chunk, Chunk::Refused) {
                        self.append(&rest[..now]);
                    }
                    if now < left {
                        self.expects = Expects::Bytes(left - now, chunk);
                        return None;
                    }
                    self.expects = Expects::Command;
                    self.chunk_is_over(chunk, out)
                }
                _ => {
                    let Some(end) = rest.iter().position(|&byte| byte == b'\n') else {
                        *used += self.part_of_line(rest);
                        return None;
                    };
                    *used += end + 1;
                    self.line(&rest[..=end], out)
                }
            };
            if event.is_some() {
                return event;
            }
        }
    }

    fn chunk_is_over(&mut self, chunk: Chunk, out: &mut Vec<u8>) -> Option<Event> {
        let answer = match chunk {
            Chunk::Last => return self.complete(out),
            Chunk::Refused => "503 5.5.1 MAIL and RCPT come first",
            Chunk::More => self.refusal.unwrap_or("250 2.0.0 go on"),
        };
        say(out, answer);
        None
    }

    /// A line whose end has not come; returns how much of it is dealt with.
    fn part_of_line(&mut self, part: &[u8]) -> usize {
        if part.len() <= COMMAND {
            return 0;
        }
        // It may belong to the end.
        let part = part.strip_suffix(b"\r").unwrap_or(part);
        match self.expects {
            Expects::Lines => self.append_line(part),
            _ => self.expects = Expects::EndOfCommand,
        }
        part.len()
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) -> Option<Event> {
        match self.expects {
            Expects::Command if line.len() <= COMMAND => return self.command(trimmed(line), out),
            Expects::Lines if !self.in_line && line == b".\r\n" => {
                self.expects = Expects::Command;
                return self.complete(out);
            }
            Expects::Lines => self.append_line(line),
            _ => {
                self.expects = Expects::Command;
                say(out, "500 5.5.2 that line is too long");
            }
        }
        None
    }

    /// A line that begins with a dot was given another one.
    fn append_line(&mut self, part: &[u8]) {
        let is_beginning = !std::mem::replace(&mut self.in_line, !part.ends_with(b"\r\n"));
        let undotted = part.strip_prefix(b".").filter(|_| is_beginning);
        self.append(undotted.unwrap_or(part));
    }

    fn append(&mut self, bytes: &[u8]) {
        if self.refusal.is_none() {
            self.refusal = match () {
                () if self.content.len() + bytes.len() > SIZE => Some(TOO_LARGE),
                () if !self.reserved.grow(bytes.len()) => Some(NO_ROOM),
                () => return self.content.extend_from_slice(bytes),
            };
            self.forget_content();
        }
    }

    fn complete(&mut self, out: &mut Vec<u8>) -> Option<Event> {
        let refusal = self.refusal;
        let message = Message {
            from: self.from.take().unwrap_or_default(),
            to: std::mem::take(&mut self.to),
            content: std::mem::take(&mut self.content),
        };
        let reserved = self.forget_content();
        self.reset();
        match refusal {
            Some(refusal) => {
                say(out, refusal);
                None
            }
            None => Some(Event::Message(message, reserved)),
        }
    }

    /// Returns the room that it took.
    fn forget_content(&mut self) -> Reserved {
        self.content = Vec::new();
        let none = Reserved::none(self.reserved.room.clone());
        std::mem::replace(&mut self.reserved, none)
    }

    fn reset(&mut self) {
        (self.from, self.is_utf8) = (None, false);
        self.to.clear();
        self.forget_content();
        (self.refusal, self.in_chunks, self.in_line) = (None, false, false);
    }

    fn command(&mut self, line: &[u8], out: &mut Vec<u8>) -> Option<Event> {
        let Ok(line) = std::str::from_utf8(line) else {
            say(out, "500 5.5.2 commands are in UTF-8");
            return None;
        };
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let answer = match verb.to_ascii_uppercase().as_str() {
            "EHLO" => return self.ehlo(out),
            "HELO" => {
                self.greeted = true;
                self.reset();
                "250 smtp_sink"
            }
            "MAIL" => self.mail(rest),
            "RCPT" => self.rcpt(rest),
            "DATA" if self.in_chunks => "503 5.5.1 the message comes in chunks",
            "DATA" if self.to.is_empty() => "503 5.5.1 MAIL and RCPT come first",
            "DATA" => {
                self.expects = Expects::Lines;
                "354 go on, and end with <CR><LF>.<CR><LF>"
            }
            "BDAT" => match chunk(rest) {
                // What follows may be no command.
                None => {
                    say(out, "501 5.5.4 BDAT SIZE [LAST]");
                    return Some(Event::Quit);
                }
                Some((size, is_last)) => {
                    self.in_chunks |= !self.to.is_empty();
                    let chunk = match is_last {
                        _ if self.to.is_empty() => Chunk::Refused,
                        true => Chunk::Last,
                        false => Chunk::More,
                    };
                    self.expects = Expects::Bytes(size, chunk);
                    return None;
                }
            },
            "RSET" => {
                self.reset();
                "250 2.0.0 forgotten"
            }
            "NOOP" => "250 2.0.0 nothing done",
            "VRFY" => "252 2.5.0 everybody gets mail here",
            "HELP" => "214 2.0.0 EHLO HELO MAIL RCPT DATA BDAT RSET NOOP VRFY STARTTLS QUIT",
            "STARTTLS" if self.is_encrypted => "503 5.5.1 it is encrypted already",
            "STARTTLS" if self.has_tls => {
                say(out, "220 2.0.0 go on");
                return Some(Event::StartTls);
            }
            "QUIT" => {
                say(out, "221 2.0.0 goodbye");
                return Some(Event::Quit);
            }
            _ => "500 5.5.1 what?",
        };
        say(out, answer);
        None
    }

    fn ehlo(&mut self, out: &mut Vec<u8>) -> Option<Event> {
        self.greeted = true;
        self.reset();
        say(out, "250-smtp_sink");
        for extension in ["PIPELINING", "8BITMIME", "SMTPUTF8", "CHUNKING", "ENHANCEDSTATUSCODES"] {
            say(out, &format!("250-{extension}"));
        }
        if self.has_tls && !self.is_encrypted {
            say(out, "250-STARTTLS");
        }
        say(out, &format!("250 SIZE {SIZE}"));
        None
    }

    fn mail(&mut self, rest: &str) -> &'static str {
        let Some((address, parameters)) = path(rest, "FROM:") else { return "501 5.5.4 MAIL FROM:<ADDRESS>" };
        let parameter = |wanted: &str| {
            let mut all =
                parameters.split_ascii_whitespace().map(|one| one.split_once('=').unwrap_or((one, "")));
            all.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
        };
        let is_utf8 = parameter("SMTPUTF8").is_some();
        match parameter("SIZE") {
            _ if !self.greeted => "503 5.5.1 EHLO comes first",
            _ if self.from.is_some() => "503 5.5.1 one message after the other",
            Some(size) if !is_number(size) => "501 5.5.4 SIZE=NUMBER",
            Some(size) if !size.parse().is_ok_and(|size: usize| size <= SIZE) => TOO_LARGE,
            _ if !is_utf8 && !address.is_ascii() => NOT_ASCII,
            _ => {
                (self.from, self.is_utf8) = (Some(address.to_owned()), is_utf8);
                "250 2.1.0 go on"
            }
        }
    }

    fn rcpt(&mut self, rest: &str) -> &'static str {
        match path(rest, "TO:") {
            None | Some(("", _)) => "501 5.5.4 RCPT TO:<ADDRESS>",
            Some(_) if self.from.is_none() => "503 5.5.1 MAIL comes first",
            Some((address, _)) if !self.is_utf8 && !address.is_ascii() => NOT_ASCII,
            Some(_) if self.to.len() >= RECIPIENTS => "452 4.5.3 too many recipients",
            Some((address, _)) => {
                self.to.push(address.to_owned());
                "250 2.1.5 go on"
            }
        }
    }
}

const TOO_LARGE: &str = "552 5.3.4 the message is too large";
const NO_ROOM: &str = "452 4.3.1 too much mail is on its way";
const NOT_ASCII: &str = "553 5.6.7 an address that is not ASCII needs SMTPUTF8";

fn say(out: &mut Vec<u8>, line: &str) {
    out.extend_from_slice(line.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn trimmed(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// `FROM:<address> parameters`.
fn path<'a>(rest: &'a str, before: &str) -> Option<(&'a str, &'a str)> {
    let begins = rest.get(..before.len())?.eq_ignore_ascii_case(before);
    let rest = rest.get(before.len()..)?.trim_start().strip_prefix('<')?;
    let (address, parameters) = rest.split_at(end_of_path(rest)?);
    let parameters = &parameters[1..];
    let is_clean = !address.chars().any(|c| c.is_control());
    let is_apart = parameters.is_empty() || parameters.starts_with(' ');
    (begins && is_clean && is_apart).then_some((address, parameters.trim()))
}

/// Where the `>` is: the first that is not in a quoted string, as in `"a>b"@example.org`.
fn end_of_path(path: &str) -> Option<usize> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let end = path.bytes().position(|byte| {
        let is_literal = is_escaped;
        is_escaped = is_quoted && !is_literal && byte == b'\\';
        is_quoted ^= byte == b'"' && !is_literal;
        matches!(byte, b'<' | b'>') && !is_quoted
    });
    end.filter(|&end| path.as_bytes()[end] == b'>')
}

/// `parse` would take a sign, too.
fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `SIZE [LAST]`.
fn chunk(rest: &str) -> Option<(usize, bool)> {
    let mut words = rest.split(' ');
    let size = words.next().filter(|size| is_number(size))?.parse().ok()?;
    match (words.next(), words.next()) {
        (None, _) => Some((size, false)),
        (Some(last), None) if last.eq_ignore_ascii_case("LAST") => Some((size, true)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events, without the room that a message takes.
    #[derive(Debug, PartialEq, Eq)]
    enum Event {
        Message(Message),
        StartTls,
        Quit,
    }

    fn next(session: &mut Session, out: &mut Vec<u8>) -> Option<Event> {
        session.next(out).map(|event| match event {
            super::Event::Message(message, _) => Event::Message(message),
            super::Event::StartTls => Event::StartTls,
            super::Event::Quit => Event::Quit,
        })
    }

    /// What is answered to `input`, in pieces of `size` bytes, and what came of it.
    fn played(input: &[u8], size: usize) -> (String, Vec<Event>) {
        let (mut session, mut out, mut events) =
            (Session::new(true, Room::new(SIZE)), Vec::new(), Vec::new());
        for piece in input.chunks(size) {
            session.take(piece);
            while let Some(event) = next(&mut session, &mut out) {
                events.push(event);
            }
        }
        (String::from_utf8(out).unwrap(), events)
    }

    fn codes(text: &str) -> Vec<&str> {
        text.lines().filter(|line| line.as_bytes()[3] == b' ').map(|line| &line[..3]).collect()
    }

    #[test]
    fn a_message_comes_whole_however_it_is_cut() {
        let input = b"EHLO x\r\nMAIL FROM:<a@b> SIZE=100\r\nRCPT TO:<c@d>\r\nrcpt to:<e@f>\r\nDATA\r\n\
            Subject: x\r\n\r\n..dot\r\n.\r\nQUIT\r\n";
        for size in [1, 2, 7, 1000] {
            let (text, events) = played(input, size);
            assert_eq!(codes(&text), ["250", "250", "250", "250", "354", "221"]);
            let message = Message {
                from: "a@b".to_owned(),
                to: vec!["c@d".to_owned(), "e@f".to_owned()],
                content: b"Subject: x\r\n\r\n.dot\r\n".to_vec(),
            };
            assert_eq!(events, [Event::Message(message), Event::Quit]);
        }
    }

    #[test]
    fn chunks_are_taken_byte_for_byte() {
        let input = b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<c@d>\r\nBDAT 4\r\n.\r\nxBDAT 0 LAST\r\nNOOP\r\n";
        for size in [1, 3, 1000] {
            let (text, events) = played(input, size);
            assert_eq!(codes(&text), ["250", "250", "250", "250", "250"]);
            let [Event::Message(message)] = &events[..] else { panic!("{events:?}") };
            assert_eq!(message.content, b".\r\nx");
        }
    }

    /// The client may have sent it before it could know (RFC 3030, 2920).
    #[test]
    fn a_chunk_that_is_refused_is_no_command() {
        let input = b"EHLO x\r\nMAIL FROM:<a@b> SIZE=99999999\r\nRCPT TO:<c@d>\r\nBDAT 6\r\nRSET\r\nBDAT 6 LAST\r\nRSET\r\n\
            MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n.\r\n";
        for size in [1, 3, 1000] {
            let (text, events) = played(input, size);
            assert_eq!(codes(&text), ["250", "552", "503", "503", "503", "250", "250", "354"]);
            assert!(matches!(&events[..], [Event::Message(_)]));
        }
    }

    #[test]
    fn after_a_chunk_of_unknown_size_nothing_is_a_command() {
        for size in ["99999999999999999999999 LAST", "-1", "+3", "", "6 LATS", "6 LAST x"] {
            let input = format!("EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<c@d>\r\nBDAT {size}\r\n");
            let (text, events) = played(input.as_bytes(), 1000);
            assert_eq!(codes(&text), ["250", "250", "250", "501"]);
            assert_eq!(events, [Event::Quit], "{size}");
        }
    }

    #[test]
    fn what_comes_out_of_order_is_refused() {
        let (text, events) = played(
            b"MAIL FROM:<a@b>\r\nEHLO x\r\nRCPT TO:<c@d>\r\nDATA\r\nMAIL TO:<a>\r\nFOO\r\n\xff\r\nMAIL FROM:<a@b> SIZE=99999999\r\n",
            5,
        );
        assert_eq!(codes(&text), ["503", "250", "503", "503", "501", "500", "500", "552"]);
        assert_eq!(events, []);
    }

    #[test]
    fn an_address_that_is_not_ascii_needs_smtputf8() {
        let (text, _) = played(
            "EHLO x\r\nMAIL FROM:<é@b>\r\nMAIL FROM:<a@b>\r\nRCPT TO:<é@b>\r\nRSET\r\n\
                MAIL FROM:<é@b> BODY=8BITMIME smtputf8\r\nRCPT TO:<é@b>\r\n"
                .as_bytes(),
            1000,
        );
        assert_eq!(codes(&text), ["250", "553", "250", "553", "250", "250", "250"]);
    }

    #[test]
    fn parameters_of_mail_are_taken_apart() {
        let outcomes = [
            ("<a@b> SIZE=33554432", "250"),
            ("<a@b> BODY=7BIT  SIZE=1", "250"),
            ("<a@b> SIZE=33554433", "552"),
            ("<a@b> SIZE=99999999999999999999999", "552"),
            ("<a@b> SIZE=x", "501"),
            ("<a@b> SIZE=+1", "501"),
            ("<a@b> SIZE", "501"),
            ("<a@b>SIZE=1", "501"),
        ];
        for (mail, code) in outcomes {
            let (text, _) = played(format!("EHLO x\r\nMAIL FROM:{mail}\r\n").as_bytes(), 1000);
            assert_eq!(codes(&text), ["250", code], "{mail}");
        }
    }

    #[test]
    fn a_quoted_string_may_hold_what_ends_an_address() {
        for address in [r#""a>b"@c"#, r#""a\">b"@c"#, r#""<a\\"@c"#, "", "@x,@y:a@b"] {
            let input = format!("EHLO x\r\nMAIL FROM:<{address}> SIZE=1\r\nRCPT TO:<x>\r\nBDAT 0 LAST\r\n");
            let (_, events) = played(input.as_bytes(), 1000);
            let [Event::Message(message)] = &events[..] else { panic!("{address}: {events:?}") };
            assert_eq!(message.from, address);
        }
    }

    #[test]
    fn all_messages_together_have_so_much_room() {
        const BEGIN: &str = "MAIL FROM:<>\r\nRCPT TO:<c@d>\r\n";
        let room = Room::new(100);
        let [mut one, mut other] = [0, 1].map(|_| Session::new(true, room.clone()));
        let mut out = Vec::new();
        one.take(format!("EHLO x\r\n{BEGIN}BDAT 60\r\n{}", "x".repeat(60)).as_bytes());
        assert!(next(&mut one, &mut out).is_none());
        out.clear();
        let chunks = format!("{BEGIN}BDAT 30\r\n{0}BDAT 30\r\n{0}BDAT 30 LAST\r\n{0}", "x".repeat(30));
        other.take(format!("EHLO x\r\n{chunks}").as_bytes());
        assert!(next(&mut other, &mut out).is_none());
        let text = String::from_utf8(std::mem::take(&mut out)).unwrap();
        assert_eq!(codes(&text), ["250", "250", "250", "250", "452", "452"]);
        // What was refused takes none, and what is whole takes it until it is kept.
        one.take(format!("BDAT 40 LAST\r\n{}", "x".repeat(40)).as_bytes());
        let Some(super::Event::Message(message, reserved)) = one.next(&mut out) else { panic!() };
        assert_eq!((message.content.len(), room.left.load(Relaxed)), (100, 0));
        drop(reserved);
        other.take(chunks.as_bytes());
        assert!(matches!(next(&mut other, &mut out), Some(Event::Message(_))));
        assert_eq!(room.left.load(Relaxed), 100);
        // Whatever ends a message: RSET, TLS, the end of the connection.
        for _ in 0..3 {
            other.take(format!("{BEGIN}BDAT 90\r\n{}RSET\r\n", "x".repeat(90)).as_bytes());
            assert!(next(&mut other, &mut out).is_none());
        }
        one.take(format!("{BEGIN}BDAT 90\r\n{}", "x".repeat(90)).as_bytes());
        assert!(next(&mut one, &mut out).is_none());
        assert_eq!(room.left.load(Relaxed), 10);
        one.encrypted();
        other.take(format!("{BEGIN}BDAT 90\r\n{}", "x".repeat(90)).as_bytes());
        assert!(next(&mut other, &mut out).is_none());
        assert_eq!(room.left.load(Relaxed), 10);
        drop(other);
        assert_eq!(room.left.load(Relaxed), 100);
    }

    #[test]
    fn a_command_that_never_ends_costs_little() {
        let (mut session, mut out) = (Session::new(false, Room::new(SIZE)), Vec::new());
        for _ in 0..100 {
            session.take(&[b'x'; 1000]);
            assert_eq!(next(&mut session, &mut out), None);
            assert!(session.input.len() <= COMMAND);
        }
        session.take(b"\r\nNOOP\r\n");
        assert_eq!(next(&mut session, &mut out), None);
        assert_eq!(codes(std::str::from_utf8(&out).unwrap()), ["500", "250"]);
    }

    #[test]
    fn a_long_line_is_taken_as_it_comes_and_ends_nothing() {
        let long = "x".repeat(5 * COMMAND);
        let input = format!("EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<c@d>\r\nDATA\r\n.{long}.\r\n.\r\n");
        for size in [1, 5 * COMMAND + 58, 100_000] {
            let (text, events) = played(input.as_bytes(), size);
            assert_eq!(codes(&text), ["250", "250", "250", "354"]);
            let [Event::Message(message)] = &events[..] else { panic!("{events:?}") };
            assert_eq!(message.content, format!("{long}.\r\n").as_bytes());
        }
    }

    /// Each of these has ended messages somewhere, and what came after it was taken for commands.
    #[test]
    fn a_dot_between_other_ends_of_lines_ends_nothing() {
        for end in ["\n.\n", "\r\n.\n", "\n.\r\n", "\r.\r", "\r\n.\r", "\r.\r\n", "\r\n.\r\r\n", "\n..\r\n"] {
            let smuggled = format!("hello{end}MAIL FROM:<evil@x>\r\n");
            let input = format!("EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<c@d>\r\nDATA\r\n{smuggled}.\r\n");
            for size in [1, 2, 1000] {
                let (text, events) = played(input.as_bytes(), size);
                assert_eq!(codes(&text), ["250", "250", "250", "354"], "{end:?}");
                let [Event::Message(message)] = &events[..] else { panic!("{end:?}: {events:?}") };
                // Only after CRLF was a dot given another one.
                let content = smuggled.replace("\r\n.", "\r\n");
                assert_eq!(String::from_utf8_lossy(&message.content), content);
            }
        }
    }

    #[test]
    fn the_end_of_a_long_line_may_be_cut() {
        for long in [COMMAND - 1, COMMAND, COMMAND + 1] {
            let (mut session, mut out) = (Session::new(false, Room::new(SIZE)), Vec::new());
            let line = "x".repeat(long);
            let pieces =
                [&format!("EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<c@d>\r\nDATA\r\n{line}\r"), "\n.\r", "\n"];
            let [first, second, third] = pieces.map(|piece| {
                session.take(piece.as_bytes());
                next(&mut session, &mut out)
            });
            assert_eq!([first, second], [None, None]);
            let Some(Event::Message(message)) = third else { panic!("{long}") };
            assert_eq!(message.content, format!("{line}\r\n").as_bytes());
        }
    }

    #[test]
    fn after_starttls_everything_is_forgotten() {
        let (mut session, mut out) = (Session::new(true, Room::new(SIZE)), Vec::new());
        session.take(b"EHLO x\r\nMAIL FROM:<a@b>\r\nSTARTTLS\r\nNOOP\r\n");
        assert_eq!(next(&mut session, &mut out), Some(Event::StartTls));
        assert!(session.has_input());
        session.encrypted();
        assert!(!session.has_input() && !session.is_busy());
        out.clear();
        session.take(b"MAIL FROM:<a@b>\r\nEHLO x\r\nSTARTTLS\r\n");
        assert_eq!(next(&mut session, &mut out), None);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(codes(&text), ["503", "250", "503"]);
        assert!(!text.contains("250-STARTTLS"));
    }
}
