//! `Debug` of a map and of a channel, to be read by a person.

use std::fmt;

use crate::core::channel::Channel;
use crate::core::map::ChannelMap;
use crate::drain::DrainState;
use crate::link::state::{Link, Role};
use crate::net::address::Address;
use crate::sys;
use crate::token::Token;

/// The most channels that `{:#?}` of a map shows.
const SHOWN: usize = 20;

/// One channel of a map.
struct Shown<'a> {
    map: &'a ChannelMap,
    token: Token,
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut view = f.debug_struct("Channel");
        view.field("token", &self.token);
        let Some(link) = self.map.link(self.token) else {
            return view.field("state", &Word("gone")).finish();
        };
        view.field("state", &Word(link.state_name())).field("kind", &Word(link.kind_name()));
        if let Some(peer) = link.peer() {
            view.field("peer", &Word(peer));
        }
        if let Some(local) = local(link) {
            view.field("local", &Word(local));
        }
        let gathered = self.map.gather.bytes_of(self.token).len();
        view.field("queued", &(link.queued() + gathered));
        let waits = link.waits_for();
        if !waits.is_empty() {
            view.field("waits_for", &Word(waits.join("; ")));
        }
        let (received, sent) = link.traffic();
        view.field("bytes_in", &received).field("bytes_out", &sent);
        view.field("age", &self.map.age_of(self.token));
        view.finish()
    }
}

fn local(link: &Link) -> Option<Address> {
    match link.local() {
        Some(known) => Some(Address::clone(known)),
        None => link.fd().and_then(|fd| sys::local_addr(fd).ok()),
    }
    .filter(|address| !matches!(address, Address::Unnamed))
}

/// Text that is no string of the program's.
struct Word<T>(T);

impl<T: fmt::Display> fmt::Debug for Word<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Token, state, addresses, what is queued, what it waits for, bytes, age.
impl fmt::Debug for Channel<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Shown { map: self.map, token: self.token }.fmt(f)
    }
}

/// How many channels there are in each state, timers, messages, bytes queued; with `{:#?}` also up to 20
/// channels that are worth a look, because they wait for something else than input. Takes O(channels).
impl fmt::Debug for ChannelMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = self.numbers();
        let states = [
            (numbers.listening, "listening"),
            (numbers.connecting, "connecting"),
            (numbers.open, "open"),
            (numbers.closing, "closing"),
            (self.background, "in the background"),
            (self.starved.len(), "short of a descriptor or memory"),
        ];
        let states: Vec<String> = states
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, state)| format!("{count} {state}"))
            .collect();
        let in_full = f.alternate();
        let mut view = f.debug_struct("ChannelMap");
        view.field("id", &self.id);
        match states.is_empty() {
            true => view.field("channels", &numbers.channels),
            false => {
                view.field("channels", &Word(format_args!("{} ({})", numbers.channels, states.join(", "))))
            }
        };
        view.field("queued", &numbers.queued)
            .field("timers", &numbers.timers)
            .field("messages", &numbers.messages)
            .field("turns", &numbers.turns)
            .field("ready_in_the_last_wait", &self.poll.len());
        if self.stopping || self.stopped {
            view.field("stopped", &true);
        }
        if self.drain_state() != DrainState::Running {
            view.field("drain", &self.drain_state());
        }
        if !in_full {
            return view.finish_non_exhaustive();
        }
        let worth = self.worth_a_look();
        let shown = worth.iter().take(SHOWN).map(|token| Shown { map: self, token: *token });
        view.field("worth_a_look", &shown.collect::<Vec<_>>());
        let others = numbers.channels.saturating_sub(worth.len().min(SHOWN));
        view.field("others", &others).finish()
    }
}

impl ChannelMap {
    /// The channels that are not merely open or listening: those with most queued first.
    fn worth_a_look(&self) -> Vec<Token> {
        let queued = |token: &Token| self.link(*token).map_or(0, Link::queued);
        let is_worth = |token: &Token| {
            let link = self.link(*token).filter(|link| link.role() != Role::Internal);
            link.is_some_and(|link| !link.waits_for().is_empty() || link.is_ending() || link.queued() > 0)
        };
        let mut worth: Vec<Token> = self.slots.tokens().filter(is_worth).collect();
        worth.sort_by_key(|token| std::cmp::Reverse(queued(token)));
        worth
    }
}
