//! A live view of running servers, from their `--stats` addresses: rates, lag, connections, and the channels of
//! one of them.
//!
//! It shows a loop that is fed from two sides: timers and connections of its own, and a thread that reads the
//! keyboard and hands each key over by a `Remote`.
//!
//! ```sh
//! cargo run --release -p programs --bin monitor -- 127.0.0.1:9100 127.0.0.1:9101
//! ```

mod fetch;
mod metrics;
mod screen;
mod servers;

use std::cell::RefCell;
use std::io::{self, Write};
use std::process::ExitCode;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use dispatch_loop::{ChannelMap, LoopOptions, ToAddress};
use lexopt::prelude::*;
use programs::Exit;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use crate::servers::Shared;

const HELP: &str = "\
usage: monitor [--interval SECONDS] [--once] STATS_ADDR...

Shows running servers live, from the addresses that they were given as `--stats`.

  STATS_ADDR         HOST:PORT, [IPV6]:PORT or unix:PATH
  --interval SECONDS how often they are asked (1)
  --once             print the table as text, from two answers that long apart, and end

Keys: up and down choose a server, s sorts its channels by another column, q ends.";

fn main() -> ExitCode {
    programs::main(HELP, run)
}

fn run(mut args: lexopt::Parser) -> Result<(), Exit> {
    let mut addresses = Vec::new();
    let mut interval = Duration::from_secs(1);
    let mut once = false;
    while let Some(arg) = args.next()? {
        match arg {
            Long("interval") => {
                let seconds: f64 = args.value()?.parse()?;
                let wrong = || Exit::Usage(format!("--interval {seconds}: wanted 0.1 or more seconds"));
                let longer = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
                interval = if longer < Duration::from_millis(100) { return Err(wrong()) } else { longer };
            }
            Long("once") => once = true,
            Long("help") | Short('h') => return Err(Exit::Help),
            Value(text) => addresses.push(address(text.string()?)?),
            other => return Err(other.unexpected().into()),
        }
    }
    if addresses.is_empty() {
        return Err(Exit::Usage("at least one STATS_ADDR is needed".into()));
    }
    let servers = servers::new(addresses);
    match once {
        true => print_once(&servers, interval),
        false => live(servers, interval),
    }
}

fn address(text: String) -> Result<String, Exit> {
    match text.to_address().is_ok() || text.to_name().is_some() {
        true => Ok(text),
        false => Err(Exit::Usage(format!("{text:?} is no address: wanted HOST:PORT"))),
    }
}

/// Ask twice, print, end. It is a failure if one of them did not answer.
fn print_once(servers: &Shared, interval: Duration) -> Result<(), Exit> {
    let mut map = ChannelMap::new()?;
    servers::ask(&mut map, servers, |_, _| ());
    let again = servers.clone();
    map.call_later(interval, move |map| servers::ask(map, &again, |_, _| ()));
    dispatch_loop::run(&mut map)?;
    let servers = servers.borrow();
    let _ = io::stdout().write_all(screen::text(&servers).as_bytes());
    match servers.all.iter().find_map(|server| Some((&server.address, server.failure.as_ref()?))) {
        Some((address, why)) => Err(Exit::Failure(format!("{address}: {why}"))),
        None => Ok(()),
    }
}

/// What the keys act on.
struct View {
    terminal: DefaultTerminal,
    sort: usize,
}

fn live(servers: Shared, interval: Duration) -> Result<(), Exit> {
    let mut map = ChannelMap::new()?;
    let remote = map.remote();
    for signal in [2, 15] {
        map.on_signal(signal, ChannelMap::stop)?; // SIGINT, SIGTERM: the terminal is restored below
    }
    let view = Rc::new(RefCell::new(View { terminal: ratatui::try_init()?, sort: 0 }));
    VIEW.set(Some((view.clone(), servers.clone())));
    servers::ask(&mut map, &servers, |_, _| redraw());
    let again = servers.clone();
    map.call_every(interval, move |map| {
        // A server that takes long is not asked twice at a time.
        if again.borrow().awaited == 0 {
            servers::ask(map, &again, |_, _| redraw());
        }
    });
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            if remote.call(move |map| pressed(map, &event)).is_err() {
                return;
            }
        }
    });
    redraw();
    let result = dispatch_loop::run_with(&mut map, &LoopOptions::default().with_until_stopped(true));
    ratatui::restore();
    result.map_err(Exit::from)
}

type Shown = (Rc<RefCell<View>>, Shared);

thread_local! {
    /// What comes from the keyboard's thread cannot carry it.
    static VIEW: RefCell<Option<Shown>> = const { RefCell::new(None) };
}

fn with_view(f: impl FnOnce(&mut View, &Shared)) {
    VIEW.with_borrow(|shown| {
        if let Some((view, servers)) = shown {
            f(&mut view.borrow_mut(), servers);
        }
    });
}

fn redraw() {
    with_view(|view, servers| {
        let sort = view.sort;
        // A terminal that cannot be drawn on is gone, which the keyboard's thread notices, too.
        let _ = view.terminal.draw(|frame| screen::draw(frame, &servers.borrow(), sort));
    });
}

fn pressed(map: &mut ChannelMap, event: &Event) {
    if let Event::Key(key) = event {
        if key.kind == KeyEventKind::Release {
            return;
        }
        with_view(|view, servers| {
            let mut servers = servers.borrow_mut();
            let count = servers.all.len();
            match key.code {
                KeyCode::Char('q') | KeyCode::Esc => map.stop(),
                KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => map.stop(),
                KeyCode::Up | KeyCode::Char('k') => servers.selected = (servers.selected + count - 1) % count,
                KeyCode::Down | KeyCode::Char('j') => servers.selected = (servers.selected + 1) % count,
                KeyCode::Char('s') => view.sort = (view.sort + 1) % screen::SORTS,
                _ => {}
            }
        });
    }
    redraw();
}
