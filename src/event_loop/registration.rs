//! What the poller is told of a channel.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use crate::core::map::ChannelMap;
use crate::error::clone_error;
use crate::event_loop::backoff;
use crate::link::state::Link;
use crate::reason::Reason;
use crate::sys;
use crate::sys::poll::{Interest, Poll};
use crate::token::Token;

/// Tell the poller what the channel waits for now, if that changed.
pub(crate) fn register(map: &mut ChannelMap, token: Token) {
    if map.link_mut(token).is_some_and(Link::may_have_exchanged) {
        unwatch(map, token);
    }
    let Some(seat) = map.slots.get_mut(token) else { return };
    let link = &mut seat.link;
    let wanted = link.interest();
    if let Err(error) = watch(&map.poll, link, token, wanted) {
        return refused(map, token, &error);
    }
    if link.takes_input_inside() {
        link.set_pending(true);
        map.pending.push(token);
    }
}

/// As `register`, of a channel that waits for nothing but its descriptor, which is the same as before.
#[inline(always)]
pub(crate) fn watch(poll: &Poll, link: &mut Link, token: Token, wanted: Option<Interest>) -> io::Result<()> {
    let told = link.registered();
    let Some(fd) = link.fd().filter(|_| wanted != told) else { return Ok(()) };
    let key = token.slot as usize;
    match (told, wanted) {
        (None, Some(interest)) => poll.add(fd, key, interest)?,
        (Some(_), Some(interest)) => poll.modify(fd, key, interest)?,
        (_, None) => poll.delete(fd)?,
    }
    link.set_registered(wanted);
    Ok(())
}

#[cold]
pub(crate) fn refused(map: &mut ChannelMap, token: Token, error: &io::Error) {
    if sys::errno::out_of_resources(error) {
        return backoff::starve(map, token, "cannot be watched", error);
    }
    if let Some(link) = map.link_mut(token) {
        link.end(Reason::from(clone_error(error)));
    }
    map.report(token, "the poller does not take it", error);
}

/// Take a channel out of the poller, also if its source has exchanged its descriptor for another.
pub(crate) fn unwatch(map: &mut ChannelMap, token: Token) {
    let Some(link) = map.link_mut(token).filter(|link| link.registered().is_some()) else { return };
    let left = link.exchanged();
    link.set_registered(None);
    match left {
        Some(left) if !map.slots.tokens().any(|other| has(map.link(other), left)) => {
            map.poll.delete_left(left)
        }
        // The number is another channel's by now, so the kernel has taken the old one out.
        Some(_) => {}
        None => {
            if let Some(fd) = map.link(token).and_then(Link::fd) {
                // This fails only if the descriptor is not registered, which is what is wanted.
                let _ = map.poll.delete(fd);
            }
        }
    }
}

fn has(link: Option<&Link>, number: RawFd) -> bool {
    link.and_then(Link::fd).is_some_and(|fd| fd.as_raw_fd() == number)
}
