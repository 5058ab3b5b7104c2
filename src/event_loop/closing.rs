//! What closing waits for, once the hooks are done with the channel: what is queued, and then the peer's end.

use std::io;

use crate::core::action::Action;
use crate::core::map::ChannelMap;
use crate::guard::drop_each;
use crate::link::leaving::QUIET;
use crate::link::state::Link;
use crate::sys::Kind;
use crate::sys::errno::would_block;
use crate::token::Token;

/// How often in the time without progress to look whether there was some.
pub(crate) const LOOKS: u32 = 4;

/// What is queued could not be sent at once: from now on there is a limit to the time without progress.
pub(crate) fn start_timer(map: &mut ChannelMap, token: Token) {
    let now = map.clock.now();
    let Some(link) = map.link_mut(token) else { return };
    if link.rare().close_timer.is_some() {
        return;
    }
    link.stamp(now);
    link.ask_what_is_held(now);
    let timeout = link.rare().close_timeout;
    let timer = map.set_timer(Some(token), timeout / LOOKS, Action::Flush(token));
    if let Some(link) = map.link_mut(token) {
        link.rare().close_timer = Some(timer);
    }
}

pub(crate) fn send_fin(map: &mut ChannelMap, token: Token) -> io::Result<()> {
    match map.link_mut(token).and_then(|link| link.source_mut()) {
        Some(source) => match source.shutdown_write() {
            // It continues when there is room: `output_pending` is true.
            Err(error) if would_block(&error) => Ok(()),
            result => result,
        },
        None => Ok(()),
    }
}

/// All is sent. Closing now would let the next byte that the peer sends, or one that it has sent and nobody
/// has read, reset the connection, and with it what has not reached the peer yet: send FIN, and drop input
/// until the peer ends.
pub(crate) fn end_or_linger(map: &mut ChannelMap, token: Token) {
    let unread = drop_input_once(map, token);
    let Some(link) = map.link_mut(token) else { return };
    let longest = link.linger_timeout();
    let lingers = match unread {
        Ok(0) => false,
        Ok(_) => true,
        Err(error) => would_block(&error) && link.can_be_reset_by_input(),
    };
    let lingers = lingers && !longest.is_zero() && (link.fin_is_sent() || send_fin(map, token).is_ok());
    let now = map.clock.now();
    let Some(link) = map.link_mut(token) else { return };
    if !lingers {
        return link.end_of_ending();
    }
    link.linger(now);
    // Nothing is left to be done for the user, and whatever was suspended is resumed.
    let timers = map.timers.cancel_owned(token.slot);
    drop_each(&mut map.throttle, "a timer", timers);
    map.set_timer(Some(token), QUIET.min(longest), Action::Linger(token));
    if let Some(link) = map.link_mut(token) {
        link.set_deadline_timer(None);
    }
    map.look_at_deadlines(token, now);
    map.lingering.begin(token);
    make_room(map);
}

impl ChannelMap {
    /// How many channels may linger at once (default 512): closing, with everything sent, they wait for
    /// the peer's end ([`set_linger`](crate::Channel::set_linger)), each with a descriptor. Beyond that the
    /// one that has lingered longest is closed. With 0 none lingers.
    pub fn set_linger_limit(&mut self, channels: usize) {
        self.lingering.limit = channels;
        make_room(self);
    }
}

/// If too many linger, the oldest give way.
fn make_room(map: &mut ChannelMap) {
    let slots = &map.slots;
    map.lingering.tidy(|token| slots.get(token).is_some_and(|seat| seat.link.counts_as_lingering()));
    while let Some(oldest) = map.lingering.too_many() {
        // One whose peer has ended in this turn still counts, and is the first to go.
        if let Some(link) = map.link_mut(oldest).filter(|link| link.counts_as_lingering()) {
            link.stop_lingering();
            map.lingering.ended();
            map.touch(oldest);
        }
    }
}

/// A lingering channel has input, or its end: drop the input.
pub(crate) fn drop_input(map: &mut ChannelMap, token: Token) {
    let turn = map.turn;
    let dropped = drop_input_once(map, token);
    let Some(link) = map.link_mut(token) else { return };
    match dropped {
        Ok(read @ 1..) => link.has_received(turn, read),
        Err(error) if would_block(&error) => {}
        Ok(_) | Err(_) => link.end_of_ending(),
    }
}

/// As `recv(2)`: 0 at the end, also if that was read before, or if nothing is to be read. A source may tell
/// its end before that of its socket.
fn drop_input_once(map: &mut ChannelMap, token: Token) -> io::Result<usize> {
    let mut buffer = map.buffers.take();
    let may_read = |link: &&mut Link| !link.has_read_end() || link.has_own_source();
    let reads = map.link_mut(token).filter(may_read).filter(|link| link.kind() == Kind::Stream);
    let result = match reads.and_then(|link| link.source_mut()) {
        Some(source) => source.recv(&mut buffer[..]),
        None => Ok(0),
    };
    map.buffers.give_back(buffer);
    result
}
