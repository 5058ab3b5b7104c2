//! Several loops that share the work of one server.

// A release build has no `faults`: the tests that need it are left out, and their helpers unused.
#![cfg_attr(not(debug_assertions), allow(unused))]

// What a group leaves of a helper file is used by others. `warn`: this one uses all of it, so here it
// shows what nobody needs.
#[allow(dead_code)]
#[path = "support"]
mod support {
    pub mod echo;
    #[warn(dead_code)]
    pub mod groups;
    pub mod limits;
    pub mod peers;
    pub mod process;
    pub mod threads;
    pub mod waiting;
}

mod group {
    mod ends;
    mod handing_over;
    mod listening;
    mod messages;
    mod start;
    #[cfg(feature = "layers")]
    mod stats;
    mod topics;
}
