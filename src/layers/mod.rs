//! What people build on the hooks, ready made. Everything here uses the public API alone, as anybody
//! outside could; `tests/layers.rs` compiles it from there. The core knows nothing of it.

pub mod chat;
pub mod framing;
pub mod producers;
pub mod protocol;
pub mod reconnect;
pub mod stream;
mod terminator;
