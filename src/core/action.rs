//! What a timer does when it is due, and the messages that other threads send.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::core::channel::Channel;
use crate::core::map::ChannelMap;
use crate::drain::DrainProgress;
use crate::threads::credit::Credit;
use crate::timers::Keeps;
use crate::token::Token;

pub(crate) type MapCall = Box<dyn FnOnce(&mut ChannelMap)>;
/// Shared by the timer, which is set again before the call, and the call.
pub(crate) type RepeatedMapCall = Rc<RefCell<dyn FnMut(&mut ChannelMap)>>;
pub(crate) type ChannelCall = Box<dyn FnOnce(&mut Channel<'_>) -> io::Result<()>>;
pub(crate) type RepeatedChannelCall = Rc<RefCell<dyn FnMut(&mut Channel<'_>) -> io::Result<()>>>;

/// Shared by the map and the call.
pub(crate) type DrainCall = Rc<RefCell<dyn FnMut(&mut ChannelMap, &DrainProgress)>>;

/// What a timer does.
pub(crate) enum Action {
    Call(MapCall),
    CallEvery(Duration, RepeatedMapCall),
    Channel(Token, ChannelCall),
    ChannelEvery(Token, Duration, RepeatedChannelCall),
    /// Check whether the channel was idle for too long.
    Idle(Token),
    /// Look whether a deadline of the channel has passed.
    Deadline(Token),
    /// Check whether a closing channel still makes progress with its queue.
    Flush(Token),
    /// The peer's time to end after our FIN is over.
    Linger(Token),
    /// Resume a suspended channel.
    Resume(Token),
    /// A direction has waited for its bandwidth.
    Bandwidth(Token),
    /// The pause of a shortage is over.
    Resend(Token),
    /// The time of a handshake is over.
    Handshake(Token),
    /// Check whether the end of a broken connection is overdue.
    Broken(Token),
    /// Look which limits of a listener are over.
    Limits(Token),
    /// Try again to begin a connect; with the number of failed tries.
    Connect(Token, u32),
    /// A connect by name: try its next address; give up.
    DialNext(Token),
    DialTimeout(Token),
    /// Look which channels of a map that drains can be closed.
    Drain,
}

impl Keeps for Action {
    /// A channel's own business does not: the channel does, unless it is in the background.
    fn keeps(&self) -> bool {
        match self {
            Action::Call(_) | Action::CallEvery(..) | Action::Channel(..) | Action::ChannelEvery(..) => true,
            // Closing is foreground work.
            Action::Flush(_) | Action::Linger(_) => true,
            Action::Idle(_) | Action::Deadline(_) | Action::Limits(_) | Action::Drain => false,
            Action::Handshake(_) => false,
            Action::Resume(_) | Action::Resend(_) | Action::Bandwidth(_) | Action::Broken(_) => false,
            Action::Connect(..) | Action::DialNext(_) | Action::DialTimeout(_) => false,
        }
    }
}

/// The closure that [`Remote::call`](crate::Remote::call) sends, and gives back if it is refused.
pub type Call = Box<dyn FnOnce(&mut ChannelMap) + Send>;

/// What another thread sends to the loop.
pub(crate) enum Message {
    Call(Call),
    /// Bytes for a channel; from an outlet if there is a credit.
    Bytes(Token, Vec<u8>, Option<Arc<Credit>>),
}

impl Message {
    pub(crate) fn into_call(self) -> Call {
        match self {
            Message::Call(call) => call,
            Message::Bytes(..) => unreachable!("a call is given back as a call"),
        }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        match self {
            Message::Bytes(_, bytes, _) => bytes,
            Message::Call(_) => unreachable!("bytes are given back as bytes"),
        }
    }
}
