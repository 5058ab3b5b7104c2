//! What a timer does when it is due.

use std::io;
use std::time::Duration;

use crate::core::channel::Channel;
use crate::core::map::ChannelMap;
use crate::token::Token;

pub(crate) type MapCall = Box<dyn FnOnce(&mut ChannelMap)>;
pub(crate) type RepeatedMapCall = Box<dyn FnMut(&mut ChannelMap)>;
pub(crate) type ChannelCall = Box<dyn FnOnce(&mut Channel<'_>) -> io::Result<()>>;
pub(crate) type RepeatedChannelCall = Box<dyn FnMut(&mut Channel<'_>) -> io::Result<()>>;

/// What a timer does.
pub(crate) enum Action {
    Call(MapCall),
    CallEvery(Duration, RepeatedMapCall),
    Channel(Token, ChannelCall),
    ChannelEvery(Token, Duration, RepeatedChannelCall),
    /// Look whether the channel was idle for too long.
    Idle(Token),
    /// Look whether a closing channel still gets rid of its queue.
    Flush(Token),
    /// The peer had its time to end after our FIN.
    Linger(Token),
    /// Watch a channel again that was taken out of the poller for a while.
    Rewatch(Token),
    /// Begin a connect once more; so many times it was not possible.
    Connect(Token, u32),
    /// A connect to a name: on to its next address; give up.
    DialNext(Token),
    DialTimeout(Token),
}

impl Action {
    /// The channel that the timer dies with.
    pub(crate) fn owner(&self) -> Option<Token> {
        match *self {
            Action::Call(_) | Action::CallEvery(..) => None,
            Action::Channel(token, _)
            | Action::ChannelEvery(token, ..)
            | Action::Idle(token)
            | Action::Flush(token)
            | Action::Linger(token)
            | Action::Connect(token, _)
            | Action::DialNext(token)
            | Action::DialTimeout(token)
            | Action::Rewatch(token) => Some(token),
        }
    }
}
