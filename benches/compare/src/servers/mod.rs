//! The echo servers, and what they have in common: a listener on a free port of the loopback interface.
//!
//! Each server runs in a process of its own, prints its address, and serves until it is killed. Accepted
//! sockets inherit `TCP_NODELAY` from the listener, so no server spends a call on it.

mod calloop;
mod echo;
mod epoll;
mod mio;
mod ours;
mod polling;
mod tokio;

#[cfg(feature = "tls")]
pub(crate) use echo::Table;

use std::io;
use std::net::TcpListener;

use rustix::process::{PTracer, Signal};

use crate::plan;

/// The size of the read buffer: one that is shared, or one per connection.
pub(crate) const BUFFER: usize = 64 * 1024;

/// Connections that may wait to be accepted. The load generator opens at most 256 at a time.
const BACKLOG: i32 = 4096;

/// The most events that one wait returns.
pub(crate) const BATCH: usize = 1024;

/// An echo server.
pub struct Server {
    pub name: &'static str,
    /// How the report describes it.
    pub what: &'static str,
    pub program: Program,
}

/// How an echo server is run.
#[derive(Clone, Copy)]
pub enum Program {
    /// By this program, in another process.
    Rust(fn(TcpListener) -> io::Result<()>),
    /// By a C program that is compiled on demand: its file in `c/`, and its library as pkg-config names it.
    C { file: &'static str, library: &'static str },
}

/// The server that all others are compared with.
pub const BASE: &str = "epoll";

/// The servers that are compared.
pub const SERVERS: [Server; 9] = [
    Server {
        name: BASE,
        what: "written by hand, level-triggered, one shared buffer: the practical limit",
        program: Program::Rust(epoll::serve),
    },
    Server {
        name: "mio",
        what: "edge-triggered, one shared buffer; a short read counts as drained, as in tokio",
        program: Program::Rust(mio::serve),
    },
    Server {
        name: "polling",
        what: "its level-triggered mode, one shared buffer",
        program: Program::Rust(polling::serve),
    },
    Server {
        name: "libuv",
        what: "in C; one shared buffer, `uv_try_write` first",
        program: Program::C { file: "libuv_echo.c", library: "libuv" },
    },
    Server {
        name: "calloop",
        what: "a level-triggered source per connection, one shared buffer",
        program: Program::Rust(calloop::serve),
    },
    Server {
        name: "tokio",
        what: "the current-thread runtime; a task and a buffer per connection",
        program: Program::Rust(tokio::serve),
    },
    Server {
        name: "ours-hooks",
        what: "`Dispatcher`: the echo server of the README",
        program: Program::Rust(ours::hooks),
    },
    Server {
        name: "ours-protocol",
        what: "`Protocol`: `data_received` writes the bytes back",
        program: Program::Rust(ours::protocol),
    },
    Server {
        name: "ours-chat",
        what: "`Chat`: finds each line and sends it with its end",
        program: Program::Rust(ours::chat),
    },
];

/// Our hooks with one more feature each. Only their instructions are counted.
pub const VARIANTS: [Server; 4] = [
    Server {
        name: "ours-two-pushes",
        what: "two small pushes per message (header and body)",
        program: Program::Rust(ours::two_pushes),
    },
    Server {
        name: "ours-three-pushes",
        what: "three small pushes per message",
        program: Program::Rust(ours::three_pushes),
    },
    Server {
        name: TIMEOUT,
        what: "an idle timeout on each connection (`set_timeout`)",
        program: Program::Rust(ours::timeout),
    },
    Server {
        name: "ours-readable",
        what: "a `readable` of their own",
        program: Program::Rust(ours::readable),
    },
];

/// The name of the variant with idle timeouts.
pub const TIMEOUT: &str = "ours-timeout";

/// Used only to measure growth: it pauses all connections but the first ones.
pub const PAUSING: Server = Server {
    name: "ours-pausing",
    what: "reads from its busy connections only",
    program: Program::Rust(ours::pausing),
};

/// How many connections the pausing server never pauses.
const NEVER_PAUSED: usize = plan::ONE.connections + plan::MANY.connections;

/// The server or variant with that name.
pub fn find(name: &str) -> Option<&'static Server> {
    SERVERS.iter().chain(&VARIANTS).chain([&PAUSING]).find(|server| server.name == name)
}

/// Runs the server with that name until this process is killed.
pub fn serve(name: &str) -> io::Result<()> {
    let Some(Server { program: Program::Rust(run), .. }) = find(name) else {
        return Err(io::Error::other(format!("this program has no server {name}")));
    };
    listen_and(*run)
}

/// Listens, says where, and serves until this process is killed.
pub fn listen_and(run: fn(TcpListener) -> io::Result<()>) -> io::Result<()> {
    // A server that outlived the comparison would disturb the next one.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // strace will be a sibling, not the parent, which some systems refuse by default.
    let _ = rustix::process::set_ptracer(PTracer::Any);
    crate::system::raise_descriptor_limit();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    rustix::net::listen(&listener, BACKLOG)?;
    rustix::net::sockopt::set_tcp_nodelay(&listener, true)?;
    listener.set_nonblocking(true)?;
    println!("listening on {}", listener.local_addr()?);
    run(listener)
}
