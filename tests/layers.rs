//! What is built on the hooks: chat, protocols, streams, framings, reconnecting.

// A release build has no `faults`: the tests that need it are left out, and their helpers unused.
#![cfg_attr(not(debug_assertions), allow(unused))]

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
