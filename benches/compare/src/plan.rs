//! What is measured, and how much of it.

use std::time::Duration;

/// A way to load a server.
pub struct Scenario {
    pub name: &'static str,
    pub what: &'static str,
    pub kind: Kind,
    /// Connections open, or being made, at the same time.
    pub connections: usize,
}

#[derive(Clone, Copy)]
pub enum Kind {
    /// Messages of `size` bytes, `depth` of them in flight on each connection.
    Echo { size: usize, depth: usize },
    /// Connections that are made, have one byte echoed, and are closed.
    Accept,
}

impl Scenario {
    /// What is counted, as a noun.
    pub fn unit(&self) -> &'static str {
        match self.kind {
            Kind::Echo { .. } => "message",
            Kind::Accept => "connection",
        }
    }
}

pub const ONE: Scenario = Scenario {
    name: "1 × 64 B",
    what: "1 connection, 64 bytes there and back",
    kind: Kind::Echo { size: 64, depth: 1 },
    connections: 1,
};

pub const MANY: Scenario = Scenario {
    name: "64 × 64 B",
    what: "64 connections, 64 bytes there and back on each",
    kind: Kind::Echo { size: 64, depth: 1 },
    connections: 64,
};

pub const PIPELINED: Scenario = Scenario {
    name: "64 × 64 B, 16 deep",
    what: "64 connections, 16 messages of 64 bytes in flight on each",
    kind: Kind::Echo { size: 64, depth: 16 },
    connections: 64,
};

pub const ACCEPT: Scenario = Scenario {
    name: "accept",
    what: "connect, one byte there and back, close; 16 at a time",
    kind: Kind::Accept,
    connections: 16,
};

pub const SCENARIOS: [&Scenario; 6] = [
    &ONE,
    &MANY,
    &Scenario {
        name: "1,000 × 64 B",
        what: "1,000 connections, 64 bytes there and back on each",
        kind: Kind::Echo { size: 64, depth: 1 },
        connections: 1000,
    },
    &Scenario {
        name: "64 × 16 KiB",
        what: "64 connections, 16 KiB there and back on each",
        kind: Kind::Echo { size: 16 * 1024, depth: 1 },
        connections: 64,
    },
    &PIPELINED,
    &ACCEPT,
];

/// The scenarios whose system calls and instructions are counted.
pub const COUNTED: [&Scenario; 4] = [&ONE, &MANY, &PIPELINED, &ACCEPT];

/// How much is measured.
pub struct Plan {
    pub is_quick: bool,
    /// How many times each server runs in each scenario.
    pub rounds: usize,
    pub warm_up: Duration,
    pub measured: Duration,
    /// Messages over which system calls are counted.
    pub traced: u64,
    /// Messages over which instructions are counted.
    pub counted: u64,
    /// Idle connections, if that many descriptors are allowed.
    pub idle: usize,
    /// Paused connections.
    pub paused: usize,
    /// Rounds of the timers, and how many timers.
    pub timer_rounds: usize,
    pub timers: usize,
}

impl Plan {
    pub fn whole() -> Plan {
        Plan {
            is_quick: false,
            rounds: 11,
            warm_up: Duration::from_millis(100),
            measured: Duration::from_millis(500),
            traced: 5000,
            counted: 20_000,
            idle: 10_000,
            paused: 1000,
            timer_rounds: 5,
            timers: 1_000_000,
        }
    }

    /// A glance: a little of everything.
    pub fn quick() -> Plan {
        Plan {
            is_quick: true,
            rounds: 3,
            warm_up: Duration::from_millis(10),
            measured: Duration::from_millis(40),
            traced: 250,
            counted: 500,
            idle: 1000,
            paused: 1000,
            timer_rounds: 1,
            timers: 100_000,
        }
    }
}
