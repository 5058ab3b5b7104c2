//! Fetching one page of a server's statistics: HTTP, one request a connection.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::Duration;

use dispatch_loop::{Channel, ChannelMap, Dispatcher, Eof, OnError, Reason};

/// How long a server may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// A larger answer is not read.
const MOST: usize = 1024 * 1024;

/// Ask `address` for `path`, and call `then` with the answer's body, or why there is none.
pub fn fetch(
    map: &mut ChannelMap,
    address: &str,
    path: &str,
    then: impl FnOnce(&mut ChannelMap, Result<String, String>) + 'static,
) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let then: Then = Rc::new(Cell::new(Some(Box::new(then))));
    let fetch = Fetch { answer: Vec::new(), failure: None, then: then.clone() };
    let begun = map.connect(address, fetch).and_then(|handle| {
        let mut ch = map.channel(handle)?;
        ch.set_timeout(Some(PATIENCE));
        ch.push(request.as_bytes())
    });
    if let Err(error) = begun {
        if let Some(then) = then.take() {
            then(map, Err(error.to_string()));
        }
    }
}

/// Called once, by whoever knows the outcome.
type Then = Rc<Cell<Option<Box<dyn FnOnce(&mut ChannelMap, Result<String, String>)>>>>;

struct Fetch {
    answer: Vec<u8>,
    failure: Option<String>,
    then: Then,
}

impl Dispatcher for Fetch {
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|_, data| {
            self.answer.extend_from_slice(data);
            match self.answer.len() > MOST {
                true => Err(io::Error::new(ErrorKind::InvalidData, "the answer is too long")),
                false => Ok(()),
            }
        })
    }

    fn handle_eof(&mut self, _: &mut Channel<'_>) -> io::Result<Eof> {
        Ok(Eof::Close)
    }

    fn handle_error(&mut self, ch: &mut Channel<'_>, error: &io::Error) -> OnError {
        self.failure = Some(error.to_string());
        ch.abort();
        OnError::Keep
    }

    fn handle_close(&mut self, ch: &mut Channel<'_>, reason: &Reason) {
        let result = match (self.failure.take(), reason) {
            (Some(why), _) => Err(why),
            (None, Reason::EndOfStream) => body(&self.answer),
            (None, reason) => Err(reason.to_string()),
        };
        if let Some(then) = self.then.take() {
            then(ch.map_mut(), result);
        }
    }
}

/// The body of an answer that went well.
fn body(answer: &[u8]) -> Result<String, String> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let parsed = head.parse(answer).map_err(|error| format!("this is no HTTP: {error}"))?;
    let httparse::Status::Complete(len) = parsed else { return Err("the answer was cut short".to_owned()) };
    match head.code {
        Some(200) => Ok(String::from_utf8_lossy(&answer[len..]).into_owned()),
        code => Err(format!("status {}", code.unwrap_or(0))),
    }
}
