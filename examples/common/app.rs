//! The messages of app_server and app_client: two bytes with the length of the header; the header, which is
//! JSON and gives type and length of the content; and the content.

use std::io::{self, ErrorKind};

use dispatch_loop::chat::ChatChannel;
use serde_json::Value;

/// The limit of a content, in bytes.
pub const LIMIT: usize = 1024 * 1024;

/// The size of the header's length, with which a message begins, in bytes.
pub const LENGTH: usize = 2;

pub struct Message {
    content_type: String,
    encoding: String,
    pub content: Vec<u8>,
}

impl Message {
    /// The content if it is JSON; `None` if it is anything else.
    pub fn json(&self) -> io::Result<Option<Value>> {
        if self.content_type != "text/json" {
            return Ok(None);
        }
        if !["utf-8", "utf8"].iter().any(|name| self.encoding.eq_ignore_ascii_case(name)) {
            return Err(malformed(format!("JSON as {:?}: wanted \"utf-8\"", self.encoding)));
        }
        let parsed = serde_json::from_slice(&self.content);
        parsed.map(Some).map_err(|error| malformed(format!("the content is not JSON: {error}")))
    }
}

/// The part of a message that comes next.
#[derive(Default)]
pub enum Receiver {
    #[default]
    Length,
    Header,
    Content(Message),
}

impl Receiver {
    /// Take `data`, the part that was asked for. Ask for the next part by setting the terminator, or return
    /// the complete message.
    pub fn take(&mut self, ch: &mut ChatChannel<'_>, data: &[u8]) -> io::Result<Option<Message>> {
        match std::mem::take(self) {
            Receiver::Length => {
                let length = data.iter().fold(0, |length, &byte| length << 8 | usize::from(byte));
                if length == 0 {
                    return Err(malformed("a header of 0 bytes"));
                }
                ch.set_terminator(length)?;
                *self = Receiver::Header;
                Ok(None)
            }
            Receiver::Header => {
                let (message, length) = header(data)?;
                if length == 0 {
                    return Ok(Some(message)); // already complete
                }
                ch.set_input_limit(LIMIT);
                ch.set_terminator(length)?;
                *self = Receiver::Content(message);
                Ok(None)
            }
            Receiver::Content(message) => Ok(Some(Message { content: data.to_vec(), ..message })),
        }
    }

    /// The stream has ended, and `rest` is what had arrived of the part that was asked for.
    pub fn cut_short(&self, rest: &[u8]) -> io::Error {
        let what = match self {
            Receiver::Length if rest.is_empty() => "before",
            Receiver::Length | Receiver::Header => "in the header of",
            Receiver::Content(_) => "in the content of",
        };
        io::Error::new(ErrorKind::UnexpectedEof, format!("the stream ended {what} a message"))
    }
}

/// A message without its content, and the length of that.
fn header(data: &[u8]) -> io::Result<(Message, usize)> {
    let header: Value = serde_json::from_slice(data)
        .map_err(|error| malformed(format!("the header is not JSON: {error}")))?;
    let field = |name| header.get(name).ok_or_else(|| malformed(format!("the header has no {name:?}")));
    let text = |name| {
        let text = field(name)?.as_str().map(str::to_owned);
        text.ok_or_else(|| malformed(format!("the header's {name:?} is no string")))
    };
    text("byteorder")?; // for numbers in binary contents; those that we know have none
    let (content_type, encoding) = (text("content-type")?, text("content-encoding")?);
    let length = field("content-length")?;
    let length =
        length.as_u64().ok_or_else(|| malformed(format!("a content-length of {}", brief(length))))?;
    match usize::try_from(length) {
        Ok(length @ ..=LIMIT) => Ok((Message { content_type, encoding, content: Vec::new() }, length)),
        _ => Err(malformed(format!("a content of {length} bytes, which is over the limit of {LIMIT}"))),
    }
}

/// The beginning of a peer's JSON, fit for a log.
fn brief(json: &Value) -> String {
    let text: String = json.to_string().chars().take(40).collect();
    text.replace(|c: char| c.is_control(), "?")
}

/// A complete message, ready to be sent.
pub fn message(content_type: &str, encoding: &str, content: &[u8]) -> Vec<u8> {
    let order = if cfg!(target_endian = "little") { "little" } else { "big" };
    let length = content.len();
    let header = format!(
        r#"{{"byteorder": "{order}", "content-type": "{content_type}", "content-encoding": "{encoding}", "content-length": {length}}}"#
    );
    // Both names are the programs' own, and short.
    let header_length = header.len() as u16;
    [&header_length.to_be_bytes(), header.as_bytes(), content].concat()
}

/// A message with a JSON object of strings, written as Python's `json.dumps` does.
pub fn json_message(members: &[(&str, &str)]) -> Vec<u8> {
    let pair = |(name, value): &(&str, &str)| format!("{}: {}", Value::from(*name), Value::from(*value));
    let members: Vec<String> = members.iter().map(pair).collect();
    message("text/json", "utf-8", format!("{{{}}}", members.join(", ")).as_bytes())
}

pub fn malformed(what: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.into())
}
