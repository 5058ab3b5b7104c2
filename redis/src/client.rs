//! The client: what is called and what waits, for whichever connection there is. The connection itself is in
//! `connection.rs`.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use dispatch_loop::reconnect::{self, Client};
use dispatch_loop::{Channel, ChannelMap, DrainState, Reason, TimerId, Token};

use crate::connection::Connection;
use crate::{Argument, Cause, Command, Error, Handler, Options, Refused, Server, Url, Value, Why};

/// While more than this is queued on the channel, no more commands are moved to it.
pub(crate) const HIGH: usize = 64 * 1024;
pub(crate) const LOW: usize = 32 * 1024;
/// Time-outs are looked for no more often.
const GRAIN: Duration = Duration::from_millis(10);
/// How often a client without a connection looks whether an attempt has begun.
const WATCH: Duration = Duration::from_millis(250);

/// A client of one Redis server: connects, and connects again when the connection ends; sends commands, as many as
/// come without waiting for answers in between, and hands each answer to the callback of its command.
///
/// Clones are the same client. Dropping them does not end it; [`close`](Redis::close) does, and a drain of the map.
/// What it promises is in the [crate's documentation](crate).
///
/// ```no_run
/// use dispatch_loop::ChannelMap;
/// use dispatch_loop_redis::{Command, Options, Redis};
///
/// let mut map = ChannelMap::new()?;
/// let redis = Redis::connect(&mut map, "redis://localhost", &Options::default(), ())?;
/// let client = redis.clone();
/// redis.call(&mut map, Command::new("INCR").arg("visits"), move |map, visits| {
///     println!("{visits:?}");
///     client.close(map);
/// })?;
/// dispatch_loop::run(&mut map)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Redis(pub(crate) Rc<RefCell<State>>);

pub(crate) type Answer = Box<dyn FnOnce(&mut ChannelMap, Result<Value, Error>)>;

pub(crate) struct State {
    pub(crate) url: Url,
    pub(crate) options: Options,
    handler: Option<Box<dyn Handler>>,
    client: Option<Client>,
    pub(crate) phase: Phase,
    /// Of a connection that is open.
    pub(crate) channel: Option<Token>,
    pub(crate) server: Option<Server>,
    /// `close` was called.
    pub(crate) closing: bool,
    /// Why the connection is being ended, if we do it.
    pub(crate) cause: Option<Cause>,
    /// The server will not think better of it.
    pub(crate) is_final: bool,
    /// An attempt was begun whose dispatcher has not been told of its end.
    attempted: bool,
    pub(crate) failures: u32,
    waiting: VecDeque<Pending>,
    waiting_bytes: usize,
    pub(crate) sent: VecDeque<Pending>,
    wants_room: bool,
    /// A hook of the connection is running, and sends what is called when it is done.
    pub(crate) running: bool,
    paused: Option<Instant>,
    /// What is to be subscribed to, by kind.
    wanted: [BTreeSet<Vec<u8>>; 3],
    /// When time-outs are looked for next.
    timer: Option<(Instant, TimerId)>,
    watch: Option<TimerId>,
    watched: Option<Token>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Connecting, greeting, or waiting for the next attempt.
    Down,
    Ready,
    Gone,
}

/// A command without an answer.
pub(crate) struct Pending {
    /// 0: `body` is all of it.
    pieces: usize,
    body: Vec<u8>,
    size: usize,
    deadline: Option<Instant>,
    /// How many bytes had come when it was sent.
    heard: u64,
    pub(crate) expect: Expect,
    /// `None` if it has timed out: the answer is still to come.
    pub(crate) answer: Option<Answer>,
}

/// What comes back for a command.
pub(crate) enum Expect {
    Answer,
    /// One for each channel, beside the answers.
    Confirmations {
        verb: &'static str,
        channels: Vec<Vec<u8>>,
        left: usize,
    },
    /// One for each command; the last one is the answer.
    Transaction {
        left: usize,
        refused: Option<crate::ServerError>,
    },
}

pub(crate) const SUBSCRIBE: [&str; 3] = ["subscribe", "psubscribe", "ssubscribe"];
pub(crate) const UNSUBSCRIBE: [&str; 3] = ["unsubscribe", "punsubscribe", "sunsubscribe"];

impl Redis {
    /// Connect to the server that `url` names; see [`Url`] for its form. Commands may be called at once: they wait.
    ///
    /// Nothing runs before this returns. [`Handler::connected`] tells when the server is ready, and
    /// [`Handler::disconnected`] of each attempt that fails.
    ///
    /// # Errors
    /// The URL is unusable, or asks for TLS without the feature `tls`; no socket can be made; the system's
    /// certificates cannot be read.
    pub fn connect(
        map: &mut ChannelMap,
        url: &str,
        options: &Options,
        handler: impl Handler,
    ) -> io::Result<Redis> {
        let url: Url = url.parse()?;
        #[allow(unused_mut)]
        let mut options = options.clone();
        if url.tls {
            #[cfg(not(feature = "tls"))]
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("{url}: it needs the feature `tls`"),
            ));
            #[cfg(feature = "tls")]
            if options.tls.is_none() {
                options.tls = Some(dispatch_loop::tls::TlsClient::new()?);
            }
        }
        let (place, connect, backoff) = (url.place.clone(), options.connect.clone(), options.backoff.clone());
        let state = State {
            url,
            options,
            handler: Some(Box::new(handler)),
            client: None,
            phase: Phase::Down,
            channel: None,
            server: None,
            closing: false,
            cause: None,
            is_final: false,
            attempted: false,
            failures: 0,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            sent: VecDeque::new(),
            wants_room: false,
            running: false,
            paused: None,
            wanted: Default::default(),
            timer: None,
            watch: None,
            watched: None,
        };
        let redis = Redis(Rc::new(RefCell::new(state)));
        let of = Rc::downgrade(&redis.0);
        let make =
            move |map: &mut ChannelMap, ended: Option<&Reason>| Redis(of.upgrade()?).attempt(map, ended);
        let client = reconnect::connect_with(map, place, connect, backoff, make)?;
        redis.0.borrow_mut().client = Some(client);
        redis.watch(map);
        Ok(redis)
    }

    /// Send a command. `answer` is called once, with the answer or an error, and never before this returns.
    /// Answers come in the order of the calls.
    ///
    /// # Errors
    /// The command was not accepted, and `answer` will not run: too much is waiting, the client is closed, or it is
    /// a command that a shared connection cannot have. It is given back.
    pub fn call<F>(&self, map: &mut ChannelMap, command: impl Into<Command>, answer: F) -> Result<(), Refused>
    where
        F: FnOnce(&mut ChannelMap, Result<Value, Error>) + 'static,
    {
        let command = command.into();
        if let Some(instead) = not_here(&command) {
            return Err(Refused { why: Why::NotHere(instead), command });
        }
        self.accept(map, command, Expect::Answer, Box::new(answer))
    }

    /// Send commands as one transaction, `MULTI` to `EXEC`: all of them are done, with nothing in between, or none.
    /// The answer is an array with an answer for each; an error among them is a [`Value::Error`].
    ///
    /// # Errors
    /// As [`call`](Redis::call). What is given back is no command to call again.
    pub fn transaction<F>(
        &self,
        map: &mut ChannelMap,
        commands: impl IntoIterator<Item = impl Into<Command>>,
        answer: F,
    ) -> Result<(), Refused>
    where
        F: FnOnce(&mut ChannelMap, Result<Value, Error>) + 'static,
    {
        let mut whole = Command { pieces: 0, body: Vec::new(), timeout: None };
        let mut left = 2;
        Command::new("MULTI").write(&mut whole.body);
        for command in commands {
            let command = command.into();
            if let Some(instead) = not_here(&command) {
                return Err(Refused { why: Why::NotHere(instead), command });
            }
            command.write(&mut whole.body);
            whole.timeout = whole.timeout.or(command.timeout);
            left += 1;
        }
        Command::new("EXEC").write(&mut whole.body);
        self.accept(map, whole, Expect::Transaction { left, refused: None }, Box::new(answer))
    }

    /// Hear what is published to these channels: [`Handler::push`] gets it. It is subscribed to again on each new
    /// connection; what is published meanwhile is not heard (streams are for that). `answer` is given the number of
    /// subscriptions.
    ///
    /// With RESP2 the connection is of no use for other commands while there are subscriptions: the server refuses
    /// them. Take a second client.
    ///
    /// # Errors
    /// As [`call`](Redis::call). There must be at least one channel.
    pub fn subscribe<F>(
        &self,
        map: &mut ChannelMap,
        channels: impl IntoIterator<Item = impl Argument>,
        answer: F,
    ) -> Result<(), Refused>
    where
        F: FnOnce(&mut ChannelMap, Result<Value, Error>) + 'static,
    {
        self.change(map, SUBSCRIBE[0], channels, Box::new(answer))
    }

    /// As [`subscribe`](Redis::subscribe), of all channels that match a pattern such as `news.*`.
    ///
    /// # Errors
    /// As [`subscribe`](Redis::subscribe).
    pub fn psubscribe<F>(
        &self,
        map: &mut ChannelMap,
        patterns: impl IntoIterator<Item = impl Argument>,
        answer: F,
    ) -> Result<(), Refused>
    where
        F: FnOnce(&mut ChannelMap, Result<Value, Error>) + 'static,
    {
        self.change(map, SUBSCRIBE[1], patterns, Box::new(answer))
    }

    /// As [`subscribe`](Redis::subscribe), of shard channels (Redis 7).
    ///
    /// # Errors
    /// As [`subscribe`](Redis::subscribe).
    pub fn ssubscribe<F>(
        &self,
        map: &mut ChannelMap,
        channels: impl IntoIterator<Item = impl Argument>,
        answer: F,
    ) -> Result<(), Refused>
    where
        F: FnOnce(&mut ChannelMap, Result<Value, Error>) + 'static,
    {
        self.change(map, SUBSCRIBE[2], channels, Box::new(answer))
    }

    /// Undo [`subscribe`](Redis::subscribe).
    ///
    /// # Errors
    /// As [`subscribe`](Redis::subscribe).
    pub fn unsubscribe<F>(
        &self,
        map: &mut ChannelMap,
        channels: impl IntoIterator<Item = impl Argument>,
        answer: F,
    ) -> Result<(), Refused>
    where
        F: FnOnce(&mut ChannelMap, Result<Value, Error>) + 'static,
    {
        self.change(map, UNSUBSCRIBE[0], channels, Box::new(answer))
    }

    /// Undo [`psubscribe`](Redis::psubscribe).
    ///
    /// # Errors
    /// As [`subscribe`](Redis::subscribe).
    pub fn punsubscribe<F>(
        &self,
        map: &mut ChannelMap,
        patterns: impl IntoIterator<Item = impl Argument>,
        answer: F,
    ) -> Result<(), Refused>
    where
        F: FnOnce(&mut ChannelMap, Result<Value, Error>) + 'static,
    {
        self.change(map, UNSUBSCRIBE[1], patterns, Box::new(answer))
    }

    /// Undo [`ssubscribe`](Redis::ssubscribe).
    ///
    /// # Errors
    /// As [`subscribe`](Redis::subscribe).
    pub fn sunsubscribe<F>(
        &self,
        map: &mut ChannelMap,
        channels: impl IntoIterator<Item = impl Argument>,
        answer: F,
    ) -> Result<(), Refused>
    where
        F: FnOnce(&mut ChannelMap, Result<Value, Error>) + 'static,
    {
        self.change(map, UNSUBSCRIBE[2], channels, Box::new(answer))
    }

    /// Whether there is a connection that commands are sent on.
    pub fn is_ready(&self) -> bool {
        self.0.borrow().phase == Phase::Ready
    }

    /// What the server said of itself; `None` without a connection.
    pub fn server(&self) -> Option<Server> {
        self.0.borrow().server.clone()
    }

    /// How many commands have no answer yet: those that wait, and those that were sent.
    pub fn pending(&self) -> usize {
        self.0.borrow().pending()
    }

    /// The channel of the connection, while it is open. Its numbers may be read; what is sent on it is the client's.
    pub fn token(&self) -> Option<Token> {
        self.0.borrow().channel
    }

    /// Read no more answers until [`resume_reading`](Redis::resume_reading): no callback runs, and the server is
    /// held back once the network's buffers are full. Time-outs stand still meanwhile.
    pub fn pause_reading(&self, map: &mut ChannelMap) {
        let channel = {
            let mut state = self.0.borrow_mut();
            state.paused.get_or_insert_with(Instant::now);
            state.channel
        };
        if let Some(Ok(mut ch)) = channel.map(|channel| map.channel(channel)) {
            ch.pause_reading();
        }
    }

    /// Undo [`pause_reading`](Redis::pause_reading).
    pub fn resume_reading(&self, map: &mut ChannelMap) {
        let channel = {
            let state = &mut *self.0.borrow_mut();
            let Some(paused) = state.paused.take() else { return };
            let deadlines =
                state.sent.iter_mut().chain(&mut state.waiting).filter_map(|one| one.deadline.as_mut());
            deadlines.for_each(|deadline| *deadline += paused.elapsed());
            state.channel
        };
        if let Some(Ok(mut ch)) = channel.map(|channel| map.channel(channel)) {
            ch.resume_reading();
        }
        self.check_at(map, Instant::now() + GRAIN);
    }

    /// End the client in order: no further command is accepted, those that were are answered, then the connection is
    /// closed. Without a connection, those that wait get [`Error::NotSent`].
    pub fn close(&self, map: &mut ChannelMap) {
        let (phase, client) = {
            let mut state = self.0.borrow_mut();
            if std::mem::replace(&mut state.closing, true) {
                return;
            }
            (state.phase, state.client.clone())
        };
        match (phase, client.and_then(|client| client.token())) {
            (Phase::Ready, _) => self.pump_from_outside(map),
            // It waits for the next attempt, or is being told of the end of the last one.
            (Phase::Down, None) => self.end_soon(map),
            // It connects.
            (Phase::Down, Some(_)) if self.pending() > 0 => {}
            (Phase::Down, Some(token)) => {
                self.0.borrow_mut().cause = Some(Cause::Closed);
                if let Ok(mut ch) = map.channel(token) {
                    ch.abort();
                }
            }
            (Phase::Gone, _) => {}
        }
    }

    /// End the client at once: what was sent gets [`Error::Lost`], what waits [`Error::NotSent`].
    pub fn abort(&self, map: &mut ChannelMap) {
        let client = {
            let mut state = self.0.borrow_mut();
            state.closing = true;
            state.cause.get_or_insert(Cause::Closed);
            state.client.clone()
        };
        match client.and_then(|client| client.token()).map(|token| map.channel(token)) {
            Some(Ok(mut ch)) => ch.abort(),
            _ => self.end_soon(map),
        }
    }

    // What the connection and the timers do.

    /// The dispatcher of the next attempt, or `None` to make no other one.
    fn attempt(&self, map: &mut ChannelMap, ended: Option<&Reason>) -> Option<Connection> {
        if let Some(reason) = ended.filter(|_| std::mem::replace(&mut self.0.borrow_mut().attempted, false)) {
            // It could not even be begun: there was no channel to be told so.
            self.has_ended(map, Cause::Connection(reason.clone()));
        }
        let mut state = self.0.borrow_mut();
        if state.phase == Phase::Gone {
            return None;
        }
        state.attempted = true;
        drop(state);
        if ended.is_some() {
            self.watch(map);
        }
        Some(Connection::new(self.clone()))
    }

    /// Until there is a connection: see to it that an attempt does not take too long, and that a drain of the map does
    /// not leave commands without an answer. (Before its first hook runs, nobody tells of an attempt.)
    fn watch(&self, map: &mut ChannelMap) {
        self.look(map);
        if self.0.borrow().watch.is_some() {
            return;
        }
        let of = Rc::downgrade(&self.0);
        let timer = map.call_every(WATCH, move |map| {
            if let Some(state) = of.upgrade() {
                Redis(state).look(map);
            }
        });
        map.set_timer_background(timer, true);
        self.0.borrow_mut().watch = Some(timer);
    }

    fn look(&self, map: &mut ChannelMap) {
        let (token, limit, watched) = {
            let state = self.0.borrow();
            let Some(client) = &state.client else { return };
            (client.token(), state.options.connect_timeout, state.watched)
        };
        match token {
            Some(_) if token == watched => {}
            Some(token) => {
                self.0.borrow_mut().watched = Some(token);
                if let Some(mut ch) = map.channel(token).ok().filter(|ch| ch.is_connecting()) {
                    ch.set_timeout(Some(limit));
                }
            }
            None if matches!(map.drain_state(), DrainState::Draining | DrainState::Drained) => {
                self.end(map, &Cause::Closed)
            }
            None => {}
        }
    }

    /// The connection is of no more use to anybody; called by its last hook. Everybody is told.
    pub(crate) fn has_ended(&self, map: &mut ChannelMap, cause: Cause) {
        let (sent, unsent, is_over) = {
            let state = &mut *self.0.borrow_mut();
            state.attempted = false;
            state.channel = None;
            state.server = None;
            if state.phase == Phase::Down {
                state.failures += 1;
            }
            state.phase = Phase::Down;
            let is_out = state.options.max_attempts.is_some_and(|most| state.failures >= most);
            let map_ends = matches!(cause, Cause::Connection(Reason::MapEnded));
            let drains = map.drain_state() == DrainState::Draining;
            let is_over = is_out || map_ends || drains || state.closing || state.is_final;
            let unsent = match state.options.keep_unsent {
                true => VecDeque::new(),
                false => state.take_waiting(),
            };
            (std::mem::take(&mut state.sent), unsent, is_over)
        };
        self.fail(map, sent, &Error::Lost(cause.clone()));
        self.fail(map, unsent, &Error::NotSent(cause.clone()));
        self.tell(map, |handler, map, redis| handler.disconnected(map, redis, &cause));
        // One of them may have closed it.
        let is_over = is_over || self.0.borrow().closing;
        match is_over {
            true => self.end(map, &cause),
            false => self.make_room(map),
        }
    }

    /// The client is over.
    fn end(&self, map: &mut ChannelMap, cause: &Cause) {
        let (waiting, client, timers) = {
            let state = &mut *self.0.borrow_mut();
            if state.phase == Phase::Gone {
                return;
            }
            state.phase = Phase::Gone;
            let timers = [state.watch.take(), state.timer.take().map(|(_, timer)| timer)];
            (state.take_waiting(), state.client.take(), timers)
        };
        for timer in timers.into_iter().flatten() {
            map.cancel(timer);
        }
        if let Some(client) = client {
            client.stop(map);
        }
        self.fail(map, waiting, &Error::NotSent(cause.clone()));
        self.tell(map, |handler, map, redis| handler.gone(map, redis, cause));
        let handler = self.0.borrow_mut().handler.take();
        drop(handler);
    }

    fn end_soon(&self, map: &mut ChannelMap) {
        let redis = self.clone();
        map.call_soon(move |map| {
            // Meanwhile a connection may have begun.
            let token = redis.0.borrow().client.as_ref().and_then(Client::token);
            match token.map(|token| map.channel(token)) {
                Some(Ok(mut ch)) => ch.abort(),
                _ => redis.end(map, &Cause::Closed),
            }
        });
    }

    fn fail(&self, map: &mut ChannelMap, all: VecDeque<Pending>, error: &Error) {
        for one in all {
            one.tell(map, Err(error.clone()));
        }
    }

    pub(crate) fn tell(
        &self,
        map: &mut ChannelMap,
        f: impl FnOnce(&mut dyn Handler, &mut ChannelMap, &Redis),
    ) {
        let Some(mut handler) = self.0.borrow_mut().handler.take() else { return };
        guarded("a hook", || f(&mut *handler, map, self));
        self.0.borrow_mut().handler = Some(handler);
    }

    fn change(
        &self,
        map: &mut ChannelMap,
        verb: &'static str,
        channels: impl IntoIterator<Item = impl Argument>,
        answer: Answer,
    ) -> Result<(), Refused> {
        let mut names = Vec::new();
        channels.into_iter().for_each(|channel| channel.give(&mut |bytes| names.push(bytes.to_vec())));
        let command = Command::new(verb).args(&names);
        if names.is_empty() {
            return Err(Refused { why: Why::NotHere("there must be a channel"), command });
        }
        let expect = Expect::Confirmations { verb, left: names.len(), channels: names };
        self.accept(map, command, expect, answer)
    }

    fn accept(
        &self,
        map: &mut ChannelMap,
        command: Command,
        expect: Expect,
        answer: Answer,
    ) -> Result<(), Refused> {
        let deadline = {
            let mut state = self.0.borrow_mut();
            if let Some(why) = state.refuses(map, &command) {
                state.wants_room |= why == Why::Full;
                return Err(Refused { why, command });
            }
            let timeout = command.timeout.unwrap_or(state.options.timeout);
            let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
            state.wait(Pending::new(command, deadline, expect, Some(answer)));
            deadline
        };
        if let Some(deadline) = deadline {
            self.check_at(map, deadline);
        }
        self.pump_from_outside(map);
        Ok(())
    }

    fn pump_from_outside(&self, map: &mut ChannelMap) {
        let channel = {
            let state = self.0.borrow();
            state.channel.filter(|_| !state.running)
        };
        if let Some(Ok(mut ch)) = channel.map(|channel| map.channel(channel)) {
            self.pump(&mut ch);
        }
    }

    /// Send what waits, as far as the channel takes it without queueing too much.
    pub(crate) fn pump(&self, ch: &mut Channel<'_>) {
        let state = &mut *self.0.borrow_mut();
        // What is moved to a channel that ends would count as sent.
        if state.phase != Phase::Ready || ch.is_closing() {
            return;
        }
        while ch.queued() <= HIGH {
            let Some(mut one) = state.waiting.pop_front() else { break };
            state.waiting_bytes -= one.size;
            one.heard = ch.bytes_in();
            if let Expect::Confirmations { verb, channels, .. } = &one.expect {
                want(&mut state.wanted, verb, channels);
            }
            let body = std::mem::take(&mut one.body);
            let head = format!("*{}\r\n", one.pieces);
            state.sent.push_back(one);
            let head = if state.sent.back().is_some_and(|one| one.pieces == 0) { "" } else { &head };
            let pushed = ch.push(head.as_bytes()).and_then(|()| match body.len() < HIGH {
                true => ch.push(&body),
                false => ch.push_vec(body),
            });
            if pushed.is_err() {
                // The connection is ending, and its end will be told.
                break;
            }
        }
        // Who was told of a time-out awaits nothing; the newest is the last to time out, as a rule.
        let is_idle = state.waiting.is_empty() && state.sent.iter().rev().all(|one| one.answer.is_none());
        ch.set_busy(!is_idle);
        ch.set_background(is_idle && state.options.background && !state.closing);
        if is_idle && state.closing {
            state.cause.get_or_insert(Cause::Closed);
            ch.close();
        }
    }

    /// What is to be subscribed to, before anything that waits.
    pub(crate) fn subscribe_again(&self) {
        let state = &mut *self.0.borrow_mut();
        for (verb, wanted) in SUBSCRIBE.into_iter().zip(&state.wanted) {
            // One by one: if one is not allowed any more, the others are.
            for channel in wanted {
                let expect = Expect::Confirmations { verb, left: 1, channels: vec![channel.clone()] };
                let one = Pending::new(Command::new(verb).arg(channel), None, expect, None);
                state.waiting_bytes += one.size;
                state.waiting.push_front(one);
            }
        }
    }

    /// The server does not let us hear these.
    pub(crate) fn forget(&self, verb: &str, channels: &[Vec<u8>]) {
        let mut state = self.0.borrow_mut();
        if let Some(kind) = SUBSCRIBE.iter().position(|one| *one == verb) {
            state.wanted[kind].retain(|channel| !channels.contains(channel));
        }
    }

    /// Tell a caller that was refused that there is room.
    pub(crate) fn make_room(&self, map: &mut ChannelMap) {
        let is_wanted = {
            let mut state = self.0.borrow_mut();
            let few = state.pending() <= state.options.max_commands / 2;
            let is_room = state.wants_room && few && state.bytes(map) <= state.options.max_bytes / 2;
            state.wants_room &= !is_room;
            is_room
        };
        if is_wanted {
            self.tell(map, |handler, map, redis| handler.room(map, redis));
        }
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.0.borrow().paused.is_some()
    }

    // Time-outs.

    /// Look for time-outs at `when`, or before.
    fn check_at(&self, map: &mut ChannelMap, when: Instant) {
        let armed = self.0.borrow().timer;
        match armed {
            Some((earlier, _)) if earlier <= when => return,
            Some((_, timer)) => _ = map.cancel(timer),
            None => {}
        }
        let of = Rc::downgrade(&self.0);
        let delay = when.saturating_duration_since(Instant::now());
        let timer = map.call_later(delay, move |map| {
            if let Some(state) = of.upgrade() {
                Redis(state).check(map);
            }
        });
        // Whoever waits for an answer has a channel, or a client that will make one.
        map.set_timer_background(timer, true);
        self.0.borrow_mut().timer = Some((when, timer));
    }

    fn check(&self, map: &mut ChannelMap) {
        let now = Instant::now();
        let mut unanswered = Vec::new();
        let (mut unsent, next, silent) = {
            let state = &mut *self.0.borrow_mut();
            state.timer = None;
            if state.paused.is_some() {
                return;
            }
            let is_due = |one: &Pending| one.answer.is_some() && one.deadline.is_some_and(|when| when <= now);
            let mut silent_since = None;
            for one in state.sent.iter_mut().filter(|one| is_due(one)) {
                silent_since = Some(one.heard);
                unanswered.extend(one.answer.take());
            }
            let mut unsent = VecDeque::new();
            if state.waiting.iter().any(is_due) {
                let (due, rest) = state.take_waiting().into_iter().partition(is_due);
                unsent = due;
                rest.into_iter().for_each(|one| state.wait(one));
            }
            let all = state.sent.iter().chain(&state.waiting).filter(|one| one.answer.is_some());
            let next = all.filter_map(|one| one.deadline).min();
            let channel = state.channel.and_then(|token| map.channel(token).ok());
            let silent = channel.filter(|ch| silent_since == Some(ch.bytes_in())).map(|ch| ch.token());
            if silent.is_some() {
                state.cause = Some(Cause::TimedOut);
            }
            (unsent, next, silent)
        };
        if let Some(next) = next {
            self.check_at(map, next.max(now + GRAIN));
        }
        if let Some(Ok(mut ch)) = silent.map(|token| map.channel(token)) {
            ch.abort();
        }
        for answer in unanswered {
            guarded("a callback", || answer(map, Err(Error::TimedOut { sent: true })));
        }
        for one in unsent.drain(..) {
            one.tell(map, Err(Error::TimedOut { sent: false }));
        }
        self.make_room(map);
        // Perhaps that was all that a close, or a drain, has waited for.
        self.pump_from_outside(map);
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(state) = self.0.try_borrow() else { return f.write_str("Redis") };
        f.debug_struct("Redis")
            .field("url", &state.url)
            .field("phase", &state.phase)
            .field("waiting", &state.waiting.len())
            .field("sent", &state.sent.len())
            .finish_non_exhaustive()
    }
}

impl State {
    fn pending(&self) -> usize {
        self.waiting.len() + self.sent.len()
    }

    /// What waits to be sent, here and on the channel.
    fn bytes(&self, map: &mut ChannelMap) -> usize {
        let queued = self.channel.and_then(|channel| Some(map.channel(channel).ok()?.queued()));
        self.waiting_bytes + queued.unwrap_or(0)
    }

    fn refuses(&self, map: &mut ChannelMap, command: &Command) -> Option<Why> {
        if self.closing || self.phase == Phase::Gone {
            return Some(Why::Closed);
        }
        if self.phase != Phase::Ready && !self.options.keep_unsent {
            return Some(Why::NotConnected);
        }
        if self.pending() >= self.options.max_commands {
            return Some(Why::Full);
        }
        // Asking the channel makes the loop look at it: not for each small command.
        let is_near = self.waiting_bytes + command.len() > self.options.max_bytes.saturating_sub(2 * HIGH);
        let bytes = if is_near { self.bytes(map) } else { self.waiting_bytes };
        (bytes > 0 && bytes + command.len() > self.options.max_bytes).then_some(Why::Full)
    }

    fn wait(&mut self, one: Pending) {
        self.waiting_bytes += one.size;
        self.waiting.push_back(one);
    }

    fn take_waiting(&mut self) -> VecDeque<Pending> {
        self.waiting_bytes = 0;
        std::mem::take(&mut self.waiting)
    }
}

impl Pending {
    fn new(command: Command, deadline: Option<Instant>, expect: Expect, answer: Option<Answer>) -> Pending {
        let size = command.len();
        Pending { pieces: command.pieces, body: command.body, size, deadline, heard: 0, expect, answer }
    }

    pub(crate) fn tell(self, map: &mut ChannelMap, result: Result<Value, Error>) {
        if let Some(answer) = self.answer {
            guarded("a callback", || answer(map, result));
        }
    }
}

/// Note what is to be subscribed to on the next connection, too.
fn want(wanted: &mut [BTreeSet<Vec<u8>>; 3], verb: &str, channels: &[Vec<u8>]) {
    for (kind, wanted) in wanted.iter_mut().enumerate() {
        if verb == SUBSCRIBE[kind] {
            wanted.extend(channels.iter().cloned());
        } else if verb == UNSUBSCRIBE[kind] {
            wanted.retain(|channel| !channels.contains(channel));
        }
    }
}

/// Whoever panics harms nobody else: the connection carries the commands of others, too.
fn guarded(what: &str, f: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(f)).is_err() {
        log::error!("{what} of a Redis client panicked");
    }
}

/// What to use instead of a command that would change the meaning of the answers to others, or of which the next
/// connection would know nothing.
fn not_here(command: &Command) -> Option<&'static str> {
    if command.pieces == 0 {
        return Some("the server answers nothing to an empty command");
    }
    let [name, first] = command.words();
    Some(match (name.as_str(), first.as_str()) {
        ("SUBSCRIBE" | "PSUBSCRIBE" | "SSUBSCRIBE", _) => "use subscribe, psubscribe, ssubscribe",
        ("UNSUBSCRIBE" | "PUNSUBSCRIBE" | "SUNSUBSCRIBE", _) => "use unsubscribe, punsubscribe, sunsubscribe",
        ("MULTI" | "EXEC" | "DISCARD", _) => "use transaction",
        ("WATCH" | "UNWATCH", _) => "use a script",
        ("HELLO" | "AUTH" | "SELECT", _) => "the URL says who, where and how",
        ("QUIT" | "RESET", _) => "use close",
        ("CLIENT", "REPLY") | ("MONITOR" | "SYNC" | "PSYNC" | "REPLCONF", _) => "answers must match commands",
        _ => return None,
    })
}
