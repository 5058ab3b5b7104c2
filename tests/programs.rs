//! The example programs as processes, as their users meet them.

mod support;

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
