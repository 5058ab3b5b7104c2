//! What is built on the hooks: chat, protocols, streams, framings, reconnecting.

mod support;

// What `outside` finds where the layers look for the crate.
use dispatch_loop::*;

mod layers {
    mod chat;
    mod framing;
    mod outside;
    mod producers;
    mod protocol;
    mod reconnect;
    mod stream;
}
