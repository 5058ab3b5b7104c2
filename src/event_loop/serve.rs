//! Serving ready channels, one after the other: connect outcome, urgent data, input, output.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::core::channel::Channel;
use crate::core::dispatcher::Dispatcher;
use crate::core::map::ChannelMap;
use crate::error::panicked;
use crate::event_loop::{accept, backoff, closing, datagram, drive, handshake, hooks, output, settle};
use crate::guard::drop_error;
use crate::link::due::Step;
use crate::link::rare::Rest;
use crate::link::state::Link;
use crate::reason::Reason;
use crate::report::Escaped;
use crate::sys;
use crate::sys::errno::would_block;
use crate::sys::poll::Ready;
use crate::threads::pulse::Work;
use crate::token::Token;

/// Serve every channel of the batch.
pub(crate) fn serve_all(map: &mut ChannelMap) {
    let id = map.id;
    let mut next = 0;
    // One `catch_unwind` for the whole batch, which continues after the channel that panicked.
    while let Err(payload) = catch_unwind(AssertUnwindSafe(|| serve_batch(map, id, next))) {
        next = after_panic(map, id, payload);
    }
}

/// Serve the batch from `next` on. Only the `handle_read` of a channel on the short way can panic.
#[inline(always)]
pub(crate) fn serve_batch(map: &mut ChannelMap, id: u32, mut next: usize) {
    while let Some((key, to_read)) = map.poll.key(next) {
        next += 1;
        let Some((token, seat)) = map.slots.entry_at(key) else {
            woken(map, key);
            continue;
        };
        match seat.dispatcher.take_if(|_| to_read && seat.link.is_quiet()) {
            Some(dispatcher) => {
                debug_assert!(seat.link.is_usual());
                if read_quickly(map, token, dispatcher) {
                    continue;
                }
            }
            None => {
                let ready = map.poll.event(next - 1);
                hooks::contained(map, token, |map| serve(map, token, ready));
            }
        }
        // A hook swapped the maps: this batch belongs to the other one.
        if map.id != id {
            return;
        }
    }
}

/// The event is no channel's: another thread has ended the wait.
#[cold]
#[inline(never)]
fn woken(map: &mut ChannelMap, key: usize) {
    map.poll.take_notification_back(key);
    if map.alarm.as_ref().is_some_and(|alarm| alarm.take()) {
        backoff::wake_starved(map);
    }
}

/// A dispatcher outside its slot; put back also when its hook panics.
struct Lent<'a> {
    map: &'a mut ChannelMap,
    token: Token,
    dispatcher: Option<Box<dyn Dispatcher>>,
}

impl Drop for Lent<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.dispatcher.is_some() {
            fell_back(self.map, self.token, self.dispatcher.take());
        }
    }
}

/// The dispatcher goes back into its slot, if that is still its own.
#[cold]
#[inline(never)]
fn fell_back(map: &mut ChannelMap, token: Token, dispatcher: Option<Box<dyn Dispatcher>>) {
    if let Some(dispatcher) = dispatcher {
        map.out += 1;
        hooks::put_back(map, token, dispatcher, false);
    }
}

/// The short way of a message: a channel with nothing due has input. Runs its `handle_read` and sends
/// what that pushed. `true` if nothing is due then, so the settle need not look at the channel. The
/// caller catches panics.
#[inline(always)]
fn read_quickly(map: &mut ChannelMap, token: Token, dispatcher: Box<dyn Dispatcher>) -> bool {
    map.gather.begin(token);
    map.counters.hooks += 1;
    let mut lent = Lent { map, token, dispatcher: Some(dispatcher) };
    let Some(dispatcher) = &mut lent.dispatcher else { return false };
    let result = (**dispatcher).handle_read(&mut Channel::own(lent.map, token));
    let dispatcher = lent.dispatcher.take();
    let map = &mut *lent.map;
    if let Err(error) = result {
        read_failed(map, token, dispatcher, error);
        return false;
    }
    match map.slots.get_mut(token) {
        Some(seat) if seat.dispatcher.is_none() => {
            seat.dispatcher = dispatcher;
            if seat.link.has_read_quickly(map.turn.number) {
                if !map.timers.is_empty() {
                    seat.link.stamp(map.turn.time);
                }
                seat.link.forget_idle_turns();
                let bytes = map.gather.bytes();
                match seat.link.send_quickly(bytes) {
                    Ok(()) => {
                        map.gather.end();
                        return true;
                    }
                    Err(sent) => seat.link.sent_in_part(map.turn, bytes, sent),
                }
                map.gather.end();
            }
        }
        // The slot has another dispatcher now, or the map has moved.
        _ => fell_back(map, token, dispatcher),
    }
    if !read_and_asks(map, token) {
        read_led_to_something(map, token, Ok(()));
    }
    false
}

#[cold]
#[inline(never)]
fn read_failed(
    map: &mut ChannelMap,
    token: Token,
    dispatcher: Option<Box<dyn Dispatcher>>,
    error: io::Error,
) {
    match map.slots.get_mut(token) {
        // The connection is gone, and that is all.
        Some(seat) if seat.dispatcher.is_none() && seat.link.has_only_lost(&error) => {
            seat.dispatcher = dispatcher;
            map.gather.end();
            seat.link.listed = true;
            map.dirty.push(token);
        }
        _ => {
            fell_back(map, token, dispatcher);
            read_led_to_something(map, token, Err(error));
        }
    }
}

#[inline(never)]
fn read_led_to_something(map: &mut ChannelMap, token: Token, result: io::Result<()>) {
    let turn = map.turn;
    hooks::end_gathering(map, token);
    if let Some(link) = map.link_mut(token) {
        link.end_quick_read(turn);
        link.set_due(Step::Look);
    }
    match result {
        Ok(()) => {}
        Err(error) if would_block(&error) => drop_error(error),
        Err(error) => hooks::failed(map, token, "handle_read", error, false),
    }
    after_quick_read(map, token);
}

/// Nothing is due but to ask `readable` and `writable`, after all that happens in this turn.
#[inline(never)]
fn read_and_asks(map: &mut ChannelMap, token: Token) -> bool {
    let Some(seat) = map.slots.get_mut(token) else { return false };
    if !map.gather.is_of(token) || !seat.link.has_read_and_asks(map.turn.number) {
        return false;
    }
    seat.link.stamp(map.turn.time);
    seat.link.forget_idle_turns();
    map.asking.push(token);
    let bytes = map.gather.bytes();
    if let Err(sent) = seat.link.send_quickly(bytes) {
        seat.link.sent_in_part(map.turn, bytes, sent);
        map.touch(token);
    }
    map.gather.end();
    true
}

fn after_quick_read(map: &mut ChannelMap, token: Token) {
    settle::tell_eof(map, token);
    map.touch(token);
    backoff::guard(map, token, Ready { read: true, ..Ready::default() });
}

/// The `handle_read` of a channel on the short way panicked. Returns where the batch continues.
#[cold]
#[inline(never)]
pub(crate) fn after_panic(map: &mut ChannelMap, id: u32, payload: Box<dyn Any + Send>) -> usize {
    if map.id != id {
        log::warn!("handle_read: {}", Escaped(&panicked(payload)));
        return usize::MAX;
    }
    // The hook was that of the channel whose output is gathered; its slot stays its own until the settle.
    let token = map.gather.owner();
    let mut keys = (0..).map_while(|at| map.poll.key(at));
    let at = keys.position(|(key, _)| key == token.slot as usize);
    let Some(at) = at.filter(|_| !map.gather.is_free()) else { resume_unwind(payload) };
    hooks::end_gathering(map, token);
    hooks::failed(map, token, "handle_read", panicked(payload), true);
    after_quick_read(map, token);
    if map.id == id { at + 1 } else { usize::MAX }
}

/// Serve channels whose source has buffered input.
#[cold]
pub(crate) fn serve_pending(map: &mut ChannelMap, id: u32) {
    let pending = map.pending.len();
    for at in 0..pending {
        let token = map.pending[at];
        // Unless an event has just served it.
        if let Some(link) = map.link(token).filter(|link| link.is_pending()) {
            // A source without a descriptor may be ready for anything, and a new one may be given input that
            // was put back.
            let any = link.fd().is_none() || link.shakes_hands();
            let ready = Ready { read: any, write: any, ..Ready::default() };
            hooks::contained(map, token, |map| serve(map, token, ready));
            if map.link(token).is_some_and(|link| link.is_pending() && link.shakes_hands()) {
                map.pending.push(token);
            }
        }
        if map.id != id {
            return;
        }
    }
    map.pending.drain(..pending);
}

/// One channel is ready.
#[inline(never)]
fn serve(map: &mut ChannelMap, token: Token, ready: Ready) {
    let turn = map.turn;
    // The channel has ended since its event.
    if token.is_stale() {
        return;
    }
    let Some(link) = map.link_mut(token) else { return };
    // Its socket will be ready in the next turn, too, or it stays in the list of those with input inside.
    if link.has_own_source() && handshake::has_to_wait(map, token) {
        return;
    }
    let Some(link) = map.link_mut(token) else { return };
    link.begin_event();
    // From here on reads take the long way, which counts them as progress.
    link.set_due(Step::Look);
    link.set_pending(false);
    let unread = link.unread_len();
    if link.has_own_source() && !drive::drive_ready(map, token, ready) {
        map.touch(token);
        return;
    }
    let Some(link) = map.link_mut(token) else { return };
    if link.is_listening() {
        accept::accept_ready(map, token);
    } else if link.connect_is_in_progress() {
        connect_outcome(map, token);
    } else if link.is_open() && link.is_datagram() {
        serve_datagrams(map, token, ready);
    } else if link.is_open() {
        serve_stream(map, token, ready);
    } else if link.is_flushing() {
        output::flush_closing(map, token, ready);
    } else if link.is_lingering() {
        closing::drop_input(map, token);
    }
    map.touch(token);
    if let Some(link) = map.link_mut(token) {
        if link.unread_len() < unread {
            link.moved(turn);
        }
    }
    backoff::guard(map, token, ready);
}

fn connect_outcome(map: &mut ChannelMap, token: Token) {
    let Some(fd) = map.link(token).and_then(Link::fd) else { return };
    match sys::take_error(fd) {
        Ok(None) => settle::connected(map, token, None),
        // Connected, and reset since; after a FIN of the peer that is a broken pipe.
        Ok(Some(error))
            if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) =>
        {
            settle::connected(map, token, Some(error));
        }
        Ok(Some(error)) | Err(error) => settle::connect_failed(map, token, error),
    }
}

fn serve_datagrams(map: &mut ChannelMap, token: Token, ready: Ready) {
    let Some(link) = map.link_mut(token) else { return };
    if link.reads() {
        datagram::receive(map, token);
    } else if ready.err {
        // Level-triggered, and nothing reads: take the error off the socket.
        if let Some(Ok(Some(error))) = link.fd().map(sys::take_error) {
            datagram::tell(map, token, &error);
        }
    }
    serve_output(map, token, ready);
}

/// In the order of the contract: urgent data, input, output.
fn serve_stream(map: &mut ChannelMap, token: Token, ready: Ready) {
    let turn = map.turn;
    let Some(link) = map.link_mut(token) else { return };
    if ready.urgent && link.reads() {
        hooks::run(map, token, Work::Expt, but_not_would_block(|dispatcher, ch| dispatcher.handle_expt(ch)));
        // Level-triggered: what the hook left would be reported for ever.
        if let Some(link) = map.link_mut(token) {
            let _ = link.recv_urgent(turn, &mut [0]);
        }
    }
    let Some(link) = map.link_mut(token) else { return };
    if link.reads() {
        if ready.read || ready.hup || ready.err || link.has_input_inside() {
            hooks::run(
                map,
                token,
                Work::Read,
                but_not_would_block(|dispatcher, ch| dispatcher.handle_read(ch)),
            );
            settle::tell_eof(map, token);
        }
    } else if link.is_open() && (ready.err || ready.hup) {
        hang_up_unread(map, token, ready);
    }
    serve_output(map, token, ready);
}

/// There may be room: send what is queued, or run `handle_write`.
fn serve_output(map: &mut ChannelMap, token: Token, ready: Ready) {
    let Some(link) = map.link_mut(token) else { return };
    // Of a source without a descriptor the poller was told nothing.
    let waits_for = if link.fd().is_some() { link.registered() } else { link.interest() };
    let room = ready.write && waits_for.is_some_and(|interest| interest.write);
    if room && link.is_open() {
        let writes = link.writes();
        link.unblock();
        output::flush(map, token);
        if writes {
            hooks::run(
                map,
                token,
                Work::Write,
                but_not_would_block(|dispatcher, ch| dispatcher.handle_write(ch)),
            );
        }
    }
}

/// `WouldBlock` is not an error of the hooks that are called because something may be possible.
fn but_not_would_block(
    hook: impl FnOnce(&mut dyn Dispatcher, &mut Channel<'_>) -> io::Result<()>,
) -> impl FnOnce(&mut dyn Dispatcher, &mut Channel<'_>) -> io::Result<()> {
    |dispatcher, ch| match hook(dispatcher, ch) {
        Err(error) if would_block(&error) => {
            drop_error(error);
            Ok(())
        }
        result => result,
    }
}

/// The peer hung up or reset the connection while nothing reads. The poller cannot mask that.
fn hang_up_unread(map: &mut ChannelMap, token: Token, ready: Ready) {
    let Some(link) = map.link_mut(token) else { return };
    if ready.err {
        let error = link.fd().and_then(|fd| sys::take_error(fd).ok().flatten());
        if let Some(error) = error {
            link.read_lost(error);
            return;
        }
    }
    if !link.queue_is_empty() {
        // The peer is gone: the send reports why.
        link.unblock();
        output::flush(map, token);
    }
    let Some(link) = map.link_mut(token) else { return };
    if !ready.hup || !link.is_open() {
        return;
    }
    if link.is_at_end() {
        link.end(Reason::EndOfStream);
    } else if link.rest() == Rest::No {
        link.set_rest(Rest::HungUp);
    }
}
