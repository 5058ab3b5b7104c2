//! Ready-made dispatchers on top of the hooks. They use the public API alone, which
//! `tests/layers/outside.rs` proves by compiling them as another crate's. The core does not depend on them.

pub mod chat;
pub mod framing;
pub mod hand_over;
pub mod producers;
pub mod protocol;
pub mod reconnect;
pub mod stats;
pub mod stream;
mod terminator;
