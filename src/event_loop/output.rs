//! Output of one channel: sends what is queued, then what comes after it: FIN, the end.

use std::io;

use crate::core::map::ChannelMap;
use crate::error::clone_error;
use crate::event_loop::{closing, hooks, upgrade};
use crate::link::due::Step;
use crate::link::sending::Flushed;
use crate::reason::Reason;
use crate::sys::errno::broken_pipe;
use crate::sys::poll::Ready;
use crate::sys::{self, Kind};
use crate::token::Token;

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
            closing::start_timer(map, token);
        }
        return;
    }
    if link.may_flush() {
        match link.flush(turn) {
            Flushed::Empty | Flushed::Blocked | Flushed::Budget | Flushed::Stalled => {}
            Flushed::Upgrade => {
                if upgrade::upgrade_due(map, token) {
                    return;
                }
            }
            Flushed::Producer(error, panic) => return producer_failed(map, token, error, panic),
            Flushed::Lost(error) => {
                if let Some(link) = map.link_mut(token) {
                    link.write_lost(error);
                }
                return;
            }
        }
    }
    let Some(link) = map.link_mut(token) else { return };
    if link.queue_is_empty() && !link.is_broken() {
        after_output(map, token);
    } else if link.is_flushing() {
        closing::start_timer(map, token);
    }
}

/// A closing channel is ready: send what is queued, and if the peer is gone, notice it although there may be
/// nothing to send now.
pub(crate) fn flush_closing(map: &mut ChannelMap, token: Token, ready: Ready) {
    let Some(link) = map.link_mut(token) else { return };
    link.unblock();
    flush(map, token);
    if !(ready.hup || ready.err) {
        return;
    }
    let Some(link) = map.link_mut(token).filter(|link| link.is_flushing() && link.has_unsent()) else {
        return;
    };
    let error = link.fd().and_then(|fd| sys::take_error(fd).ok().flatten());
    // A hang-up of both directions, or a pipe that nobody reads.
    let gone = || (ready.hup || link.kind() == Kind::File).then(broken_pipe);
    if let Some(error) = error.or_else(gone) {
        link.write_lost(error);
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
        if let Err(error) = closing::send_fin(map, token) {
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
            closing::start_timer(map, token);
        }
    } else if link.is_flushing() {
        closing::end_or_linger(map, token);
    } else if link.both_ways_ended() {
        link.end(Reason::EndOfStream);
    }
}
