//! Each kind of channel: what only it has, and where it differs from a TCP connection.

// A release build has no `faults`: the tests that need it are left out, and their helpers unused.
#![cfg_attr(not(debug_assertions), allow(unused))]

// What a group leaves of a helper file is used by others. `warn`: this one uses all of it, so here it
// shows what nobody needs.
#[allow(dead_code)]
#[path = "support"]
mod support {
    pub mod dirs;
    #[warn(dead_code)]
    pub mod ends;
    pub mod logging;
    pub mod opened;
    pub mod peers;
    pub mod process;
    pub mod provoke;
    pub mod recorder;
    #[warn(dead_code)]
    pub mod records;
    pub mod through;
    #[warn(dead_code)]
    pub mod turning;
    pub mod waiting;
}

/// The sources of these tests are records.
const WITH: support::records::With = None;

mod channels {
    mod addresses;
    mod closing;
    mod datagram;
    mod datagram_peer;
    mod descriptors;
    mod detach;
    mod exchange;
    mod exchange_same;
    mod files;
    mod held;
    mod lookups;
    mod names;
    mod odd_files;
    mod proxied;
    mod proxy_headers;
    // OpenBSD has no time of keep-alive for a socket.
    #[cfg(not(target_os = "openbsd"))]
    mod options;
    mod serve;
    mod source;
    mod source_own;
    mod unix;
    mod unix_hooks;
    mod unread;
    mod upgrade;
    mod wrap_source;
}
