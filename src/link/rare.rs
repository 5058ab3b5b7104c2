//! What few channels have, in one box that is made when the first of it comes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::link::dial::Dial;
use crate::link::marks::{Limits, OnLimit};
use crate::link::unread::Unread;
use crate::net::address::Address;
use crate::net::unix::SocketFile;
use crate::threads::credit::Credit;
use crate::timers::TimerKey;

/// How long a closing channel may go without getting rid of a byte.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

/// Why less is watched than the channel wants. A rest that a timer ends has that timer: none is
/// without an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    No,
    /// The peer hung up while reading is paused; until it is resumed.
    HungUp,
    /// Ready for output, to no avail: `handle_write` is suspended.
    Output(TimerKey),
    /// Ready, and nothing was done with it: input is suspended.
    Input(TimerKey),
    /// Input and output; or a listener without descriptors.
    All(TimerKey),
}

pub(crate) struct Rare {
    /// Of `set_timeout`, and the timer that watches it.
    pub(crate) timeout: Option<Duration>,
    pub(crate) idle_timer: Option<TimerKey>,
    pub(crate) close_timeout: Duration,
    /// The timer that bounds the flush of a closing channel.
    pub(crate) close_timer: Option<TimerKey>,
    /// The account with its outlets.
    pub(crate) credit: Option<Arc<Credit>>,
    /// Of a connect to a name that has ended before its outcome.
    pub(super) dial: Option<Box<Dial>>,
    /// Of a socket that is bound to a path.
    pub(crate) file: Option<Box<SocketFile>>,
    pub(crate) peer: Option<Address>,
    /// Where they differ from the defaults.
    pub(crate) limits: Limits,
    pub(crate) on_limit: OnLimit,
    /// Input that was put back.
    pub(super) unread: Option<Unread>,
    pub(super) rest: Rest,
    /// What the connection was lost with, while what has come is still read.
    pub(super) lost: Option<Arc<io::Error>>,
    /// What `handle_error` and `handle_network_error` are still to be told.
    pub(crate) failure: Option<io::Error>,
    pub(crate) network_error: Option<io::Error>,
}

impl Default for Rare {
    fn default() -> Self {
        Rare {
            timeout: None,
            idle_timer: None,
            close_timeout: CLOSE_TIMEOUT,
            close_timer: None,
            credit: None,
            dial: None,
            file: None,
            peer: None,
            limits: Limits::DEFAULT,
            on_limit: OnLimit::Refuse,
            unread: None,
            rest: Rest::No,
            lost: None,
            failure: None,
            network_error: None,
        }
    }
}

impl Rare {
    /// Nothing of it stands in the way of a message.
    pub(super) fn is_usual(&self) -> bool {
        self.unread.is_none()
            && self.rest == Rest::No
            && self.lost.is_none()
            && self.credit.is_none()
            && self.limits.exceed_a_gathering()
    }
}
