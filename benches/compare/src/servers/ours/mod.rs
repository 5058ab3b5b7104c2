//! With this project: as hooks, with its two layers, and as hooks with one more feature each.

mod hooks;
mod layers;
mod variants;

use std::io;
use std::net::TcpListener;

use dispatch_loop::{Address, Channel, ChannelMap, Dispatcher, Socket};

pub(super) use hooks::hooks;
pub(super) use layers::{chat, protocol};
pub(super) use variants::{pausing, readable, three_pushes, timeout, two_pushes};

/// Serves each connection with a dispatcher from `make`.
fn serve<D: Dispatcher>(listener: TcpListener, make: impl FnMut() -> D + 'static) -> io::Result<()> {
    let mut map = ChannelMap::new()?;
    map.add(listener, Listener(make))?;
    dispatch_loop::run(&mut map)
}

struct Listener<F>(F);

impl<F: FnMut() -> D + 'static, D: Dispatcher> Dispatcher for Listener<F> {
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
        ch.map_mut().add(socket, (self.0)())?;
        Ok(())
    }
}
