//! How a hook is called: the dispatcher is taken out of its slot, called with the view of its
//! channel, and put back; what it returns, and a panic, ends here.

use std::any::Any;
use std::cell::RefCell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::core::channel::Channel;
use crate::core::dispatcher::{Dispatcher, OnError};
use crate::core::map::ChannelMap;
use crate::error::{ChannelError, panicked, same};
use crate::reason::Reason;
use crate::token::Token;

/// What became of a call.
pub(crate) enum Ran<R> {
    Returned(R),
    Panicked(io::Error),
    /// The channel is gone, or its dispatcher is in use.
    Absent,
}

/// Call `f` with the dispatcher of a channel and the channel's own view.
pub(crate) fn call<R>(
    map: &mut ChannelMap,
    token: Token,
    f: impl FnOnce(&mut dyn Dispatcher, &mut Channel<'_>) -> R,
) -> Ran<R> {
    lend(map, token, false, false, f)
}

/// As [`call`], for the view that errors are named in: somebody else reaches into the channel.
pub(crate) fn call_foreign<R>(
    map: &mut ChannelMap,
    token: Token,
    f: impl FnOnce(&mut dyn Dispatcher, &mut Channel<'_>) -> R,
) -> Ran<R> {
    lend(map, token, true, false, f)
}

fn lend<R>(
    map: &mut ChannelMap,
    token: Token,
    foreign: bool,
    last: bool,
    f: impl FnOnce(&mut dyn Dispatcher, &mut Channel<'_>) -> R,
) -> Ran<R> {
    let Some(mut dispatcher) = map.state_mut(token).and_then(|state| state.dispatcher.take()) else {
        return Ran::Absent;
    };
    map.out += 1;
    let result = {
        let mut channel = if foreign { Channel::foreign(map, token) } else { Channel::own(map, token) };
        catch_unwind(AssertUnwindSafe(|| f(&mut *dispatcher, &mut channel)))
    };
    if map.state(token).is_some() {
        map.out -= 1;
    }
    match map.state_mut(token) {
        Some(state) if state.dispatcher.is_none() => state.dispatcher = Some(dispatcher),
        // It was replaced while it ran.
        Some(_) => {
            take_replaced(token);
            drop_guarded(map, "a replaced dispatcher", dispatcher);
        }
        // Its map is no longer where it was: swapped, or dropped, inside the hook.
        None => {
            // The last hook is that of the one who has the channel now.
            if !take_replaced(token) && !last {
                let mut channel = Channel::foreign(map, token);
                let end = || dispatcher.handle_close(&mut channel, &Reason::MapEnded);
                let ended = catch_unwind(AssertUnwindSafe(end));
                ended.unwrap_or_else(|payload| report_panic(map, token, "handle_close", payload));
            }
            drop_guarded(map, "a dispatcher", dispatcher);
        }
    }
    match result {
        Ok(value) => Ran::Returned(value),
        Err(payload) => Ran::Panicked(panicked(payload)),
    }
}

/// Run one of the hooks that return a result, and see to its error.
pub(crate) fn run(
    map: &mut ChannelMap,
    token: Token,
    hook: &'static str,
    f: impl FnOnce(&mut dyn Dispatcher, &mut Channel<'_>) -> io::Result<()>,
) {
    match call(map, token, f) {
        Ran::Returned(Ok(())) | Ran::Absent => {}
        Ran::Returned(Err(error)) => failed(map, token, hook, error, false),
        Ran::Panicked(error) => failed(map, token, hook, error, true),
    }
}

/// The last hook of all.
pub(crate) fn run_close(map: &mut ChannelMap, token: Token, reason: &Reason) {
    let ran = lend(map, token, false, true, |dispatcher, ch| dispatcher.handle_close(ch, reason));
    if let Ran::Panicked(error) = ran {
        map.report(token, "handle_close", &error);
    }
}

/// A hook of the channel, or what stands for one, failed with `error`.
pub(crate) fn failed(map: &mut ChannelMap, token: Token, hook: &str, error: io::Error, panic: bool) {
    let about = ChannelError::token_of(&error).unwrap_or(token);
    let Some(state) = map.state_mut(token) else {
        return map.report(token, hook, &error);
    };
    if !panic {
        // A `with` on the channel has noted it already.
        let noted = state.failure.as_ref().is_some_and(|noted| same(noted, &error));
        if noted && about == token {
            return;
        }
        let of_the_loss = state.lost_error().is_some_and(|lost| same(lost, &error));
        if of_the_loss && about == token {
            return;
        }
        if about != token || state.is_closing() {
            return map.report(token, hook, &error);
        }
    }
    let decision = match call(map, token, |dispatcher, ch| dispatcher.handle_error(ch, &error)) {
        Ran::Returned(decision) => decision,
        Ran::Absent => OnError::End,
        Ran::Panicked(second) => {
            map.report(token, "handle_error", &second);
            OnError::End
        }
    };
    if decision == OnError::Keep && !panic {
        return;
    }
    map.report(token, hook, &error);
    if let Some(state) = map.state_mut(token) {
        state.kill(Reason::from(error));
        map.touch(token);
    }
}

/// Drop a value of the user's, which may panic.
pub(crate) fn drop_guarded<T>(map: &mut ChannelMap, what: &str, value: T) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        if map.throttle_admits() {
            log::warn!("the drop of {what} {}", crate::report::Escaped(panicked(payload)));
        }
    }
}

pub(crate) fn report_panic(map: &mut ChannelMap, token: Token, what: &str, payload: Box<dyn Any + Send>) {
    map.report(token, what, &panicked(payload));
}

thread_local! {
    /// The maps whose loop, or a `with`, is running on this thread. It is here and not in the map
    /// because a hook may swap the map away from under the loop.
    static ENTERED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    static REPLACED: RefCell<Vec<Token>> = const { RefCell::new(Vec::new()) };
}

/// Note that the dispatcher of a channel was replaced while it ran. Its map may be elsewhere when
/// it comes back.
pub(crate) fn note_replaced(token: Token) {
    REPLACED.with_borrow_mut(|replaced| replaced.push(token));
}

fn take_replaced(token: Token) -> bool {
    REPLACED.with_borrow_mut(|replaced| {
        let before = replaced.len();
        replaced.retain(|other| *other != token);
        replaced.len() < before
    })
}

/// Somebody's hooks may be running: no turn of that map can begin.
pub(crate) struct Entered(());

impl Entered {
    pub(crate) fn now(map: u64) -> Entered {
        ENTERED.with_borrow_mut(|maps| maps.push(map));
        Entered(())
    }

    pub(crate) fn is(map: u64) -> bool {
        ENTERED.with_borrow(|maps| maps.contains(&map))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        ENTERED.with_borrow_mut(Vec::pop);
    }
}
