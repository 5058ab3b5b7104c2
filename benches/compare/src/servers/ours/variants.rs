//! The hooks again, each time with one more feature, to see what that feature costs.

use std::cell::Cell;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::time::Duration;

use dispatch_loop::{Channel, Dispatcher};

use crate::servers::NEVER_PAUSED;

/// Longer than any measurement, so that it is set and never expires.
const LONG: Duration = Duration::from_secs(3600);

/// Bytes in the header.
const HEADER: usize = 4;

/// Bytes in the trailer.
const TRAILER: usize = 2;

pub(in crate::servers) fn two_pushes(listener: TcpListener) -> io::Result<()> {
    super::serve(listener, || TwoPushes)
}

struct TwoPushes;

impl Dispatcher for TwoPushes {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.set_auto_pause(true);
        Ok(())
    }

    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, data| {
            let (header, body) = data.split_at(HEADER.min(data.len()));
            ch.push(header)?;
            ch.push(body)
        })
    }
}

pub(in crate::servers) fn three_pushes(listener: TcpListener) -> io::Result<()> {
    super::serve(listener, || ThreePushes)
}

struct ThreePushes;

impl Dispatcher for ThreePushes {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.set_auto_pause(true);
        Ok(())
    }

    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, data| {
            let (header, rest) = data.split_at(HEADER.min(data.len()));
            let (body, trailer) = rest.split_at(rest.len().saturating_sub(TRAILER));
            ch.push(header)?;
            ch.push(body)?;
            ch.push(trailer)
        })
    }
}

pub(in crate::servers) fn timeout(listener: TcpListener) -> io::Result<()> {
    super::serve(listener, || Impatient)
}

struct Impatient;

impl Dispatcher for Impatient {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.set_auto_pause(true);
        ch.set_timeout(Some(LONG));
        Ok(())
    }

    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, data| ch.push(data))
    }
}

pub(in crate::servers) fn readable(listener: TcpListener) -> io::Result<()> {
    super::serve(listener, || Asked { is_reading: true })
}

struct Asked {
    is_reading: bool,
}

impl Dispatcher for Asked {
    fn readable(&self, _: &Channel<'_>) -> bool {
        self.is_reading
    }

    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.set_auto_pause(true);
        Ok(())
    }

    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, data| ch.push(data))
    }
}

/// The first connections are never paused; each later one is, once its first message is answered.
pub(in crate::servers) fn pausing(listener: TcpListener) -> io::Result<()> {
    let opened = Rc::new(Cell::new(0));
    super::serve(listener, move || {
        opened.set(opened.get() + 1);
        Pausing { is_to_pause: opened.get() > NEVER_PAUSED }
    })
}

struct Pausing {
    is_to_pause: bool,
}

impl Dispatcher for Pausing {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.set_auto_pause(true);
        Ok(())
    }

    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        if self.is_to_pause {
            ch.pause_reading();
        }
        ch.read_with(|ch, data| ch.push(data))
    }
}
