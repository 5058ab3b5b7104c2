//! The contract, rule by rule: turns, hooks, reading and writing, ends, errors, time, names of channels.

// A helper that is dead shows in the group that uses all of its file: there it has no `allow`.
#[path = "support"]
mod support {
    #[allow(dead_code)]
    pub mod dirs;
    #[allow(dead_code)]
    pub mod ends;
    #[allow(dead_code)]
    pub mod heap;
    pub mod logging;
    pub mod opened;
    pub mod peers;
    pub mod process;
    pub mod provoke;
    pub mod recorder;
    pub mod records;
    #[allow(dead_code)]
    pub mod turning;
    pub mod waiting;
}

mod contract {
    mod accept;
    mod asyncore;
    mod close;
    mod connect;
    mod errors;
    mod faults;
    mod handle_close;
    mod interest;
    mod keys;
    mod loop_options;
    mod model;
    mod panics;
    mod producers;
    mod queue;
    mod read;
    mod regressions;
    mod swap;
    mod time;
    mod timeouts;
    mod world;
    mod write;
}
