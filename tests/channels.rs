//! Each kind of channel: what only it has, and where it differs from a TCP connection.

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
