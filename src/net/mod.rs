//! What names and makes a socket: addresses, options, sockets outside of a map, name look-ups.
//! Nothing here knows a channel.

pub(crate) mod address;
pub(crate) mod datagram;
pub(crate) mod load;
pub(crate) mod options;
pub(crate) mod peer;
pub(crate) mod resolve;
pub(crate) mod socket;
pub(crate) mod unix;
