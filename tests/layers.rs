//! What is built on the hooks: chat, protocols, streams, framings, reconnecting.

// A helper that is dead shows in the group that uses all of its file: there it has no `allow`.
#[path = "support"]
mod support {
    pub mod echo;
    pub mod heap;
    pub mod logging;
    #[allow(dead_code)]
    pub mod opened;
    #[allow(dead_code)]
    pub mod peers;
    #[allow(dead_code)]
    pub mod process;
    #[allow(dead_code)]
    pub mod recorder;
    #[allow(dead_code)]
    pub mod threads;
    #[allow(dead_code)]
    pub mod turning;
    pub mod waiting;
}

// What `outside` finds where the layers look for the crate.
use dispatch_loop::*;

mod layers {
    mod chat;
    mod framing;
    mod outside;
    mod producers;
    mod protocol;
    mod reconnect;
    mod stream;
    mod talk;
}
