//! A server, on one loop or, with `--threads`, on several: where its listeners come from (its own addresses, the
//! service manager, a predecessor), and how it ends.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, mpsc};
use std::time::Duration;

use dispatch_loop::{Address, ChannelMap, DatagramOptions, Dispatcher, DrainOptions, DrainState};
use dispatch_loop::{LoopGroup, Loops, Remote, Socket, Token};

use super::take_over::{self, Inheritance};
use super::{Exit, LISTENING, ServerOptions, announce, drain_within, front, say_where, stats};

pub struct Server {
    on: On,
    options: Arc<ServerOptions>,
    inheritance: Inheritance,
}

enum On {
    /// The program's own thread runs it.
    One(Box<ChannelMap>),
    /// Each on a thread of its own. The first has the listeners.
    Several(LoopGroup),
}

/// Connections that were cut off at the end, on all loops.
static CUT_OFF: AtomicU64 = AtomicU64::new(0);

impl Server {
    /// Read the certificate, if there is one, and let Ctrl-C and SIGTERM drain all loops: `run` returns when what was
    /// begun is done. A second one ends the program at once.
    pub fn new(mut options: ServerOptions) -> Result<Server, Exit> {
        options.begin_tls()?;
        let on = match options.threads() {
            1 => On::One(Box::new(ChannelMap::new()?)),
            threads => On::Several(LoopGroup::start(threads, |_, _| Ok(()))?),
        };
        let options = Arc::new(options);
        let mut server = Server { on, options: options.clone(), inheritance: Inheritance::default() };
        server.on_first(move |map| options.reload_tls_on_signal(map))??;
        server.on_each(|map| {
            tell_of_drain(map);
            Ok(())
        })?;
        match &mut server.on {
            On::One(map) => drain_within(map, server.options.drain())?,
            On::Several(group) => drain_group_within(group, server.options.drain())?,
        }
        Ok(server)
    }

    /// As `new`, for a program whose clients share what is not to be shared by threads.
    pub fn single(options: ServerOptions) -> Result<Server, Exit> {
        match options.threads() {
            1 => Server::new(options),
            _ => Err(Exit::Usage("--threads: what the clients share here is one loop's".to_owned())),
        }
    }

    /// For the dispatchers.
    pub fn options(&self) -> Arc<ServerOptions> {
        self.options.clone()
    }

    /// The map, if there is one loop, which is this thread's.
    pub fn map(&mut self) -> Option<&mut ChannelMap> {
        match &mut self.on {
            On::One(map) => Some(map),
            On::Several(_) => None,
        }
    }

    /// All loops; or the one.
    pub fn loops(&mut self) -> Loops {
        match &mut self.on {
            On::One(map) => Loops::of(map),
            On::Several(group) => group.loops(),
        }
    }

    /// The loops, if there are several.
    pub fn several(&self) -> Option<Loops> {
        match &self.on {
            On::One(_) => None,
            On::Several(group) => Some(group.loops()),
        }
    }

    /// Listen on all that these addresses stand for, and say so. Without an address, on what the service manager has
    /// opened; without that, on the `usual` one. If there is a predecessor, on what it had. What `make` makes is each
    /// loop's own.
    pub fn listen<D: Dispatcher + Clone>(
        &mut self,
        addresses: &[String],
        usual: &str,
        make: impl Fn() -> D + Clone + Send + Sync + 'static,
    ) -> Result<(), Exit> {
        self.inheritance = take_over::request(&self.options)?;
        let mut sockets = self.inheritance.sockets();
        if sockets.is_empty() && addresses.is_empty() {
            sockets = front::inherited()?;
        }
        if !sockets.is_empty() {
            return sockets.into_iter().try_for_each(|socket| self.adopt(socket, make.clone()));
        }
        let usual = [usual.to_owned()];
        let mut listening = Vec::new();
        for address in if addresses.is_empty() { &usual } else { addresses } {
            let (make, options) = (make.clone(), self.options.listening());
            listening.extend(match &mut self.on {
                On::Several(group) => group.listen_each(address, &options, move |_, _| Ok(make()))?,
                On::One(map) => {
                    let made = make(); // what its connections share
                    let listeners = map.listen_all(address, &options, |_| made.clone())?;
                    let named = |listener| map.channel(listener)?.local_addr();
                    listeners.into_iter().map(named).collect::<io::Result<Vec<_>>>()?
                }
            });
        }
        listening.iter().for_each(announce);
        Ok(())
    }

    /// Listen on a socket that was opened elsewhere, as if it had been made here.
    pub fn adopt<D: Dispatcher>(
        &mut self,
        socket: Socket,
        make: impl Fn() -> D + Send + Sync + 'static,
    ) -> Result<(), Exit> {
        let address = match &mut self.on {
            On::One(map) => front::adopt(map, socket, &self.options, make())?,
            On::Several(group) => {
                group.adopt_each(socket, &self.options.listening(), move |_, _| Ok(make()))?
            }
        };
        announce(&address);
        Ok(())
    }

    /// Bind a socket for datagrams: one on each loop, where the system spreads them over several. One that
    /// was `given` cannot be spread.
    pub fn bind<D: Dispatcher>(
        &mut self,
        given: Option<Socket>,
        address: SocketAddr,
        options: &DatagramOptions,
        make: impl Fn() -> D + Send + Sync + 'static,
    ) -> Result<(), Exit> {
        let group = match &mut self.on {
            On::One(map) => {
                announce(&bind(map, given, address, options, make())?);
                return Ok(());
            }
            On::Several(group) => group,
        };
        let spreads = cfg!(any(target_os = "linux", target_os = "android", target_os = "freebsd"));
        if !spreads {
            log::warn!("this system does not spread datagrams over several sockets: one loop has them all");
        } else if given.is_some() {
            log::warn!("the service manager has opened one socket: one loop has all datagrams");
        }
        let loops = if spreads && given.is_none() { group.len() } else { 1 };
        let options = options.clone().with_reuse_port(loops > 1);
        let (make, mut address, mut given) = (Arc::new(make), address, given);
        let mut bound = Address::Ip(address);
        for index in 0..loops {
            let (make, options, given) = (make.clone(), options.clone(), given.take());
            let on_loop = move |map: &mut ChannelMap| bind(map, given, address, &options, make());
            bound = ask(group.loops().remote(index), on_loop)??;
            address = bound.ip().unwrap_or(address); // with port 0, the others have the same port
        }
        announce(&bound);
        Ok(())
    }

    /// The listeners, and their loop if that is another thread's.
    pub fn listeners(&mut self) -> Result<(Vec<Token>, Option<Remote>), Exit> {
        let remote = self.several().map(|loops| loops.remote(0).clone());
        Ok((self.on_first(listeners)?, remote))
    }

    /// Say where it listens, and run until a signal, and to the orderly end. It must not end by itself: if it
    /// does, its last listener has died.
    pub fn run(mut self) -> Result<(), Exit> {
        let (options, several) = (self.options.clone(), self.several());
        let mut inheritance = std::mem::take(&mut self.inheritance);
        if options.stats().is_some() {
            self.on_each(|map| map.watch_slow_hooks(Some(Duration::from_millis(100))))?;
        }
        // Whoever reads where it listens may start a successor at once, so it says that when one can ask.
        self.on_first(move |map| {
            let (listeners, taken) = (listeners(map), inheritance.stats());
            let stats = options.stats().map(|address| stats::offer(map, address, taken, several.as_ref()));
            let stats = stats.transpose()?;
            let numbers = stats.as_ref().map(|(token, _)| *token);
            take_over::offer(map, inheritance, listeners, numbers, &options, several)?;
            say_where(stats.map(|(_, address)| address));
            Ok::<(), Exit>(())
        })??;
        let result = match self.on {
            On::One(mut map) => {
                front::is_ready(|| map.keep_watchdog());
                dispatch_loop::run(&mut map).and_then(|()| match map.drain_state() {
                    DrainState::Drained => Ok(()),
                    _ => {
                        let addresses = LISTENING.lock().unwrap_or_else(PoisonError::into_inner).join(", ");
                        Err(io::Error::other(format!("cannot listen on {addresses} any more")))
                    }
                })
            }
            On::Several(group) => {
                front::is_ready(|| group.keep_watchdog());
                group.join()
            }
        };
        match CUT_OFF.load(Ordering::Relaxed) {
            0 => {}
            number => log::warn!("{number} connections were cut off: they took too long"),
        }
        Ok(result?)
    }

    /// Call `f` on the loop that has the listeners.
    fn on_first<R: Send + 'static>(
        &mut self,
        f: impl FnOnce(&mut ChannelMap) -> R + Send + 'static,
    ) -> io::Result<R> {
        match &mut self.on {
            On::One(map) => Ok(f(map)),
            On::Several(group) => ask(group.loops().remote(0), f),
        }
    }

    fn on_each(&mut self, f: fn(&mut ChannelMap) -> io::Result<()>) -> io::Result<()> {
        match &mut self.on {
            On::One(map) => f(map),
            On::Several(group) => (0..group.len()).try_for_each(|index| ask(group.loops().remote(index), f)?),
        }
    }
}

/// Call `f` on a loop, and wait for what it returns.
fn ask<R: Send + 'static>(
    remote: &Remote,
    f: impl FnOnce(&mut ChannelMap) -> R + Send + 'static,
) -> io::Result<R> {
    let (answer, answers) = mpsc::channel();
    let gone = |_| io::Error::new(ErrorKind::BrokenPipe, "a loop has ended");
    remote.call(move |map| drop(answer.send(f(map)))).map_err(|error| io::Error::other(error.to_string()))?;
    answers.recv().map_err(gone)
}

fn listeners(map: &mut ChannelMap) -> Vec<Token> {
    let all: Vec<Token> = map.tokens().collect();
    all.into_iter().filter(|token| map.channel(*token).is_ok_and(|ch| ch.is_listening())).collect()
}

fn bind<D: Dispatcher>(
    map: &mut ChannelMap,
    given: Option<Socket>,
    address: SocketAddr,
    options: &DatagramOptions,
    dispatcher: D,
) -> io::Result<Address> {
    let bound = match given {
        Some(socket) => map.add(socket, dispatcher)?,
        None => map.bind_with(address, options, dispatcher)?,
    };
    map.channel(bound)?.local_addr()
}

/// The service manager hears of the end when it begins; and at the end is told how many were cut off.
fn tell_of_drain(map: &mut ChannelMap) {
    map.on_drain(|_, progress| match progress.state {
        DrainState::Draining => front::is_stopping(),
        DrainState::Drained => drop(CUT_OFF.fetch_add(progress.aborted, Ordering::Relaxed)),
        _ => {}
    });
}

#[cfg(feature = "signals")]
fn drain_group_within(group: &LoopGroup, time: Duration) -> io::Result<()> {
    group.drain_on_signals(&DrainOptions::default().with_deadline(time))?;
    super::end_on_second_signal()
}

#[cfg(not(feature = "signals"))]
fn drain_group_within(_: &LoopGroup, _: Duration) -> io::Result<()> {
    Ok(())
}
