//! Bytes into values: where an answer ends, in one pass however it was cut, and how much memory it may take. What
//! stands in it is read by `redis-protocol`, which is given what is whole only: RESP2's answers, and the parts of
//! RESP3's.

use std::io;

use redis_protocol::resp2::decode as resp2;
use redis_protocol::resp2::types::RangeFrame as Frame2;
use redis_protocol::resp3::decode::complete as resp3;
use redis_protocol::resp3::types::RangeFrame as Frame3;

use crate::options::Protocol;
use crate::{ServerError, Value};

/// How deep an answer may be nested. (What decodes it calls itself for each level.)
const DEEPEST: usize = 64;
/// What a part of an answer takes beside its bytes, about.
const PART: usize = 64;

/// An answer, or something that nobody asked for.
#[derive(Debug, PartialEq)]
pub(crate) enum Message {
    Answer(Result<Value, ServerError>),
    Push(Vec<Value>),
}

#[derive(Debug)]
pub(crate) struct Decoder {
    buffer: Vec<u8>,
    /// Where the first answer that was not taken begins.
    start: usize,
    scan: Scan,
    most: usize,
    pub(crate) protocol: Protocol,
}

/// How far the first answer was looked through, from its start.
#[derive(Debug, Default)]
struct Scan {
    at: usize,
    /// There is no end of line before this.
    searched: usize,
    parts: usize,
    /// How many parts each open level still lacks; empty before the first part and after the last.
    levels: Vec<usize>,
    begun: bool,
}

impl Decoder {
    /// An answer may take so many bytes of memory at `most`.
    pub(crate) fn new(most: usize) -> Decoder {
        Decoder { buffer: Vec::new(), start: 0, scan: Scan::default(), most, protocol: Protocol::Resp2 }
    }

    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// What was fed and not taken.
    pub(crate) fn take_rest(&mut self) -> Vec<u8> {
        self.scan = Scan::default();
        self.buffer.drain(..std::mem::take(&mut self.start));
        std::mem::take(&mut self.buffer)
    }

    /// The next whole message.
    pub(crate) fn next(&mut self) -> io::Result<Option<Message>> {
        let bytes = &self.buffer[self.start..];
        let Some(end) = self.scan.advance(bytes, self.most)? else { return Ok(None) };
        let message = decode(&bytes[..end], self.protocol)?;
        self.scan = Scan::default();
        self.start += end;
        if self.start == self.buffer.len() {
            self.start = 0;
            self.buffer.clear();
            // One large answer does not hold its memory for ever.
            self.buffer.shrink_to(64 * 1024);
        }
        Ok(Some(message))
    }
}

impl Scan {
    /// Look on; returns the length of the first message once it is whole.
    fn advance(&mut self, bytes: &[u8], most: usize) -> io::Result<Option<usize>> {
        loop {
            if self.begun && self.levels.is_empty() {
                return Ok(Some(self.at));
            }
            // Before its line is whole: who does not speak RESP may never end one.
            if bytes.get(self.at).is_some_and(|kind| !b"+-:_,#($=!*~>%|".contains(kind)) {
                return Err(garbage("something that is no RESP"));
            }
            let from = self.searched.max(self.at);
            let Some(end) = memchr::memchr(b'\n', &bytes[from..]).map(|end| from + end) else {
                self.searched = bytes.len();
                return self.within(bytes.len(), most).map(|()| None);
            };
            let line = &bytes[self.at..end];
            let Some((&kind, number)) = line.strip_suffix(b"\r").and_then(<[u8]>::split_first) else {
                return Err(garbage("a line that ends in nothing but a line feed"));
            };
            let mut next = end + 1;
            let mut children = None;
            match kind {
                b'$' | b'=' | b'!' => {
                    if let Some(length) = length(number)? {
                        self.within(next.saturating_add(length), most)?;
                        next += length + 2;
                        if bytes.len() < next {
                            return Ok(None);
                        }
                        if &bytes[next - 2..next] != b"\r\n" {
                            return Err(garbage("a string without its end"));
                        }
                    }
                }
                b'*' | b'~' | b'>' => children = length(number)?,
                b'%' | b'|' => children = length(number)?.map(|pairs| pairs.saturating_mul(2)),
                _ => {}
            }
            self.at = next;
            self.parts += 1;
            self.within(next, most)?;
            self.count(kind != b'|', children.unwrap_or(0))?;
        }
    }

    /// A part was passed, which has so many parts of its own. Attributes are not counted: what they are about
    /// follows.
    fn count(&mut self, counts: bool, children: usize) -> io::Result<()> {
        match self.levels.last_mut() {
            Some(left) if counts => *left -= 1,
            Some(_) => {}
            None => self.levels.push(usize::from(!counts)),
        }
        self.begun = true;
        if children > 0 {
            self.levels.push(children);
        }
        while self.levels.last() == Some(&0) {
            self.levels.pop();
        }
        match self.levels.len() > DEEPEST {
            true => Err(garbage("an answer that is nested too deeply")),
            false => Ok(()),
        }
    }

    fn within(&self, bytes: usize, most: usize) -> io::Result<()> {
        match bytes.saturating_add(self.parts.saturating_mul(PART)) > most {
            true => Err(garbage("an answer that is larger than the limit")),
            false => Ok(()),
        }
    }
}

/// The length of a string, or the count of an array; `None` for RESP2's nothing, which is -1.
fn length(digits: &[u8]) -> io::Result<Option<usize>> {
    match digits {
        b"-1" => Ok(None),
        // Those that are streamed, `?`, are in no server's answers.
        _ if digits.is_empty() || digits.len() > 15 || !digits.iter().all(u8::is_ascii_digit) => {
            Err(garbage("a length that is no number"))
        }
        _ => Ok(Some(digits.iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0')))),
    }
}

fn garbage(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the server has sent {what}"))
}

fn bad(error: impl std::fmt::Display) -> io::Error {
    garbage(&format!("what cannot be decoded: {error}"))
}

/// A whole message.
fn decode(bytes: &[u8], protocol: Protocol) -> io::Result<Message> {
    let (value, used, is_push) = match protocol {
        Protocol::Resp2 => {
            let (frame, used) =
                resp2::decode_range(bytes).map_err(bad)?.ok_or_else(|| garbage("half an answer"))?;
            (value2(frame, bytes), used, false)
        }
        Protocol::Resp3 => {
            let mut at = 0;
            skip_attributes(bytes, &mut at)?;
            let is_push = bytes.get(at) == Some(&b'>');
            (value3(bytes, &mut at)?, at, is_push)
        }
    };
    if used != bytes.len() {
        return Err(garbage("an answer that ends in its midst"));
    }
    Ok(match value {
        Value::Array(values) if is_push => Message::Push(values),
        Value::Error(error) => Message::Answer(Err(error)),
        value => Message::Answer(Ok(value)),
    })
}

fn value2(frame: Frame2, bytes: &[u8]) -> Value {
    match frame {
        Frame2::SimpleString((from, to)) => Value::Status(text(&bytes[from..to])),
        Frame2::Error((from, to)) => Value::Error(ServerError::new(text(&bytes[from..to]))),
        Frame2::Integer(number) => Value::Int(number),
        Frame2::BulkString((from, to)) => Value::Bytes(bytes[from..to].to_vec()),
        Frame2::Array(frames) => Value::Array(frames.into_iter().map(|frame| value2(frame, bytes)).collect()),
        Frame2::Null => Value::Null,
    }
}

/// The part that begins at `at`, which is moved behind it. What has parts of its own is put together here:
/// `redis-protocol` looks for equal names, which takes the square of the time if the server has chosen them so.
fn value3(bytes: &[u8], at: &mut usize) -> io::Result<Value> {
    skip_attributes(bytes, at)?;
    let kind = *bytes.get(*at).ok_or_else(|| garbage("half an answer"))?;
    if bytes[*at..].starts_with(b"$-1\r\n") {
        *at += 5;
        return Ok(Value::Null);
    }
    if !b"*~>%".contains(&kind) {
        return leaf3(bytes, at);
    }
    match (count3(bytes, at)?, kind) {
        (Some(count), b'%') => {
            let pairs = (0..count).map(|_| Ok((value3(bytes, at)?, value3(bytes, at)?)));
            pairs.collect::<io::Result<_>>().map(Value::Map)
        }
        (Some(count), _) => {
            let values = (0..count).map(|_| value3(bytes, at)).collect::<io::Result<_>>()?;
            Ok(if kind == b'~' { Value::Set(values) } else { Value::Array(values) })
        }
        (None, b'*') => Ok(Value::Null),
        (None, _) => Err(garbage("a length that is no number")),
    }
}

/// Nobody asks what they say.
fn skip_attributes(bytes: &[u8], at: &mut usize) -> io::Result<()> {
    while bytes.get(*at) == Some(&b'|') {
        for _ in 0..count3(bytes, at)?.unwrap_or(0) {
            value3(bytes, at)?;
            value3(bytes, at)?;
        }
    }
    Ok(())
}

/// What a line says behind its kind.
fn count3(bytes: &[u8], at: &mut usize) -> io::Result<Option<usize>> {
    let line = &bytes[*at + 1..];
    let end = memchr::memchr(b'\r', line).ok_or_else(|| garbage("half an answer"))?;
    *at += 1 + end + 2;
    length(&line[..end])
}

/// What has no parts.
fn leaf3(bytes: &[u8], at: &mut usize) -> io::Result<Value> {
    let bytes = &bytes[*at..];
    let (frame, used) = resp3::decode_range(bytes).map_err(bad)?.ok_or_else(|| garbage("half an answer"))?;
    *at += used;
    Ok(match frame {
        Frame3::BlobString { data: (from, to), .. } | Frame3::VerbatimString { data: (from, to), .. } => {
            Value::Bytes(bytes[from..to].to_vec())
        }
        Frame3::SimpleString { data: (from, to), .. } => Value::Status(text(&bytes[from..to])),
        Frame3::BlobError { data: (from, to), .. } | Frame3::SimpleError { data: (from, to), .. } => {
            Value::Error(ServerError::new(text(&bytes[from..to])))
        }
        Frame3::Boolean { data, .. } => Value::Bool(data),
        Frame3::Null => Value::Null,
        Frame3::Number { data, .. } => Value::Int(data),
        Frame3::Double { data, .. } => Value::Double(data),
        Frame3::BigNumber { data: (from, to), .. } => Value::Big(text(&bytes[from..to])),
        _ => return Err(garbage("what no server sends")),
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: [&[u8]; 12] = [
        b"+OK\r\n",
        b"-ERR no\r\n",
        b":-42\r\n",
        b"$5\r\nhe\r\no\r\n",
        b"$0\r\n\r\n",
        b"_\r\n",
        b",1.5\r\n",
        b"#t\r\n",
        b"=7\r\ntxt:abc\r\n",
        b"%2\r\n+a\r\n*2\r\n:1\r\n~1\r\n:2\r\n+b\r\n*0\r\n",
        b">3\r\n$7\r\nmessage\r\n+c\r\n+d\r\n",
        b"|1\r\n+ttl\r\n:3\r\n*2\r\n|1\r\n+x\r\n+y\r\n:1\r\n:2\r\n",
    ];

    fn expected() -> Vec<Message> {
        let status = |text: &str| Value::Status(text.to_owned());
        let bytes = |text: &str| Value::Bytes(text.into());
        let map = vec![
            (status("a"), Value::Array(vec![Value::Int(1), Value::Set(vec![Value::Int(2)])])),
            (status("b"), Value::Array(vec![])),
        ];
        let values = vec![
            Ok(status("OK")),
            Err(ServerError::new("ERR no")),
            Ok(Value::Int(-42)),
            Ok(bytes("he\r\no")),
            Ok(bytes("")),
            Ok(Value::Null),
            Ok(Value::Double(1.5)),
            Ok(Value::Bool(true)),
            Ok(bytes("abc")),
            Ok(Value::Map(map)),
        ];
        let mut messages: Vec<Message> = values.into_iter().map(Message::Answer).collect();
        messages.push(Message::Push(vec![bytes("message"), status("c"), status("d")]));
        messages.push(Message::Answer(Ok(Value::Array(vec![Value::Int(1), Value::Int(2)]))));
        messages
    }

    fn all(decoder: &mut Decoder) -> Vec<Message> {
        std::iter::from_fn(|| decoder.next().unwrap()).collect()
    }

    fn decoder(protocol: Protocol, most: usize) -> Decoder {
        Decoder { protocol, ..Decoder::new(most) }
    }

    #[test]
    fn answers_are_whole_however_they_are_cut() {
        let bytes = BYTES.concat();
        for size in 1..=bytes.len() {
            let mut decoder = decoder(Protocol::Resp3, 4096);
            let mut got = Vec::new();
            for piece in bytes.chunks(size) {
                decoder.feed(piece);
                got.extend(all(&mut decoder));
            }
            assert_eq!(got, expected(), "in pieces of {size}");
            assert!(decoder.take_rest().is_empty());
        }
    }

    #[test]
    fn resp2_has_two_kinds_of_nothing() {
        let mut decoder = decoder(Protocol::Resp2, 4096);
        decoder.feed(b"$-1\r\n*-1\r\n*3\r\n$-1\r\n$1\r\nx\r\n-ERR inside\r\n");
        let inside = Value::Error(ServerError::new("ERR inside"));
        let array = Value::Array(vec![Value::Null, Value::Bytes(b"x".to_vec()), inside]);
        let wanted = [Value::Null, Value::Null, array].map(|value| Message::Answer(Ok(value)));
        assert_eq!(all(&mut decoder), wanted);
    }

    #[test]
    fn what_was_not_taken_can_be_put_back() {
        let mut decoder = decoder(Protocol::Resp3, 4096);
        decoder.feed(b":1\r\n:2\r\n:3");
        assert_eq!(decoder.next().unwrap(), Some(Message::Answer(Ok(Value::Int(1)))));
        let rest = decoder.take_rest();
        assert_eq!(rest, b":2\r\n:3");
        decoder.feed(&rest);
        assert_eq!(all(&mut decoder), [Message::Answer(Ok(Value::Int(2)))]);
    }

    #[test]
    fn garbage_and_what_is_too_much_is_refused() {
        let deep = b"*1\r\n".repeat(100_000);
        let many = [b"*9999\r\n".to_vec(), b":1\r\n".repeat(9999)].concat();
        let cases: [&[u8]; 18] = [
            b"HTTP/1.1 400 Bad Request\r\n",
            b"\r\n",
            b"\n",
            b"+no carriage return\n",
            b"$x\r\n",
            b"$\r\n",
            b"$-2\r\n",
            b"$?\r\n",
            b"*?\r\n",
            b"$3\r\nabcde",
            b"$99999999999999999999\r\n",
            b"$999999999999999\r\n",
            b":12a\r\n",
            b"#x\r\n",
            b">-1\r\n",
            b"*1\r\n%-1\r\n",
            &deep,
            &many,
        ];
        for bytes in cases {
            let mut decoder = decoder(Protocol::Resp3, 100_000);
            decoder.feed(bytes);
            let error = std::iter::repeat_with(|| decoder.next()).take(3).find_map(Result::err);
            let error = error
                .unwrap_or_else(|| panic!("{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(30)])));
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
        // A line that never ends.
        let mut decoder = decoder(Protocol::Resp3, 100_000);
        decoder.feed(&[b'+'; 50_000]);
        assert_eq!(decoder.next().unwrap(), None);
        decoder.feed(&[b'+'; 50_001]);
        assert!(decoder.next().is_err());
    }

    /// All that is there is given, also what is there twice, whatever a name is.
    #[test]
    fn maps_and_sets_are_as_the_wire_has_them() {
        let mut decoder = decoder(Protocol::Resp3, 4096);
        decoder.feed(b"%2\r\n:1\r\n:2\r\n:1\r\n|1\r\n+a\r\n+b\r\n_\r\n");
        decoder.feed(b"~3\r\n$-1\r\n*1\r\n:1\r\n_\r\n|0\r\n|0\r\n>1\r\n*-1\r\n%0\r\n");
        let pairs = vec![(Value::Int(1), Value::Int(2)), (Value::Int(1), Value::Null)];
        let set = vec![Value::Null, Value::Array(vec![Value::Int(1)]), Value::Null];
        let [map, set, empty] =
            [Value::Map(pairs), Value::Set(set), Value::Map(vec![])].map(|value| Message::Answer(Ok(value)));
        assert_eq!(all(&mut decoder), [map, set, Message::Push(vec![Value::Null]), empty]);
    }

    /// A server may choose what is in a set so that all of it is alike for a hash, and different.
    #[test]
    fn no_set_takes_the_square_of_its_length() {
        const COUNT: usize = 50_000;
        for part in [&b",nan\r\n"[..], b"|1\r\n:1\r\n:1\r\n:1\r\n"] {
            let begun = std::time::Instant::now();
            let mut decoder = decoder(Protocol::Resp3, usize::MAX);
            decoder.feed(&[format!("~{COUNT}\r\n").into_bytes(), part.repeat(COUNT)].concat());
            let Ok(Some(Message::Answer(Ok(Value::Set(values))))) = decoder.next() else { panic!() };
            assert_eq!(values.len(), COUNT);
            assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
        }
    }

    /// What a peer may send without an end must not make the loop slow: each byte is looked at once or twice.
    #[test]
    fn a_large_array_in_small_pieces_takes_one_pass() {
        const COUNT: usize = 200_000;
        let bytes = [format!("*{COUNT}\r\n").into_bytes(), b":1\r\n".repeat(COUNT)].concat();
        let mut decoder = decoder(Protocol::Resp3, usize::MAX);
        let mut last = 0;
        for piece in bytes.chunks(64) {
            decoder.feed(piece);
            let message = decoder.next().unwrap();
            assert!(message.is_some() || decoder.scan.at + 5 > decoder.buffer.len());
            assert!(decoder.scan.at >= last || message.is_some());
            last = decoder.scan.at;
        }
        assert_eq!(last, 0, "and it was whole at the end");
    }
}
