//! What is built on the hooks: chat, protocols, streams, framings, reconnecting.

// A release build has no `faults`: the tests that need it are left out, and their helpers unused.
#![cfg_attr(not(debug_assertions), allow(unused))]

// What a group leaves of a helper file is used by others. `warn`: this one uses all of it, so here it
// shows what nobody needs.
#[allow(dead_code)]
#[path = "support"]
mod support {
    pub mod dirs;
    pub mod echo;
    pub mod every_hook;
    #[warn(dead_code)]
    pub mod heap;
    pub mod logging;
    #[warn(dead_code)]
    pub mod memory;
    pub mod opened;
    pub mod peers;
    pub mod process;
    pub mod recorder;
    pub mod threads;
    pub mod turning;
    pub mod waiting;
}

// What `outside` finds where the layers look for the crate.
use dispatch_loop::*;

mod layers {
    mod attacked_stats;
    mod chat;
    mod deadlines;
    mod draining;
    mod framing;
    mod hand_over;
    mod messages;
    mod outside;
    mod producers;
    mod protocol;
    mod reconnect;
    mod stats;
    mod stream;
    mod talk;
}
