//! A server is restarted, and no client notices: the new process takes the listeners from the old one, which then
//! ends in its own time.
//!
//! Both processes are given the path of a Unix-domain socket. The old one listens there ([`offer`]). The new one asks
//! there for the listeners before it makes its own ([`request`]), and when it is ready, says so, and listens there for
//! its own successor ([`offer`], too). From then on the old one accepts nothing; its program is told, to drain.
//!
//! A listener is never closed meanwhile, and there is one backlog for both: a client that connects while this goes on
//! is accepted by the one or the other. If the new process fails before it is ready, the old one goes on as if nothing
//! had been asked.
//!
//! ```no_run
//! use dispatch_loop::hand_over::{self, Taken};
//! use dispatch_loop::{Channel, ChannelMap, Dispatcher};
//! # struct Server;
//! # impl Dispatcher for Server {}
//!
//! let mut map = ChannelMap::new()?;
//! let mut taken = hand_over::request("/run/app/take-over")?;       // the old process goes on
//! let server = match taken.take("http").pop() {
//!     Some(listener) => map.add(listener, Server)?,
//!     None => map.listen("127.0.0.1:8000", Server)?,               // there was none
//! };
//! hand_over::offer(&mut map, "/run/app/take-over", taken, [("http", server.token())], |map: &mut ChannelMap| {
//!     map.close_all();                                             // a successor has taken over
//! })?;
//! dispatch_loop::run(&mut map)?;
//! # std::io::Result::Ok(())
//! ```
//!
//! Connections stay with the old process, which finishes them; or they go along, where the program says which and how
//! to go on with them: [`offer_with_connections`].
//!
//! Who may connect to the path may take the listeners: it has the mode 0600, and where the system tells
//! ([`peer_credentials`](crate::Channel::peer_credentials)), only the owner of the file and root are answered.

mod connection;
mod heir;
mod predecessor;
mod wire;

pub use connection::{Connection, Connections};
pub use heir::{Taken, request};
pub use predecessor::{offer, offer_with_connections};

use std::io;
use std::time::Duration;

/// How long the old process may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// How long the new one may take from its question until it is ready.
const READY: Duration = Duration::from_secs(60);

/// What the new process asks, and says when it is ready.
const QUESTION: &str = "hand-over 1";
const TAKEN: &str = "taken";

/// What the old one answers.
const LISTENER: &str = "listener ";
const CONNECTION: &str = "connection ";
const ALL: &str = "all";
const BUSY: &str = "busy";

/// The name of the socket on which all this goes on.
const OWN: &str = "hand-over";

fn unclear(line: &str) -> io::Error {
    let why = format!("the other process says {:?}: not what was to come", line.escape_debug().to_string());
    io::Error::new(io::ErrorKind::InvalidData, why)
}
