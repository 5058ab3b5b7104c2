//! The contract, rule by rule: turns, hooks, reading and writing, ends, errors, time, names of channels.

// A release build has no `faults`: the tests that need it are left out, and their helpers unused.
#![cfg_attr(not(debug_assertions), allow(unused))]

mod support;

mod contract {
    mod accept;
    mod asyncore;
    mod close;
    mod connect;
    mod errors;
    #[cfg(debug_assertions)]
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
    mod write;
}
