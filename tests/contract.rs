//! The contract, rule by rule: turns, hooks, reading and writing, ends, errors, time, names of channels.

mod support;

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
    mod wrappers;
    mod write;
}
