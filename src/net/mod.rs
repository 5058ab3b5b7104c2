//! What names and makes a socket: addresses, options, sockets outside of a map, name look-ups.
//! Nothing here knows a channel.

pub(crate) mod address;
pub(crate) mod datagram;
pub(crate) mod full;
pub(crate) mod limits;
pub(crate) mod load;
pub(crate) mod options;
pub(crate) mod peer;
pub(crate) mod places;
#[cfg(feature = "proxy-protocol")]
pub(crate) mod proxy;
pub(crate) mod resolve;
pub(crate) mod socket;
#[cfg(feature = "proxy-protocol")]
pub(crate) mod trust;
pub(crate) mod unix;
