//! Files for anybody, over FTP: a folder to be read, and with `--write` to be changed.
//!
//! It shows `Chat` for the conversation; calls that block on threads of their own (`spawn_blocking_with`), for whatever
//! asks the disk; a listener for each transfer, with a deadline, and one channel that tells another of its end
//! (`transfer.rs`). What is asked of the disk, and why nobody gets out of the folder, stands in `site.rs`.
//!
//! ```sh
//! cargo run --release -p programs --bin ftp_server -- --root .
//! ```
//!
//! The other side is `curl ftp://127.0.0.1:2121/`, or `lftp 127.0.0.1:2121`.

#[path = "../../../../examples/common/mod.rs"]
mod common;
mod control;
mod site;
mod transfer;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use common::{Exit, Server, ServerOptions};
use dispatch_loop::chat::ChatDispatcher;
use dispatch_loop::{Address, Channel, Dispatcher, Socket};
use lexopt::prelude::*;
use rustix::net::sockopt;

use crate::control::Control;
use crate::site::Site;

const HELP: &str = "\
usage: ftp_server [OPTION...] [--root DIR] [--write] [ADDR]

Serves the files below DIR to anonymous clients of FTP, until Ctrl-C.

  ADDR               HOST:PORT or [IPV6]:PORT (127.0.0.1:2121); port 0 asks for a free one
  --root DIR         the folder (.); symbolic links in it are not followed
  --write            let clients store, delete and rename there, too

Transfers are passive, from the address of the client and nowhere else. What is stored is there when it is whole.";

/// How long a client may be idle.
const IDLE: Duration = Duration::from_secs(300);
/// Descriptors that a client needs: for itself, its data, a file, and the way to that.
const EACH: usize = 4;

fn main() -> ExitCode {
    common::server(HELP, run)
}

fn run(mut args: lexopt::Parser) -> Result<(), Exit> {
    let mut options = ServerOptions::default().with_descriptors_each(EACH);
    let (mut address, mut root, mut may_write) = (None, PathBuf::from("."), false);
    while let Some(arg) = args.next()? {
        match arg {
            Long("root") => root = args.value()?.into(),
            Long("write") => may_write = true,
            Value(text) if address.is_none() => address = Some(common::address(text)?),
            other => options.take(other.unexpected(), &mut args)?,
        }
    }
    let cannot = |error| Exit::Failure(format!("cannot serve {}: {error}", root.display()));
    let site = Arc::new(Site::new(&root, may_write).map_err(cannot)?);
    let mut server = Server::new(options)?;
    let options = server.options();
    let new = move || Listener { site: site.clone(), options: options.clone() };
    server.listen(address.as_slice(), "127.0.0.1:2121", new)?;
    server.run() // until a signal
}

#[derive(Clone)]
struct Listener {
    site: Arc<Site>,
    options: Arc<ServerOptions>,
}

impl Dispatcher for Listener {
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
        let control = ChatDispatcher::new("\n", Control::new(self.site.clone()))?;
        let control = self.options.add(ch.map_mut(), socket, control)?;
        let mut ch = ch.map_mut().channel(control)?;
        ch.set_timeout(Some(self.options.idle_or(IDLE)));
        if let Some(socket) = ch.socket() {
            // Clients send the last byte of ABOR as urgent.
            sockopt::set_socket_oobinline(socket, true)?;
        }
        Ok(())
    }
}
