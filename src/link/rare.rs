//! What few channels have, in one box that is made on demand.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Time;
use crate::link::admission::Admission;
use crate::link::bandwidth::Flow;
use crate::link::dial::Dial;
use crate::link::marks::{Limits, OnLimit};
use crate::link::partners::Partners;
use crate::link::running::Running;
use crate::link::source::MakeSource;
use crate::link::unread::Unread;
use crate::net::address::Address;
use crate::net::places::Permit;
#[cfg(feature = "proxy-protocol")]
use crate::net::proxy::Proxied;
use crate::net::unix::SocketFile;
use crate::threads::credit::Credit;
use crate::timers::TimerKey;

/// How long a closing channel may go without sending a byte.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may wait for the peer's end after that.
pub(super) const LINGER: Duration = Duration::from_secs(30);

/// How long the handshake of a source may take.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why less is watched than the channel wants: it is suspended. A rest that a timer ends carries the
/// timer, so none lasts for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    No,
    /// The peer hung up while reading is paused; lasts until reading is resumed.
    HungUp,
    /// Ready for output without progress: `handle_write` is suspended.
    Output(TimerKey),
    /// Ready without progress: input is suspended.
    Input(TimerKey),
    /// Input and output; or there is no descriptor or memory for it.
    All(TimerKey),
}

/// How far a change of the source is that was begun on an open channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upgrade {
    No,
    /// What was pushed before it is being sent.
    Waiting,
    /// The new source is in place, and `handle_wrapped` is due, perhaps after a handshake.
    Begun,
}

/// What the system said when it was last asked what it holds.
#[derive(Clone, Copy)]
pub(crate) struct Leaving {
    /// In bytes.
    pub(crate) held: usize,
    pub(super) asked: Time,
    /// When a byte last left, or may have left.
    pub(crate) last: Time,
}

/// Whether the system was short of buffers or memory when output was offered to it; how many pauses there
/// were in a row before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shortage {
    None,
    /// The settle begins a pause.
    Met {
        before: u8,
    },
    Waits {
        before: u8,
    },
    /// The pause is over, and no byte was sent since.
    Over {
        before: u8,
    },
}

pub(crate) struct Rare {
    /// Set by `set_timeout`, and its timer.
    pub(crate) timeout: Option<Duration>,
    pub(crate) idle_timer: Option<TimerKey>,
    /// Set by `set_deadlines`.
    pub(super) deadlines: Option<Box<Running>>,
    pub(crate) close_timeout: Duration,
    /// The timer that bounds the flush of a closing channel.
    pub(crate) close_timer: Option<TimerKey>,
    /// What the system held when it was last asked.
    pub(super) leaving: Option<Leaving>,
    /// The longest time to linger.
    pub(crate) linger: Duration,
    /// Since when the channel lingers; begins anew while the system still holds something.
    pub(super) lingering: Option<Time>,
    /// The account with its outlets.
    pub(crate) credit: Option<Arc<Credit>>,
    /// A connect by name that ended before its outcome.
    pub(super) dial: Option<Box<Dial>>,
    /// The file of a socket that is bound to a path.
    pub(crate) file: Option<Box<SocketFile>>,
    pub(crate) peer: Option<Address>,
    /// Of a listener with limits.
    pub(super) admission: Option<Box<Admission>>,
    /// Of a connection that such a listener has accepted.
    pub(crate) permit: Option<Box<Permit>>,
    /// The limits, if they are not the defaults.
    pub(crate) limits: Limits,
    pub(crate) on_limit: OnLimit,
    /// How often the socket has taken nothing of a queue at its limit, and in which turn.
    pub(super) refusals: u8,
    pub(super) refused_in: u32,
    /// Input that was put back.
    pub(super) unread: Option<Unread>,
    pub(super) rest: Rest,
    pub(super) has_rested: bool,
    pub(super) upgrade: Upgrade,
    /// Makes the source, once the connect has succeeded.
    pub(super) to_wrap: Option<MakeSource>,
    /// How long a handshake may take, and the timer of one that is under way.
    pub(crate) handshake_timeout: Duration,
    pub(crate) handshake_timer: Option<TimerKey>,
    /// What a balancer has told.
    #[cfg(feature = "proxy-protocol")]
    pub(super) proxied: Option<Box<Proxied>>,
    pub(crate) partners: Partners,
    /// The error with which the connection broke, while input is still read.
    pub(super) lost: Option<Arc<io::Error>>,
    /// The timer that bounds that.
    pub(crate) end_timer: Option<TimerKey>,
    pub(super) shortage: Shortage,
    /// Set by `set_read_bandwidth` and `set_write_bandwidth`.
    pub(super) read_flow: Option<Box<Flow>>,
    pub(super) write_flow: Option<Box<Flow>>,
    /// How many results of calls that block are awaited.
    pub(super) awaited: u32,
    /// Errors for `handle_error` and `handle_network_error`.
    pub(crate) failure: Option<io::Error>,
    pub(crate) network_error: Option<io::Error>,
}

impl Default for Rare {
    fn default() -> Self {
        Rare {
            timeout: None,
            idle_timer: None,
            deadlines: None,
            close_timeout: CLOSE_TIMEOUT,
            close_timer: None,
            leaving: None,
            linger: LINGER,
            lingering: None,
            credit: None,
            dial: None,
            file: None,
            peer: None,
            admission: None,
            permit: None,
            limits: Limits::DEFAULT,
            on_limit: OnLimit::Refuse,
            refusals: 0,
            refused_in: 0,
            unread: None,
            rest: Rest::No,
            has_rested: false,
            upgrade: Upgrade::No,
            to_wrap: None,
            handshake_timeout: HANDSHAKE_TIMEOUT,
            handshake_timer: None,
            #[cfg(feature = "proxy-protocol")]
            proxied: None,
            partners: Partners::default(),
            lost: None,
            end_timer: None,
            shortage: Shortage::None,
            read_flow: None,
            write_flow: None,
            awaited: 0,
            failure: None,
            network_error: None,
        }
    }
}

impl Rare {
    /// Nothing in it prevents the short way of a message.
    pub(super) fn is_usual(&self) -> bool {
        self.unread.is_none()
            && self.rest == Rest::No
            && self.upgrade == Upgrade::No
            && self.lost.is_none()
            && self.credit.is_none()
            && self.read_flow.is_none()
            && self.write_flow.is_none()
            && self.limits.exceed_a_gathering()
    }
}
