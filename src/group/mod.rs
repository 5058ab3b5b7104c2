//! Several loops, each with a map and a thread of its own, that share the work of one server.

pub(crate) mod acceptor;
pub(crate) mod loops;
pub(crate) mod member;
#[cfg(all(loom, test))]
mod model;
pub(crate) mod topics;
pub(crate) mod watchdog;

use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

#[cfg(feature = "signals")]
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::group::acceptor::{Acceptor, Reception, Serve};
use crate::group::loops::{Loops, Seat, Shared};
use crate::group::member::Joined;
use crate::{Address, Channel, ChannelMap, Dispatcher, DrainOptions, Handle, ListenOptions, Numbers};
use crate::{Socket, Token};

/// Several loops for one server: each has a thread and a [`ChannelMap`], made there, so that dispatchers need
/// not be `Send`. For servers that need more than one processor; one loop is simpler, and faster than most need.
///
/// By default one loop accepts, and hands each connection to the loop that has the fewest of them. With
/// [`reuse_port`](ListenOptions::with_reuse_port) each loop has a listener of its own, and the system hands out:
/// that accepts more a second, but without regard for how many connections a loop has, so that long-lived ones
/// end up unevenly spread.
///
/// ```
/// use dispatch_loop::{Channel, Dispatcher, ListenOptions, LoopGroup};
/// use std::io::{self, Read, Write};
///
/// struct Echo;
///
/// impl Dispatcher for Echo {
///     fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
///         ch.read_with(|ch, data| ch.push(data))
///     }
/// }
///
/// let group = LoopGroup::start(2, |_index, _map| Ok(()))?;
/// let options = ListenOptions::default();
/// let addresses = group.listen("127.0.0.1:0", &options, |map, socket, _| map.add(socket, Echo).map(drop))?;
///
/// let mut client = std::net::TcpStream::connect(addresses[0].to_string())?;
/// client.write_all(b"hello")?;
/// let mut answer = [0; 5];
/// client.read_exact(&mut answer)?;
/// assert_eq!(&answer, b"hello");
/// group.stop();
/// group.join()?;
/// # io::Result::Ok(())
/// ```
///
/// A loop that fails ends the group: the others drain, and [`join`](LoopGroup::join) names it. So does one that a
/// hook has stopped or drained alone, which is no error. A group that is dropped stops its loops and waits for
/// their threads. If its last listener fails, it ends as [`run`](crate::run) does, with that error.
#[must_use = "a group ends when it is dropped"]
pub struct LoopGroup {
    loops: Loops,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl LoopGroup {
    /// Start `loops` of them (at least one), numbered from 0. Each calls `setup` on its own thread, and then
    /// runs until it is stopped or drained, whether or not it has channels.
    ///
    /// # Errors
    /// A thread or a map could not be made, or `setup` failed: the error names the loop, and all are ended.
    pub fn start<F>(loops: usize, setup: F) -> io::Result<LoopGroup>
    where
        F: Fn(usize, &mut ChannelMap) -> io::Result<()> + Send + Sync + 'static,
    {
        let setup = Arc::new(setup);
        let shared = Arc::new(Shared::new(loops.max(1)));
        let (ready, seats) = mpsc::channel();
        let mut threads = Vec::new();
        for index in 0..loops.max(1) {
            let (setup, own, ready) = (setup.clone(), shared.clone(), ready.clone());
            let body = move || member::run(index, &own, &*setup, ready);
            let thread = thread::Builder::new().name(format!("loop {index}")).spawn(body);
            match thread {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    shared.fail(index, &error);
                    break;
                }
            }
        }
        drop(ready);
        let mut taken: Vec<(usize, Seat)> = seats.iter().collect();
        taken.sort_by_key(|(index, _)| *index);
        let is_complete = shared.take_seats(taken.into_iter().map(|(_, seat)| seat).collect());
        let group = LoopGroup { loops: Loops::new(shared), threads };
        match is_complete {
            true => Ok(group),
            // None of them runs. It is told which has failed when all threads have ended.
            false => group.join().and(Err(io::Error::other("a loop did not start"))),
        }
    }

    /// Listen, and serve each connection on one of the loops: there `serve` is called, which adds the socket
    /// to the map. An `Err` of it drops that connection, and is logged. Returns the addresses, of which there are
    /// several if `address` is a name or `*:PORT`, as [`listen_all`](ChannelMap::listen_all) takes it.
    ///
    /// With [`reuse_port`](ListenOptions::with_reuse_port) there is a listener for each loop, otherwise one,
    /// on loop 0, which hands over. If the loop that has the fewest connections has no room in its queue,
    /// the next one gets the connection; loop 0 itself always has room.
    ///
    /// # Errors
    /// As `listen_all`, and then nothing listens. `Unsupported` for `reuse_port` on a system that does not
    /// spread connections over such listeners (only Linux, Android and FreeBSD do), and `InvalidInput` for it on
    /// a Unix-domain address. `Deadlock` on a thread that owns a map, such as that of a loop.
    pub fn listen<F>(&self, address: &str, options: &ListenOptions, serve: F) -> io::Result<Vec<Address>>
    where
        F: Fn(&mut ChannelMap, Socket, Address) -> io::Result<()> + Send + Sync + 'static,
    {
        let serve = Arc::new(serve);
        self.listen_each(address, options, move |_, _| Ok(Serve(serve.clone())))
    }

    /// As [`listen`](LoopGroup::listen), with a dispatcher on each loop, made there, whose
    /// [`handle_accept`](Dispatcher::handle_accept) gets the connections of that loop: for what these share
    /// among themselves. Its channel is a stand-in, with no address. Of its other hooks, only `handle_close`
    /// runs.
    ///
    /// ```
    /// use dispatch_loop::{Address, Channel, Dispatcher, ListenOptions, LoopGroup, Socket};
    /// use std::{cell::Cell, io, rc::Rc};
    ///
    /// struct Client(Rc<Cell<u32>>);
    /// impl Dispatcher for Client {}
    ///
    /// /// Counts those of its loop, without a lock.
    /// struct Server(Rc<Cell<u32>>);
    ///
    /// impl Dispatcher for Server {
    ///     fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
    ///         self.0.set(self.0.get() + 1);
    ///         ch.map_mut().add(socket, Client(self.0.clone())).map(drop)
    ///     }
    /// }
    ///
    /// let group = LoopGroup::start(2, |_, _| Ok(()))?;
    /// group.listen_each("127.0.0.1:0", &ListenOptions::default(), |_, _| Ok(Server(Rc::default())))?;
    /// # io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    /// As [`listen`](LoopGroup::listen); and those of `make`.
    pub fn listen_each<D, F>(
        &self,
        address: &str,
        options: &ListenOptions,
        make: F,
    ) -> io::Result<Vec<Address>>
    where
        D: Dispatcher,
        F: Fn(usize, &mut ChannelMap) -> io::Result<D> + Send + Sync + 'static,
    {
        if options.reuse_port {
            acceptor::check_reuse_port(address)?;
        }
        let mut made = Made { loops: &self.loops, channels: Vec::new() };
        let receptions = self.receptions(make, &mut made)?;
        let addresses = self.listen_on(0, address, options, &receptions, &mut made)?;
        if options.reuse_port {
            for (index, address) in
                (1..self.len()).flat_map(|index| addresses.iter().map(move |a| (index, a)))
            {
                self.listen_on(index, &address.to_string(), options, &receptions, &mut made)?;
            }
        }
        made.channels.clear();
        Ok(addresses)
    }

    /// As [`listen_each`](LoopGroup::listen_each), on a listener that was opened elsewhere: by a service manager
    /// ([`service::inherited`](crate::service::inherited)), or a predecessor ([`hand_over`](crate::hand_over)). Loop 0
    /// accepts. Of the options, `no_delay` and the limits count; the others are the socket's own. Returns its address.
    ///
    /// ```
    /// use dispatch_loop::{Address, Channel, Dispatcher, ListenOptions, LoopGroup, Socket, service};
    /// use std::io;
    ///
    /// struct Server;
    ///
    /// impl Dispatcher for Server {}
    ///
    /// let group = LoopGroup::start(2, |_, _| Ok(()))?;
    /// for (name, socket) in service::inherited()? {
    ///     let address = group.adopt_each(socket, &ListenOptions::default(), |_, _| Ok(Server))?;
    ///     println!("{name} on {address}");
    /// }
    /// # io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    /// `InvalidInput` if it is no listener; those of `make`; `Deadlock` on a thread that owns a map.
    pub fn adopt_each<D, F>(&self, listener: Socket, options: &ListenOptions, make: F) -> io::Result<Address>
    where
        D: Dispatcher,
        F: Fn(usize, &mut ChannelMap) -> io::Result<D> + Send + Sync + 'static,
    {
        let mut made = Made { loops: &self.loops, channels: Vec::new() };
        let receptions = self.receptions(make, &mut made)?;
        let (loops, options) = (self.loops(), options.clone());
        let address = self.loops.ask(0, move |map| {
            let listener = map.add(listener, Acceptor::new(&loops, 0, true, &receptions))?;
            let mut ch = map.channel(listener)?;
            let adopted = adopt(&mut ch, &options);
            if adopted.is_err() {
                ch.abort();
            }
            adopted
        })??;
        made.channels.clear();
        Ok(address)
    }

    /// Where each loop gets its connections.
    fn receptions<D, F>(&self, make: F, made: &mut Made<'_>) -> io::Result<Arc<[Handle<Reception<D>>]>>
    where
        D: Dispatcher,
        F: Fn(usize, &mut ChannelMap) -> io::Result<D> + Send + Sync + 'static,
    {
        let make = Arc::new(make);
        let mut receptions = Vec::new();
        for index in 0..self.len() {
            let make = make.clone();
            let reception = self.loops.ask(index, move |map| {
                let dispatcher = make(index, map)?;
                Reception::open(map, dispatcher)
            })??;
            made.channels.push((index, reception.token()));
            receptions.push(reception);
        }
        Ok(receptions.into())
    }

    fn listen_on<D: Dispatcher>(
        &self,
        index: usize,
        address: &str,
        options: &ListenOptions,
        receptions: &Arc<[Handle<Reception<D>>]>,
        made: &mut Made<'_>,
    ) -> io::Result<Vec<Address>> {
        let (address, options) = (address.to_owned(), options.clone());
        let (loops, receptions) = (self.loops(), receptions.clone());
        let listening = self.loops.ask(index, move |map| {
            let acceptor = |_: &Address| Acceptor::new(&loops, index, !options.reuse_port, &receptions);
            let listeners = map.listen_all(&address, &options, acceptor)?;
            let named = |listener: &Handle<_>| Ok((listener.token(), map.channel(*listener)?.local_addr()?));
            listeners.iter().map(named).collect::<io::Result<Vec<_>>>()
        })??;
        made.channels.extend(listening.iter().map(|(token, _)| (index, *token)));
        Ok(listening.into_iter().map(|(_, address)| address).collect())
    }

    /// What other threads, and dispatchers, may hold of the group.
    pub fn loops(&self) -> Loops {
        self.loops.clone()
    }

    /// How many loops there are.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.loops.len()
    }

    /// As [`Loops::broadcast`].
    ///
    /// # Errors
    /// As that.
    pub fn broadcast(&self, f: impl Fn(usize, &mut ChannelMap) + Send + Sync + 'static) -> io::Result<()> {
        self.loops.broadcast(f)
    }

    /// How many connections each loop has of those that it was handed, or has accepted for the group.
    pub fn loads(&self) -> Vec<usize> {
        self.loops.loads()
    }

    /// The numbers of each loop; [`Numbers::add`] sums them.
    pub fn numbers(&self) -> Vec<Numbers> {
        self.loops.numbers()
    }

    /// End the group in order: every loop drains ([`ChannelMap::drain`]), with one deadline for all.
    /// [`join`](LoopGroup::join) waits for it.
    pub fn drain(&self, options: &DrainOptions) {
        self.loops.drain(options);
    }

    /// Let `SIGTERM` and `SIGINT` [drain](LoopGroup::drain) the group, and a second one of either end the drain at
    /// once, as [`ChannelMap::drain_on_signals`] does for one map. The second one's number is then in
    /// [`Loops::signal`]. Requires the feature `signals`.
    ///
    /// # Errors
    /// No descriptor is left, or a loop has ended. `Deadlock` on a thread that owns a map.
    #[cfg(feature = "signals")]
    pub fn drain_on_signals(&self, options: &DrainOptions) -> io::Result<()> {
        for index in 0..self.len() {
            let (loops, options) = (self.loops(), *options);
            self.loops.ask(index, move |map| {
                [SIGTERM, SIGINT].into_iter().try_for_each(|signal| {
                    let loops = loops.clone();
                    map.on_signal(signal, move |map| loops.take_signal(map, signal, &options)).map(drop)
                })
            })??;
        }
        Ok(())
    }

    /// As [`ChannelMap::keep_watchdog`], of all loops: the service manager is told that the process lives as long as
    /// each of them does. `None` if nobody watches.
    ///
    /// # Errors
    /// `InvalidInput` if one of the variables is not what it should be. `Deadlock` on a thread that owns a map.
    pub fn keep_watchdog(&self) -> io::Result<Option<Duration>> {
        watchdog::keep(&self.loops)
    }

    /// Stop every loop after its current turn. What is queued is cut off when its map is dropped.
    pub fn stop(&self) {
        self.loops.stop();
    }

    /// Wait until every loop has ended.
    ///
    /// # Errors
    /// That of the first loop that failed, with its number. `Deadlock` on the thread of one of the loops.
    pub fn join(mut self) -> io::Result<()> {
        member::join(&mut self.threads, &self.loops).map(|Joined| ())
    }
}

/// As if it had been made here.
fn adopt(ch: &mut Channel<'_>, options: &ListenOptions) -> io::Result<Address> {
    let address = ch.local_addr()?;
    if !ch.is_listening() {
        let why = format!("cannot listen on {address}: it is no listener");
        return Err(io::Error::new(ErrorKind::InvalidInput, why));
    }
    // A Unix-domain socket has no such option.
    let _ = ch.set_no_delay(options.no_delay);
    if let Some(limits) = options.limits.clone() {
        ch.set_accept_limits(limits)?;
    }
    Ok(address)
}

/// Channels of the loops that are closed again if what they were made for fails.
struct Made<'a> {
    loops: &'a Loops,
    channels: Vec<(usize, Token)>,
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        for (index, token) in self.channels.drain(..) {
            // Refused only if they have ended with their map.
            let _ = self.loops.remote(index).call_after_stop(move |map| {
                if let Ok(mut ch) = map.channel(token) {
                    ch.abort();
                }
            });
        }
    }
}

impl Drop for LoopGroup {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.stop();
            if let Err(error) = member::join(&mut self.threads, &self.loops) {
                log::warn!("a group of loops was dropped: {error}");
            }
        }
    }
}

impl fmt::Debug for LoopGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoopGroup").field("loads", &self.loads()).finish_non_exhaustive()
    }
}
