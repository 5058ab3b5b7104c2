//! The new process: asks for the listeners.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::rc::Rc;

use super::connection::Announced;
use super::predecessor::Estate;
use super::wire::Wire;
use super::{ALL, ANSWER, BUSY, CONNECTION, LISTENER, OWN, QUESTION, TAKEN, unclear};
use crate::{Channel, ChannelMap, Dispatcher, OnError, Reason, Socket};

/// What a process has taken from its predecessor: [`request`] returns it, and [`offer`](super::offer) confirms it.
/// Dropped before that, it leaves everything as it was.
///
/// ```
/// let taken = dispatch_loop::hand_over::request("/nonexistent/take-over")?;
/// assert!(taken.is_empty());                  // nobody is there to take over from
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug, Default)]
#[must_use = "without `offer`, the old process goes on"]
pub struct Taken {
    listeners: Vec<(String, Socket)>,
    predecessor: Option<Socket>,
}

impl Taken {
    /// Take out the listeners of this name, in the order of the addresses, for [`ChannelMap::add`]. What is left
    /// is closed in this process.
    pub fn take(&mut self, name: &str) -> Vec<Socket> {
        let all = std::mem::take(&mut self.listeners);
        let (these, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|(own, _)| own == name);
        self.listeners = others;
        these.into_iter().map(|(_, socket)| socket).collect()
    }

    /// Whether there was nobody to take over from.
    pub fn is_empty(&self) -> bool {
        self.predecessor.is_none()
    }

    /// The socket on which successors ask.
    pub(super) fn own(&mut self) -> Option<Socket> {
        self.take(OWN).pop()
    }

    /// Say that this process is ready: the old one accepts nothing from now on. `false` if there is none.
    pub(super) fn confirm(self, map: &mut ChannelMap, estate: Rc<RefCell<Estate>>) -> io::Result<bool> {
        let Some(predecessor) = self.predecessor else { return Ok(false) };
        let handle = map.add(predecessor, Farewell { estate, wire: Wire::default(), announced: None })?;
        let mut ch = map.channel(handle)?;
        ch.set_background(true);
        ch.set_timeout(Some(ANSWER));
        ch.push(format!("{TAKEN}\n").as_bytes())?;
        ch.shutdown_write();
        Ok(true)
    }
}

/// Until the old process ends the conversation: connections may come.
struct Farewell {
    estate: Rc<RefCell<Estate>>,
    wire: Wire,
    /// One that comes, and what has not come of it.
    announced: Option<Announced>,
}

impl Farewell {
    /// `false` if more must come.
    fn go_on(&mut self, ch: &mut Channel<'_>) -> io::Result<bool> {
        let Some(announced) = self.announced.take() else {
            let Some(line) = self.wire.line()? else { return Ok(false) };
            let lengths = line.strip_prefix(CONNECTION).ok_or_else(|| unclear(&line))?;
            let socket = Socket::from_fd(self.wire.descriptor()?)?;
            self.announced = Some(Announced::new(socket, lengths).ok_or_else(|| unclear(&line))?);
            return Ok(true);
        };
        let Some(bytes) = self.wire.bytes(announced.len()) else {
            self.announced = Some(announced);
            return Ok(false);
        };
        let connections = self.estate.borrow_mut().connections.take();
        if let Some(mut connections) = connections {
            let taken = connections.take(ch.map_mut(), announced.with(bytes));
            self.estate.borrow_mut().connections = Some(connections);
            if let Err(error) = taken {
                log::warn!("a connection of the predecessor is closed: {error}");
            }
        }
        Ok(true)
    }
}

impl Dispatcher for Farewell {
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.wire.read(ch)?;
        while self.go_on(ch)? {}
        Ok(())
    }
}

/// Ask the process that offers its listeners at `path` for them; nothing, if there is none. That goes on as before,
/// until [`offer`](super::offer).
///
/// This waits, at most 10 s: call it before the loop runs.
///
/// # Errors
/// There is a process, but it does not answer, or gives its listeners to another one just now (`ResourceBusy`); the
/// path is none, or not allowed.
pub fn request(path: impl AsRef<Path>) -> io::Result<Taken> {
    let path = path.as_ref();
    let answer = Rc::<RefCell<Option<io::Result<Taken>>>>::default();
    let mut map = ChannelMap::new()?;
    map.connect(path, Heir { answer: answer.clone(), taken: Taken::default(), wire: Wire::default() })?;
    crate::run(&mut map)?;
    let about = |error: io::Error| {
        io::Error::new(error.kind(), format!("cannot take over at {}: {error}", path.display()))
    };
    match answer.take() {
        Some(Ok(taken)) => Ok(taken),
        Some(Err(error)) if is_nobody(&error) => Ok(Taken::default()),
        Some(Err(error)) => Err(about(error)),
        None => Err(about(io::Error::new(ErrorKind::UnexpectedEof, "no answer"))),
    }
}

fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
}

struct Heir {
    answer: Rc<RefCell<Option<io::Result<Taken>>>>,
    taken: Taken,
    wire: Wire,
}

impl Heir {
    fn line(&mut self, ch: &mut Channel<'_>, line: &str) -> io::Result<()> {
        if let Some(name) = line.strip_prefix(LISTENER) {
            let listener = Socket::from_fd(self.wire.descriptor()?)?;
            self.taken.listeners.push((name.to_owned(), listener));
            return Ok(());
        }
        match line {
            ALL => {
                let mut taken = std::mem::take(&mut self.taken);
                taken.predecessor = Some(ch.detach()?.socket);
                *self.answer.borrow_mut() = Some(Ok(taken));
                Ok(())
            }
            BUSY => Err(io::Error::new(ErrorKind::ResourceBusy, "another process is taking over")),
            line => Err(unclear(line)),
        }
    }

    fn failed(&self, why: impl FnOnce() -> io::Error) {
        self.answer.borrow_mut().get_or_insert_with(|| Err(why()));
    }
}

impl Dispatcher for Heir {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.set_timeout(Some(ANSWER));
        ch.push(format!("{QUESTION}\n").as_bytes())
    }

    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.wire.read(ch)?;
        while let Some(line) = self.wire.line()? {
            self.line(ch, &line)?;
        }
        Ok(())
    }

    fn handle_error(&mut self, _: &mut Channel<'_>, error: &io::Error) -> OnError {
        self.failed(|| io::Error::new(error.kind(), error.to_string()));
        OnError::End
    }

    fn handle_close(&mut self, _: &mut Channel<'_>, reason: &Reason) {
        self.failed(|| match reason {
            Reason::TimedOut => io::Error::new(ErrorKind::TimedOut, "no answer in 10 s"),
            reason => io::Error::new(ErrorKind::UnexpectedEof, format!("no whole answer: {reason}")),
        });
    }
}
