//! What the threads of the clients share.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use crate::ports::Port;

/// Where the server listens.
pub struct Addresses(pub Vec<SocketAddr>);

impl Addresses {
    pub fn of(&self, port: Port) -> SocketAddr {
        self.0[port.index()]
    }
}

/// Faults that are kept; more are only counted.
const KEPT: usize = 20;

#[derive(Default)]
pub struct Shared {
    /// The wave is over: let the good clients finish.
    pub is_over: AtomicBool,
    /// Let the others go.
    pub leave: AtomicBool,
    faults: Mutex<(u64, Vec<String>)>,
}

impl Shared {
    /// Something has gone wrong; say so at once.
    pub fn fault(&self, what: &str) {
        let mut faults = self.faults.lock().expect("no thread panics with it");
        faults.0 += 1;
        if faults.1.len() < KEPT {
            eprintln!("FAULT: {what}");
            faults.1.push(what.to_owned());
        }
    }

    pub fn faults(&self) -> (u64, Vec<String>) {
        self.faults.lock().expect("no thread panics with it").clone()
    }
}
