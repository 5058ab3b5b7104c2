//! A web server for the files of a directory: HTTP/1.1 with keep-alive, pipelining, ranges and
//! listings, on one thread; or, with `--threads`, on several that share nothing but the directory.
//!
//! It shows a protocol that is parsed by hand, however the network splits it (`connection.rs`), input that
//! is put back while the client does not read what it has asked for (`unread`, `set_auto_pause`), files
//! of any size sent in a few KiB of memory (`push_producer`), pages that a thread makes, because the disk
//! may take its time (`spawn_blocking`, `listings.rs`), and that are sent to many (`push_shared`), deadlines
//! (`set_timeout`, `call_later`), and a last answer that arrives although the connection is closed right
//! after it (`close`).
//!
//! ```sh
//! cargo run --release --example http_server
//! cargo run --release --example http_server -- --root target/doc --log info 127.0.0.1:8000
//! ```
//!
//! Files are read on the loop's thread, which is fine for a local disk that is not too slow. Everything
//! readable below the root is served, also names that begin with a dot; for a directory with an
//! `index.html` that is served.

mod answer;
#[path = "../common/mod.rs"]
mod common;
mod conditions;
mod connection;
mod listing;
mod listings;
mod log;
mod request;
mod site;

use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use common::{Exit, ServerOptions};
use connection::Connection;
use dispatch_loop::{Address, Channel, Dispatcher, Socket};
use lexopt::prelude::*;
use listings::Listings;
use site::Site;

const HELP: &str = "\
usage: http_server [--root DIR] [OPTION...] [ADDR]

Serves the files of a directory over HTTP/1.1, until Ctrl-C.

  ADDR               HOST:PORT, [IPV6]:PORT or unix:PATH (127.0.0.1:8000); port 0 asks for a free one
  --root DIR         what is served, and nothing outside of it (.)";

fn main() -> ExitCode {
    common::lasting_server(HELP, run)
}

fn run(mut args: lexopt::Parser) -> Result<(), Exit> {
    // A client may need two descriptors: its own, and one for a file.
    let mut options = ServerOptions::default().with_descriptors_each(2).with_tls().with_take_over();
    let mut root = PathBuf::from(".");
    let mut address = None;
    while let Some(arg) = args.next()? {
        match arg {
            Long("root") => root = args.value()?.into(),
            Value(text) if address.is_none() => address = Some(common::address(text)?),
            other => options.take(other.unexpected(), &mut args)?,
        }
    }
    let site = Site::new(&root).map_err(|error| Exit::Failure(format!("cannot serve {root:?}: {error}")))?;
    let idle = options.idle_or(connection::IDLE);

    let mut server = common::Server::new(options)?;
    let (site, options) = (Arc::new(site), server.options());
    let new = move || {
        let (site, options) = (site.clone(), options.clone());
        Server { service: Rc::new(Service { site, idle, options, listings: RefCell::default() }) }
    };
    server.listen(address.as_slice(), "127.0.0.1:8000", new)?;
    server.run() // until a signal
}

/// What all connections of a loop share.
pub struct Service {
    site: Arc<Site>,
    /// How long a connection may be idle.
    idle: Duration,
    options: Arc<ServerOptions>,
    listings: RefCell<Listings>,
}

/// A listener.
#[derive(Clone)]
struct Server {
    service: Rc<Service>,
}

impl Dispatcher for Server {
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
        let connection = Connection::new(self.service.clone());
        self.service.options.add(ch.map_mut(), socket, connection).map(drop)
    }
}
