//! Channels that pause each other: the call, and what the loop does for it.

use std::io;

use crate::core::channel::Channel;
use crate::core::map::ChannelMap;
use crate::error::LookupError;
use crate::link::output::no_stream;
use crate::link::partners::Partners;
use crate::token::Token;

impl Channel<'_> {
    /// Pause reading automatically here while the queue of `other` is high, and there while the queue of
    /// this channel is: from above the high watermark until down to the low one. Two channels that pass on
    /// to each other what they read (a proxy, a relay) need this, or the faster one overfills the queue of
    /// the slower one.
    ///
    /// One call is for both directions. A channel can have several such partners, and pauses while the
    /// queue of any of them is high. It ends when either channel ends.
    ///
    /// # Errors
    /// One of the two is not in the map, or is a listener.
    pub fn auto_pause_with(&mut self, other: impl Into<Token>) -> io::Result<()> {
        let result = self.map.make_partners(self.token, other.into());
        self.named(result)
    }
}

impl ChannelMap {
    fn make_partners(&mut self, one: Token, other: Token) -> io::Result<()> {
        for token in [one, other] {
            let link = self.link(token).filter(|link| !link.is_told()).ok_or(LookupError::Gone(token))?;
            if link.is_listening() {
                return Err(no_stream());
            }
        }
        if self.partners(one).is_some_and(|partners| partners.has(other)) {
            return Ok(());
        }
        for (token, partner) in [(one, other), (other, one)] {
            // The settle tells the old ones again, together with the new one.
            self.tell_partners(token, false);
            self.touch(token);
            if let Some(link) = self.link_mut(token) {
                link.rare().partners.remove(partner);
                link.rare().partners.add(partner);
            }
        }
        Ok(())
    }

    /// Tell the partners of a channel to pause, or that they may read again.
    #[cold]
    pub(crate) fn tell_partners(&mut self, token: Token, pause: bool) {
        let to_tell = self.partners(token).map_or_else(Vec::new, |partners| partners.tell(pause));
        for partner in to_tell {
            self.touch(partner);
            if let Some(link) = self.link_mut(partner) {
                link.rare().partners.told(pause);
                link.was_changed();
            }
        }
    }

    /// A channel ends, and with it each of its partnerships.
    pub(crate) fn end_partnerships(&mut self, token: Token) {
        self.tell_partners(token, false);
        let left = self.partners(token).map_or_else(Vec::new, Partners::take);
        for partner in left {
            if let Some(partners) = self.partners(partner) {
                partners.remove(token);
            }
        }
    }

    fn partners(&mut self, token: Token) -> Option<&mut Partners> {
        Some(&mut self.link_mut(token)?.rare_mut_if_any()?.partners)
    }
}
