//! What other threads and the system tell a loop: messages, outlets, lines, signals.

mod support;

mod threads {
    mod crowds;
    mod lines;
    mod outlet;
    mod remote;
    mod signals;
}
