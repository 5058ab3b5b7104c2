//! A client that connects again when its connection ends or its connect fails: Twisted's
//! `ReconnectingClientFactory`.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::{
    Channel, ChannelMap, ConnectOptions, Dispatcher, DrainState, Reason, TimerId, ToAddress, Token, Wrapper,
};

/// How long to wait before the next attempt. Each wait is longer than the one before, and partly random,
/// so that the clients of a server that comes back do not all reconnect at once.
///
/// ```
/// use dispatch_loop::reconnect::Backoff;
/// use std::time::Duration;
///
/// let patient = Backoff::default().with_longest(Duration::from_secs(600)).with_jitter(0.2);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Backoff {
    /// The first wait (0.5 s).
    pub first: Duration,
    /// Each further wait is this many times as long as the one before (2).
    pub factor: f64,
    /// The longest wait (60 s).
    pub longest: Duration,
    /// The random share of a wait, from 0 to 1: each is shortened by up to this much of it (0.5).
    pub jitter: f64,
    /// After a connection that was open for this long (10 s), the waits start over.
    pub steady: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff {
            first: Duration::from_millis(500),
            factor: 2.0,
            longest: Duration::from_secs(60),
            jitter: 0.5,
            steady: Duration::from_secs(10),
        }
    }
}

impl Backoff {
    /// Sets [`first`](Backoff::first).
    pub fn with_first(mut self, wait: Duration) -> Self {
        self.first = wait;
        self
    }

    /// Sets [`factor`](Backoff::factor). Less than 1 counts as 1.
    pub fn with_factor(mut self, factor: f64) -> Self {
        self.factor = factor;
        self
    }

    /// Sets [`longest`](Backoff::longest).
    pub fn with_longest(mut self, wait: Duration) -> Self {
        self.longest = wait;
        self
    }

    /// Sets [`jitter`](Backoff::jitter), clamped to the range from 0 to 1.
    pub fn with_jitter(mut self, share: f64) -> Self {
        self.jitter = share;
        self
    }

    /// Sets [`steady`](Backoff::steady).
    pub fn with_steady(mut self, open: Duration) -> Self {
        self.steady = open;
        self
    }

    /// How long to wait after this many failures in a row; `random` is from 0 to 1.
    fn wait(&self, failures: u32, random: f64) -> Duration {
        let growth = self.factor.max(1.0).powi(failures.min(1000) as i32);
        let longest = self.longest.as_secs_f64();
        let wait = (self.first.as_secs_f64() * growth).min(longest);
        let wait = wait * (1.0 - self.jitter.clamp(0.0, 1.0) * random);
        Duration::try_from_secs_f64(wait).unwrap_or(self.longest)
    }
}

/// Connects to `address`, and connects again whenever the connection ends.
///
/// `make` is called before each attempt, the first time right away, with the reason why the last
/// connection or attempt ended (`None` the first time). It returns the dispatcher for the next attempt,
/// or `None` to stop for good. It is also called after a dispatcher has closed its own channel
/// ([`Reason::Closed`]). No further connection is made after
/// [`replace_dispatcher`](crate::Channel::replace_dispatcher), nor after a panic in `make`, nor in a map whose
/// [drain](ChannelMap::drain) has come to close what is idle.
///
/// ```
/// use dispatch_loop::reconnect::{self, Backoff};
/// use dispatch_loop::{Channel, ChannelMap, Dispatcher, Reason};
/// use std::io;
///
/// struct Report;
///
/// impl Dispatcher for Report {
///     fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
///         ch.push(b"all is well\n")?;
///         ch.close();
///         Ok(())
///     }
/// }
///
/// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// # let address = listener.local_addr()?;
/// let mut map = ChannelMap::new()?;
/// reconnect::connect(&mut map, address, Backoff::default(), |_, ended| match ended {
///     Some(Reason::Closed) => None,                       // it has reported, and is done
///     _ => Some(Report),
/// })?;
/// dispatch_loop::run(&mut map)?;
/// # io::Result::Ok(())
/// ```
///
/// # Errors
/// Those of [`ChannelMap::connect`], for the first attempt: an unusable address.
pub fn connect<D, A, F>(map: &mut ChannelMap, address: A, backoff: Backoff, make: F) -> io::Result<Client>
where
    D: Dispatcher,
    A: ToAddress + 'static,
    F: FnMut(&mut ChannelMap, Option<&Reason>) -> Option<D> + 'static,
{
    connect_with(map, address, ConnectOptions::default(), backoff, make)
}

/// Like [`connect`], with options.
///
/// # Errors
/// Those of [`connect`].
pub fn connect_with<D, A, F>(
    map: &mut ChannelMap,
    address: A,
    options: ConnectOptions,
    backoff: Backoff,
    mut make: F,
) -> io::Result<Client>
where
    D: Dispatcher,
    A: ToAddress + 'static,
    F: FnMut(&mut ChannelMap, Option<&Reason>) -> Option<D> + 'static,
{
    let client = Client(Rc::new(RefCell::new(State::default())));
    let (of, to) = (Rc::downgrade(&client.0), Rc::new((address, options)));
    let next = move |map: &mut ChannelMap, ended: Option<&Reason>| {
        let client = Client(of.upgrade()?);
        let attempt = Attempt { dispatcher: make(map, ended)?, client, opened: None };
        let to = to.clone();
        let begin = move |map: &mut ChannelMap| Ok(map.connect_with(&to.0, &to.1, attempt)?.token());
        Some(Box::new(begin) as Begin)
    };
    {
        let mut state = client.0.borrow_mut();
        state.backoff = backoff;
        state.next = Some(Box::new(next));
    }
    if let Some(begin) = client.ask(map, None) {
        client.begin(map, begin)?;
    }
    Ok(client)
}

/// A client made by [`connect`]: tells its current channel, and stops it. Dropping this does not stop the
/// client.
///
/// ```
/// use dispatch_loop::reconnect::{self, Backoff};
/// use dispatch_loop::{ChannelMap, Dispatcher};
/// use std::time::Duration;
///
/// struct Quiet;
/// impl Dispatcher for Quiet {}
///
/// let mut map = ChannelMap::new()?;
/// let client = reconnect::connect(&mut map, "127.0.0.1:9", Backoff::default(), |_, _| Some(Quiet))?;
/// map.call_later(Duration::from_millis(50), move |map| client.stop(map));
/// dispatch_loop::run(&mut map)?;
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone)]
pub struct Client(Rc<RefCell<State>>);

/// Asks for the next dispatcher, and returns what starts its attempt.
type Next = Box<dyn FnMut(&mut ChannelMap, Option<&Reason>) -> Option<Begin>>;
type Begin = Box<dyn FnOnce(&mut ChannelMap) -> io::Result<Token>>;

#[derive(Default)]
struct State {
    backoff: Backoff,
    /// `None` while it runs, and once it has stopped.
    next: Option<Next>,
    token: Option<Token>,
    timer: Option<TimerId>,
    /// Failed attempts and short connections in a row.
    failures: u32,
    stopped: bool,
}

impl Client {
    /// The channel of the current attempt or connection; `None` between two of them.
    pub fn token(&self) -> Option<Token> {
        self.0.borrow().token
    }

    /// Stops reconnecting, and closes the current connection.
    pub fn stop(&self, map: &mut ChannelMap) {
        let (token, timer, next) = {
            let mut state = self.0.borrow_mut();
            state.stopped = true;
            (state.token.take(), state.timer.take(), state.next.take())
        };
        drop(next);
        if let Some(timer) = timer {
            map.cancel(timer);
        }
        if let Some(Ok(mut channel)) = token.map(|token| map.channel(token)) {
            channel.close();
        }
    }

    /// Ask the user for the next dispatcher. The closure may call `stop`.
    fn ask(&self, map: &mut ChannelMap, ended: Option<&Reason>) -> Option<Begin> {
        let mut next = self.0.borrow_mut().next.take()?;
        let begin = next(map, ended)?;
        let mut state = self.0.borrow_mut();
        if state.stopped {
            return None;
        }
        state.next = Some(next);
        Some(begin)
    }

    fn begin(&self, map: &mut ChannelMap, begin: Begin) -> io::Result<()> {
        let token = begin(map)?;
        self.0.borrow_mut().token = Some(token);
        Ok(())
    }

    /// An attempt has failed, or a connection has ended.
    fn ended(&self, map: &mut ChannelMap, reason: &Reason, open_for: Option<Duration>) {
        self.0.borrow_mut().token = None;
        if matches!(reason, Reason::MapEnded) || map.drain_state() == DrainState::Draining {
            return;
        }
        let Some(begin) = self.ask(map, Some(reason)) else { return };
        let delay = {
            let mut state = self.0.borrow_mut();
            if open_for.is_some_and(|time| time >= state.backoff.steady) {
                state.failures = 0;
            }
            state.failures += 1;
            let random = map.random() as f64 / u64::MAX as f64;
            state.backoff.wait(state.failures - 1, random)
        };
        let client = self.clone();
        let timer = map.call_later(delay, move |map| {
            client.0.borrow_mut().timer = None;
            if map.drain_state() == DrainState::Draining {
                return;
            }
            if let Err(error) = client.begin(map, begin) {
                client.ended(map, &Reason::from(error), None);
            }
        });
        self.0.borrow_mut().timer = Some(timer);
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.borrow();
        f.debug_struct("Client")
            .field("token", &state.token)
            .field("failures", &state.failures)
            .field("stopped", &state.stopped)
            .finish()
    }
}

/// The dispatcher of one attempt, around the user's own.
///
/// ```
/// use dispatch_loop::reconnect::{self, Attempt, Backoff};
/// use dispatch_loop::{ChannelMap, Dispatcher};
///
/// struct Counter(u32);
/// impl Dispatcher for Counter {}
///
/// let mut map = ChannelMap::new()?;
/// let client = reconnect::connect(&mut map, "127.0.0.1:9", Backoff::default(), |_, _| Some(Counter(7)))?;
/// let handle = client.token().unwrap().typed::<Attempt<Counter>>();
/// assert_eq!(map.get(handle)?.inner().0, 7);
/// # std::io::Result::Ok(())
/// ```
pub struct Attempt<D> {
    dispatcher: D,
    client: Client,
    opened: Option<Instant>,
}

impl<D: Dispatcher> Attempt<D> {
    /// The dispatcher that `make` returned.
    pub fn inner(&self) -> &D {
        &self.dispatcher
    }

    /// The dispatcher that `make` returned, mutably.
    pub fn inner_mut(&mut self) -> &mut D {
        &mut self.dispatcher
    }
}

impl<D: Dispatcher> Wrapper for Attempt<D> {
    type Inner = D;

    fn inner(&self) -> &D {
        self.inner()
    }

    fn inner_mut(&mut self) -> &mut D {
        self.inner_mut()
    }

    fn opened(&mut self, ch: &mut Channel<'_>) {
        self.opened = Some(ch.map().now());
    }

    fn closed(&mut self, ch: &mut Channel<'_>, reason: &Reason) {
        let open_for = self.opened.map(|opened| ch.map().now() - opened);
        self.client.ended(ch.map_mut(), reason, open_for);
    }
}

impl<D: fmt::Debug> fmt::Debug for Attempt<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Attempt").field(&self.dispatcher).finish()
    }
}
