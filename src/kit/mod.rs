//! The test kit: maps whose clock is the test's, and channels without a descriptor, whose peers a test scripts.
//! What is public of it is in `dispatch_loop::testing`.

pub(crate) mod end;
pub(crate) mod maps;
pub(crate) mod peer;
pub(crate) mod pipe;
pub(crate) mod seeds;
pub(crate) mod server;
pub(crate) mod stage;
