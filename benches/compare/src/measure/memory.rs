//! Memory: how much a server's resident memory grows per idle connection.

use std::io;

use super::{Results, say};
use crate::load::{Echoes, Load};
use crate::process::{Process, Under};
use crate::servers::Server;
use crate::system::{self, Processors};

/// The size of the message that each idle connection has had echoed.
const SIZE: usize = 64;

pub struct Memory {
    pub connections: usize,
    /// Bytes per connection.
    pub growth: f64,
}

pub(super) fn measure(results: &mut Results, connections: usize) {
    for server in results.servers.clone() {
        say(&format!("memory: {}", server.name));
        let memory = growth(server, connections, results.processors);
        if let Some(memory) = results.keep(&format!("memory of {}", server.name), memory) {
            results.memory.push((server, memory));
        }
    }
}

fn growth(server: &Server, connections: usize, processors: Option<Processors>) -> io::Result<Memory> {
    let mut process = Process::start(server, Under::Nothing, processors)?;
    // What is allocated once, for the first connection, is not a cost of each.
    let mut first = Echoes::open(process.address, 1, SIZE, 1)?;
    let before = system::resident(process.id())?;
    let idle = Echoes::open(process.address, connections, SIZE, 1)?;
    let growth = system::resident(process.id())?.saturating_sub(before);
    idle.check_silence()?;
    first.exactly(1)?;
    process.check()?;
    Ok(Memory { connections, growth: growth as f64 / connections as f64 })
}
