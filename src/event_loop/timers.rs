//! What happens when a timer is due: a call of the user's, or one of the loop's own limits.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::core::action::Action;
use crate::core::channel::Channel;
use crate::core::map::ChannelMap;
use crate::error::panicked;
use crate::event_loop::{connect, dial, hooks, settle};
use crate::link::Phase;
use crate::reason::Reason;
use crate::report::Escaped;
use crate::timers::{Timer, after, next_beat};
use crate::token::Token;

/// Timers that run in one turn at most.
const TIMERS: usize = 1024;

pub(crate) fn run_timers(map: &mut ChannelMap) {
    if map.timers.is_empty() {
        return;
    }
    let id = map.id;
    let now = Instant::now();
    let last_order = map.timers.last_order();
    for _ in 0..TIMERS {
        let Some(timer) = map.timers.take_due(now, last_order) else { return };
        fire(map, timer, now);
        if map.id != id {
            return;
        }
    }
}

fn fire(map: &mut ChannelMap, timer: Timer, now: Instant) {
    let Timer { id, deadline, action } = timer;
    match action {
        Action::Call(f) => guarded(map, "a timer", |map| f(map)),
        Action::CallEvery(interval, mut f) => repeat(map, id, deadline, interval, now, |map| {
            guarded(map, "a timer", |map| f(map));
            Action::CallEvery(interval, f)
        }),
        Action::Channel(token, f) => channel_call(map, token, |ch| f(ch)),
        Action::ChannelEvery(token, interval, mut f) => repeat(map, id, deadline, interval, now, |map| {
            channel_call(map, token, |ch| f(ch));
            Action::ChannelEvery(token, interval, f)
        }),
        Action::Idle(token) => idle(map, token, id, now),
        Action::Flush(token) => flush_overdue(map, token, id, now),
        Action::Linger(token) => {
            if let Some(state) = map.state_mut(token) {
                state.phase = Phase::Dead;
            }
            map.touch(token);
        }
        Action::Connect(token, tries) => connect::connect_again(map, token, tries),
        Action::DialNext(token) => dial::stagger_over(map, token),
        Action::DialTimeout(token) => dial::time_over(map, token),
        Action::Rewatch(token) => settle::rewatch(map, token),
    }
}

/// Run a repeated timer and set it anew, unless it was cancelled from inside, or its channel has
/// ended.
fn repeat(
    map: &mut ChannelMap,
    id: u64,
    deadline: Instant,
    interval: Duration,
    now: Instant,
    call: impl FnOnce(&mut ChannelMap) -> Action,
) {
    let map_id = map.id;
    map.running_timer = Some((id, false));
    let action = call(map);
    let same_map = map.id == map_id;
    let cancelled = !same_map || map.running_timer.take().is_none_or(|(_, cancelled)| cancelled);
    if !cancelled {
        map.timers.put(Timer { id, deadline: next_beat(deadline, interval, now), action });
    } else {
        hooks::drop_guarded(map, "a timer", action);
    }
}

pub(crate) fn guarded(map: &mut ChannelMap, what: &str, f: impl FnOnce(&mut ChannelMap)) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| f(map))) {
        let error = panicked(payload);
        if map.throttle_admits() {
            log::warn!("{what} {}", Escaped(&error));
        }
    }
}

fn channel_call(map: &mut ChannelMap, token: Token, f: impl FnOnce(&mut Channel<'_>) -> io::Result<()>) {
    settle::open_due(map, token);
    // One that is closing still has its timers: they may be what ends it sooner.
    if !map.touch(token) || map.state(token).is_some_and(|state| state.phase == Phase::Dead) {
        return;
    }
    match catch_unwind(AssertUnwindSafe(|| f(&mut Channel::own(map, token)))) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => hooks::failed(map, token, "a timer", error, false),
        Err(payload) => hooks::failed(map, token, "a timer", panicked(payload), true),
    }
}

/// The time of `set_timeout` may be over; a byte that came or went meanwhile has moved it.
fn idle(map: &mut ChannelMap, token: Token, id: u64, now: Instant) {
    settle::open_due(map, token);
    let Some(state) = map.slots.get_mut(token) else { return };
    if matches!(state.phase, Phase::Closing | Phase::Lingering | Phase::Dead | Phase::Closed) {
        return;
    }
    let Some(clock) = &mut state.clock else { return };
    let Some(timeout) = clock.timeout.filter(|_| clock.idle_timer == Some(id)) else { return };
    let deadline = after(clock.active, timeout);
    if deadline > now {
        return map.timers.put(Timer { id, deadline, action: Action::Idle(token) });
    }
    clock.idle_timer = None;
    map.touch(token);
    hooks::run(map, token, "handle_timeout", |dispatcher, ch| dispatcher.handle_timeout(ch));
    // It lives on, and the hook has set no other time: the time starts anew.
    let Some(state) = map.state_mut(token) else { return };
    let Some(clock) = &mut state.clock else { return };
    if clock.idle_timer.is_none() && clock.timeout.is_some() {
        clock.active = Instant::now();
        map.start_idle_timer(token);
    }
}

/// A closing channel's time to get rid of its queue may be over.
fn flush_overdue(map: &mut ChannelMap, token: Token, id: u64, now: Instant) {
    let Some(state) = map.slots.get_mut(token) else { return };
    if state.phase != Phase::Closing {
        return;
    }
    let clock = state.clock();
    let deadline = after(clock.active, clock.close_timeout);
    if deadline > now {
        return map.timers.put(Timer { id, deadline, action: Action::Flush(token) });
    }
    state.reset = true;
    state.kill(Reason::TimedOut);
    map.touch(token);
}
