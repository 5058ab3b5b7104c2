//! Connecting. To an address that is a socket and one system call; to a name it is to look that up, and
//! to try its addresses by RFC 8305 ("happy eyeballs"), as one channel with one outcome.
//!
//! Each attempt is a channel of its own, which nobody sees; the first that connects gives its socket
//! to the channel that the user has, and the others are closed.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::address::about;
use crate::error::twin;
use crate::source::{Held, Plain};
use crate::state::{Phase, State};
use crate::timers::Action;
use crate::{
    Address, Channel, ChannelMap, ConnectOptions, Dispatcher, Handle, OnError, Reason, ToAddress, Token,
    resolve, sys,
};

/// How soon a connect that could not be begun is tried again.
const FIRST_RETRY: Duration = Duration::from_millis(1);
const LONGEST_RETRY: Duration = Duration::from_millis(100);

/// How long an attempt has the field to itself.
const STAGGER: Duration = Duration::from_millis(250);

/// Nobody tells when there is room in a backlog again, so try from time to time: first after 1 ms, then
/// less often, up to every 100 ms.
pub(crate) fn connect_later(map: &mut ChannelMap, token: Token, tries: u32) {
    let delay = FIRST_RETRY.saturating_mul(1 << tries.min(7)).min(LONGEST_RETRY);
    map.set_channel_timer(token, delay, Action::Connect(token, tries + 1));
}

pub(crate) fn connect_again(map: &mut ChannelMap, token: Token, tries: u32) {
    let Some(state) = map.state_mut(token).filter(|state| state.phase == Phase::ConnectLater) else { return };
    let (Some(fd), Some(peer)) = (state.fd(), &state.peer) else { return };
    let begun = sys::connect_again(fd, peer);
    if state.connect_began(begun) {
        connect_later(map, token, tries);
    }
    map.touch(token);
}

/// A connect to a name that is under way.
pub(crate) struct Dial {
    /// As it was given, for errors.
    name: String,
    options: ConnectOptions,
    /// Addresses not tried yet.
    left: VecDeque<SocketAddr>,
    /// Attempts under way.
    attempts: Vec<(Token, SocketAddr)>,
    failures: Vec<(SocketAddr, io::Error)>,
    stagger: Option<u64>,
    deadline: Option<u64>,
    /// Whether anybody still waits for the name to be looked up.
    wanted: Arc<AtomicBool>,
}

impl Drop for Dial {
    fn drop(&mut self) {
        self.wanted.store(false, Ordering::Relaxed);
    }
}

impl ChannelMap {
    /// Connect to a TCP or a Unix-domain address, or to a name. The outcome comes by hooks, never
    /// before this returns: `handle_connect` and `handle_open`, or `handle_error` with the cause and
    /// `handle_close`. What is pushed meanwhile is sent first.
    ///
    /// A name is looked up by one of four threads of the process. Its addresses are tried in turn, the
    /// families by turns, each 250 ms after the one before or as soon as that fails; the first that
    /// answers is the connection, and all of it may take 30 s ([`ConnectOptions::timeout`]). The
    /// error of a name lists what was tried. To a literal address there is no limit but the system's
    /// and [`set_timeout`](Channel::set_timeout).
    ///
    /// # Errors
    /// Only if the address is unusable or there is no socket to be had.
    pub fn connect<D: Dispatcher>(
        &mut self,
        address: impl ToAddress,
        dispatcher: D,
    ) -> io::Result<Handle<D>> {
        self.connect_with(address, &ConnectOptions::default(), dispatcher)
    }

    /// As [`connect`](ChannelMap::connect), with options.
    ///
    /// # Errors
    /// As [`connect`](ChannelMap::connect); and an option that the system does not take, or a local
    /// address that cannot be had.
    pub fn connect_with<D: Dispatcher>(
        &mut self,
        address: impl ToAddress,
        options: &ConnectOptions,
        dispatcher: D,
    ) -> io::Result<Handle<D>> {
        let literal = address.to_address();
        let address = match (literal, address.to_name()) {
            (Ok(address), _) => address,
            (Err(_), Some((host, port))) => return self.dial(host, port, options, dispatcher),
            (Err(error), None) => return Err(error),
        };
        let (fd, file, begun) =
            sys::connect(&address, options).map_err(|error| about("connect to", &address, &error))?;
        let mut state = State::new(Held::Plain(Plain(fd)), Box::new(dispatcher), Phase::Connecting);
        state.clock();
        state.peer = Some(address);
        state.file = file.map(Box::new);
        let later = state.connect_began(begun);
        let handle = self.insert(state)?;
        if later {
            connect_later(self, handle.token(), 0);
        }
        Ok(handle)
    }

    /// Look names up with `resolver` from now on, instead of the system's `getaddrinfo`. It is called
    /// on threads of its own, a few at once, and may wait there.
    ///
    /// ```
    /// use dispatch_loop::ChannelMap;
    ///
    /// let mut map = ChannelMap::new()?;
    /// map.set_resolver(|host, port| match host {
    ///     "database" => Ok(vec![([127, 0, 0, 1], port).into()]),
    ///     _ => Err(std::io::Error::new(std::io::ErrorKind::NotFound, "no such host here")),
    /// });
    /// # std::io::Result::Ok(())
    /// ```
    pub fn set_resolver<F>(&mut self, resolver: F)
    where
        F: Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    {
        self.resolver = Arc::new(resolver);
    }

    /// A channel that is on its way to `host`, whose addresses are not known yet.
    pub(crate) fn dial<D: Dispatcher>(
        &mut self,
        host: String,
        port: u16,
        options: &ConnectOptions,
        dispatcher: D,
    ) -> io::Result<Handle<D>> {
        let name = format!("{host}:{port}");
        let wanted = Arc::new(AtomicBool::new(true));
        let mut state = State::without_source(Box::new(dispatcher), Phase::Dialing);
        state.clock();
        state.dial = Some(Box::new(Dial {
            name,
            options: options.clone(),
            left: VecDeque::new(),
            attempts: Vec::new(),
            failures: Vec::new(),
            stagger: None,
            deadline: None,
            wanted: wanted.clone(),
        }));
        let handle = self.insert(state)?;
        let token = handle.token();
        if let Some(timeout) = options.timeout {
            let deadline = self.set_channel_timer(token, timeout, Action::DialTimeout(token));
            if let Some(dial) = dial_of(self, token) {
                dial.deadline = Some(deadline);
            }
        }
        let answers = self.answers();
        let resolver = self.resolver.clone();
        let job = move || {
            if !wanted.load(Ordering::Relaxed) {
                return;
            }
            let found = resolve::look_up(&resolver, &host, port);
            answers.give(Box::new(move |map| resolved(map, token, found)));
        };
        if let Err(error) = resolve::run_elsewhere(Box::new(job)) {
            resolved(self, token, Err(error));
        }
        Ok(handle)
    }
}

fn dial_of(map: &mut ChannelMap, token: Token) -> Option<&mut Dial> {
    map.state_mut(token).filter(|state| state.phase == Phase::Dialing)?.dial.as_deref_mut()
}

fn resolved(map: &mut ChannelMap, token: Token, found: io::Result<Vec<SocketAddr>>) {
    let Some(dial) = dial_of(map, token) else { return };
    match found {
        Ok(found) => {
            dial.left = interleaved(found, dial.options.local.as_ref());
            if dial.left.is_empty() {
                let why = format!("cannot connect to {}: no address of the local one's family", dial.name);
                return fail(map, token, io::Error::new(ErrorKind::AddrNotAvailable, why));
            }
            try_next(map, token);
        }
        Err(error) => {
            let why = format!("cannot look up {}: {error}", dial.name);
            fail(map, token, io::Error::new(error.kind(), why));
        }
    }
}

/// The families by turns, beginning with that of the first; each address once.
fn interleaved(found: Vec<SocketAddr>, local: Option<&Address>) -> VecDeque<SocketAddr> {
    let local = local.and_then(Address::ip);
    let mut unique = Vec::new();
    for address in found {
        let reachable = local.is_none_or(|local| local.is_ipv4() == address.is_ipv4());
        if reachable && !unique.contains(&address) {
            unique.push(address);
        }
    }
    let first_is_v4 = unique.first().is_some_and(SocketAddr::is_ipv4);
    let (first, second): (Vec<_>, Vec<_>) =
        unique.into_iter().partition(|address| address.is_ipv4() == first_is_v4);
    let mut second = second.into_iter();
    let mut order = VecDeque::new();
    for address in first {
        order.push_back(address);
        order.extend(second.next());
    }
    order.extend(second);
    order
}

/// Begin attempts until one is under way; or that was all.
fn try_next(map: &mut ChannelMap, token: Token) {
    loop {
        let Some(dial) = dial_of(map, token) else { return };
        let stagger = dial.stagger.take();
        let Some(address) = dial.left.pop_front() else { break };
        let begun = sys::connect(&Address::Ip(address), &dial.options);
        let more = !dial.left.is_empty();
        if let Some(stagger) = stagger {
            map.timers.cancel(stagger);
        }
        let child = match begun {
            Ok((fd, _, begun)) => {
                let attempt = Attempt { parent: token, address };
                let mut child = State::new(Held::Plain(Plain(fd)), Box::new(attempt), Phase::Connecting);
                child.peer = Some(Address::Ip(address));
                child.connect_began(begun);
                map.insert_hidden(child)
            }
            Err(error) => Err(error),
        };
        let child = match child {
            Ok(child) => child,
            Err(error) => {
                if let Some(dial) = dial_of(map, token) {
                    dial.failures.push((address, error));
                }
                continue;
            }
        };
        let stagger = more.then(|| map.set_channel_timer(token, STAGGER, Action::DialNext(token)));
        if let Some(dial) = dial_of(map, token) {
            dial.attempts.push((child, address));
            dial.stagger = stagger;
        }
        return;
    }
    let Some(dial) = dial_of(map, token) else { return };
    if dial.attempts.is_empty() {
        let error = dial.error(None);
        fail(map, token, error);
    }
}

/// The attempt before has had its time.
pub(crate) fn stagger_over(map: &mut ChannelMap, token: Token) {
    if let Some(dial) = dial_of(map, token) {
        dial.stagger = None;
        try_next(map, token);
    }
}

pub(crate) fn time_over(map: &mut ChannelMap, token: Token) {
    if let Some(dial) = dial_of(map, token) {
        let error = dial.error(Some(ErrorKind::TimedOut));
        fail(map, token, error);
    }
}

fn fail(map: &mut ChannelMap, token: Token, error: io::Error) {
    call_off(map, token);
    if let Some(state) = map.state_mut(token) {
        state.failure = Some(error);
        state.phase = Phase::ConnectFailed;
    }
    map.touch(token);
}

/// End the attempts that are under way.
pub(crate) fn call_off(map: &mut ChannelMap, token: Token) {
    let Some(dial) = map.state_mut(token).and_then(|state| state.dial.take()) else { return };
    for timer in [dial.stagger, dial.deadline].into_iter().flatten() {
        map.timers.cancel(timer);
    }
    for &(attempt, _) in &dial.attempts {
        if let Some(state) = map.state_mut(attempt) {
            state.kill(Reason::Aborted);
        }
        map.touch(attempt);
    }
}

impl Dial {
    /// What was tried, and what became of each.
    fn error(&self, kind: Option<ErrorKind>) -> io::Error {
        let mut why: Vec<String> =
            self.failures.iter().map(|(address, error)| format!("{address}: {error}")).collect();
        why.extend(self.attempts.iter().map(|(_, address)| format!("{address}: no answer")));
        let why = match why.is_empty() {
            true => "the name was not found in time".to_owned(),
            false => why.join("; "),
        };
        let of_last = self.failures.last().map(|(_, error)| error.kind());
        let kind = kind.or(of_last).unwrap_or(ErrorKind::NotConnected);
        io::Error::new(kind, format!("cannot connect to {}: {why}", self.name))
    }
}

/// The dispatcher of one attempt.
pub(crate) struct Attempt {
    parent: Token,
    address: SocketAddr,
}

impl Dispatcher for Attempt {
    fn handle_connect(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        let token = ch.token();
        won(ch.map(), self.parent, token, self.address);
        Ok(())
    }

    fn handle_error(&mut self, ch: &mut Channel<'_>, error: &io::Error) -> OnError {
        let token = ch.token();
        lost(ch.map(), self.parent, token, self.address, error);
        OnError::End
    }

    /// Ended in some other way: the poller did not take it.
    fn handle_close(&mut self, ch: &mut Channel<'_>, reason: &Reason) {
        let Reason::Error(error) = reason else { return };
        let token = ch.token();
        let is_under_way = |dial: &mut Dial| dial.attempts.iter().any(|(attempt, _)| *attempt == token);
        if dial_of(ch.map(), self.parent).is_some_and(is_under_way) {
            lost(ch.map(), self.parent, token, self.address, error);
        }
    }
}

fn won(map: &mut ChannelMap, parent: Token, attempt: Token, address: SocketAddr) {
    let Some(child) = map.slots.get_mut(attempt) else { return };
    if let Some(error) = child.lost_error().map(twin) {
        // Connected, and gone since.
        child.kill(Reason::Aborted);
        return lost(map, parent, attempt, address, &error);
    }
    let source = child.source.take();
    if let (Some(source), Some(_)) = (&source, child.armed.take()) {
        let _ = map.poll.delete(std::os::fd::AsFd::as_fd(source));
    }
    child.kill(Reason::Detached);
    if dial_of(map, parent).is_none() {
        return;
    }
    call_off(map, parent);
    if let Some(state) = map.state_mut(parent) {
        state.source = source;
        state.peer = Some(Address::Ip(address));
        state.phase = Phase::Connected;
    }
    map.touch(parent);
}

fn lost(map: &mut ChannelMap, parent: Token, attempt: Token, address: SocketAddr, error: &io::Error) {
    let Some(dial) = dial_of(map, parent) else { return };
    dial.attempts.retain(|(token, _)| *token != attempt);
    dial.failures.push((address, twin(error)));
    try_next(map, parent);
}
