//! A server on one loop, or on several: `--threads`.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};

use dispatch_loop::{Address, ChannelMap, DatagramOptions, Dispatcher, LoopGroup, Loops};

use super::{
    Exit, ServerOptions, announce, announce_address, drain_group_on_signal, drain_on_signal, listen, serve,
};

pub enum Server {
    /// The program's own thread runs it.
    One(Box<ChannelMap>),
    /// Each on a thread of its own.
    Several(LoopGroup),
}

impl Server {
    pub fn new(options: &ServerOptions) -> io::Result<Server> {
        if options.threads() == 1 {
            let mut map = ChannelMap::new()?;
            drain_on_signal(&mut map, options)?;
            return Ok(Server::One(Box::new(map)));
        }
        let group = LoopGroup::start(options.threads(), |_, _| Ok(()))?;
        drain_group_on_signal(&group, options)?;
        Ok(Server::Several(group))
    }

    pub fn loops(&mut self) -> Loops {
        match self {
            Server::One(map) => Loops::of(map),
            Server::Several(group) => group.loops(),
        }
    }

    /// Listen on all that `address` stands for, and say so. What `make` makes is each loop's own, and all its
    /// listeners share it.
    pub fn listen<D: Dispatcher + Clone>(
        &mut self,
        address: &str,
        options: &ServerOptions,
        make: impl Fn() -> D + Send + Sync + 'static,
    ) -> io::Result<()> {
        match self {
            Server::One(map) => {
                let made = make();
                listen(map, address, options, || made.clone()).map(drop)
            }
            Server::Several(group) => {
                let addresses = group.listen_each(address, &options.listening(), move |_, _| Ok(make()))?;
                addresses.iter().for_each(announce_address);
                Ok(())
            }
        }
    }

    /// Bind a socket for datagrams, and say so: one on each loop, where the system spreads them.
    pub fn bind<D: Dispatcher>(
        &mut self,
        address: SocketAddr,
        options: &DatagramOptions,
        make: impl Fn() -> D + Send + Sync + 'static,
    ) -> io::Result<()> {
        let group = match self {
            Server::One(map) => {
                let bound = map.bind_with(address, options, make())?;
                announce(map, bound);
                return Ok(());
            }
            Server::Several(group) => group,
        };
        let spreads = cfg!(any(target_os = "linux", target_os = "android", target_os = "freebsd"));
        if !spreads {
            log::warn!("this system does not spread datagrams over several sockets: one loop has them all");
        }
        let loops = if spreads { group.len() } else { 1 };
        let options = options.clone().with_reuse_port(loops > 1);
        let (make, mut address) = (Arc::new(make), Address::Ip(address));
        for index in 0..loops {
            let (make, options, to) = (make.clone(), options.clone(), address);
            let (answer, answers) = mpsc::channel();
            let bind = move |map: &mut ChannelMap| {
                let bound = map.bind_with(to, &options, make());
                let _ = answer.send(bound.and_then(|bound| map.channel(bound)?.local_addr()));
            };
            group.loops().remote(index).call(bind).map_err(|error| io::Error::other(error.to_string()))?;
            address = answers.recv().map_err(io::Error::other)??;
        }
        announce_address(&address);
        Ok(())
    }

    /// Run until a signal, and to the orderly end.
    pub fn run(self) -> Result<(), Exit> {
        match self {
            Server::One(map) => serve(*map),
            Server::Several(group) => Ok(group.join()?),
        }
    }
}
