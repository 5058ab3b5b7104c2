//! The answer to a request: a file, a part of one, a listing, or why not. `connection.rs` sends it.

use std::fs::File;
use std::io::{self, Cursor, ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::listing;
use crate::request::Request;
use crate::site::{self, Site, Target};

#[derive(Clone, Copy, PartialEq)]
pub struct Status(pub u16, pub &'static str);

pub const OK: Status = Status(200, "OK");
pub const PARTIAL: Status = Status(206, "Partial Content");
pub const MOVED: Status = Status(301, "Moved Permanently");
pub const NOT_MODIFIED: Status = Status(304, "Not Modified");
pub const BAD_REQUEST: Status = Status(400, "Bad Request");
pub const FORBIDDEN: Status = Status(403, "Forbidden");
pub const NOT_FOUND: Status = Status(404, "Not Found");
pub const NOT_ALLOWED: Status = Status(405, "Method Not Allowed");
pub const REQUEST_TIMEOUT: Status = Status(408, "Request Timeout");
pub const BODY_TOO_LARGE: Status = Status(413, "Content Too Large");
pub const TARGET_TOO_LONG: Status = Status(414, "URI Too Long");
pub const NO_SUCH_RANGE: Status = Status(416, "Range Not Satisfiable");
pub const FIELDS_TOO_LARGE: Status = Status(431, "Request Header Fields Too Large");
pub const UNAVAILABLE: Status = Status(503, "Service Unavailable");

/// Why a file could not be opened.
impl From<io::Error> for Status {
    fn from(error: io::Error) -> Status {
        match (error.kind(), error.raw_os_error()) {
            (ErrorKind::PermissionDenied, _) => FORBIDDEN,
            (_, Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EIO)) => UNAVAILABLE,
            _ => NOT_FOUND,
        }
    }
}

pub struct Answer {
    pub status: Status,
    /// Header fields, each with its `\r\n`.
    pub fields: String,
    pub body: Option<Body>,
}

/// The first `len` bytes that `from` gives.
pub struct Body {
    pub from: Box<dyn Read>,
    pub len: u64,
}

impl Answer {
    fn of_bytes(status: Status, content_type: &str, bytes: Vec<u8>) -> Answer {
        let body = Body { len: bytes.len() as u64, from: Box::new(Cursor::new(bytes)) };
        Answer { status, fields: format!("Content-Type: {content_type}\r\n"), body: Some(body) }
    }

    pub fn error(status: Status) -> Answer {
        let text = format!("{} {}\n", status.0, status.1).into_bytes();
        let answer = Answer::of_bytes(status, "text/plain; charset=utf-8", text);
        if status == NOT_ALLOWED { answer.with("Allow", "GET, HEAD") } else { answer }
    }

    fn with(mut self, field: &str, value: &str) -> Answer {
        self.fields += &format!("{field}: {value}\r\n");
        self
    }
}

/// The answer; an `Err` stands for that of its status.
pub fn to(site: &Site, request: &Request<'_>) -> Result<Answer, Status> {
    if !matches!(request.method, "GET" | "HEAD") {
        return Err(NOT_ALLOWED);
    }
    if request.has_body {
        return Err(BODY_TOO_LARGE);
    }
    let Target { path, ends_in_slash } = Target::parse(request.target)?;
    let file = site.open(&path)?;
    let about = file.metadata()?;
    if about.is_file() && !ends_in_slash {
        return of_file(request, file, &path);
    }
    if !about.is_dir() {
        return Err(NOT_FOUND);
    }
    if !ends_in_slash {
        let names = path.iter().map(|name| format!("/{}", site::encode(name.as_bytes())));
        return Ok(Answer::error(MOVED).with("Location", &(names.collect::<String>() + "/")));
    }
    let index = path.join("index.html");
    match site.open(&index) {
        Ok(file) if file.metadata()?.is_file() => of_file(request, file, &index),
        _ => {
            let page = listing::page(site, &file, &path)?;
            Ok(Answer::of_bytes(OK, "text/html; charset=utf-8", page.into_bytes()))
        }
    }
}

fn of_file(request: &Request<'_>, mut file: File, path: &Path) -> Result<Answer, Status> {
    let about = file.metadata()?;
    let (len, time) = (about.len(), about.modified()?);
    let modified = http_date(time);
    let answer = Answer { status: OK, fields: String::new(), body: None }
        .with("Last-Modified", &modified)
        .with("Accept-Ranges", "bytes");

    let since = request.if_modified_since.and_then(|date| httpdate::parse_http_date(date).ok());
    // Their date is in whole seconds.
    if since.is_some_and(|since| time < since + Duration::from_secs(1)) {
        return Ok(Answer { status: NOT_MODIFIED, ..answer });
    }
    // A range is for GET, for the file that the client has a part of, and for one that has bytes.
    let asked = request.range.filter(|_| {
        request.method == "GET" && request.if_range.is_none_or(|date| date == modified) && len > 0
    });
    let (status, range) = match asked.and_then(|asked| range(asked, len)) {
        Some(range) if range.is_empty() => {
            return Ok(Answer::error(NO_SUCH_RANGE).with("Content-Range", &format!("bytes */{len}")));
        }
        Some(range) => (PARTIAL, range),
        None => (OK, 0..len),
    };
    let mut answer = answer.with("Content-Type", site::content_type(path));
    if status == PARTIAL {
        let Range { start, end } = range;
        file.seek(SeekFrom::Start(start))?;
        answer = answer.with("Content-Range", &format!("bytes {start}-{}/{len}", end - 1));
    }
    let body = Body { from: Box::new(file), len: range.end - range.start };
    Ok(Answer { status, body: Some(body), ..answer })
}

/// Which of `len` bytes are asked for; an empty range if none of them are. `None` for what we do not
/// understand, and for several ranges at once: both may be answered with the whole file.
fn range(asked: &str, len: u64) -> Option<Range<u64>> {
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let (unit, range) = asked.split_once('=')?;
    let (first, last) = range.split_once('-')?;
    match (first, last) {
        _ if !unit.eq_ignore_ascii_case("bytes") => None,
        ("", count) => Some(len.saturating_sub(number(count)?)..len),
        (first, "") => Some(number(first)?.min(len)..len),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then(|| first.min(len)..last.saturating_add(1).min(len))
        }
    }
}

/// A date as HTTP writes it. Files can be older than 1970 or newer than 9999, such dates cannot.
pub fn http_date(time: SystemTime) -> String {
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    httpdate::fmt_http_date(UNIX_EPOCH + since_1970.min(LAST))
}
