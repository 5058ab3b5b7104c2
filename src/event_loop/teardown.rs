//! The end of a channel, and of a map.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::core::map::ChannelMap;
use crate::error::clone_error;
use crate::event_loop::hooks::{self, Entered};
use crate::event_loop::{backoff, closing, dial, registration};
use crate::guard::{drop_each, drop_guarded};
use crate::link::held::Held;
use crate::link::source::Source;
use crate::link::state::{Link, Note, Role};
use crate::net::address::about;
use crate::net::load::Load;
use crate::net::places::Permit;
use crate::net::resolve;
use crate::reason::Reason;
use crate::sys::poll::Poll;
use crate::sys::{self, Kind};
use crate::token::Token;

/// Tell the outlets of a channel how much is queued and whether it can still send.
pub(crate) fn publish(map: &ChannelMap, token: Token) {
    let Some(link) = map.link(token) else { return };
    let Some(credit) = link.rare_if_any().and_then(|rare| rare.credit.as_ref()) else { return };
    if let Some(queue) = &map.queue {
        credit.set(link.queued_cost(), link.limits().high, link.is_shut());
        queue.tell_waiters();
    }
}

/// Close the source, run `handle_close`, drop the dispatcher, free the slot.
pub(crate) fn finish(map: &mut ChannelMap, token: Token) {
    let Some(seat) = map.slots.get_mut(token) else { return };
    let permit = match seat.link.rare_if_any() {
        Some(_) => end_rare(map, token),
        None => None,
    };
    if map.link(token).is_some_and(|link| link.has_own_source()) {
        registration::unwatch(map, token);
    }
    let Some(seat) = map.slots.get_mut(token) else { return };
    let dispatcher = seat.dispatcher.take();
    let link = &mut seat.link;
    let (reason, reset) = link.tell_end();
    let (received, sent) = link.traffic();
    map.counters.ended(&reason, received, sent);
    // It is not settled again, whatever its last hook does.
    link.listed = true;
    match link.take_source() {
        Some(Held::Plain(plain)) => leave(&map.poll, link, plain.fd(), reset),
        mut source => {
            match source.as_ref().and_then(Held::descriptor) {
                Some(fd) => leave(&map.poll, link, fd, reset),
                None if reset => reset_source(&mut source),
                None => {}
            }
            drop_guarded(&mut map.throttle, "a source", source);
        }
    }
    if map.timers.owns_any(token.slot) {
        let timers = map.timers.cancel_owned(token.slot);
        drop_each(&mut map.throttle, "a timer", timers);
    }
    if let Some(mut permit) = permit {
        permit.give_back(map.id);
    }
    if !map.starved.is_empty() {
        backoff::wake_starved(map);
    }
    // Before its last hook, which may swap the maps.
    if map.link_mut(token).is_some_and(|link| link.noted.take(Note::Counted)) {
        map.load.iter().for_each(Load::lower);
    }
    if map.link(token).is_some_and(|link| link.kind() == Kind::Listener) {
        listener_ended(map, token, &reason);
    }
    if let Some(dispatcher) = dispatcher {
        hooks::run_close(map, token, dispatcher, &reason);
    }
    if let Reason::Error(error) = reason {
        drop_guarded(&mut map.throttle, "an error", error);
    }
    remove(map, token);
}

/// `run` tells of the last listener, if it failed.
#[cold]
fn listener_ended(map: &mut ChannelMap, token: Token, reason: &Reason) {
    let local = map.link(token).and_then(|link| link.local().cloned());
    map.failed_listener = reason.error().map(|error| match local {
        Some(local) => about("go on listening on", &local, error),
        None => clone_error(error),
    });
}

/// The descriptor is about to be closed.
#[inline(always)]
fn leave(poll: &Poll, link: &mut Link, fd: BorrowedFd<'_>, reset: bool) {
    if link.local().is_none() {
        link.set_local(sys::local_addr(fd).ok().map(Arc::new));
    }
    if link.registered().is_some() {
        link.set_registered(None);
        // This fails only if the descriptor is not registered, which is what is wanted.
        let _ = poll.delete(fd);
    }
    if reset {
        let _ = sys::stream::set_reset_on_close(fd);
    }
}

/// A source without a descriptor is about to be dropped.
#[cold]
fn reset_source(source: &mut Option<Held>) {
    if let Some(Held::Own(source)) = source {
        source.reset();
    }
}

/// What few channels have ends before the socket: connect attempts, the file of a socket bound to a path
/// (while that socket is open, no other file can have the same inode), outlets.
///
/// Returns the place of the connection, which is given back when the descriptor is closed.
fn end_rare(map: &mut ChannelMap, token: Token) -> Option<Box<Permit>> {
    dial::call_off(map, token);
    map.end_partnerships(token);
    if map.link(token).is_some_and(Link::awaits) {
        map.work.iter_mut().for_each(|pool| pool.cancel(token));
    }
    let link = map.link_mut(token)?;
    link.rare_mut_if_any()?.file = None;
    let permit = link.take_permit();
    publish(map, token);
    permit
}

#[inline(always)]
fn remove(map: &mut ChannelMap, token: Token) {
    let Some(seat) = map.slots.vacate(token) else { return };
    let dispatcher = seat.dispatcher.take();
    let kind = seat.link.kind();
    if seat.link.counts_as_lingering() {
        map.lingering.ended();
    }
    let role = seat.link.empty();
    match role {
        Role::User => {}
        Role::Background => map.background -= 1,
        Role::Internal => map.internal -= 1,
    }
    if map.drain.is_some() {
        map.drain_ended(token, role == Role::User && kind != Kind::Listener);
    }
    drop_guarded(&mut map.throttle, "a dispatcher", dispatcher);
}

/// Free the slots whose dispatcher never came back because its hook swapped this map away: its
/// `handle_close` has run already.
#[cold]
#[inline(never)]
pub(crate) fn free_orphans(map: &mut ChannelMap) {
    map.out = 0;
    // A timer's channel lives on.
    let owner = map.gather.owner();
    map.send_gathered(owner);
    map.touch(owner);
    map.gather.end();
    let tokens: Vec<Token> = map.slots.tokens().collect();
    for token in tokens {
        if map.slots.get(token).is_none_or(|seat| seat.dispatcher.is_some()) {
            continue;
        }
        let Some(link) = map.link_mut(token) else { continue };
        link.end(Reason::MapEnded);
        // `finish` has counted one whose `handle_close` it was.
        let counted = link.is_told();
        let (_, reset) = link.tell_end();
        let (received, sent) = link.traffic();
        if !counted {
            map.counters.ended(&Reason::MapEnded, received, sent);
        }
        map.end_partnerships(token);
        map.work.iter_mut().for_each(|pool| pool.cancel(token));
        publish(map, token);
        drop_source(map, token, reset);
        let timers = map.timers.cancel_owned(token.slot);
        drop_each(&mut map.throttle, "a timer", timers);
        remove(map, token);
    }
}

/// Take the source of a channel out of the poller, and drop it.
fn drop_source(map: &mut ChannelMap, token: Token, reset: bool) {
    registration::unwatch(map, token);
    let Some(link) = map.link_mut(token) else { return };
    link.discard_queued();
    let mut source = link.take_source();
    match source.as_ref().and_then(Held::descriptor) {
        Some(fd) if reset => drop(sys::stream::set_reset_on_close(fd)),
        None if reset => reset_source(&mut source),
        _ => {}
    }
    drop_guarded(&mut map.throttle, "a source", source);
}

/// End a channel at once: its map is being dropped.
fn end_for_good(map: &mut ChannelMap, token: Token) {
    let Some(seat) = map.slots.get_mut(token) else { return };
    // Its hook is running further up the stack, or its `handle_close` has run.
    if seat.dispatcher.is_none() {
        let cut_short = seat.link.has_unsent();
        return drop_source(map, token, cut_short);
    }
    if seat.link.is_lingering() {
        // What nobody has read would reset the connection.
        closing::drop_input(map, token);
    }
    if let Some(link) = map.link_mut(token) {
        link.end(Reason::MapEnded);
    }
    finish(map, token);
}

impl Drop for ChannelMap {
    fn drop(&mut self) {
        // A `handle_close` cannot run the loop here either.
        let _entered = Entered::now(self.id);
        // Dropped or swapped away inside a hook, which has pushed something before.
        self.send_gathered(self.gather.owner());
        if let Some(queue) = &self.queue {
            queue.end();
        }
        let mut index = 0;
        let mut id = self.id;
        self.ended = true;
        while index < self.slots.used() {
            if let Some(token) = self.slots.token_at(index) {
                end_for_good(self, token);
            }
            index += 1;
            // A `handle_close` may have put another map in this place; then that one is dropped.
            if self.id != id {
                id = self.id;
                self.ended = true;
                index = 0;
                if let Some(queue) = &self.queue {
                    queue.end();
                }
            }
        }
        drop(self.work.take());
        let timers = self.timers.take_all();
        drop_each(&mut self.throttle, "a timer", timers);
        let told = self.on_drain.take();
        drop_guarded(&mut self.throttle, "a drain's hook", told);
        let resolver = std::mem::replace(&mut self.resolver, resolve::system());
        drop_guarded(&mut self.throttle, "a resolver", resolver);
        drop(self.queue.take());
    }
}
