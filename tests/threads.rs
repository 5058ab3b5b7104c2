//! What other threads and the system tell a loop: messages, outlets, lines, signals.

// A release build has no `faults`: the tests that need it are left out, and their helpers unused.
#![cfg_attr(not(debug_assertions), allow(unused))]

// What a group leaves of a helper file is used by others. `warn`: this one uses all of it, so here it
// shows what nobody needs.
#[allow(dead_code)]
#[path = "support"]
mod support {
    pub mod logging;
    pub mod peers;
    pub mod process;
    pub mod provoke;
    pub mod recorder;
    #[warn(dead_code)]
    pub mod threads;
    pub mod turning;
    pub mod waiting;
}

mod threads {
    mod after_run;
    mod ask;
    mod attacked;
    mod blocking;
    mod crowds;
    #[cfg(feature = "signals")]
    mod draining;
    mod lines;
    mod outlet;
    mod remote;
    #[cfg(feature = "signals")]
    mod signals;
    mod slow_hooks;
}
