//! Which channels keep the loop going: those that close, and all that are not in the background.

use crate::core::map::ChannelMap;
use crate::link::state::Role;
use crate::reason::Reason;
use crate::token::Token;

impl ChannelMap {
    /// [`close`](crate::Channel::close) every channel: Python's `close_all`, but what is queued is sent first.
    pub fn close_all(&mut self) {
        let tokens: Vec<Token> = self.tokens().collect();
        for token in tokens {
            self.begin_close(token, Reason::Closed);
        }
    }

    // For this crate.

    /// Closing is foreground work: [`run`](crate::run) does not return before what is queued is sent.
    pub(crate) fn begin_close(&mut self, token: Token, cause: Reason) {
        self.touch(token);
        if let Some(link) = self.link_mut(token) {
            link.close(cause);
        }
        self.set_background(token, false);
    }

    pub(crate) fn set_background(&mut self, token: Token, on: bool) {
        let Some(link) = self.link_mut(token) else { return };
        if link.role() == Role::Internal || (on && link.is_ending()) {
            return;
        }
        let role = if on { Role::Background } else { Role::User };
        match (link.set_role(role), role) {
            (Role::User, Role::Background) => self.background += 1,
            (Role::Background, Role::User) => self.background -= 1,
            _ => {}
        }
    }
}
