//! Output of one channel: sends what is queued, then what comes after it: FIN, the end.

use std::io;
use std::time::Duration;

use crate::core::action::Action;
use crate::core::map::ChannelMap;
use crate::error::clone_error;
use crate::event_loop::hooks;
use crate::link::due::Step;
use crate::link::outbox::Flushed;
use crate::reason::Reason;
use crate::sys::errno::would_block;
use crate::sys::{self, Kind};
use crate::token::Token;

/// How long to wait for the peer's end after our last FIN, while what it sends is dropped.
const LINGER: Duration = Duration::from_secs(2);

/// Flush what is queued, and when that is done, do what comes after it: FIN, the end.
pub(crate) fn flush(map: &mut ChannelMap, token: Token) {
    let turn = map.turn;
    let Some(link) = map.link_mut(token) else { return };
    if !(link.is_opening() || link.is_open() || link.is_flushing()) {
        return;
    }
    if !link.is_established() {
        // A handshake in mid-stream may never end.
        if link.is_flushing() {
            start_flush_timer(map, token);
        }
        return;
    }
    if link.may_flush() {
        match link.flush(turn) {
            Flushed::Empty | Flushed::Blocked | Flushed::Budget | Flushed::Stalled => {}
            Flushed::Producer(error, panic) => return producer_failed(map, token, error, panic),
            Flushed::Lost(error) => return link.write_lost(error),
        }
    }
    let Some(link) = map.link_mut(token) else { return };
    if link.queue_is_empty() && !link.is_broken() {
        after_output(map, token);
    } else if link.is_flushing() {
        start_flush_timer(map, token);
    }
}

fn producer_failed(map: &mut ChannelMap, token: Token, error: io::Error, panic: bool) {
    // While closing, the dispatcher is not asked: what the producer would have made is missing.
    if let Some(link) = map.link_mut(token).filter(|link| link.is_flushing()) {
        link.closing_failed(clone_error(&error).into());
    }
    hooks::failed(map, token, "a producer", error, panic);
    if let Some(link) = map.link_mut(token) {
        // The stream is cut short, which must not look like its end.
        link.reset_at_the_end();
        // If the channel lives on, the next settle sends what comes after the producer.
        link.set_due(Step::Flush);
    }
    map.touch(token);
}

fn after_output(map: &mut ChannelMap, token: Token) {
    let Some(link) = map.link_mut(token) else { return };
    // A user's source shuts down before the socket is closed.
    if link.takes_fin() {
        if let Err(error) = send_fin(map, token) {
            // The peer is gone; what it sent before may still be read.
            if let Some(link) = map.link_mut(token) {
                let cause = link.fd().and_then(|fd| sys::take_error(fd).ok().flatten());
                link.write_lost(cause.unwrap_or(error));
            }
            return;
        }
    }
    let Some(link) = map.link_mut(token) else { return };
    if link.output_pending() {
        if link.is_flushing() {
            start_flush_timer(map, token);
        }
    } else if link.is_flushing() {
        drain_and_end(map, token);
    } else if link.both_ways_ended() {
        link.end(Reason::EndOfStream);
    }
}

fn send_fin(map: &mut ChannelMap, token: Token) -> io::Result<()> {
    match map.link_mut(token).and_then(|link| link.source_mut()) {
        Some(source) => match source.shutdown_write() {
            // It continues when there is room: `output_pending` is true.
            Err(error) if would_block(&error) => Ok(()),
            result => result,
        },
        None => Ok(()),
    }
}

/// All is sent. If the peer has sent something that was not read, closing now would reset the connection,
/// and the peer could lose what it has not read yet: send FIN first, and wait for the peer's.
fn drain_and_end(map: &mut ChannelMap, token: Token) {
    let mut buffer = map.buffers.take();
    let unread = match map.link_mut(token) {
        Some(link) if !link.has_read_end() && link.kind() == Kind::Stream => match link.source_mut() {
            Some(source) => matches!(source.recv(&mut buffer[..]), Ok(1..)),
            None => false,
        },
        _ => false,
    };
    map.buffers.give_back(buffer);
    let lingers =
        unread && (map.link(token).is_some_and(|link| link.fin_is_sent()) || send_fin(map, token).is_ok());
    let Some(link) = map.link_mut(token) else { return };
    match lingers {
        true => {
            link.linger();
            map.set_timer(Some(token), LINGER, Action::Linger(token));
        }
        false => link.end_of_ending(),
    }
}

/// A lingering channel has input, or its end: drop the input.
pub(crate) fn drop_input(map: &mut ChannelMap, token: Token) {
    let turn = map.turn;
    let mut buffer = map.buffers.take();
    if let Some(link) = map.link_mut(token) {
        let result = link.source_mut().map_or(Ok(0), |source| source.recv(&mut buffer[..]));
        match result {
            Ok(read @ 1..) => link.has_received(turn, read),
            Err(error) if would_block(&error) => {}
            Ok(_) | Err(_) => link.end_of_ending(),
        }
    }
    map.buffers.give_back(buffer);
}

fn start_flush_timer(map: &mut ChannelMap, token: Token) {
    let now = map.clock.now();
    let Some(link) = map.link_mut(token) else { return };
    if link.rare().close_timer.is_some() {
        return;
    }
    link.stamp(now);
    let timeout = link.rare().close_timeout;
    let timer = map.set_timer(Some(token), timeout, Action::Flush(token));
    if let Some(link) = map.link_mut(token) {
        link.rare().close_timer = Some(timer);
    }
}
