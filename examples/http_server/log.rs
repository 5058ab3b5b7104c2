//! The access log: a line for each answer, in the combined format of NCSA and Apache, at `--log info`.

use std::fmt::Write as _;
use std::time::SystemTime;

use dispatch_loop::Channel;

use crate::answer::{self, Answer, Body};
use crate::request::Request;

/// Log the answer to a request, or to something that is none.
pub fn note(ch: &Channel<'_>, request: Option<&Request<'_>>, answer: &Answer) {
    if !log::log_enabled!(log::Level::Info) {
        return;
    }
    let host = ch.peer_addr().ok().and_then(|peer| peer.ip()).map(|peer| peer.ip().to_string());
    let host = host.as_deref().unwrap_or("-");
    let line = request.map_or("-".to_owned(), |request| {
        let version = if request.is_old { "1.0" } else { "1.1" };
        format!("{} {} HTTP/{version}", quoted(request.method.as_bytes()), quoted(request.target.as_bytes()))
    });
    let field = |field: Option<&[u8]>| field.map_or("-".to_owned(), quoted);
    let referer = field(request.and_then(|request| request.referer));
    let agent = field(request.and_then(|request| request.user_agent));
    let bytes = match answer.body.as_ref().map_or(0, Body::len) {
        0 => "-".to_owned(),
        bytes => bytes.to_string(),
    };
    let (status, date) = (answer.status.0, date(SystemTime::now()));
    log::info!(target: "access", "{host} - - [{date}] \"{line}\" {status} {bytes} \"{referer}\" \"{agent}\"");
}

/// As HTTP has it, in the order of the log: `21/Nov/2026:20:15:08 +0000`.
fn date(time: SystemTime) -> String {
    let date = answer::http_date(time);
    match date.split(' ').collect::<Vec<_>>()[..] {
        [_, day, month, year, time, _] => format!("{day}/{month}/{year}:{time} +0000"),
        _ => date,
    }
}

/// Without anything that would end the quotes or the line, or that a terminal could take for more than text.
fn quoted(text: &[u8]) -> String {
    let mut quoted = String::new();
    for &byte in text {
        match byte {
            b'"' | b'\\' => quoted.extend(['\\', char::from(byte)]),
            b' '..=b'~' => quoted.push(char::from(byte)),
            // It does not fail.
            _ => drop(write!(quoted, "\\x{byte:02x}")),
        }
    }
    quoted
}
