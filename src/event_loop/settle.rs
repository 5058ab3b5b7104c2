//! The settle: for each channel that was touched since the last one, carry out opens and closes,
//! tell the dispatcher its news, flush, ask `readable` and `writable`, and tell the poller what
//! changed.

use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::action::Action;
use crate::core::dispatcher::Eof;
use crate::core::map::ChannelMap;
use crate::event_loop::hooks::{Ran, drop_guarded};
use crate::event_loop::{datagram, dial, hooks};
use crate::link::outbox::{Flushed, Watermark};
use crate::link::source::Held;
use crate::link::{Disarmed, Phase, State};
use crate::reason::Reason;
use crate::report::Escaped;
use crate::sys;
use crate::token::Token;

/// How long a peer that was given FIN may take to end, while what it sends is dropped.
const LINGER: Duration = Duration::from_secs(2);

/// Channels that the list of touched ones has room for at rest.
const KEPT: usize = 2048;

/// Settle what was touched up to now; what this touches waits for the next settle.
pub(crate) fn settle(map: &mut ChannelMap) {
    let id = map.id;
    let generation = map.touched.len();
    for at in 0..generation {
        settle_channel(map, map.touched[at]);
        // A hook swapped the maps. The other one keeps its list as it was.
        if map.id != id {
            return;
        }
    }
    map.touched.drain(..generation);
    // After an onslaught of channels, do not keep the room that it took.
    if map.touched.is_empty() && map.touched.capacity() > KEPT {
        map.touched = Vec::new();
    }
}

fn settle_channel(map: &mut ChannelMap, token: Token) {
    let quiet = map.state(token).is_some_and(State::is_quiet);
    let told = !quiet && carry_out(map, token);
    ask(map, token);
    arm(map, token);
    let Some(state) = map.state_mut(token) else { return };
    if let Some(error) = state.source.as_ref().and_then(Held::panic) {
        state.kill(Reason::from(error));
    }
    // Nobody will read what a lost connection may still hold.
    if state.lost && state.phase == Phase::Open && !state.reads() {
        state.phase = Phase::Dead;
    }
    if state.phase == Phase::Dead {
        return finish(map, token);
    }
    // Left alone because nobody did anything with it, and now somebody has.
    if state.disarmed != Disarmed::No && state.busy && state.phase != Phase::Listening {
        rewatch(map, token);
        arm(map, token);
    }
    publish(map, token);
    let Some(state) = map.state_mut(token) else { return };
    state.touched = false;
    let unsent = state.outbox.is_due() && !state.blocked && !state.is_connecting() && state.is_established();
    let noted = state.failure.is_some() || state.network_error.is_some();
    let changed = state.phase == Phase::Dead || state.has_news() || noted;
    if unsent || changed || told || std::mem::take(&mut state.again) {
        map.touch(token);
    }
}

/// Tell the dispatcher what it is to be told, and send what is to be sent. Whether the last of it was
/// a hook, which may have asked for more.
fn carry_out(map: &mut ChannelMap, token: Token) -> bool {
    open_due(map, token);
    tell_failure(map, token);
    datagram::tell_noted(map, token);
    tell_eof(map, token);
    tell_watermarks(map, token);
    output(map, token);
    tell_watermarks(map, token)
}

/// Run `handle_connect` and `handle_open`, if it is time for them.
pub(crate) fn open_due(map: &mut ChannelMap, token: Token) {
    let Some(state) = map.state_mut(token) else { return };
    match state.phase {
        Phase::Connected => connected(map, token, None),
        Phase::ConnectFailed => {
            let error = state.failure.take().unwrap_or_else(|| io::ErrorKind::NotConnected.into());
            connect_failed(map, token, error);
        }
        Phase::Opening if state.is_established() => open(map, token),
        _ => {}
    }
}

fn open(map: &mut ChannelMap, token: Token) {
    if let Some(state) = map.state_mut(token) {
        state.phase = Phase::Open;
        hooks::run(map, token, "handle_open", |dispatcher, ch| dispatcher.handle_open(ch));
    }
}

/// The connect succeeded; `lost` if the connection is gone again already.
pub(crate) fn connected(map: &mut ChannelMap, token: Token, lost: Option<io::Error>) {
    let Some(state) = map.state_mut(token) else { return };
    state.phase = Phase::Opening;
    state.stamp();
    if let Some(error) = lost {
        state.lost_writing(&error);
    }
    hooks::run(map, token, "handle_connect", |dispatcher, ch| dispatcher.handle_connect(ch));
    let Some(state) = map.state_mut(token) else { return };
    if state.phase == Phase::Opening && state.is_established() {
        open(map, token);
    }
}

pub(crate) fn connect_failed(map: &mut ChannelMap, token: Token, error: io::Error) {
    let told = hooks::call(map, token, |dispatcher, ch| dispatcher.handle_error(ch, &error));
    if let Ran::Panicked(second) = told {
        map.report(token, "handle_error", &second);
    }
    // The dispatcher is told twice: this is for those who look on.
    log::info!("channel {token}: connect: {}", Escaped(&error));
    if let Some(state) = map.state_mut(token) {
        state.kill(Reason::from(error));
    }
}

/// What a `with` on the channel failed with.
fn tell_failure(map: &mut ChannelMap, token: Token) {
    let Some(state) = map.state_mut(token) else { return };
    if let Some(error) = state.failure.take() {
        hooks::failed(map, token, "with", error, false);
    }
}

/// If the end of input was read, tell it, once, and do as the dispatcher answers.
pub(crate) fn tell_eof(map: &mut ChannelMap, token: Token) {
    let Some(state) = map.state_mut(token) else { return };
    if !state.is_at_end() || state.eof_told || state.phase != Phase::Open {
        return;
    }
    state.eof_told = true;
    if state.lost {
        // Not an end of the stream but what the system says after a reset.
        state.phase = Phase::Dead;
        return;
    }
    let answer = match hooks::call(map, token, |dispatcher, ch| dispatcher.handle_eof(ch)) {
        Ran::Returned(Ok(answer)) => answer,
        Ran::Returned(Err(error)) => {
            hooks::failed(map, token, "handle_eof", error, false);
            Eof::Close
        }
        Ran::Panicked(error) => {
            hooks::failed(map, token, "handle_eof", error, true);
            Eof::Close
        }
        Ran::Absent => return,
    };
    if let (Eof::Close, Some(state)) = (answer, map.state_mut(token)) {
        state.close(Reason::EndOfStream);
    }
}

/// Whether there was something to tell.
fn tell_watermarks(map: &mut ChannelMap, token: Token) -> bool {
    let mut told = false;
    while let Some(state) = map.state_mut(token) {
        if !state.has_news() {
            break;
        }
        match state.outbox.news() {
            Some(Watermark::High) => {
                hooks::run(map, token, "handle_high", |dispatcher, ch| dispatcher.handle_high(ch));
            }
            // One round: what `handle_low` queues is the next settle's.
            Some(Watermark::Low) => {
                hooks::run(map, token, "handle_low", |dispatcher, ch| dispatcher.handle_low(ch));
                return true;
            }
            None => break,
        }
        told = true;
    }
    told
}

/// Flush what is queued, and when that is done, what was to come after it: FIN, the end.
pub(crate) fn output(map: &mut ChannelMap, token: Token) {
    let turn = map.turn;
    let Some(state) = map.state_mut(token) else { return };
    match state.phase {
        Phase::Opening | Phase::Open | Phase::Closing if state.is_established() => {}
        // A handshake in mid-stream, which may never end.
        Phase::Closing => return start_flush_timer(map, token),
        _ => return,
    }
    if !state.outbox.is_empty() && (!state.blocked || state.datagrams) {
        match state.flush(turn) {
            Flushed::Empty | Flushed::Blocked | Flushed::Budget | Flushed::Stalled => {}
            Flushed::Producer(error, panic) => return producer_failed(map, token, error, panic),
            Flushed::Lost(error) => return state.lost_writing(&error),
        }
    }
    let Some(state) = map.state_mut(token) else { return };
    if state.outbox.is_empty() && !state.lost {
        after_output(map, token);
    } else if state.phase == Phase::Closing {
        start_flush_timer(map, token);
    }
}

fn producer_failed(map: &mut ChannelMap, token: Token, error: io::Error, panic: bool) {
    // While closing, the dispatcher is not asked, and what the producer owed will never come.
    if let Some(state) = map.state_mut(token).filter(|state| state.is_closing()) {
        if matches!(state.reason, Some(Reason::Closed | Reason::EndOfStream)) {
            state.reason = Some(Reason::from(crate::error::clone_error(&error)));
        }
        state.kill(Reason::Closed);
    }
    hooks::failed(map, token, "a producer", error, panic);
    if let Some(state) = map.state_mut(token) {
        // It is cut short, and must not look like an end.
        state.reset |= state.phase == Phase::Dead;
        // Or it lives on: what was to come after the producer is the next settle's.
        state.again = true;
    }
    map.touch(token);
}

fn after_output(map: &mut ChannelMap, token: Token) {
    let Some(state) = map.state_mut(token) else { return };
    let closing = state.phase == Phase::Closing;
    // A source of its own says farewell before the socket is closed.
    if !state.fin_sent && (state.shut || (closing && state.is_boxed())) {
        state.fin_sent = true;
        if let Err(error) = send_fin(map, token) {
            // The peer is gone; what it sent before that may still be read.
            if let Some(state) = map.state_mut(token) {
                let cause = state.fd().and_then(|fd| sys::take_error(fd).ok().flatten());
                state.lost_writing(&cause.unwrap_or(error));
            }
            return;
        }
    }
    let Some(state) = map.state_mut(token) else { return };
    if state.output_pending() {
        if closing {
            start_flush_timer(map, token);
        }
        return;
    }
    if closing {
        drain_and_end(map, token);
    } else if state.fin_sent && state.read_ended && state.eof_told {
        state.kill(Reason::EndOfStream);
    }
}

fn send_fin(map: &mut ChannelMap, token: Token) -> io::Result<()> {
    match map.state_mut(token).and_then(|state| state.source.as_mut()) {
        Some(source) => match source.as_dyn().shutdown_write() {
            // It goes on when there is room: `output_pending` says so.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            result => result,
        },
        None => Ok(()),
    }
}

/// All is sent. If the peer has sent what nobody read, closing now would reset the connection, and
/// the peer might lose what it has not read yet: send FIN first, and wait for its own.
fn drain_and_end(map: &mut ChannelMap, token: Token) {
    let mut buffer = map.take_buffer();
    if let Some(state) = map.state_mut(token) {
        let unread = match &mut state.source {
            Some(source) if !state.read_ended && state.lingers && !state.datagrams => {
                source.as_dyn().recv(&mut buffer)
            }
            _ => Ok(0),
        };
        state.phase = Phase::Dead;
        if matches!(unread, Ok(1..)) && (state.fin_sent || send_fin(map, token).is_ok()) {
            if let Some(state) = map.state_mut(token) {
                state.fin_sent = true;
                state.phase = Phase::Lingering;
                map.set_channel_timer(token, LINGER, Action::Linger(token));
            }
        }
    }
    map.give_buffer_back(buffer);
}

/// A channel in `Lingering` has input, or its end: drop it.
pub(crate) fn drop_input(map: &mut ChannelMap, token: Token) {
    let mut buffer = map.take_buffer();
    if let Some(state) = map.state_mut(token) {
        let result = state.source.as_mut().map_or(Ok(0), |source| source.as_dyn().recv(&mut buffer));
        match result {
            Ok(1..) => state.busy = true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => state.phase = Phase::Dead,
        }
    }
    map.give_buffer_back(buffer);
}

fn start_flush_timer(map: &mut ChannelMap, token: Token) {
    let Some(state) = map.state_mut(token) else { return };
    let clock = state.clock();
    if !std::mem::replace(&mut clock.flush_timer, true) {
        clock.active = Instant::now();
        let timeout = clock.close_timeout;
        map.set_channel_timer(token, timeout, Action::Flush(token));
    }
}

/// Ask `readable` and `writable`, where the answer matters.
fn ask(map: &mut ChannelMap, token: Token) {
    let Some(state) = map.state_mut(token) else { return };
    if !matches!(state.phase, Phase::Listening | Phase::Open) {
        return;
    }
    match hooks::call(map, token, |dispatcher, ch| (dispatcher.readable(ch), dispatcher.writable(ch))) {
        Ran::Returned((wants_read, wants_write)) => {
            let Some(state) = map.state_mut(token) else { return };
            state.wants_read = wants_read;
            state.wants_write = wants_write;
            // Reading again: the hang-up that was put aside is looked at once more.
            if state.parked && state.reads() {
                state.parked = false;
            }
        }
        Ran::Panicked(error) => hooks::failed(map, token, "readable or writable", error, true),
        Ran::Absent => {}
    }
}

/// Tell the poller what the channel waits for now, if that changed.
fn arm(map: &mut ChannelMap, token: Token) {
    let Some(state) = map.slots.get_mut(token) else { return };
    let wanted = state.interest();
    if let Some(source) = &state.source {
        if wanted != state.armed {
            let key = token.slot as usize;
            let told = match (state.armed, wanted) {
                (None, Some(interest)) => map.poll.add(source.as_fd(), key, interest),
                (Some(_), Some(interest)) => map.poll.modify(source.as_fd(), key, interest),
                (_, None) => map.poll.delete(source.as_fd()),
            };
            match told {
                Ok(()) => state.armed = wanted,
                Err(error) => {
                    state.kill(Reason::from(crate::error::clone_error(&error)));
                    return map.report(token, "the poller does not take it", &error);
                }
            }
        }
        let takes = state.disarmed == Disarmed::No && (state.reads() || state.phase == Phase::Lingering);
        if takes && !state.pending && state.has_input_inside() {
            state.pending = true;
            map.pending.push(token);
        }
    }
}

/// Let the outlets of a channel know how it stands.
fn publish(map: &ChannelMap, token: Token) {
    let Some(state) = map.state(token) else { return };
    if let (Some(credit), Some(mailbox)) = (&state.credit, &map.mailbox) {
        let ended = state.is_closing() || state.shut;
        mailbox.publish(credit, state.outbox.queued(), state.outbox.limits().high, ended);
    }
}

/// End a channel without any further ado: its map is being dropped.
pub(crate) fn end_for_good(map: &mut ChannelMap, token: Token, reason: Reason) {
    let Some(state) = map.state_mut(token) else { return };
    // Its hook is running, further down the stack, or its `handle_close` has run.
    if state.dispatcher.is_none() {
        return;
    }
    state.kill(reason);
    finish(map, token);
}

/// Close the source, run `handle_close`, drop the dispatcher, free the slot.
fn finish(map: &mut ChannelMap, token: Token) {
    let Some(state) = map.slots.get_mut(token) else { return };
    state.phase = Phase::Closed;
    publish(map, token);
    dial::call_off(map, token);
    let Some(state) = map.slots.get_mut(token) else { return };
    let reason = state.reason.take().unwrap_or(Reason::Closed);
    // Before its socket: as long as that is open, no other file can have the same inode.
    state.file = None;
    let source = state.source.take();
    if let Some(source) = &source {
        if state.local.is_none() {
            state.local = sys::local_addr(source.as_fd()).ok().map(Arc::new);
        }
        if state.armed.take().is_some() {
            // What fails here is that the descriptor is in no poller, which is what we want.
            let _ = map.poll.delete(source.as_fd());
        }
        if state.reset {
            let _ = sys::stream::set_reset_on_close(source.as_fd());
        }
    }
    let timers = match state.has_timers {
        true => map.timers.cancel_owned(token.slot),
        false => Vec::new(),
    };
    drop_guarded(map, "a source or a timer", (source, timers));
    wake_starved(map);
    hooks::run_close(map, token, &reason);
    map.set_background(token, false);
    if let Some(state) = map.slots.remove(token) {
        map.hidden -= usize::from(state.hidden);
        drop_guarded(map, "a dispatcher", state);
    }
}

/// A descriptor is free again: the listeners that wait for one may try.
fn wake_starved(map: &mut ChannelMap) {
    for token in std::mem::take(&mut map.starved) {
        rewatch(map, token);
    }
}

/// Watch a channel again that was taken out of the poller for a while.
pub(crate) fn rewatch(map: &mut ChannelMap, token: Token) {
    let Some(state) = map.slots.get_mut(token) else { return };
    state.disarmed = Disarmed::No;
    state.write_muted = false;
    if let Some(timer) = state.clock.as_mut().and_then(|clock| clock.rewatch.take()) {
        map.timers.cancel(timer);
    }
    map.touch(token);
}

/// Take a channel out of the poller for `delay`.
pub(crate) fn disarm(map: &mut ChannelMap, token: Token, delay: Duration) {
    rewatch_later(map, token, delay);
    if let Some(state) = map.state_mut(token) {
        state.disarmed = match state.disarmed {
            Disarmed::No if state.phase != Phase::Listening => Disarmed::Input,
            _ => Disarmed::All,
        };
    }
}

/// Do not call its `handle_write` for `delay`.
pub(crate) fn mute_write(map: &mut ChannelMap, token: Token, delay: Duration) {
    rewatch_later(map, token, delay);
    if let Some(state) = map.state_mut(token) {
        state.write_muted = true;
    }
}

fn rewatch_later(map: &mut ChannelMap, token: Token, delay: Duration) {
    let timer = map.set_channel_timer(token, delay, Action::Rewatch(token));
    if let Some(state) = map.state_mut(token) {
        if let Some(earlier) = state.clock().rewatch.replace(timer) {
            map.timers.cancel(earlier);
        }
    }
    map.touch(token);
}

/// A slot whose dispatcher never came back, because its hook swapped this map away: it had its
/// `handle_close` then. Free it.
pub(crate) fn free_orphans(map: &mut ChannelMap) {
    map.out = 0;
    let tokens: Vec<Token> = map.tokens().collect();
    for token in tokens {
        if map.state(token).is_some_and(|state| state.dispatcher.is_none()) {
            map.set_background(token, false);
            if let Some(state) = map.state_mut(token) {
                state.phase = Phase::Closed;
            }
            publish(map, token);
            if let Some(mut state) = map.slots.remove(token) {
                map.hidden -= usize::from(state.hidden);
                if let (Some(source), Some(_)) = (&state.source, state.armed.take()) {
                    let _ = map.poll.delete(source.as_fd());
                }
                let timers = map.timers.cancel_owned(token.slot);
                let dropped = catch_unwind(AssertUnwindSafe(|| drop((state, timers))));
                if dropped.is_err() {
                    log::warn!("the drop of a source or a timer panicked");
                }
            }
        }
    }
}

impl ChannelMap {
    pub(crate) fn set_channel_timer(&mut self, token: Token, delay: Duration, action: Action) -> u64 {
        if let Some(state) = self.state_mut(token) {
            state.has_timers = true;
        }
        self.timers.set(delay, action)
    }
}
