//! Each kind of channel: what only it has, and where it differs from a TCP connection.

// A release build has no `faults`: the tests that need it are left out, and their helpers unused.
#![cfg_attr(not(debug_assertions), allow(unused))]

mod support;

mod channels {
    mod addresses;
    mod datagram;
    mod detach;
    mod files;
    mod names;
    mod source;
    mod source_own;
    mod unix;
    mod unix_hooks;
    mod unread;
    mod wrap_source;
}
