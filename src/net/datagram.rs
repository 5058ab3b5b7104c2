//! A datagram as a hook is given it.

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
///             // Too many answers wait already: this one is lost, as datagrams are.
///             Err(error) if error.kind() == io::ErrorKind::QuotaExceeded => Ok(()),
///             result => result,
///         }
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Datagram<'a> {
    /// What it carries; may be empty.
    pub data: &'a [u8],
    /// Its sender; [`Address::Unnamed`] where that has no address.
    pub from: Address,
    /// It was longer than 64 KiB, and the rest is lost. (No UDP datagram is.)
    pub truncated: bool,
}
