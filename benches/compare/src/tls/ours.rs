//! With this project.

use std::io;
use std::net::TcpListener;

use dispatch_loop::tls::TlsServer;
use dispatch_loop::{Address, Channel, ChannelMap, Dispatcher, Socket};

pub(super) fn serve(listener: TcpListener) -> io::Result<()> {
    let folder = super::served_folder();
    let tls = TlsServer::from_files(folder.join("cert.pem"), folder.join("key.pem"))?;
    let mut map = ChannelMap::new()?;
    map.add(listener, Listener { tls })?;
    dispatch_loop::run(&mut map)
}

struct Listener {
    tls: TlsServer,
}

impl Dispatcher for Listener {
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
        ch.map_mut().add_tls(socket, &self.tls, Echo).map(drop)
    }
}

struct Echo;

impl Dispatcher for Echo {
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.set_auto_pause(true);
        Ok(())
    }

    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, data| ch.push(data))
    }
}
