//! The settle: does what is due for each dirty channel. It is opened, told what happened, flushed, asked
//! `readable` and `writable`, registered for what it waits for, or ended.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use log::Level;

use crate::core::channel::Channel;
use crate::core::dispatcher::Eof;
use crate::core::map::ChannelMap;
use crate::error::panicked;
use crate::event_loop::hooks::{self, Ran};
use crate::event_loop::{
    backoff, bandwidth, broken, datagram, handshake, output, registration, teardown, upgrade,
};
use crate::link::due::{Due, Step};
use crate::link::held::Held;
use crate::link::life::OpenStep;
use crate::link::marks::Watermark;
use crate::link::state::Link;
use crate::reason::Reason;
use crate::threads::pulse::Work;
use crate::token::Token;

/// The capacity that the empty list of dirty channels may keep.
const KEPT: usize = 512;

/// Settle the channels that are dirty now; those that become dirty meanwhile wait for the next settle.
pub(crate) fn settle(map: &mut ChannelMap) {
    let id = map.id;
    if !map.asking.is_empty() {
        ask_those_that_read(map);
        if map.id != id {
            return;
        }
    }
    let generation = map.dirty.len();
    for at in 0..generation {
        let token = map.dirty[at];
        hooks::contained(map, token, |map| settle_channel(map, token));
        // A hook swapped the maps. The list belongs to the other one.
        if map.id != id {
            return;
        }
    }
    map.dirty.drain(..generation);
    // Do not keep the memory that a burst of channels needed.
    if map.dirty.is_empty() && map.dirty.capacity() > KEPT {
        map.dirty = Vec::new();
    }
}

#[inline(always)]
fn settle_channel(map: &mut ChannelMap, token: Token) {
    let Some(seat) = map.slots.get_mut(token) else { return };
    let link = &mut seat.link;
    let due = link.take_due();
    // The common end: only `handle_close` is due.
    if link.is_over() && !due.has(Step::Failure) && !due.has(Step::NetworkError) && !link.has_own_source() {
        return teardown::finish(map, token);
    }
    if due.has(Step::Open) {
        // The common beginning: an accepted connection to which nothing has happened yet.
        match seat.dispatcher.take_if(|_| link.opens_untouched()) {
            Some(dispatcher) => hooks::run_open(map, token, dispatcher),
            None => open_due(map, token),
        }
    }
    let Some(seat) = map.slots.get_mut(token) else { return };
    let link = &mut seat.link;
    // What is done to the channel from here on is left for the next settle.
    if due.is_at_most_an_opening() {
        if let Some(wanted) = link.interest_if_usual() {
            link.begin_anew();
            match registration::watch(&map.poll, link, token, Some(wanted)) {
                Ok(()) => link.settled_with_nothing_rare(),
                Err(error) => {
                    registration::refused(map, token, &error);
                    conclude(map, token);
                }
            }
            return;
        }
    }
    settle_unusual(map, token, due);
}

/// All that may be due after the opening of a channel.
#[inline(never)]
fn settle_unusual(map: &mut ChannelMap, token: Token, due: Due) {
    carry_out(map, token, due);
    ask(map, token);
    registration::register(map, token);
    conclude(map, token);
}

/// What is due between the opening of a channel and its registration.
fn carry_out(map: &mut ChannelMap, token: Token, due: Due) {
    if due.has(Step::Failure) {
        tell_failure(map, token);
    }
    if due.has(Step::NetworkError) {
        datagram::tell_noted(map, token);
    }
    if due.has(Step::Eof) {
        tell_eof(map, token);
    }
    if due.has(Step::Watermark) {
        tell_watermarks(map, token);
    }
    if due.has(Step::Flush) || map.link(token).is_some_and(|link| link.is_due(Step::Flush)) {
        flush_due(map, token);
    }
    // What is done to the channel from here on is left for the next settle.
    let Some(link) = map.link_mut(token) else { return };
    link.listed = false;
    link.clear_due(Step::Look);
    if due.has(Step::Watermark) || link.is_due(Step::Watermark) {
        tell_watermarks(map, token);
    }
    if due.has(Step::Drained) || map.link(token).is_some_and(|link| link.is_due(Step::Drained)) {
        tell_drained(map, token);
    }
    if due.has(Step::Wrapped) || map.link(token).is_some_and(|link| link.is_due(Step::Wrapped)) {
        upgrade::tell_wrapped(map, token);
    }
    if due.has(Step::Drain) {
        tell_drain(map, token);
    }
}

/// Flush, and do what follows the output.
fn flush_due(map: &mut ChannelMap, token: Token) {
    if let Some(link) = map.link_mut(token) {
        link.clear_due(Step::Flush);
    }
    output::flush(map, token);
}

/// What follows the registration: resumption of a suspended channel, the end; and whether the next settle
/// has more to do.
fn conclude(map: &mut ChannelMap, token: Token) {
    let Some(link) = map.link_mut(token) else { return };
    if let Some(error) = link.source().and_then(Held::panic) {
        // Nobody knows what it still held.
        link.end_by_reset(Reason::from(error));
    }
    // A broken connection may still hold input, but nothing reads it.
    if link.is_broken() && link.is_open() && !link.wants_input() {
        link.end(Reason::Closed);
    }
    if link.is_over() {
        return teardown::finish(map, token);
    }
    if link.has_own_source() {
        handshake::watch(map, token);
    }
    let Some(link) = map.link_mut(token) else { return };
    if link.rare_if_any().is_some() {
        if backoff::is_to_be_resumed(link) {
            backoff::resume(map, token);
            registration::register(map, token);
        }
        teardown::publish(map, token);
        if let Some(pause) = map.link(token).and_then(Link::news_for_partners) {
            map.tell_partners(token, pause);
        }
        broken::watch(map, token);
        bandwidth::watch(map, token);
        map.watch_deadlines(token);
    }
    map.count_queue(token);
    let Some(link) = map.link_mut(token) else { return };
    if link.is_unsent() {
        link.set_due(Step::Flush);
    }
    link.settled();
    if link.has_steps() && !link.listed {
        link.listed = true;
        map.dirty.push(token);
    }
}

/// Run `handle_connect` and `handle_open`, if they are due.
pub(crate) fn open_due(map: &mut ChannelMap, token: Token) {
    let Some(link) = map.link_mut(token) else { return };
    match link.opening() {
        OpenStep::Nothing => {}
        OpenStep::Connected => connected(map, token, None),
        OpenStep::Failed(error) => connect_failed(map, token, error),
        OpenStep::Ready => {
            link.opened();
            hooks::run(map, token, Work::Open, |dispatcher, ch| dispatcher.handle_open(ch));
        }
    }
}

/// The connect succeeded; `lost` if the connection has broken since.
pub(crate) fn connected(map: &mut ChannelMap, token: Token, lost: Option<io::Error>) {
    let turn = map.turn;
    let Some(link) = map.link_mut(token) else { return };
    link.connected(turn, lost);
    if let Some(make) = link.take_to_wrap() {
        upgrade::change_source(map, token, make);
    }
    hooks::run(map, token, Work::Connect, |dispatcher, ch| dispatcher.handle_connect(ch));
    open_due(map, token);
}

pub(crate) fn connect_failed(map: &mut ChannelMap, token: Token, error: io::Error) {
    let told = hooks::call(map, token, Work::Error, |dispatcher, ch| dispatcher.handle_error(ch, &error));
    if let Ran::Panicked(second) = told {
        map.report(token, "handle_error", &second);
    }
    // The dispatcher was told; this is for the log's readers.
    let in_handshake = map.link(token).is_some_and(|link| link.is_upgrading());
    map.report_at(Level::Info, token, if in_handshake { "handshake" } else { "connect" }, &error);
    if let Some(link) = map.link_mut(token) {
        let reason = Reason::from(error);
        link.closed_because(&reason);
        link.end(reason);
    }
}

/// Report the error of a `with` on the channel.
fn tell_failure(map: &mut ChannelMap, token: Token) {
    let Some(rare) = map.link_mut(token).and_then(|link| link.rare_mut_if_any()) else { return };
    if let Some(error) = rare.failure.take() {
        hooks::failed(map, token, "with", error, false);
    }
}

/// If the end of input was read, run `handle_eof`, once, and act on its answer.
pub(crate) fn tell_eof(map: &mut ChannelMap, token: Token) {
    let Some(link) = map.link_mut(token) else { return };
    if !link.tell_end_of_input() {
        return;
    }
    if link.is_broken() {
        // Not the end of the stream, but what the system reports after a reset.
        return link.end(Reason::Closed);
    }
    let answer = match hooks::call(map, token, Work::Eof, |dispatcher, ch| dispatcher.handle_eof(ch)) {
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
    let Some(link) = map.link_mut(token) else { return };
    match answer {
        Eof::Close => map.begin_close(token, Reason::EndOfStream),
        // Our own FIN may have been sent before.
        Eof::KeepWriting => link.set_due(Step::Flush),
    }
}

/// One round: what `handle_low` queues is left for the next settle.
fn tell_watermarks(map: &mut ChannelMap, token: Token) {
    while let Some(mark) = map.link_mut(token).and_then(|link| link.mark_news()) {
        match mark {
            Watermark::High => {
                hooks::run(map, token, Work::High, |dispatcher, ch| dispatcher.handle_high(ch));
            }
            Watermark::Low => {
                return hooks::run(map, token, Work::Low, |dispatcher, ch| dispatcher.handle_low(ch));
            }
        }
    }
    if let Some(link) = map.link_mut(token).filter(|link| !link.has_mark_news()) {
        link.clear_due(Step::Watermark);
    }
}

fn tell_drained(map: &mut ChannelMap, token: Token) {
    let Some(link) = map.link_mut(token) else { return };
    if link.takes_drained() && link.is_open() && !link.is_broken() {
        hooks::run(map, token, Work::Drained, |dispatcher, ch| dispatcher.handle_drained(ch));
    }
}

fn tell_drain(map: &mut ChannelMap, token: Token) {
    if map.link(token).is_some_and(|link| link.is_open() || link.is_listening()) {
        hooks::run(map, token, Work::Drain, |dispatcher, ch| dispatcher.handle_drain(ch));
    }
}

/// Ask `readable` and `writable`, where the answer matters and is not known.
fn ask(map: &mut ChannelMap, token: Token) {
    let Some(link) = map.link_mut(token) else { return };
    if !link.is_listening() && !link.is_open() {
        return;
    }
    if !link.asks() {
        return link.look_again_at_a_hang_up();
    }
    map.default_readable.set(None);
    map.default_writable.set(None);
    let ran = hooks::call(map, token, Work::Ask, |dispatcher, ch| {
        (dispatcher.readable(ch), dispatcher.writable(ch), (*dispatcher).type_id())
    });
    match ran {
        Ran::Returned((read, write, of)) => {
            // A wrapper's type differs from that of the dispatcher whose default ran.
            let asks = map.default_readable.get() != Some(of) || map.default_writable.get() != Some(of);
            if !asks {
                map.never_asked = Some(of);
            }
            if let Some(link) = map.link_mut(token) {
                link.set_asks(asks);
                link.wants(read, write);
            }
        }
        Ran::Panicked(error) => hooks::failed(map, token, "readable or writable", error, true),
        Ran::Absent => {}
    }
}

/// Ask the channels that were read on the short way, now that all hooks of the turn have run. They wait
/// for input only; one whose dispatcher answers otherwise becomes dirty.
pub(crate) fn ask_those_that_read(map: &mut ChannelMap) {
    let id = map.id;
    let mut at = 0;
    while let Some(&token) = map.asking.get(at) {
        at += 1;
        let Some(seat) = map.slots.get_mut(token) else { continue };
        let Some(dispatcher) = seat.dispatcher.take_if(|_| seat.link.is_quiet()) else {
            map.touch(token);
            continue;
        };
        map.out += 1;
        map.pulse.begin_work(Work::Ask, token);
        let ch = Channel::own(map, token);
        let as_before = AssertUnwindSafe(|| (*dispatcher).readable(&ch) && !(*dispatcher).writable(&ch));
        let answer = catch_unwind(as_before);
        map.pulse.end_work();
        hooks::put_back(map, token, dispatcher, false);
        match answer {
            Ok(true) => {}
            Ok(false) => drop(map.touch(token)),
            Err(payload) => {
                hooks::failed(map, token, "readable or writable", panicked(payload), true);
                if map.id != id {
                    return;
                }
            }
        }
    }
    map.asking.clear();
}
