//! The loop: asyncore's `loop()`, one turn after the other.

pub(crate) mod accept;
pub(crate) mod connect;
pub(crate) mod datagram;
pub(crate) mod dial;
pub(crate) mod hooks;
pub(crate) mod settle;
pub(crate) mod timers;

use std::io;
use std::time::Duration;

use crate::core::channel::Channel;
use crate::core::map::ChannelMap;
use crate::event_loop::hooks::Entered;
use crate::event_loop::timers::{guarded, run_timers};
use crate::link::output::Output;
use crate::link::{Phase, State};
use crate::reason::Reason;
use crate::sys;
use crate::sys::poll::{Interest, Ready};
use crate::threads::credit::Credit;
use crate::threads::queue::{Mailbox, Message};
use crate::token::Token;

/// Messages of other threads in one turn at most.
const MESSAGES: usize = 256;

/// Turns in a row in which a channel may be ready without anything being done with it; then it is
/// left alone for a while, longer each time.
const IDLE_TURNS: u8 = 64;
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How [`run_with`] runs: the arguments of asyncore's `loop(timeout, use_poll, map, count)`.
///
/// ```
/// use dispatch_loop::{ChannelMap, LoopOptions};
/// use std::time::Duration;
///
/// let mut map = ChannelMap::new()?;
/// map.call_later(Duration::from_secs(3600), |_| ());
/// let options = LoopOptions {
///     timeout: Some(Duration::from_millis(10)),
///     count: Some(3),
///     ..LoopOptions::default()
/// };
/// dispatch_loop::run_with(&mut map, &options)?;       // three waits, not an hour
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct LoopOptions {
    /// The longest that one wait may take. Default `None`: until there is something to do.
    /// (Python's default is 30 s.)
    pub timeout: Option<Duration>,
    /// Return after this many waits. Default `None`: go on until the map is empty.
    pub count: Option<u64>,
    /// Ask `readable` and `writable` of every channel every turn, as Python does, at a cost that
    /// grows with the number of channels. For ported programs whose answers change behind the
    /// loop's back. Default `false`.
    pub rescan: bool,
}

/// Drive the channels of `map` until none is left and no timer is set, or
/// [`stop`](ChannelMap::stop) is called: asyncore's `loop()`.
///
/// Channels outlive it when it is stopped, and the next call goes on with them.
///
/// # Errors
/// The poller failed, or this is called from inside one of the map's own hooks (`Deadlock`).
#[doc(alias = "loop")]
pub fn run(map: &mut ChannelMap) -> io::Result<()> {
    run_with(map, &LoopOptions::default())
}

/// As [`run`], with options: `loop(timeout, use_poll, map, count)`.
///
/// # Errors
/// As [`run`].
#[doc(alias = "loop")]
pub fn run_with(map: &mut ChannelMap, options: &LoopOptions) -> io::Result<()> {
    let mut waits = 0;
    refuse_nested(map)?;
    map.set_stopped(false);
    loop {
        if map.take_stop() {
            map.set_stopped(true);
            return Ok(());
        }
        if map.is_idle() || options.count.is_some_and(|count| waits >= count) {
            return Ok(());
        }
        if let Err(error) = turn(map, options.timeout, options.rescan, true) {
            // Nobody knows whether it is called again: whoever waits for the loop must not.
            map.set_stopped(true);
            return Err(error);
        }
        waits += 1;
    }
}

impl ChannelMap {
    /// Whether [`run`] would return: no channel is left but those in the background
    /// ([`set_background`](Channel::set_background)), no timer, and no message of another thread.
    pub fn is_idle(&self) -> bool {
        let mail = self.mailbox.as_ref().is_some_and(|mailbox| !mailbox.is_empty());
        self.len() == self.background && self.hidden == 0 && self.timers.is_empty() && !mail
    }

    fn is_stop_asked(&self) -> bool {
        self.stopping || self.mailbox.as_ref().is_some_and(Mailbox::is_stop_asked)
    }

    fn take_stop(&mut self) -> bool {
        let by_remote = self.mailbox.as_ref().is_some_and(Mailbox::take_stop);
        std::mem::take(&mut self.stopping) || by_remote
    }

    fn set_stopped(&mut self, stopped: bool) {
        self.stopped = stopped;
        if let Some(mailbox) = &self.mailbox {
            mailbox.set_stopped(stopped);
        }
    }
}

fn refuse_nested(map: &ChannelMap) -> io::Result<()> {
    if Entered::is(map.id) {
        return Err(io::Error::new(
            io::ErrorKind::Deadlock,
            "the loop of this map is running already; a hook must return to it, not start it anew",
        ));
    }
    Ok(())
}

/// Settle, wait, serve what is ready, run timers, settle.
pub(crate) fn turn(
    map: &mut ChannelMap,
    timeout: Option<Duration>,
    rescan: bool,
    in_run: bool,
) -> io::Result<()> {
    refuse_nested(map)?;
    let id = map.id;
    let _entered = Entered::now(id);
    map.turn = map.turn.wrapping_add(1);
    if map.out > 0 {
        settle::free_orphans(map);
    }
    if rescan {
        let tokens: Vec<Token> = map.tokens().collect();
        for token in tokens {
            map.touch(token);
        }
    }
    let was_idle = map.is_idle();
    settle::settle(map);
    if map.id != id {
        return Ok(());
    }
    // Stopped by a hook of the settle; or the settle has ended the last channel, which whoever
    // turns until then waits for; or it would be a wait for ever.
    let stopped = in_run && map.is_stop_asked();
    let over = map.is_idle() && (!was_idle || timeout.is_none());
    let timeout = if stopped || over { Some(Duration::ZERO) } else { wait_time(map, timeout) };
    map.poll.wait(timeout)?;
    let _busy = map.mailbox.as_ref().map(Mailbox::busy);
    for step in [dispatch, run_timers, run_messages, settle::settle] {
        step(map);
        // A hook swapped the maps: this turn is not the other one's.
        if map.id != id {
            break;
        }
    }
    Ok(())
}

fn wait_time(map: &ChannelMap, timeout: Option<Duration>) -> Option<Duration> {
    match (timeout, map.wait_limit()) {
        (Some(timeout), Some(limit)) => Some(timeout.min(limit)),
        (timeout, limit) => timeout.or(limit),
    }
}

/// Serve every channel of the batch, and those with input inside their source.
fn dispatch(map: &mut ChannelMap) {
    let id = map.id;
    let pending = map.pending.len();
    let mut at = 0;
    while let Some(ready) = map.poll.event(at) {
        at += 1;
        if let Some(token) = map.slots.token_at(ready.key) {
            serve(map, token, ready);
        }
        // A hook swapped the maps: this batch is the other one's.
        if map.id != id {
            return;
        }
    }
    for at in 0..pending {
        let token = map.pending[at];
        let ready = Ready { key: token.slot as usize, ..Ready::default() };
        // Unless an event has led to it just now.
        if map.state(token).is_some_and(|state| state.pending) {
            serve(map, token, ready);
        }
        if map.id != id {
            return;
        }
    }
    map.pending.drain(..pending);
}

/// One channel is ready.
fn serve(map: &mut ChannelMap, token: Token, ready: Ready) {
    let Some(state) = map.state_mut(token) else { return };
    // Since the last event something was done with it, say by the settle.
    if std::mem::replace(&mut state.busy, false) {
        state.idle_turns = 0;
    }
    state.pending = false;
    let unread = state.unread_len();
    if state.is_boxed() && !drive(state, ready) {
        map.touch(token);
        return;
    }
    match state.phase {
        Phase::Listening => accept::accept_ready(map, token),
        Phase::Connecting => connect_outcome(map, token),
        Phase::Open if state.datagrams => serve_datagrams(map, token, ready),
        Phase::Open => serve_stream(map, token, ready),
        Phase::Closing => {
            state.blocked = false;
            settle::output(map, token);
        }
        Phase::Lingering => settle::drop_input(map, token),
        _ => {}
    }
    map.touch(token);
    if let Some(state) = map.state_mut(token) {
        state.busy |= state.unread_len() < unread;
    }
    guard(map, token, ready);
}

/// Let a source of its own do what it needs the socket for; `false` if it failed.
fn drive(state: &mut State, ready: Ready) -> bool {
    let unasked = ready.hup || ready.err;
    let interest = Interest { read: ready.read || unasked, write: ready.write || unasked };
    let Some(source) = &mut state.source else { return true };
    match source.as_dyn().drive(interest) {
        Ok(moved) => {
            if moved {
                state.stamp();
            }
            true
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
        Err(error) => {
            state.lost_reading(&error);
            false
        }
    }
}

fn connect_outcome(map: &mut ChannelMap, token: Token) {
    let Some(fd) = map.state(token).and_then(State::fd) else { return };
    match sys::take_error(fd) {
        Ok(None) => settle::connected(map, token, None),
        // Connected, and reset since; after a FIN of the peer that is a broken pipe.
        Ok(Some(error))
            if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) =>
        {
            settle::connected(map, token, Some(error));
        }
        Ok(Some(error)) | Err(error) => settle::connect_failed(map, token, error),
    }
}

fn serve_datagrams(map: &mut ChannelMap, token: Token, ready: Ready) {
    let Some(state) = map.state_mut(token) else { return };
    if state.reads() {
        datagram::receive(map, token);
    } else if ready.err {
        // Level-triggered, and nobody reads: take it away.
        if let Some(Ok(Some(error))) = state.fd().map(sys::take_error) {
            datagram::tell(map, token, &error);
        }
    }
    if ready.write {
        settle::output(map, token);
    }
}

/// In the order of the contract: exceptional, read, write.
fn serve_stream(map: &mut ChannelMap, token: Token, ready: Ready) {
    let Some(state) = map.state_mut(token) else { return };
    if ready.urgent && state.reads() {
        hooks::run(
            map,
            token,
            "handle_expt",
            but_not_would_block(|dispatcher, ch| dispatcher.handle_expt(ch)),
        );
        // Level-triggered: what the hook left would come again for ever.
        if let Some(state) = map.state_mut(token) {
            let _ = state.recv_urgent(&mut [0]);
        }
    }
    let Some(state) = map.state_mut(token) else { return };
    if state.reads() {
        if ready.read || ready.hup || ready.err || state.has_input_inside() {
            hooks::run(
                map,
                token,
                "handle_read",
                but_not_would_block(|dispatcher, ch| dispatcher.handle_read(ch)),
            );
            settle::tell_eof(map, token);
        }
    } else if state.phase == Phase::Open && (ready.err || ready.hup) {
        unasked(map, token, ready);
    }
    let Some(state) = map.state_mut(token) else { return };
    let room = ready.write && state.armed.is_some_and(|armed| armed.write);
    if room && state.phase == Phase::Open {
        let writes = state.writes();
        state.blocked = false;
        settle::output(map, token);
        if writes {
            hooks::run(
                map,
                token,
                "handle_write",
                but_not_would_block(|dispatcher, ch| dispatcher.handle_write(ch)),
            );
        }
    }
}

/// `WouldBlock` is no error of the hooks that are called because something may be possible.
fn but_not_would_block(
    hook: impl FnOnce(&mut dyn crate::Dispatcher, &mut Channel<'_>) -> io::Result<()>,
) -> impl FnOnce(&mut dyn crate::Dispatcher, &mut Channel<'_>) -> io::Result<()> {
    |dispatcher, ch| match hook(dispatcher, ch) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        result => result,
    }
}

/// The peer hung up or reset the connection while nobody reads; level-triggered, and not to be
/// masked.
fn unasked(map: &mut ChannelMap, token: Token, ready: Ready) {
    let Some(state) = map.state_mut(token) else { return };
    if ready.err {
        let error = state.fd().and_then(|fd| sys::take_error(fd).ok().flatten());
        if let Some(error) = error {
            return state.lost_reading(&error);
        }
    }
    if !state.outbox.is_empty() {
        // There is nobody to take it: the send will say why.
        state.blocked = false;
        settle::output(map, token);
    }
    let Some(state) = map.state_mut(token) else { return };
    if !ready.hup || state.phase != Phase::Open {
        return;
    }
    if state.is_at_end() {
        state.kill(Reason::EndOfStream);
    } else {
        state.parked = true;
    }
}

/// Nothing was done with a channel that was ready: not for ever.
fn guard(map: &mut ChannelMap, token: Token, ready: Ready) {
    let Some(state) = map.state_mut(token) else { return };
    if state.busy {
        state.idle_turns = 0;
        if state.phase != Phase::Listening {
            state.pauses = 0;
        }
        return;
    }
    if matches!(state.phase, Phase::Dead | Phase::Connecting) || state.interest() != state.armed {
        return;
    }
    state.idle_turns += 1;
    if state.idle_turns < IDLE_TURNS {
        return;
    }
    // After the pause, one more turn without anything being done is enough.
    state.idle_turns = IDLE_TURNS - 1;
    let pause = (FIRST_PAUSE * (1 << state.pauses.min(7))).min(LONGEST_PAUSE);
    let first = state.pauses == 0;
    state.pauses = state.pauses.saturating_add(1);
    if first && map.throttle_admits() {
        log::warn!(
            "channel {token}: ready for {IDLE_TURNS} turns, and its hooks did nothing with it; it is now tried from time to time"
        );
    }
    let Some(state) = map.state_mut(token) else { return };
    // A `writable` that is always true, as Python's is, must not keep input from its channel.
    let only_room = state.writes() && !(ready.read || ready.urgent || ready.hup || ready.err);
    match only_room {
        true => settle::mute_write(map, token, pause),
        false => settle::disarm(map, token, pause),
    }
}

/// What other threads sent.
fn run_messages(map: &mut ChannelMap) {
    let id = map.id;
    for _ in 0..MESSAGES {
        let Some(message) = map.mailbox.as_ref().and_then(Mailbox::take) else { break };
        match message {
            Message::Call(call) => guarded(map, "a remote call", call),
            Message::Bytes(token, bytes, credit) => push_remote(map, token, bytes, credit.as_deref()),
        }
        if map.id != id {
            return;
        }
    }
}

fn push_remote(map: &mut ChannelMap, token: Token, bytes: Vec<u8>, credit: Option<&Credit>) {
    let (turn, len) = (map.turn, bytes.len());
    map.touch(token);
    let Some(state) = map.state_mut(token) else {
        return log::debug!("{len} bytes for channel {token}, which is gone, were dropped");
    };
    let result = match credit {
        Some(_) => state.push_unlimited(turn, Output::Vec(bytes)),
        None => state.push(turn, Output::Vec(bytes)),
    };
    if let Some(credit) = credit {
        credit.arrived(len, state.outbox.queued());
    }
    if let Err(error) = result {
        map.report(token, "a remote push", &error);
    }
}
