//! The answer to a request: a file, a part of one, a listing, or why not. `connection.rs` sends it.

use std::fs::File;
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::conditions::Version;
use crate::listings::Directory;
use crate::request::Request;
use crate::site::{self, Site, Target};

#[derive(Clone, Copy, PartialEq, Eq)]
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
pub const PRECONDITION_FAILED: Status = Status(412, "Precondition Failed");
pub const BODY_TOO_LARGE: Status = Status(413, "Content Too Large");
pub const TARGET_TOO_LONG: Status = Status(414, "URI Too Long");
pub const NO_SUCH_RANGE: Status = Status(416, "Range Not Satisfiable");
pub const EXPECTATION_FAILED: Status = Status(417, "Expectation Failed");
pub const FIELDS_TOO_LARGE: Status = Status(431, "Request Header Fields Too Large");
pub const UNAVAILABLE: Status = Status(503, "Service Unavailable");
pub const VERSION_UNKNOWN: Status = Status(505, "HTTP Version Not Supported");

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

/// What a request leads to.
pub enum Reply {
    Now(Answer),
    Listing(Directory),
}

pub struct Answer {
    pub status: Status,
    /// Header fields, each with its `\r\n`.
    pub fields: String,
    pub body: Option<Body>,
}

pub enum Body {
    Bytes(Vec<u8>),
    /// Shared by all that are sent it.
    Page(Arc<[u8]>),
    /// The next `len` bytes of a file.
    File {
        from: File,
        len: u64,
    },
}

impl Body {
    pub fn len(&self) -> u64 {
        match self {
            Body::Bytes(bytes) => bytes.len() as u64,
            Body::Page(page) => page.len() as u64,
            Body::File { len, .. } => *len,
        }
    }
}

impl Answer {
    pub fn error(status: Status) -> Answer {
        let body = Body::Bytes(format!("{} {}\n", status.0, status.1).into_bytes());
        let answer = Answer { status, fields: String::new(), body: Some(body) };
        let answer = answer.with("Content-Type", "text/plain; charset=utf-8");
        if status == NOT_ALLOWED { answer.with("Allow", "GET, HEAD") } else { answer }
    }

    /// A listing. For a HEAD it is not made, and then we do not know how long it is.
    pub fn listing(page: Option<Arc<[u8]>>) -> Answer {
        let answer = Answer { status: OK, fields: String::new(), body: page.map(Body::Page) };
        answer.with("Content-Type", "text/html; charset=utf-8")
    }

    fn with(mut self, field: &str, value: &str) -> Answer {
        self.fields += &format!("{field}: {value}\r\n");
        self
    }
}

/// The answer; an `Err` stands for that of its status.
pub fn to(site: &Site, request: &Request<'_>) -> Result<Reply, Status> {
    if !matches!(request.method, "GET" | "HEAD") {
        return Err(NOT_ALLOWED);
    }
    if request.expects_more {
        return Err(EXPECTATION_FAILED);
    }
    if request.has_body {
        return Err(BODY_TOO_LARGE);
    }
    let Target { path, ends_in_slash } = Target::parse(request.target)?;
    let file = site.open(&path)?;
    let about = file.metadata()?;
    if about.is_file() && !ends_in_slash {
        return of_file(request, file, &path).map(Reply::Now);
    }
    if !about.is_dir() {
        return Err(NOT_FOUND);
    }
    if !ends_in_slash {
        let names = path.iter().map(|name| format!("/{}", site::encode(name.as_bytes())));
        let location = names.collect::<String>() + "/";
        return Ok(Reply::Now(Answer::error(MOVED).with("Location", &location)));
    }
    let index = path.join("index.html");
    match site.open(&index) {
        Ok(file) if file.metadata()?.is_file() => of_file(request, file, &index).map(Reply::Now),
        _ => Ok(Reply::Listing(Directory { path, modified: about.modified()?, dir: site::names(&file)? })),
    }
}

fn of_file(request: &Request<'_>, mut file: File, path: &Path) -> Result<Answer, Status> {
    let about = file.metadata()?;
    let (len, version) = (about.len(), Version::of(&about)?);
    let answer = Answer { status: OK, fields: String::new(), body: None }
        .with("Last-Modified", &version.modified)
        .with("ETag", &version.tag)
        .with("Accept-Ranges", "bytes");
    match version.check(request) {
        Err(NOT_MODIFIED) => return Ok(Answer { status: NOT_MODIFIED, ..answer }),
        checked => checked?,
    }
    // A range is for GET, for the file that the client has a part of, and for one that has bytes.
    let asked = request.range.filter(|_| request.method == "GET" && version.allows_range(request) && len > 0);
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
    let body = Body::File { from: file, len: range.end - range.start };
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
