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
use crate::threads::pulse::Work;
use crate::token::{Handle, Token};

/// The outcome of a call.
pub(crate) enum Ran<R> {
    Returned(R),
    Panicked(io::Error),
    /// The channel is gone, or its dispatcher is in use.
    Absent,
}

/// Call `f` with the dispatcher of a channel and the channel's own view.
#[inline(never)]
pub(crate) fn call<R>(
    map: &mut ChannelMap,
    token: Token,
    hook: Work,
    f: impl FnOnce(&mut dyn Dispatcher, &mut Channel<'_>) -> R,
) -> Ran<R> {
    lend(map, token, Some(hook), f)
}

/// Without a hook, it is a `with`.
#[inline(always)]
fn lend<R>(
    map: &mut ChannelMap,
    token: Token,
    hook: Option<Work>,
    f: impl FnOnce(&mut dyn Dispatcher, &mut Channel<'_>) -> R,
) -> Ran<R> {
    let Some(seat) = map.slots.get_mut(token) else { return Ran::Absent };
    let Some(dispatcher) = seat.dispatcher.take() else { return Ran::Absent };
    let gathers = map.gather.is_free() && seat.link.gathers();
    call_lent(map, token, dispatcher, gathers, hook, |dispatcher, map| {
        let mut ch = if hook.is_none() { Channel::foreign(map, token) } else { Channel::own(map, token) };
        f(dispatcher, &mut ch)
    })
}

/// Call `f` with a dispatcher that was taken out of its slot, and put it back.
#[inline(always)]
pub(crate) fn call_lent<R>(
    map: &mut ChannelMap,
    token: Token,
    mut dispatcher: Box<dyn Dispatcher>,
    gathers: bool,
    hook: Option<Work>,
    f: impl FnOnce(&mut dyn Dispatcher, &mut ChannelMap) -> R,
) -> Ran<R> {
    if gathers {
        map.gather.begin(token);
    }
    map.out += 1;
    if let Some(hook) = hook {
        map.begin_hook(hook, token);
    }
    let result = catch_unwind(AssertUnwindSafe(|| f(&mut *dispatcher, map)));
    if hook.is_some() {
        map.pulse.end_work();
    }
    put_back(map, token, dispatcher, false);
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
        if !map.gather.bytes().is_empty() {
            map.send_gathered(token);
        }
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
    if !last && !take_replaced(token) {
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
    hook: Work,
    f: impl FnOnce(&mut dyn Dispatcher, &mut Channel<'_>) -> io::Result<()>,
) {
    let ran = lend(map, token, Some(hook), f);
    if !matches!(ran, Ran::Returned(Ok(()))) {
        did_not_succeed(map, token, hook, ran);
    }
}

/// `handle_open` of a channel to which nothing has happened yet.
#[inline(always)]
pub(crate) fn run_open(map: &mut ChannelMap, token: Token, dispatcher: Box<dyn Dispatcher>) {
    let gathers = map.gather.is_free();
    let ran = call_lent(map, token, dispatcher, gathers, Some(Work::Open), |dispatcher, map| {
        dispatcher.handle_open(&mut Channel::own(map, token))
    });
    if !matches!(ran, Ran::Returned(Ok(()))) {
        did_not_succeed(map, token, Work::Open, ran);
    }
}

#[cold]
#[inline(never)]
fn did_not_succeed(map: &mut ChannelMap, token: Token, hook: Work, ran: Ran<io::Result<()>>) {
    match ran {
        Ran::Returned(Ok(())) | Ran::Absent => {}
        Ran::Returned(Err(error)) => failed(map, token, hook.name(), error, false),
        Ran::Panicked(error) => failed(map, token, hook.name(), error, true),
    }
}

/// Do what the loop does for a channel: a panic that nothing in it expects, of a value of the user's that is
/// dropped in passing, ends that channel and not the loop.
#[inline(always)]
pub(crate) fn contained(map: &mut ChannelMap, token: Token, f: impl FnOnce(&mut ChannelMap)) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| f(map))) {
        ended_by_panic(map, token, payload);
    }
}

#[cold]
#[inline(never)]
fn ended_by_panic(map: &mut ChannelMap, token: Token, payload: Box<dyn Any + Send>) {
    let error = panicked(payload);
    map.report(token, "a value that was dropped", &error);
    if let Some(link) = map.link_mut(token) {
        link.end(Reason::from(error));
        // Also in the midst of a settle, which leaves it in no list.
        link.listed = false;
        map.touch(token);
    }
}

/// The last hook of all. What it pushes goes nowhere.
#[inline(always)]
pub(crate) fn run_close(
    map: &mut ChannelMap,
    token: Token,
    mut dispatcher: Box<dyn Dispatcher>,
    reason: &Reason,
) {
    map.out += 1;
    map.begin_hook(Work::Close, token);
    let mut channel = Channel::own(map, token);
    let closed = catch_unwind(AssertUnwindSafe(|| dispatcher.handle_close(&mut channel, reason)));
    map.pulse.end_work();
    put_back(map, token, dispatcher, true);
    if let Err(payload) = closed {
        report_panic(map, token, "handle_close", payload);
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
        // That it was looked up in vain says nothing about the channel itself.
        if about != token || LookupError::is_in(&error) || link.is_closing() {
            map.report(token, hook, &error);
            cut_off_where_bytes_are_missing(map, token, &error);
            return drop_guarded(&mut map.throttle, "an error", error);
        }
    }
    let decision = match call(map, token, Work::Error, |dispatcher, ch| dispatcher.handle_error(ch, &error)) {
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

/// A hook of `token` has returned an error unhandled. If another channel's queue refused a push, bytes are
/// missing there: that stream ends by a reset, because what comes after the gap must not be taken for it.
#[cold]
pub(crate) fn cut_off_where_bytes_are_missing(map: &mut ChannelMap, token: Token, error: &io::Error) {
    let Some(other) = ChannelError::token_of(error).filter(|other| *other != token) else { return };
    if error.kind() != io::ErrorKind::QuotaExceeded {
        return;
    }
    if let Some(link) = map.link_mut(other).filter(|link| !link.is_datagram() && !link.is_listening()) {
        link.end_by_reset(Reason::Limit);
        map.touch(other);
    }
}

pub(crate) fn report_panic(map: &mut ChannelMap, token: Token, what: &str, payload: Box<dyn Any + Send>) {
    map.report(token, what, &panicked(payload));
}

impl ChannelMap {
    #[inline(always)]
    pub(crate) fn begin_hook(&mut self, hook: Work, token: Token) {
        self.counters.hooks += u64::from(hook != Work::Ask);
        self.pulse.begin_work(hook, token);
    }

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
        // That is said of the dispatcher before this one, whose hook may be running.
        let replaced = take_replaced(token);
        let ran = lend(self, token, None, |dispatcher, ch| {
            let dispatcher =
                (dispatcher as &mut dyn Any).downcast_mut().ok_or(LookupError::OtherType(token))?;
            f(dispatcher, ch)
        });
        if replaced {
            note_replaced(token);
        }
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
