//! TLS, by [rustls](https://docs.rs/rustls): a channel whose bytes are encrypted on their way (feature `tls`).
//!
//! A session lies below the channel's queue, so that hooks, layers, limits, watermarks and the rules of closing
//! are those of any channel. [`handle_open`](crate::Dispatcher::handle_open) comes after the handshake; one
//! that fails is told as a failed connect is, by [`handle_error`](crate::Dispatcher::handle_error) with the
//! cause, then [`handle_close`](crate::Dispatcher::handle_close).
//!
//! | Python | here |
//! |---|---|
//! | `ssl.SSLContext(PROTOCOL_TLS_SERVER)`, `load_cert_chain` | [`TlsServer`] |
//! | `ssl.create_default_context()` | [`TlsClient`] |
//! | `context.wrap_socket(socket, server_side=True)` | [`ChannelMap::add_tls`](crate::ChannelMap::add_tls) |
//! | `create_connection(host, port, ssl=True)` | [`ChannelMap::connect_tls`](crate::ChannelMap::connect_tls) |
//! | `loop.start_tls` | [`Channel::start_tls`](crate::Channel::start_tls), [`start_tls_client`](crate::Channel::start_tls_client) |
//! | `getpeercert()`, `cipher()`, `version()`, `selected_alpn_protocol()` | [`Channel::tls`](crate::Channel::tls) |
//!
//! Certificates are always verified; no option turns that off. Versions 1.2 and 1.3 are spoken.
//!
//! ```no_run
//! use dispatch_loop::tls::TlsServer;
//! use dispatch_loop::{Address, Channel, ChannelMap, Dispatcher, Socket};
//! use std::io;
//!
//! struct Echo;
//!
//! impl Dispatcher for Echo {
//!     fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
//!         ch.read_with(|ch, data| ch.push(data))
//!     }
//! }
//!
//! struct EchoServer {
//!     tls: TlsServer,
//! }
//!
//! impl Dispatcher for EchoServer {
//!     fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
//!         ch.map_mut().add_tls(socket, &self.tls, Echo).map(drop)
//!     }
//! }
//!
//! let mut map = ChannelMap::new()?;
//! let tls = TlsServer::from_files("cert.pem", "key.pem")?;
//! map.listen("127.0.0.1:8443", EchoServer { tls })?;
//! dispatch_loop::run(&mut map)?;
//! # io::Result::Ok(())
//! ```

mod calls;
mod certificates;
mod client;
mod exchange;
mod plain_http;
mod server;
mod session;

pub use client::TlsClient;
pub use server::TlsServer;
pub use session::{TlsSession, TlsVersion};

use std::io;

/// What rustls says, as an error of this crate's.
fn tls_error(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("TLS: {error}"))
}
