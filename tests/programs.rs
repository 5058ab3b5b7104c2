//! The example programs as processes, as their users meet them.

// A helper that is dead shows in the group that uses all of its file: there it has no `allow`.
#[path = "support"]
mod support {
    pub mod dirs;
    #[allow(dead_code)]
    pub mod peers;
    pub mod programs;
    #[allow(dead_code)]
    pub mod waiting;
}

mod programs {
    mod agent;
    #[cfg(feature = "layers")]
    mod app;
    #[cfg(feature = "layers")]
    mod chat_server;
    mod every_program;
    #[cfg(feature = "layers")]
    mod http_client;
    mod http_server;
    mod poetry;
    #[cfg(feature = "layers")]
    mod stream_client;
    mod tcp_proxy;
    mod udp_echo;
}
