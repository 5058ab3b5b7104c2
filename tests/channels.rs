//! Each kind of channel: what only it has, and where it differs from a TCP connection.

// A helper that is dead shows in the group that uses all of its file: there it has no `allow`.
#[path = "support"]
mod support {
    #[allow(dead_code)]
    pub mod dirs;
    pub mod ends;
    pub mod logging;
    pub mod opened;
    #[allow(dead_code)]
    pub mod peers;
    pub mod process;
    #[allow(dead_code)]
    pub mod provoke;
    pub mod recorder;
    pub mod records;
    pub mod turning;
    pub mod waiting;
}

mod channels {
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
