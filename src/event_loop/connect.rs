//! Connects to an address that cannot begin yet, and are retried.

use std::time::Duration;

use crate::core::action::Action;
use crate::core::map::ChannelMap;
use crate::sys;
use crate::token::Token;

/// The delay before a connect that could not begin is retried.
const FIRST_RETRY: Duration = Duration::from_millis(1);
const LONGEST_RETRY: Duration = Duration::from_millis(100);

/// The system does not report when a Unix-domain listener's backlog has room again, so retry: first
/// after 1 ms, then less and less often, down to every 100 ms.
pub(crate) fn connect_later(map: &mut ChannelMap, token: Token, tries: u32) {
    let delay = FIRST_RETRY.saturating_mul(1 << tries.min(7)).min(LONGEST_RETRY);
    map.set_timer(Some(token), delay, Action::Connect(token, tries + 1));
}

pub(crate) fn connect_again(map: &mut ChannelMap, token: Token, tries: u32) {
    let Some(link) = map.link_mut(token).filter(|link| link.connect_waits()) else { return };
    let (Some(fd), Some(peer)) = (link.fd(), link.peer()) else { return };
    let begun = sys::stream::connect_again(fd, &peer);
    if link.connect_began(begun) {
        connect_later(map, token, tries);
    }
    map.touch(token);
}
