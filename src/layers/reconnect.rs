//! A client that connects again when its connection ends, or never came about: Twisted's
//! `ReconnectingClientFactory`.

use std::cell::RefCell;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::{Channel, ChannelMap, ConnectOptions, Dispatcher, Reason, TimerId, ToAddress, Token, Wrapper};

/// How long to wait before the next attempt: longer each time, and never quite the same, so that the
/// clients of a server that comes back do not all come at once.
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
    /// The share of a wait, from 0 to 1, by which it may be shorter at random (0.5).
    pub jitter: f64,
    /// After a connection that was open this long (10 s), the waits begin anew.
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
    /// Sets the [`first`](Backoff::first) wait.
    pub fn with_first(mut self, wait: Duration) -> Self {
        self.first = wait;
        self
    }

    /// Sets the [`factor`](Backoff::factor) by which waits grow; less than 1 counts as 1.
    pub fn with_factor(mut self, factor: f64) -> Self {
        self.factor = factor;
        self
    }

    /// Sets the [`longest`](Backoff::longest) wait.
    pub fn with_longest(mut self, wait: Duration) -> Self {
        self.longest = wait;
        self
    }

    /// Sets the [`jitter`](Backoff::jitter); what is not from 0 to 1 counts as the nearer of these.
    pub fn with_jitter(mut self, share: f64) -> Self {
        self.jitter = share;
        self
    }

    /// Sets how long a connection must have been open to count as [`steady`](Backoff::steady).
    pub fn with_steady(mut self, open: Duration) -> Self {
        self.steady = open;
        self
    }

    /// How long to wait after so many failures in a row; `random` is from 0 to 1.
    fn wait(&self, failures: u32, random: f64) -> Duration {
        let growth = self.factor.max(1.0).powi(failures.min(1000) as i32);
        let longest = self.longest.as_secs_f64();
        let wait = (self.first.as_secs_f64() * growth).min(longest);
        let wait = wait * (1.0 - self.jitter.clamp(0.0, 1.0) * random);
        Duration::try_from_secs_f64(wait).unwrap_or(self.longest)
    }
}

/// A connection to `address` that is made anew whenever it ends, until told otherwise.
///
/// `make` is called for each attempt, the first one now, with the reason that the one before ended
/// (`None` for the first); it gives the dispatcher of this one, or `None` to stop: then it is over. A
/// dispatcher that closes its own channel is asked about as well ([`Reason::Closed`]). If it has
/// itself replaced ([`replace_dispatcher`](crate::Channel::replace_dispatcher)), or `make` panics, no
/// further connection is made.
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
///     Some(Reason::Closed) => None,                       // reported: that is all
///     _ => Some(Report),
/// })?;
/// dispatch_loop::run(&mut map)?;
/// # io::Result::Ok(())
/// ```
///
/// # Errors
/// Those of [`ChannelMap::connect`], for the first attempt: an address that will never do.
pub fn connect<D, A, F>(map: &mut ChannelMap, address: A, backoff: Backoff, make: F) -> io::Result<Client>
where
    D: Dispatcher,
    A: ToAddress + 'static,
    F: FnMut(&mut ChannelMap, Option<&Reason>) -> Option<D> + 'static,
{
    connect_with(map, address, ConnectOptions::default(), backoff, make)
}

/// As [`connect`], with options.
///
/// # Errors
/// As [`connect`].
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

/// What [`connect`] returns: to look at the client and to end it. Dropping it changes nothing.
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

/// Asks for the next dispatcher, and gives what begins its attempt.
type Next = Box<dyn FnMut(&mut ChannelMap, Option<&Reason>) -> Option<Begin>>;
type Begin = Box<dyn FnOnce(&mut ChannelMap) -> io::Result<Token>>;

#[derive(Default)]
struct State {
    backoff: Backoff,
    /// `None` while it runs, and when it is over.
    next: Option<Next>,
    token: Option<Token>,
    timer: Option<TimerId>,
    /// Attempts and short connections in a row.
    failures: u32,
    stopped: bool,
}

impl Client {
    /// The channel of the attempt or connection that there is now; `None` between two.
    pub fn token(&self) -> Option<Token> {
        self.0.borrow().token
    }

    /// Connect no more, and close the connection that there is.
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

    /// Ask the user for the next dispatcher; he may call `stop` meanwhile.
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

    /// An attempt failed, or a connection is over.
    fn ended(&self, map: &mut ChannelMap, reason: &Reason, open_for: Option<Duration>) {
        self.0.borrow_mut().token = None;
        if matches!(reason, Reason::MapEnded) {
            return;
        }
        let Some(begin) = self.ask(map, Some(reason)) else { return };
        let delay = {
            let mut state = self.0.borrow_mut();
            if open_for.is_some_and(|time| time >= state.backoff.steady) {
                state.failures = 0;
            }
            state.failures += 1;
            state.backoff.wait(state.failures - 1, random())
        };
        let client = self.clone();
        let timer = map.call_later(delay, move |map| {
            client.0.borrow_mut().timer = None;
            if let Err(error) = client.begin(map, begin) {
                client.ended(map, &Reason::Error(error), None);
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

/// From 0 to 1, by the hasher that is seeded anew each time.
fn random() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    random as f64 / u64::MAX as f64
}

/// The dispatcher of one attempt: the user's own, and what sees when it opens and ends.
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
    /// The dispatcher that `make` gave.
    pub fn inner(&self) -> &D {
        &self.dispatcher
    }

    /// The dispatcher that `make` gave, to be changed.
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

    fn opened(&mut self, _: &mut Channel<'_>) {
        self.opened = Some(Instant::now());
    }

    fn closed(&mut self, ch: &mut Channel<'_>, reason: &Reason) {
        let open_for = self.opened.map(|opened| opened.elapsed());
        self.client.ended(ch.map(), reason, open_for);
    }
}

impl<D: fmt::Debug> fmt::Debug for Attempt<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Attempt").field(&self.dispatcher).finish()
    }
}
