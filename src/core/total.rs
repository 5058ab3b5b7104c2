//! The limit on what the queues of all channels hold together.

use crate::core::map::ChannelMap;
use crate::reason::Reason;
use crate::token::Token;

impl ChannelMap {
    /// The most memory, in bytes, that the queues of all channels may hold together (default 256 MiB).
    /// What was [broadcast](ChannelMap::broadcast) counts once, however many channels are still to send it.
    ///
    /// Over it, every socket is offered what is queued for it. Then those channels end that are furthest
    /// behind, with [`Reason::Limit`], until an eighth of the limit is free again. Each is logged.
    pub fn set_limit(&mut self, bytes: usize) {
        self.total.limit = bytes;
        self.keep_to_the_limit();
    }

    /// Something was queued on a channel.
    #[inline]
    pub(crate) fn count_queue(&mut self, token: Token) {
        if self.enter_queue(token) {
            self.keep_to_the_limit();
        }
    }

    /// As `count_queue`, without a look at the limit; `false` if nothing is queued.
    #[inline]
    pub(crate) fn enter_queue(&mut self, token: Token) -> bool {
        self.slots.get_mut(token).is_some_and(|seat| seat.link.count_queue(&self.total.account))
    }

    #[inline]
    pub(crate) fn keep_to_the_limit(&mut self) {
        if self.total.is_over() {
            self.end_those_furthest_behind();
        }
    }

    #[cold]
    #[inline(never)]
    fn end_those_furthest_behind(&mut self) {
        let limit = self.total.limit;
        let turn = self.turn;
        let tokens: Vec<Token> = self.slots.tokens().collect();
        let mut behind = Vec::new();
        for token in tokens {
            let Some(seat) = self.slots.get_mut(token).filter(|seat| seat.link.keeps() > 0) else {
                continue;
            };
            // More than there can be room for: all that the socket takes is sent.
            seat.link.has_room(turn, usize::MAX);
            seat.link.count_queue(&self.total.account);
            behind.push((seat.link.keeps(), token));
            self.touch(token);
        }
        behind.sort_by_key(|(kept, _)| std::cmp::Reverse(*kept));
        for (kept, token) in behind {
            if self.total.account.total() <= limit - limit / 8 {
                return;
            }
            let why = format_args!(
                "with {kept} bytes it is furthest behind, and the queues of all channels hold more than {limit}"
            );
            self.report(token, "ended", &why);
            if let Some(link) = self.link_mut(token) {
                link.end_by_reset(Reason::Limit);
            }
        }
    }
}
