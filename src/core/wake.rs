//! The wakers of sources without a descriptor.

use crate::core::action::Message;
use crate::core::map::ChannelMap;
use crate::link::state::Link;
use crate::threads::source_waker::SourceWaker;
use crate::token::Token;

impl ChannelMap {
    /// A source of the user's has become a channel's: one without a descriptor is given its waker.
    pub(crate) fn give_waker(&mut self, token: Token) {
        let lacks_one = |link: &Link| link.has_own_source() && link.fd().is_none();
        if !self.link(token).is_some_and(lacks_one) {
            return;
        }
        let answers = self.open_queue().answers();
        let wake = move |waker: &SourceWaker| {
            let waker = waker.clone();
            answers.give(Message::Call(Box::new(move |map| {
                waker.is_heard();
                // It may have ended.
                if let Ok(mut ch) = map.channel(waker.token()) {
                    ch.source_ready();
                }
            })));
        };
        let waker = SourceWaker::new(token, Box::new(wake));
        if let Some(source) = self.link_mut(token).and_then(|link| link.source_mut()) {
            source.set_waker(&waker);
        }
    }
}
