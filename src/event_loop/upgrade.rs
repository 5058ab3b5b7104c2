//! Another source is put around the one that a channel has.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::core::map::ChannelMap;
use crate::error::panicked;
use crate::event_loop::{backoff, hooks, registration};
use crate::link::due::Step;
use crate::link::source::MakeSource;
use crate::threads::pulse::Work;
use crate::token::Token;

/// What was pushed before the upgrade is sent. `false` if the old source is kept: for now, because it has
/// something to send itself, or for good, because the channel is closing and nothing comes after.
#[cold]
pub(crate) fn upgrade_due(map: &mut ChannelMap, token: Token) -> bool {
    let Some(link) = map.link_mut(token) else { return true };
    let is_last = link.is_flushing() && link.queued_pieces() == 1;
    match link.take_upgrade() {
        Some(make) if !is_last => change_source(map, token, make),
        _ => return false,
    }
    true
}

pub(crate) fn change_source(map: &mut ChannelMap, token: Token, make: MakeSource) {
    // The new owner of the old source may close its descriptor.
    registration::unwatch(map, token);
    let Some(link) = map.link_mut(token) else { return };
    let Some(old) = link.take_source_to_wrap() else { return };
    match catch_unwind(AssertUnwindSafe(|| make(old))) {
        Ok(Ok(new)) => link.wrapped(new),
        Ok(Err(error)) => link.wrap_failed(error),
        Err(payload) => link.wrap_failed(panicked(payload)),
    }
    map.give_waker(token);
    let Some(link) = map.link_mut(token) else { return };
    // What was put back may be the start of the handshake, and the socket has nothing more.
    if !link.is_pending() {
        link.set_pending(true);
        map.pending.push(token);
    }
    backoff::resume(map, token);
}

/// Run `handle_wrapped`, if the new source is ready.
pub(crate) fn tell_wrapped(map: &mut ChannelMap, token: Token) {
    let Some(link) = map.link_mut(token) else { return };
    link.clear_due(Step::Wrapped);
    if link.takes_wrapped() {
        hooks::run(map, token, Work::Wrapped, |dispatcher, ch| dispatcher.handle_wrapped(ch));
    }
}
