//! What closing begins to wait for, once the hooks are done with the channel.

use crate::core::action::Action;
use crate::core::map::ChannelMap;
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
