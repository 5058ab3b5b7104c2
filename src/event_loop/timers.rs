//! Timers that are due: the user's calls, and the loop's own time limits.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::clock::{Time, next_beat};
use crate::core::action::Action;
use crate::core::channel::Channel;
use crate::core::map::ChannelMap;
use crate::error::panicked;
use crate::event_loop::messages::guarded;
use crate::event_loop::{
    admission, backoff, bandwidth, broken, connect, deadlines, dial, drain, handshake, hooks, overdue, settle,
};
use crate::guard::drop_guarded;
use crate::link::state::Link;
use crate::threads::pulse::Work;
use crate::timers::{Due, TimerKey};
use crate::token::Token;

/// The most timers that run in one turn.
const TIMERS: usize = 1024;

pub(crate) fn run_timers(map: &mut ChannelMap) {
    let id = map.id;
    let now = map.turn.time;
    let last_order = match map.soon {
        // What is to run in the next turn, and what was set after it, waits for that.
        (turn, before) if turn == map.turn.number => before,
        _ => map.timers.last_order(),
    };
    for _ in 0..TIMERS {
        let Some(due) = map.timers.take_due(now, last_order) else { return };
        map.counters.lag.record(now.since(due.deadline));
        fire(map, due, now);
        if map.id != id {
            return;
        }
    }
}

fn fire(map: &mut ChannelMap, due: Due<Action>, now: Time) {
    let Due { key, deadline, action } = due;
    match action {
        // Set again before the call, which may swap or drop the map, or cancel the timer.
        Action::CallEvery(interval, f) => {
            set_again(map, key, next_beat(deadline, interval, now), Action::CallEvery(interval, f.clone()));
            guarded(map, Work::Timer, |map| f.borrow_mut()(map));
            drop_guarded(&mut map.throttle, "a timer", f);
        }
        Action::ChannelEvery(token, interval, f) => {
            let again = Action::ChannelEvery(token, interval, f.clone());
            set_again(map, key, next_beat(deadline, interval, now), again);
            channel_call(map, token, Work::Timer, |ch| f.borrow_mut()(ch));
            drop_guarded(&mut map.throttle, "a timer", f);
        }
        Action::Idle(token) => idle(map, token, key, now),
        Action::Deadline(token) => deadlines::look(map, token, key, now),
        Action::Flush(token) => overdue::closing(map, token, key, now),
        Action::Linger(token) => overdue::lingering(map, token, key, now),
        once => {
            map.timers.release(key);
            fire_once(map, once, now);
        }
    }
}

fn fire_once(map: &mut ChannelMap, action: Action, now: Time) {
    match action {
        Action::Call(f) => guarded(map, Work::Timer, |map| f(map)),
        Action::Channel(token, f) => channel_call(map, token, Work::Timer, |ch| f(ch)),
        Action::Connect(token, tries) => connect::connect_again(map, token, tries),
        Action::DialNext(token) => dial::attempt_delay_over(map, token),
        Action::DialTimeout(token) => dial::timed_out(map, token),
        Action::Resume(token) => backoff::resume(map, token),
        Action::Limits(token) => admission::look_what_is_over(map, token),
        Action::Bandwidth(token) => bandwidth::resume(map, token, now),
        Action::Resend(token) => broken::resend(map, token),
        Action::Handshake(token) => handshake::overdue(map, token),
        Action::Broken(token) => broken::overdue(map, token),
        Action::Drain => drain::sweep(map),
        Action::CallEvery(..)
        | Action::ChannelEvery(..)
        | Action::Idle(_)
        | Action::Deadline(_)
        | Action::Flush(_)
        | Action::Linger(_) => {}
    }
}

/// A due timer is to run again.
fn set_again(map: &mut ChannelMap, key: TimerKey, deadline: Time, action: Action) {
    // It has just been taken out, so it is there.
    let _ = map.timers.put_back(key, deadline, action);
}

/// Run what belongs to a channel, but is no hook: a timer, or what is done with the result of a blocking call.
pub(crate) fn channel_call(
    map: &mut ChannelMap,
    token: Token,
    what: Work,
    f: impl FnOnce(&mut Channel<'_>) -> io::Result<()>,
) {
    settle::open_due(map, token);
    // A closing channel still has its timers: one of them may end it sooner.
    let done = |link: &Link| link.is_over() || link.is_lingering();
    if !map.touch(token) || map.link(token).is_some_and(done) {
        return drop_guarded(&mut map.throttle, what.name(), f);
    }
    let mut result = Ok(Ok(()));
    hooks::gathering(map, token, |map| {
        map.pulse.begin_work(what, token);
        result = catch_unwind(AssertUnwindSafe(|| f(&mut Channel::own(map, token))));
        map.pulse.end_work();
    });
    match result {
        Ok(Ok(())) => {}
        Ok(Err(error)) => hooks::failed(map, token, what.name(), error, false),
        Err(payload) => hooks::failed(map, token, what.name(), panicked(payload), true),
    }
}

/// The time of `set_timeout` may be over, unless a byte was received or sent meanwhile.
fn idle(map: &mut ChannelMap, token: Token, key: TimerKey, now: Time) {
    settle::open_due(map, token);
    let timeout = map.link(token).filter(|link| !link.is_ending()).and_then(|link| {
        let rare = link.rare_if_any()?;
        Some((link.active()?, rare.timeout.filter(|_| rare.idle_timer == Some(key))?))
    });
    let Some((active, timeout)) = timeout else { return map.timers.release(key) };
    let deadline = active.after(timeout);
    if deadline > now {
        // It is still the channel's timer, so it was not cancelled.
        let _ = map.timers.put_back(key, deadline, Action::Idle(token));
        return;
    }
    // It is ours that nothing moves.
    if map.link(token).is_some_and(Link::waits_for_its_turn) {
        let next = overdue::look_again(now, timeout, now);
        let _ = map.timers.put_back(key, next, Action::Idle(token));
        return;
    }
    // A peer that reads slowly makes no event.
    let left = overdue::last_left(map, token, now).filter(|last| last.after(timeout) > now);
    if let Some(last) = left {
        let next = overdue::look_again(last, timeout, now);
        let _ = map.timers.put_back(key, next, Action::Idle(token));
        return;
    }
    map.timers.release(key);
    let Some(link) = map.link_mut(token).filter(|link| !link.is_ending()) else { return };
    link.rare().idle_timer = None;
    map.touch(token);
    hooks::run(map, token, Work::Timeout, |dispatcher, ch| dispatcher.handle_timeout(ch));
    // The channel lives on, and the hook has set no other timeout: the time starts anew.
    let now = map.clock.now();
    let Some(link) = map.link_mut(token) else { return };
    let again = link.rare_if_any().is_some_and(|rare| rare.idle_timer.is_none() && rare.timeout.is_some());
    if again {
        link.stamp(now);
        map.start_idle_timer(token);
    }
}
