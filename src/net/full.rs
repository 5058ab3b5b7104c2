//! A limit that has been reached: which one, and what `handle_accept_error` is told of it.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use crate::net::address::Address;
use crate::net::places::Network;

/// Which limit has been reached, and what it is.
#[derive(Clone, Debug)]
pub(crate) enum Full {
    Total(usize),
    PerPeer(usize, Network),
    /// With the time until there are some again.
    Rate(u32, Duration),
    /// So many are held back.
    Descriptors(u32),
}

impl Full {
    pub(crate) fn limit(&self) -> AcceptLimit {
        match self {
            Full::Total(_) => AcceptLimit::Total,
            Full::PerPeer(..) => AcceptLimit::PerPeer,
            Full::Rate(..) => AcceptLimit::Rate,
            Full::Descriptors(_) => AcceptLimit::Descriptors,
        }
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Full::Total(most) => write!(f, "the limit of {most} connections in total"),
            Full::PerPeer(most, peer) => write!(f, "the limit of {most} connections per peer, with {peer}"),
            Full::Rate(most, _) => write!(f, "the limit of {most} connections a second"),
            Full::Descriptors(held) => write!(f, "the last {held} descriptors, which are held back"),
        }
    }
}

/// One of the limits of [`AcceptLimits`](crate::AcceptLimits).
///
/// ```
/// use dispatch_loop::AcceptLimit;
///
/// let waits = |limit| !matches!(limit, AcceptLimit::PerPeer);
/// assert!(waits(AcceptLimit::Descriptors));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AcceptLimit {
    /// [`with_total`](crate::AcceptLimits::with_total)
    Total,
    /// [`with_per_peer`](crate::AcceptLimits::with_per_peer)
    PerPeer,
    /// [`with_rate`](crate::AcceptLimits::with_rate)
    Rate,
    /// [`with_descriptor_reserve`](crate::AcceptLimits::with_descriptor_reserve)
    Descriptors,
}

/// A limit keeps a connection out: the inner error of what
/// [`handle_accept_error`](crate::Dispatcher::handle_accept_error) is told then, of the kind
/// `QuotaExceeded`.
///
/// ```
/// use dispatch_loop::{AcceptLimit, AcceptLimitError, Channel, Dispatcher};
/// use std::io;
///
/// /// Counts who was refused because of its address.
/// struct Server {
///     greedy: u64,
/// }
///
/// impl Dispatcher for Server {
///     fn handle_accept_error(&mut self, _: &mut Channel<'_>, error: &io::Error) {
///         if let Some(limited) = AcceptLimitError::of(error) {
///             self.greedy += u64::from(limited.limit() == AcceptLimit::PerPeer);
///         }
///     }
/// }
/// ```
#[derive(Debug)]
pub struct AcceptLimitError {
    full: Full,
    refused: Option<Address>,
}

impl AcceptLimitError {
    pub(crate) fn error(full: Full, refused: Option<Address>) -> io::Error {
        io::Error::new(io::ErrorKind::QuotaExceeded, AcceptLimitError { full, refused })
    }

    /// If `error` is one of these.
    pub fn of(error: &io::Error) -> Option<&AcceptLimitError> {
        error.get_ref()?.downcast_ref()
    }

    /// Which limit.
    pub fn limit(&self) -> AcceptLimit {
        self.full.limit()
    }

    /// Whose connection was accepted and refused; `None` if the listener rests, and who comes waits.
    pub fn refused(&self) -> Option<&Address> {
        self.refused.as_ref()
    }
}

impl fmt::Display for AcceptLimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {}: ", self.full)?;
        match &self.refused {
            Some(peer) => write!(f, "{peer} is refused"),
            None => f.write_str("others wait"),
        }
    }
}

impl Error for AcceptLimitError {}
