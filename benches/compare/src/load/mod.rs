//! The load generator: one thread that keeps a server busy and checks every byte that comes back. It runs in
//! the measuring process, on its own processor.
//!
//! It stops with an error if a byte is wrong, missing or too many, a connection ends, or nothing happens for ten
//! seconds.

mod accepts;
mod echoes;
mod text;

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::plan::{Kind, Scenario};

pub use accepts::Accepts;
pub use echoes::Echoes;

/// The longest time without any progress.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// The most events that one wait returns.
pub(crate) const BATCH: usize = 1024;

/// Work for a server: messages or connections.
pub trait Load {
    /// Keeps the server busy for that long; returns how much it has done. More is in flight afterwards.
    fn keep_busy(&mut self, time: Duration) -> io::Result<u64>;

    /// Waits for what is in flight, and checks that nothing else comes.
    fn finish(&mut self) -> io::Result<()>;

    /// Has exactly that much done, with nothing in flight before and after.
    fn exactly(&mut self, count: u64) -> io::Result<()>;
}

/// The load of a scenario, with its connections open.
pub fn open(scenario: &Scenario, address: SocketAddr) -> io::Result<Box<dyn Load>> {
    Ok(match scenario.kind {
        Kind::Echo { size, depth } => Box::new(Echoes::open(address, scenario.connections, size, depth)?),
        Kind::Accept => Box::new(Accepts::new(address, scenario.connections)?),
    })
}

/// Makes closing reset the connection: an orderly close would occupy its port for a minute, and thousands
/// are used per second.
pub(crate) fn close_by_reset(stream: &TcpStream) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO))?)
}
