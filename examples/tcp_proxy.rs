//! Forwards connections to another address, both ways, and keeps what TCP says in each: who is slow
//! slows the other down, a half-close is passed on as one, a reset as one.
//!
//! It shows two channels that know each other by their handles. Each pushes what it reads to its twin;
//! `auto_pause_with` pauses it while the twin's queue is high, so however much goes through, only a
//! little of it is here.
//!
//! One loss it cannot prevent: a reset ends at once a side that is paused for its slow twin, and what that
//! side's system had received, and nobody had read, goes with it. What was read arrives before the reset.
//!
//! ```sh
//! cargo run --release --example tcp_proxy -- 127.0.0.1:8080 example.org:80
//! ```

mod common;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Exit, Places, Server, ServerOptions};
use dispatch_loop::{Address, Channel, Dispatcher, Eof, Handle, ProxyHeader, ProxyVersion};
use dispatch_loop::{Reason, Socket};
use lexopt::prelude::*;

/// How long a peer that is to be reset may take nothing of what came before.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often is looked how much of it has left.
const GLANCE: Duration = Duration::from_millis(20);

const HELP: &str = "\
usage: tcp_proxy [OPTION...] LISTEN UPSTREAM

Forwards each connection to LISTEN to a connection of its own to UPSTREAM, until Ctrl-C.

  LISTEN             HOST:PORT, [IPV6]:PORT or unix:PATH; port 0 asks for a free one
  UPSTREAM           the same; a name is looked up for each connection
  --send-proxy v1|v2 begin each connection to UPSTREAM with a PROXY header of this version, which
                     says whose it is";

fn main() -> ExitCode {
    common::lasting_server(HELP, run)
}

fn run(mut args: lexopt::Parser) -> Result<(), Exit> {
    let mut options = ServerOptions::default().with_tls().with_take_over();
    let mut send_proxy = None;
    let mut addresses = Vec::new();
    while let Some(arg) = args.next()? {
        match arg {
            Long("send-proxy") => send_proxy = Some(version(args.value()?)?),
            Value(text) if addresses.len() < 2 => addresses.push(common::address(text)?),
            other => options.take(other.unexpected(), &mut args)?,
        }
    }
    let Ok([listen, upstream]) = <[String; 2]>::try_from(addresses) else {
        return Err(Exit::Usage("LISTEN and UPSTREAM are needed".into()));
    };

    if options.threads() > 1 {
        // The loop that accepts hears late of those that have no place.
        options = options.with_descriptors_each(2);
    }
    let mut server = Server::new(options)?;
    let (places, options) = (Arc::<Places>::default(), server.options());
    let service = Arc::new(Service { upstream, send_proxy, places: places.clone(), options });
    server.listen(&[listen], "", move || Proxy { service: service.clone() })?;
    let (proxies, remote) = server.listeners()?;
    places.govern(proxies, remote);
    server.run() // until a signal
}

fn version(text: std::ffi::OsString) -> Result<ProxyVersion, Exit> {
    match text.to_str() {
        Some("v1") => Ok(ProxyVersion::V1),
        Some("v2") => Ok(ProxyVersion::V2),
        _ => Err(Exit::Usage(format!("--send-proxy {text:?}: wanted v1 or v2"))),
    }
}

/// What all connections share.
struct Service {
    upstream: String,
    /// Begin each connection upstream with a PROXY header.
    send_proxy: Option<ProxyVersion>,
    /// A client that is let in has a descriptor for its connection upstream, too.
    places: Arc<Places>,
    options: Arc<ServerOptions>,
}

/// A listener.
#[derive(Clone)]
struct Proxy {
    service: Arc<Service>,
}

impl Dispatcher for Proxy {
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
        let (map, service) = (ch.map_mut(), &self.service);
        let client = service.options.add(map, socket, Half::new(service.clone(), None))?;
        service.places.take(map);
        service.options.set_on(&mut map.channel(client)?);
        Ok(())
    }
}

/// One side of a forwarded connection.
struct Half {
    service: Arc<Service>,
    /// `None` before there is one; and when it was reset, and this side is to be.
    twin: Option<Handle<Half>>,
    is_upstream: bool,
    /// The peer has sent its last, and the twin was told.
    ended: bool,
    /// The descriptors that end with it: of a client, also that for a twin, while there is none.
    places: usize,
}

impl Half {
    /// The side of a client, or the twin of one.
    fn new(service: Arc<Service>, client: Option<Handle<Half>>) -> Half {
        let places = if client.is_some() { 1 } else { 2 };
        Half { service, twin: client, is_upstream: client.is_some(), ended: false, places }
    }

    /// What the client's side is to tell upstream of the client.
    fn header(&self, ch: &mut Channel<'_>, version: ProxyVersion) -> io::Result<Vec<u8>> {
        let Some(client) = self.twin else { return Ok(Vec::new()) };
        let client = ch.map_mut().channel(client)?;
        // A balancer before this one knows what the client has connected to.
        let told = client.proxy_header().and_then(|header| header.destination());
        let destination = told.cloned().map_or_else(|| client.local_addr(), Ok)?;
        ProxyHeader::new(client.peer_addr()?, destination).to_bytes(version)
    }

    /// The other side, if it is still there.
    fn with_twin(&self, ch: &mut Channel<'_>, f: impl FnOnce(&mut Channel<'_>)) {
        if let Some(Ok(mut twin)) = self.twin.map(|twin| ch.map_mut().channel(twin)) {
            f(&mut twin);
        }
    }
}

impl Dispatcher for Half {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        if self.is_upstream {
            return Ok(());
        }
        log::info!("{} connected", ch.peer_addr()?);
        let twin = Half::new(self.service.clone(), Some(ch.token().typed()));
        let upstream = ch.map_mut().connect(&*self.service.upstream, twin).inspect_err(|_| ch.abort())?;
        self.places = 1;
        self.twin = Some(upstream);
        ch.auto_pause_with(upstream)?;
        ch.pause_reading(); // until there is somebody to take it
        Ok(())
    }

    /// Of the connection upstream, for which the client has waited.
    fn handle_connect(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        if let Some(version) = self.service.send_proxy {
            let header = self.header(ch, version)?;
            ch.push(&header)?;
        }
        self.with_twin(ch, |twin| twin.resume_reading());
        Ok(())
    }

    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        // Who is to be reset may have to write before it reads what came before.
        let Some(twin) = self.twin else { return ch.read_with(|_, _| Ok(())) };
        ch.read_with(|ch, data| {
            let pushed = ch.map_mut().channel(twin).is_ok_and(|mut twin| twin.push(data).is_ok());
            if !pushed {
                ch.abort(); // there is nobody to take it
            }
            // A client that was not answered yet is waited for if the proxy is to end.
            match self.is_upstream {
                false => ch.set_busy(true),
                true => self.with_twin(ch, |client| client.set_busy(false)),
            }
            Ok(())
        })
    }

    fn handle_eof(&mut self, ch: &mut Channel<'_>) -> io::Result<Eof> {
        self.ended = true;
        self.with_twin(ch, |twin| twin.shutdown_write());
        Ok(Eof::KeepWriting)
    }

    fn handle_drain(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.service.options.close_in_time(ch);
        Ok(())
    }

    fn handle_close(&mut self, ch: &mut Channel<'_>, reason: &Reason) {
        self.service.places.give_back(ch.map_mut(), self.places);
        common::disconnected(ch, reason);
        // When both sides have said their last, both end by themselves.
        let twin_ended = self.twin.and_then(|twin| ch.map().get(twin).ok()).is_none_or(|twin| twin.ended);
        if matches!(reason, Reason::Closed) || (matches!(reason, Reason::EndOfStream) && twin_ended) {
            return;
        }
        if self.is_upstream {
            self.with_twin(ch, |client| {
                let peer = client.peer_addr().unwrap_or(Address::Unnamed);
                log::warn!("{peer} is dropped: upstream {}: {reason}", self.service.upstream);
            });
        }
        self.with_twin(ch, reset_when_sent);
        if let Some(Ok(twin)) = self.twin.map(|twin| ch.map_mut().get_mut(twin)) {
            twin.twin = None;
        }
    }
}

/// The other side was reset: so shall this be, when its peer has what came before, or takes nothing of it.
fn reset_when_sent(ch: &mut Channel<'_>) {
    let mut before = ch.unsent();
    if before == 0 || ch.is_connecting() {
        return ch.abort();
    }
    let mut last = Instant::now();
    ch.call_every(GLANCE, move |ch| {
        let unsent = ch.unsent();
        if unsent < before {
            (before, last) = (unsent, Instant::now());
        }
        if unsent == 0 || last.elapsed() > PATIENCE {
            ch.abort();
        }
        Ok(())
    });
}
