//! Calling a hook: the dispatcher is taken out of its slot, called with the view of its channel and put
//! back, and what it pushed is sent. Errors and panics of hooks end here.

use std::any::Any;
use std::cell::RefCell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::core::channel::Channel;
use crate::core::dispatcher::{Dispatcher, OnError};
use crate::core::map::ChannelMap;
use crate::error::{ChannelError, LookupError, clone_error, panicked, same};
use crate::guard::drop_guarded;
use crate::reason::Reason;
use crate::sys::errno::would_block;
use crate::token::{Handle, Token};

/// The outcome of a call.
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

fn lend<R>(
    map: &mut ChannelMap,
    token: Token,
    foreign: bool,
    last: bool,
    f: impl FnOnce(&mut dyn Dispatcher, &mut Channel<'_>) -> R,
) -> Ran<R> {
    let Some(seat) = map.slots.get_mut(token) else { return Ran::Absent };
    let Some(mut dispatcher) = seat.dispatcher.take() else { return Ran::Absent };
    let gathers = map.gather.is_free() && seat.link.gathers();
    if gathers {
        map.gather.begin(token);
    }
    map.out += 1;
    map.counters.hooks += 1;
    let result = {
        let mut channel = if foreign { Channel::foreign(map, token) } else { Channel::own(map, token) };
        catch_unwind(AssertUnwindSafe(|| f(&mut *dispatcher, &mut channel)))
    };
    put_back(map, token, dispatcher, last);
    if gathers {
        end_gathering(map, token);
    }
    match result {
        Ok(value) => Ran::Returned(value),
        Err(payload) => Ran::Panicked(panicked(payload)),
    }
}

/// The hook has returned: send what it pushed.
pub(crate) fn end_gathering(map: &mut ChannelMap, token: Token) {
    // Otherwise the maps were swapped, and the channel is not in this one.
    if map.gather.is_of(token) {
        map.send_gathered(token);
        map.gather.end();
    }
}

/// Run what is not a hook but has the channel's own view, and send what it pushes together.
pub(crate) fn gathering(map: &mut ChannelMap, token: Token, f: impl FnOnce(&mut ChannelMap)) {
    let gathers = map.gather.is_free() && map.link(token).is_some_and(|link| link.gathers());
    if gathers {
        map.gather.begin(token);
    }
    f(map);
    if gathers {
        end_gathering(map, token);
    }
}

/// The hook has returned: put the dispatcher back, if the slot is still its own.
#[inline]
pub(crate) fn put_back(map: &mut ChannelMap, token: Token, dispatcher: Box<dyn Dispatcher>, last: bool) {
    match map.slots.get_mut(token) {
        Some(seat) if seat.dispatcher.is_none() => {
            seat.dispatcher = Some(dispatcher);
            map.out -= 1;
        }
        _ => not_put_back(map, token, dispatcher, last),
    }
}

#[cold]
#[inline(never)]
fn not_put_back(map: &mut ChannelMap, token: Token, mut dispatcher: Box<dyn Dispatcher>, last: bool) {
    if map.contains(token) {
        // Replaced while its hook ran.
        map.out -= 1;
        take_replaced(token);
        return drop_guarded(&mut map.throttle, "a replaced dispatcher", dispatcher);
    }
    // The hook swapped or dropped the map. The last hook belongs to the dispatcher that has the channel
    // now.
    if !take_replaced(token) && !last {
        let mut channel = Channel::foreign(map, token);
        let end = || dispatcher.handle_close(&mut channel, &Reason::MapEnded);
        let ended = catch_unwind(AssertUnwindSafe(end));
        ended.unwrap_or_else(|payload| report_panic(map, token, "handle_close", payload));
    }
    drop_guarded(&mut map.throttle, "a dispatcher", dispatcher);
}

/// Run one of the hooks that return a result, and handle its error.
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
#[cold]
#[inline(never)]
pub(crate) fn failed(map: &mut ChannelMap, token: Token, hook: &str, error: io::Error, panic: bool) {
    let about = ChannelError::token_of(&error).unwrap_or(token);
    let Some(link) = map.link(token) else {
        map.report(token, hook, &error);
        return drop_guarded(&mut map.throttle, "an error", error);
    };
    let was_ending = link.is_ending();
    if !panic {
        // Already noted by a `with` on the channel.
        let failure = link.rare_if_any().and_then(|rare| rare.failure.as_ref());
        let noted = failure.is_some_and(|noted| same(noted, &error));
        let of_the_loss = link.lost_error().is_some_and(|lost| same(lost, &error));
        if about == token && (noted || of_the_loss) {
            return drop_guarded(&mut map.throttle, "an error", error);
        }
        if about != token || link.is_closing() {
            map.report(token, hook, &error);
            return drop_guarded(&mut map.throttle, "an error", error);
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
    let ends = decision == OnError::End || panic;
    if ends {
        map.report(token, hook, &error);
    }
    let reason = Reason::from(error);
    if let Some(link) = map.link_mut(token) {
        if !was_ending {
            link.closed_because(&reason);
        }
        if ends {
            link.end(reason.clone());
            map.touch(token);
        }
    }
    drop_guarded(&mut map.throttle, "an error", reason);
}

pub(crate) fn report_panic(map: &mut ChannelMap, token: Token, what: &str, payload: Box<dyn Any + Send>) {
    map.report(token, what, &panicked(payload));
}

impl ChannelMap {
    /// Call `f` with a dispatcher and the view of its channel, as in one of its hooks.
    ///
    /// # Errors
    /// Those of [`get`](ChannelMap::get), and the error of `f`, unchanged. A copy (kind, system code,
    /// text) is passed to the dispatcher's `handle_error` when the loop settles, except for
    /// `WouldBlock` and errors about another channel. A panic of `f` is caught and ends the channel.
    ///
    /// An error from a method of the view carries the channel's token, so a hook of another channel may
    /// return it with `?`. Other errors of `f` do not: if a hook returns one, it is an error of that hook,
    /// too.
    pub fn with<T, R, F>(&mut self, handle: Handle<T>, f: F) -> io::Result<R>
    where
        T: Dispatcher,
        F: FnOnce(&mut T, &mut Channel<'_>) -> io::Result<R>,
    {
        let token = handle.token();
        self.get(handle)?;
        self.keep_time();
        self.touch(token);
        let _entered = Entered::now(self.id);
        let ran = lend(self, token, true, false, |dispatcher, ch| {
            let dispatcher =
                (dispatcher as &mut dyn Any).downcast_mut().ok_or(LookupError::OtherType(token))?;
            f(dispatcher, ch)
        });
        match ran {
            Ran::Returned(Ok(value)) => Ok(value),
            Ran::Returned(Err(error)) => {
                let about_it = ChannelError::token_of(&error).is_none_or(|about| about == token);
                if about_it && !would_block(&error) {
                    if let Some(link) = self.link_mut(token) {
                        link.note_failure(clone_error(&error));
                    }
                }
                Err(error)
            }
            Ran::Panicked(error) => {
                let copy = ChannelError::wrap(token, clone_error(&error));
                self.report(token, "with", &error);
                // In a timer of the channel's own, what that has pushed leaves, as when a hook panics.
                self.send_gathered(token);
                if let Some(link) = self.link_mut(token) {
                    link.end(Reason::from(error));
                }
                Err(copy)
            }
            Ran::Absent => Err(LookupError::Gone(token).into()),
        }
    }
}

thread_local! {
    /// The maps whose loop, or a `with`, is running on this thread. Not in the map, because a hook may
    /// swap the map under the loop.
    static ENTERED: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
    static REPLACED: RefCell<Vec<Token>> = const { RefCell::new(Vec::new()) };
}

/// Note that the dispatcher of a channel was replaced while its hook ran. The map may have been swapped
/// when the hook returns.
pub(crate) fn note_replaced(token: Token) {
    let _ = REPLACED.try_with(|replaced| replaced.borrow_mut().push(token));
}

fn take_replaced(token: Token) -> bool {
    let taken = REPLACED.try_with(|replaced| {
        let mut replaced = replaced.borrow_mut();
        let before = replaced.len();
        replaced.retain(|other| *other != token);
        replaced.len() < before
    });
    taken.unwrap_or(false)
}

/// While this lives, hooks of the map may be running, so none of its turns can begin.
pub(crate) struct Entered(());

impl Entered {
    pub(crate) fn now(map: u32) -> Entered {
        // A map that is itself a thread's local may be dropped after these are.
        let _ = ENTERED.try_with(|maps| maps.borrow_mut().push(map));
        Entered(())
    }

    pub(crate) fn is(map: u32) -> bool {
        ENTERED.try_with(|maps| maps.borrow().contains(&map)).unwrap_or(false)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let _ = ENTERED.try_with(|maps| maps.borrow_mut().pop());
    }
}
