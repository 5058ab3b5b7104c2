//! `Datagram`, as a hook is given it. Receiving is in `event_loop/datagram.rs`.

use crate::net::address::Address;

/// What [`handle_datagram`](crate::Dispatcher::handle_datagram) is given: Python's
/// `recvfrom`.
///
/// ```
/// use dispatch_loop::{Channel, Datagram, Dispatcher};
/// use std::io;
///
/// struct Echo;
///
/// impl Dispatcher for Echo {
///     fn handle_datagram(&mut self, ch: &mut Channel<'_>, datagram: &Datagram<'_>) -> io::Result<()> {
///         match ch.push_to(datagram.data, &datagram.from) {
///             // Too much is queued: drop this answer, as the network may drop any datagram.
///             Err(error) if error.kind() == io::ErrorKind::QuotaExceeded => Ok(()),
///             result => result,
///         }
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Datagram<'a> {
    /// The payload; may be empty.
    pub data: &'a [u8],
    /// The sender; [`Address::Unnamed`] if it has no address.
    pub from: Address,
    /// Whether it was longer than 64 KiB, so that the rest is lost. (A UDP datagram never is.)
    pub truncated: bool,
}
