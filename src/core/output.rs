//! Passing what is pushed to its channel, after what the running hook has gathered.

use std::io;

use crate::core::map::ChannelMap;
use crate::error::LookupError;
use crate::link::producer::Producer;
use crate::link::pushed::Pushed;
use crate::token::Token;

impl ChannelMap {
    /// Push to a channel, from any caller.
    pub(crate) fn put(&mut self, token: Token, pushed: Pushed<'_>, limited: bool) -> io::Result<()> {
        self.touch(token);
        let Some(seat) = self.slots.get_mut(token) else { return Err(LookupError::Gone(token).into()) };
        if self.gather.is_of(token) && seat.link.gathers() {
            self.gather.unseal();
            if self.gather.push_small(token, &pushed) {
                return Ok(());
            }
        }
        let before = self.gather.bytes_of(token);
        if seat.link.push(self.turn, before, pushed, limited)? {
            self.gather.sent(token);
        }
        Ok(())
    }

    pub(crate) fn push_producer(&mut self, token: Token, producer: Box<dyn Producer>) -> io::Result<()> {
        let Some(seat) = self.slots.get_mut(token) else { return Err(LookupError::Gone(token).into()) };
        if seat.link.push_producer(self.gather.bytes_of(token), producer)? {
            self.gather.sent(token);
        }
        Ok(())
    }

    /// Send what the running hook of this channel has pushed: something that must come after it
    /// follows.
    pub(crate) fn send_gathered(&mut self, token: Token) {
        let bytes = self.gather.bytes_of(token);
        if bytes.is_empty() {
            return;
        }
        if let Some(seat) = self.slots.get_mut(token) {
            seat.link.send_gathered(self.turn, bytes);
        }
        self.gather.sent(token);
    }

    /// Queue it instead: the queue is about to be dropped.
    pub(crate) fn queue_gathered(&mut self, token: Token) {
        let Some(seat) = self.slots.get_mut(token) else { return };
        seat.link.queue_gathered(self.gather.bytes_of(token));
        self.gather.sent(token);
    }
}
