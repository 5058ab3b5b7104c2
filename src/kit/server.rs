//! Who answers the connects of a map for testing.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::clock::{self, Time};
use crate::kit::peer::Peer;

/// Answers every connect of a map for testing, whatever its address, as the test has told it; nothing leaves the
/// process, and no name is looked up.
///
/// At first it accepts every one at once. What [`refuse`](Server::refuse), [`fail`](Server::fail),
/// [`ignore`](Server::ignore) and [`accept`](Server::accept) say is done in that order, each for as many connects
/// as it says; after the last it accepts again. Clones are the same server.
///
/// ```
/// use dispatch_loop::{Channel, Dispatcher, Reason, testing};
/// use std::io;
///
/// struct Client;
///
/// impl Dispatcher for Client {
///     fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
///         ch.push(b"hello")
///     }
///     fn handle_close(&mut self, ch: &mut Channel<'_>, reason: &Reason) {
///         if let Reason::Error(_) = reason {
///             ch.map_mut().connect("example.org:80", Client).unwrap();
///         }
///     }
/// }
///
/// let mut map = testing::map()?;
/// let server = testing::server(&mut map);
/// server.refuse(2).on_accept(|peer| {
///     peer.fin();
/// });
/// map.connect("example.org:80", Client)?;
/// dispatch_loop::run(&mut map)?;
/// assert_eq!(server.tries().len(), 3);
/// assert_eq!(server.accepted()[0].sent(), b"hello");
/// # io::Result::Ok(())
/// ```
#[derive(Clone)]
pub struct Server(pub(super) Rc<RefCell<State>>);

#[derive(Default)]
pub(super) struct State {
    script: VecDeque<(usize, Answer)>,
    delay: Duration,
    greet: Option<Greet>,
    tries: Vec<Try>,
    accepted: Vec<Peer>,
}

/// What each new peer is told to do.
type Greet = Rc<dyn Fn(&Peer)>;

/// What becomes of a connect.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    Accept,
    Fail(Failure),
    Ignore,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Failure {
    Refused,
    Of(io::ErrorKind),
}

impl Failure {
    pub(crate) fn error(self) -> io::Error {
        match self {
            Failure::Refused => Errno::CONNREFUSED.into(),
            Failure::Of(kind) => kind.into(),
        }
    }
}

/// A connect that was tried: see [`Server::tries`].
///
/// ```
/// use dispatch_loop::{Dispatcher, testing};
///
/// struct Quiet;
/// impl Dispatcher for Quiet {}
///
/// let mut map = testing::map()?;
/// let server = testing::server(&mut map);
/// map.connect("example.org:80", Quiet)?;
/// let first: testing::Try = server.tries()[0].clone();
/// assert_eq!(first.address, "example.org:80");
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Try {
    /// When, by the [clock of the map](crate::ChannelMap::now).
    pub at: Instant,
    /// To where, as text: `"192.0.2.1:80"`, `"example.org:80"`.
    pub address: String,
}

impl Server {
    pub(super) fn new() -> Server {
        Server(Rc::default())
    }

    fn then(&self, times: usize, answer: Answer) -> &Server {
        self.0.borrow_mut().script.push_back((times, answer));
        self
    }

    /// Accept so many.
    pub fn accept(&self, times: usize) -> &Server {
        self.then(times, Answer::Accept)
    }

    /// Refuse so many, with `ECONNREFUSED`.
    pub fn refuse(&self, times: usize) -> &Server {
        self.then(times, Answer::Fail(Failure::Refused))
    }

    /// Have so many fail with an error of this kind.
    pub fn fail(&self, times: usize, kind: io::ErrorKind) -> &Server {
        self.then(times, Answer::Fail(Failure::Of(kind)))
    }

    /// Answer so many not at all: a time-out of the channel's own ends them, if it has one.
    pub fn ignore(&self, times: usize) -> &Server {
        self.then(times, Answer::Ignore)
    }

    /// How long each answer takes from now on (default: no time).
    pub fn set_delay(&self, delay: Duration) -> &Server {
        self.0.borrow_mut().delay = delay;
        self
    }

    /// Call `f` with each peer that is made for an accepted connect, for its script.
    pub fn on_accept(&self, f: impl Fn(&Peer) + 'static) -> &Server {
        self.0.borrow_mut().greet = Some(Rc::new(f));
        self
    }

    /// Every connect so far, in order.
    #[must_use]
    pub fn tries(&self) -> Vec<Try> {
        self.0.borrow().tries.clone()
    }

    /// The peers of the connects that were accepted so far, in order.
    #[must_use]
    pub fn accepted(&self) -> Vec<Peer> {
        self.0.borrow().accepted.clone()
    }

    /// Somebody connects: what is the answer, and when?
    pub(crate) fn is_asked(&self, address: String) -> (Answer, Time) {
        let now = clock::now();
        let mut state = self.0.borrow_mut();
        state.tries.push(Try { at: now.instant(), address });
        while state.script.front().is_some_and(|(times, _)| *times == 0) {
            state.script.pop_front();
        }
        let answer = match state.script.front_mut() {
            Some((times, answer)) => {
                *times -= 1;
                *answer
            }
            None => Answer::Accept,
        };
        (answer, now.after(state.delay))
    }

    /// A connect was accepted.
    pub(crate) fn has_accepted(&self, peer: Peer) {
        self.0.borrow_mut().accepted.push(peer.clone());
        let greet = self.0.borrow().greet.clone();
        if let Some(greet) = greet {
            greet(&peer);
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.borrow();
        f.debug_struct("Server")
            .field("script", &state.script)
            .field("delay", &state.delay)
            .field("tries", &state.tries)
            .field("accepted", &state.accepted.len())
            .finish_non_exhaustive()
    }
}
