//! The names of sockets: addresses, options, sockets on their way in and out, name look-ups.

pub(crate) mod address;
pub(crate) mod datagram;
pub(crate) mod options;
pub(crate) mod resolve;
pub(crate) mod socket;
pub(crate) mod unix;
