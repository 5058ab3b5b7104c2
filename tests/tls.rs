//! TLS: what a channel does over a plain socket it does over a session; and what only TLS can bring about.
//! The certificates are made by the `openssl` command.

// A release build has no `faults`: the tests that need it are left out, and their helpers unused.
#![cfg_attr(not(debug_assertions), allow(unused))]

#[allow(dead_code)]
#[path = "support"]
mod support {
    #[warn(dead_code)]
    pub mod authority;
    pub mod dirs;
    pub mod ends;
    pub mod limits;
    pub mod memory;
    pub mod opened;
    pub mod peers;
    pub mod programs;
    pub mod recorder;
    pub mod records;
    pub mod turning;
    pub mod waiting;
}

use dispatch_loop::Source;
use dispatch_loop::tls::TlsSession;

use support::authority::{AUTHORITY, Authority, LOCALHOST};
use support::records::{Options, With};

/// The sources of these tests are TLS sessions.
const WITH: With = Some(session);

fn session(wire: Box<dyn Source>, client: bool, options: Options) -> Box<dyn Source> {
    Box::new(match (client, options.liar) {
        (true, _) => TlsSession::client(wire, &AUTHORITY.client(), "localhost").unwrap(),
        (false, false) => TlsSession::server(wire, &LOCALHOST.server()).unwrap(),
        // Nobody knows its issuer.
        (false, true) => {
            TlsSession::server(wire, &Authority::new().issue("liar", "DNS:localhost").server()).unwrap()
        }
    })
}

/// The behaviour tests, as they are.
#[path = "channels"]
mod channels {
    mod closing;
    mod source;
    mod source_own;
    mod upgrade;
    mod wrap_source;
}

mod tls {
    mod handshake;
    mod programs;
    mod proxied;
    mod starttls;
    mod stream;
    mod verification;
}
