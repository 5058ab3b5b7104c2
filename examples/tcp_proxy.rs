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
use std::rc::Rc;
use std::time::{Duration, Instant};

use common::{Exit, Places, ServerOptions};
use dispatch_loop::{Address, Channel, ChannelMap, Dispatcher, Eof, Handle, Reason, Socket};
use lexopt::prelude::*;

/// How long a peer that is to be reset may take nothing of what came before.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often is looked how much of it has left.
const GLANCE: Duration = Duration::from_millis(20);

const HELP: &str = "\
usage: tcp_proxy [OPTION...] LISTEN UPSTREAM

Forwards each connection to LISTEN to a connection of its own to UPSTREAM, until Ctrl-C.

  LISTEN             HOST:PORT, [IPV6]:PORT or unix:PATH; port 0 asks for a free one
  UPSTREAM           the same; a name is looked up for each connection";

fn main() -> ExitCode {
    common::server(HELP, run)
}

fn run(mut args: lexopt::Parser) -> Result<(), Exit> {
    let mut options = ServerOptions::default();
    let mut addresses = Vec::new();
    while let Some(arg) = args.next()? {
        match arg {
            Value(text) if addresses.len() < 2 => addresses.push(common::address(text)?),
            other => options.take(other.unexpected(), &mut args)?,
        }
    }
    let Ok([listen, upstream]) = <[String; 2]>::try_from(addresses) else {
        return Err(Exit::Usage("LISTEN and UPSTREAM are needed".into()));
    };

    let mut map = ChannelMap::new()?;
    common::drain_on_signal(&mut map, &options)?;
    let upstream: Rc<str> = upstream.into();
    let (places, options) = (Rc::<Places>::default(), Rc::new(options));
    let new = || Proxy { upstream: upstream.clone(), places: places.clone(), options: options.clone() };
    let proxies = common::listen(&mut map, &listen, &options, new)?;
    places.govern(proxies);
    common::serve(map, &options) // until a signal
}

/// A listener.
struct Proxy {
    upstream: Rc<str>,
    /// A client that is let in has a descriptor for its connection upstream, too.
    places: Rc<Places>,
    options: Rc<ServerOptions>,
}

impl Dispatcher for Proxy {
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, peer: Address) -> io::Result<()> {
        log::info!("{peer} connected");
        let map = ch.map_mut();
        let (places, options) = (&self.places, &self.options);
        let half = |twin, upstream| {
            let (places, options) = (places.clone(), options.clone());
            Half { twin, upstream, places, options, ended: false }
        };
        let client = map.add(socket, half(None, None))?;
        self.places.take(map);
        let upstream = map.connect(&*self.upstream, half(Some(client), Some(self.upstream.clone())));
        let mut ch = map.channel(client)?;
        let Ok(upstream) = upstream else {
            ch.abort();
            self.places.give_back(map, 1); // the client gives back its own
            return upstream.map(drop);
        };
        ch.auto_pause_with(upstream)?;
        ch.pause_reading(); // until there is somebody to take it
        self.options.set_on(&mut ch);
        map.get_mut(client)?.twin = Some(upstream);
        Ok(())
    }
}

/// One side of a forwarded connection.
#[derive(Default)]
struct Half {
    /// `None` when it was reset, and this side is to be.
    twin: Option<Handle<Half>>,
    /// Of this side, if it is not the client's.
    upstream: Option<Rc<str>>,
    places: Rc<Places>,
    options: Rc<ServerOptions>,
    /// The peer has sent its last, and the twin was told.
    ended: bool,
}

impl Half {
    /// The other side, if it is still there.
    fn with_twin(&self, ch: &mut Channel<'_>, f: impl FnOnce(&mut Channel<'_>)) {
        if let Some(Ok(mut twin)) = self.twin.map(|twin| ch.map_mut().channel(twin)) {
            f(&mut twin);
        }
    }
}

impl Dispatcher for Half {
    /// Of the connection upstream, for which the client has waited.
    fn handle_connect(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
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
            match self.upstream {
                None => ch.set_busy(true),
                Some(_) => self.with_twin(ch, |client| client.set_busy(false)),
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
        self.options.close_in_time(ch);
        Ok(())
    }

    fn handle_close(&mut self, ch: &mut Channel<'_>, reason: &Reason) {
        self.places.give_back(ch.map_mut(), 1);
        common::disconnected(ch, reason);
        // When both sides have said their last, both end by themselves.
        let twin_ended = self.twin.and_then(|twin| ch.map().get(twin).ok()).is_none_or(|twin| twin.ended);
        if matches!(reason, Reason::Closed) || (matches!(reason, Reason::EndOfStream) && twin_ended) {
            return;
        }
        if let Some(upstream) = &self.upstream {
            self.with_twin(ch, |client| {
                let peer = client.peer_addr().unwrap_or(Address::Unnamed);
                log::warn!("{peer} is dropped: upstream {upstream}: {reason}");
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
