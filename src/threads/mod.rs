//! What other threads hold, and how they reach the loop.

pub(crate) mod ask;
pub(crate) mod bell;
pub(crate) mod blocking;
pub(crate) mod credit;
pub(crate) mod lines;
pub(crate) mod meter;
pub(crate) mod outlet;
pub(crate) mod pool;
pub(crate) mod pulse;
pub(crate) mod queue;
pub(crate) mod readers;
pub(crate) mod remote;
pub(crate) mod room;
pub(crate) mod send_error;
pub(crate) mod source_waker;
pub(crate) mod watcher;
