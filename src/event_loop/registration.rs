//! What the poller is told of a channel.

use std::os::fd::{AsRawFd, RawFd};

use crate::core::map::ChannelMap;
use crate::event_loop::backoff;
use crate::link::state::Link;
use crate::reason::Reason;
use crate::sys;
use crate::token::Token;

/// Tell the poller what the channel waits for now, if that changed.
pub(crate) fn register(map: &mut ChannelMap, token: Token) {
    if map.link(token).is_some_and(|link| link.exchanged().is_some()) {
        unwatch(map, token);
    }
    let Some(seat) = map.slots.get_mut(token) else { return };
    let link = &mut seat.link;
    let (wanted, told) = (link.interest(), link.registered());
    if let Some(fd) = link.fd() {
        if wanted != told {
            let key = token.slot as usize;
            let result = match (told, wanted) {
                (None, Some(interest)) => map.poll.add(fd, key, interest),
                (Some(_), Some(interest)) => map.poll.modify(fd, key, interest),
                (_, None) => map.poll.delete(fd),
            };
            match result {
                Ok(()) => link.set_registered(wanted),
                Err(error) if sys::errno::out_of_resources(&error) => {
                    return backoff::starve(map, token, "cannot be watched", &error);
                }
                Err(error) => {
                    link.end(Reason::from(crate::error::clone_error(&error)));
                    return map.report(token, "the poller does not take it", &error);
                }
            }
        }
    }
    if link.takes_input_inside() {
        link.set_pending(true);
        map.pending.push(token);
    }
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
