//! What other threads and the system tell a loop: messages, outlets, lines, signals.

// A release build has no `faults`: the tests that need it are left out, and their helpers unused.
#![cfg_attr(not(debug_assertions), allow(unused))]

mod support;

mod threads {
    mod crowds;
    mod lines;
    mod outlet;
    mod remote;
    #[cfg(feature = "signals")]
    mod signals;
}
