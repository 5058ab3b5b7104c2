//! Ways to make a channel, and to hand it over.

pub(crate) mod connect;
pub(crate) mod datagram;
pub(crate) mod descriptors;
pub(crate) mod file;
pub(crate) mod handover;
pub(crate) mod listen;
mod look_up;
#[cfg(feature = "proxy-protocol")]
pub(crate) mod proxied;
#[cfg(feature = "testing")]
pub(crate) mod scripted;
pub(crate) mod serve;
pub(crate) mod service;
#[cfg(feature = "signals")]
pub(crate) mod signal;
