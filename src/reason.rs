//! Why a channel ended.

use std::fmt;
use std::io;
use std::sync::Arc;

/// Why a channel ended; [`handle_close`](crate::Dispatcher::handle_close) is given it.
///
/// The first cause wins. Only when queued bytes could not be sent any more does an abort, an
/// error, a limit or a time-out replace `EndOfStream` and `Closed`.
///
/// ```
/// use dispatch_loop::Reason;
///
/// let reason = Reason::from(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
/// assert_eq!(reason.to_string(), "connection reset");
/// assert!(reason.error().is_some());
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Reason {
    /// The peer sent its end of stream (FIN), and the channel was closed for it.
    EndOfStream,
    /// [`close`](crate::Channel::close) was called on our side.
    Closed,
    /// [`abort`](crate::Channel::abort) was called on our side.
    Aborted,
    /// The connection or one of the dispatcher's own hooks failed.
    Error(Arc<io::Error>),
    /// [`set_timeout`](crate::Channel::set_timeout) ran out, or queued bytes could not be sent in
    /// the time that [`close`](crate::Channel::close) allows.
    TimedOut,
    /// More was pushed than the hard limit allows.
    Limit,
    /// The socket was taken out of the map.
    Detached,
    /// The map was dropped, or moved away from under a running hook.
    MapEnded,
}

impl Reason {
    /// The error, if it was one.
    pub fn error(&self) -> Option<&io::Error> {
        match self {
            Reason::Error(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for Reason {
    fn from(error: io::Error) -> Self {
        Reason::Error(Arc::new(error))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::EndOfStream => f.write_str("end of stream"),
            Reason::Closed => f.write_str("closed"),
            Reason::Aborted => f.write_str("aborted"),
            Reason::Error(error) => error.fmt(f),
            Reason::TimedOut => f.write_str("timed out"),
            Reason::Limit => f.write_str("over the limit of what may be queued"),
            Reason::Detached => f.write_str("detached"),
            Reason::MapEnded => f.write_str("the channel map ended"),
        }
    }
}
