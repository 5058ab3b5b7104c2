//! `Reason`: why a channel ended. Which of several causes wins is decided in `link`.
//! The errors that calls return are in `error.rs`.

use std::fmt;
use std::io;
use std::sync::Arc;

/// Why a channel ended; passed to [`handle_close`](crate::Dispatcher::handle_close).
///
/// The first cause wins; but an abort, an error, a limit or a timeout that kept queued bytes from
/// being sent replaces `EndOfStream` and `Closed`. Clones share the error.
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
    /// The connection, or one of the dispatcher's own hooks, failed.
    Error(Arc<io::Error>),
    /// The time of [`set_timeout`](crate::Channel::set_timeout) ran out, or one of the
    /// [deadlines](crate::Channel::set_deadlines) has passed, or the time in which a closing channel must
    /// make progress ([`set_close_timeout`](crate::Channel::set_close_timeout)).
    TimedOut,
    /// A push went over the hard limit ([`set_limit`](crate::Channel::set_limit)); or over that of the
    /// [map](crate::ChannelMap::set_limit), and this channel was furthest behind; or it was refused, and
    /// the hook of another channel returned that.
    Limit,
    /// The socket was taken out of the map with [`detach`](crate::Channel::detach).
    Detached,
    /// The map was dropped, or replaced while a hook ran.
    MapEnded,
}

impl Reason {
    /// The names of all, in the order of [`index`](Reason::index).
    pub(crate) const NAMES: [&str; 8] =
        ["end of stream", "closed", "aborted", "error", "timed out", "limit", "detached", "map ended"];

    /// Where its name is in `NAMES`.
    pub(crate) fn index(&self) -> usize {
        match self {
            Reason::EndOfStream => 0,
            Reason::Closed => 1,
            Reason::Aborted => 2,
            Reason::Error(_) => 3,
            Reason::TimedOut => 4,
            Reason::Limit => 5,
            Reason::Detached => 6,
            Reason::MapEnded => 7,
        }
    }

    /// The error, if the cause was one.
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
            Reason::Limit => f.write_str("over the limit of queued output"),
            Reason::Detached => f.write_str("detached"),
            Reason::MapEnded => f.write_str("the channel map ended"),
        }
    }
}
