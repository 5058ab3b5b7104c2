//! Why a message to the loop was refused.

use std::fmt;
use std::io;

/// Why a message was refused, with the message.
///
/// ```
/// use dispatch_loop::{ChannelMap, SendError};
///
/// let mut map = ChannelMap::new()?;
/// let remote = map.remote();
/// drop(map);
/// let refused = remote.call(|_| println!("too late")).unwrap_err();
/// assert!(matches!(refused, SendError::Ended(_)));
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SendError<T> {
    /// The queue is full, and the call did not wait: it was one that never does, or this thread owns a
    /// map, and two loops that waited for each other would wait for ever.
    Full(T),
    /// The loop is stopped: [`run`](crate::run) has returned, for whatever reason, and neither it nor
    /// [`turn`](crate::ChannelMap::turn) was called again.
    Stopped(T),
    /// The map was dropped; or, for an outlet, the channel has ended.
    Ended(T),
}

impl<T> SendError<T> {
    /// The message, given back.
    pub fn into_inner(self) -> T {
        match self {
            SendError::Full(value) | SendError::Stopped(value) | SendError::Ended(value) => value,
        }
    }

    pub(crate) fn map<U>(self, f: impl FnOnce(T) -> U) -> SendError<U> {
        match self {
            SendError::Full(value) => SendError::Full(f(value)),
            SendError::Stopped(value) => SendError::Stopped(f(value)),
            SendError::Ended(value) => SendError::Ended(f(value)),
        }
    }

    fn text(&self) -> &'static str {
        match self {
            SendError::Full(_) => "the queue to the loop is full",
            SendError::Stopped(_) => "the loop is stopped",
            SendError::Ended(_) => "the channel or its map has ended",
        }
    }
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            SendError::Full(_) => "Full",
            SendError::Stopped(_) => "Stopped",
            SendError::Ended(_) => "Ended",
        };
        write!(f, "{name}(..)")
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl<T> std::error::Error for SendError<T> {}

/// `Full` becomes `WouldBlock`, the others `BrokenPipe`; the message is dropped.
impl<T> From<SendError<T>> for io::Error {
    fn from(error: SendError<T>) -> Self {
        let kind = match error {
            SendError::Full(_) => io::ErrorKind::WouldBlock,
            SendError::Stopped(_) | SendError::Ended(_) => io::ErrorKind::BrokenPipe,
        };
        io::Error::new(kind, error.text())
    }
}
