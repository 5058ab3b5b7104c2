//! What a client asks for: the head of a request, parsed by `httparse`, then checked for what HTTP/1.1
//! (RFC 9112) wants beyond the grammar, and for our limits.

use httparse::{EMPTY_HEADER, Error};

use crate::answer::{BAD_REQUEST, FIELDS_TOO_LARGE, Status, TARGET_TOO_LONG, VERSION_UNKNOWN};

/// Limits of a head and of the target in it, in bytes, and of its fields.
const HEAD: usize = 16 * 1024;
const TARGET: usize = 8 * 1024;
const FIELDS: usize = 100;

/// A method, spaces and empty lines before it have this much room in the first line.
const AROUND_TARGET: usize = 64;

#[derive(Default)]
pub struct Request<'a> {
    pub method: &'a str,
    pub target: &'a str,
    /// HTTP/1.0.
    pub is_old: bool,
    /// A body follows. No request that we answer needs one, and this one is not read: the answer says
    /// so, and ends the connection.
    pub has_body: bool,
    pub range: Option<&'a str>,
    /// Conditions; the lists are empty if they are not there.
    pub if_match: Vec<&'a [u8]>,
    pub if_none_match: Vec<&'a [u8]>,
    pub if_modified_since: Option<&'a str>,
    pub if_unmodified_since: Option<&'a str>,
    pub if_range: Option<&'a str>,
    /// For the log.
    pub referer: Option<&'a [u8]>,
    pub user_agent: Option<&'a [u8]>,
    /// It expects something else than to be told whether to send its body, which our answer does.
    pub expects_more: bool,
    close: bool,
    keep_alive: bool,
}

impl<'a> Request<'a> {
    /// Whether the connection goes on after it.
    pub fn keeps_alive(&self) -> bool {
        !self.close && !self.has_body && (self.keep_alive || !self.is_old)
    }

    fn with(mut self, fields: &[httparse::Header<'a>]) -> Result<Request<'a>, Status> {
        let mut hosts = 0;
        let mut length = None;
        for field in fields {
            let value = field.value;
            let text = std::str::from_utf8(value).ok();
            match field.name.to_ascii_lowercase().as_str() {
                "host" => hosts += 1,
                "connection" => {
                    let has = |option| tokens(value).any(|token| token.eq_ignore_ascii_case(option));
                    self.close |= has(b"close");
                    self.keep_alive |= has(b"keep-alive");
                }
                "content-length" => {
                    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
                    // If two differ, it is unclear where the next request begins.
                    if !is_number || length.replace(value).is_some_and(|other| other != value) {
                        return Err(BAD_REQUEST);
                    }
                    self.has_body |= value.iter().any(|&digit| digit != b'0');
                }
                "transfer-encoding" => self.has_body = true,
                "range" => self.range = text,
                "if-match" => self.if_match.push(value),
                "if-none-match" => self.if_none_match.push(value),
                "if-modified-since" => self.if_modified_since = text,
                "if-unmodified-since" => self.if_unmodified_since = text,
                "if-range" => self.if_range = Some(text.unwrap_or_default()),
                "referer" => self.referer = Some(value),
                "user-agent" => self.user_agent = Some(value),
                "expect" if !self.is_old => self.expects_more |= !value.eq_ignore_ascii_case(b"100-continue"),
                _ => {}
            }
        }
        if hosts > 1 || (hosts == 0 && !self.is_old) {
            return Err(BAD_REQUEST);
        }
        Ok(self)
    }
}

/// The request that `input` begins with, and its length in bytes; `None` if it is not complete. An `Err`
/// is the answer to something that is not a request.
pub fn parse(input: &[u8]) -> Result<Option<(Request<'_>, usize)>, Status> {
    let mut fields = [EMPTY_HEADER; FIELDS];
    let mut head = httparse::Request::new(&mut fields);
    // The same for a method that is not whole and one that is: how a head is cut makes no difference.
    let end_of = |method: &str| method.as_ptr() as usize - input.as_ptr() as usize + method.len();
    let len = match head.parse(input) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => usize::MAX,
        Err(Error::TooManyHeaders) => return Err(FIELDS_TOO_LARGE),
        Err(Error::Version) if head.method.is_some_and(|method| end_of(method) >= AROUND_TARGET) => {
            return Err(BAD_REQUEST);
        }
        Err(Error::Version) => return other_version(input).map_or(Ok(None), Err),
        Err(_) => return Err(BAD_REQUEST),
    };
    let so_far = len.min(input.len());
    match (head.method, head.path) {
        (method, _) if method.map_or(so_far, end_of) >= AROUND_TARGET => Err(BAD_REQUEST),
        (_, None) if so_far > TARGET + AROUND_TARGET => Err(TARGET_TOO_LONG),
        (_, Some(target)) if target.len() > TARGET => Err(TARGET_TOO_LONG),
        (_, Some(_)) if so_far > HEAD => Err(FIELDS_TOO_LARGE),
        (Some(method), Some(target)) if len <= input.len() => {
            let request = Request { method, target, is_old: head.version == Some(0), ..Request::default() };
            Ok(Some((request.with(head.headers)?, len)))
        }
        _ => Ok(None),
    }
}

/// Whether a HEAD is begun, to which no answer has a body. (Behind so many empty lines that there is no request
/// in them there may be one or not, depending on how much has come.)
pub fn is_head(input: &[u8]) -> bool {
    let line = after_empty_lines(input);
    line.starts_with(b"HEAD ") && input.len() - line.len() + "HEAD".len() < AROUND_TARGET
}

/// Without the empty lines that may precede a request.
fn after_empty_lines(mut input: &[u8]) -> &[u8] {
    while let Some(rest) = input.strip_prefix(b"\r\n").or(input.strip_prefix(b"\n")) {
        input = rest;
    }
    input
}

/// The answer to a version of HTTP that is not ours; `None` if it is not all there.
fn other_version(input: &[u8]) -> Option<Status> {
    let line = after_empty_lines(input);
    let Some(end) = line.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return (line.len() > TARGET + AROUND_TARGET).then_some(BAD_REQUEST);
    };
    match line[..end] {
        [.., b' ', b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major != b'1' && major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Some(VERSION_UNKNOWN)
        }
        _ => Some(BAD_REQUEST),
    }
}

/// The members of a list.
pub fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}
