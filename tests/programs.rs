//! The example programs as their users meet them: processes with arguments, output, an exit status,
//! and sockets. `cargo test` builds them first; after `cargo build --examples`,
//! `cargo test --test programs` alone will do.

// What a group leaves of a helper file is used by others. `warn`: this one uses all of it, so here it
// shows what nobody needs.
#[allow(dead_code)]
#[path = "support"]
mod support {
    #[warn(dead_code)]
    pub mod dirs;
    pub mod limits;
    pub mod memory;
    pub mod peers;
    pub mod process;
    #[warn(dead_code)]
    pub mod programs;
    pub mod waiting;
}

mod programs {
    mod agent;
    #[cfg(feature = "layers")]
    mod app;
    mod attacked_servers;
    mod balancer;
    #[cfg(feature = "layers")]
    mod chat_server;
    mod drain;
    mod echo_client;
    mod echo_server;
    #[cfg(feature = "layers")]
    mod endings;
    mod every_program;
    mod haproxy;
    #[cfg(feature = "layers")]
    mod http_client;
    mod http_heads;
    mod http_rules;
    mod http_server;
    mod http_slow;
    #[cfg(feature = "layers")]
    mod limits;
    mod listeners;
    mod outputs;
    mod poetry;
    #[cfg(feature = "layers")]
    mod stats;
    #[cfg(feature = "layers")]
    mod stream_client;
    #[cfg(feature = "layers")]
    mod take_over;
    mod tcp_proxy;
    mod threads;
    mod udp_echo;
}
