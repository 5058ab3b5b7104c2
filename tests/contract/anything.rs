//! Hooks that do anything, at the fastest places of the loop: EDGE_CASES 131. Whatever they do, a dispatcher
//! has one end, nothing runs after it, and the loop goes on.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::mem;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use dispatch_loop::faults::wear_out;
use dispatch_loop::{
    Address, Channel, ChannelMap, Dispatcher, Eof, LoopOptions, More, OnError, OnLimit, Reason, Socket,
    Token, run, run_with,
};

use crate::support::peers::{loopbacks, reset};
use crate::support::process::alone;

/// What has become of one dispatcher.
#[derive(Clone, Default)]
struct Life {
    opens: u32,
    closes: u32,
    drops: u32,
    replaced: bool,
    added: bool,
    trace: Vec<String>,
}

struct World {
    state: Cell<u64>,
    lives: RefCell<Vec<Life>>,
    /// The dispatcher that each channel has.
    current: RefCell<HashMap<Token, usize>>,
    spare: RefCell<Option<ChannelMap>>,
    far: RefCell<Vec<TcpStream>>,
    listeners: RefCell<Vec<SocketAddr>>,
    bystander: TcpListener,
    /// How many calls are on the stack.
    depth: Cell<u32>,
    quiet: Cell<bool>,
    no_swaps: bool,
    faults: RefCell<Vec<String>>,
}

type Shared = Rc<World>;

impl World {
    fn random(&self, below: usize) -> usize {
        let mut x = self.state.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.state.set(x);
        (x >> 11) as usize % below
    }

    fn token(&self) -> Option<Token> {
        let mut tokens: Vec<Token> = self.current.borrow().keys().copied().collect();
        tokens.sort();
        (!tokens.is_empty()).then(|| tokens[self.random(tokens.len())])
    }
}

struct Any {
    id: usize,
    world: Shared,
}

fn make(world: &Shared) -> Any {
    let mut lives = world.lives.borrow_mut();
    lives.push(Life::default());
    Any { id: lives.len() - 1, world: world.clone() }
}

fn added(world: &Shared, id: usize, token: Token) {
    world.lives.borrow_mut()[id].added = true;
    world.lives.borrow_mut()[id].trace.push(format!("added {token:?}"));
    world.current.borrow_mut().insert(token, id);
}

impl Drop for Any {
    fn drop(&mut self) {
        let dice = self.world.random(20);
        let mut lives = self.world.lives.borrow_mut();
        lives[self.id].drops += 1;
        lives[self.id].trace.push("drop".into());
        drop(lives);
        if dice == 0 && !std::thread::panicking() && !self.world.quiet.get() {
            panic!("a drop");
        }
    }
}

impl Any {
    fn hook(&mut self, ch: &mut Channel<'_>, what: &str) -> io::Result<()> {
        {
            let mut lives = self.world.lives.borrow_mut();
            let life = &mut lives[self.id];
            life.trace.push(what.to_string());
            if life.closes != 0 {
                self.world.faults.borrow_mut().push(format!("{what} after the end: {:?}", life.trace));
            }
        }
        if self.world.depth.get() != 0 {
            self.world.faults.borrow_mut().push(format!("{what} within another call"));
        }
        let world = self.world.clone();
        let _in = Deeper::new(&world);
        let times = [0, 1, 1, 2, 3][world.random(5)];
        let mut result = Ok(());
        for _ in 0..times {
            if let Err(error) = act(&world, ch, Some(self.id)) {
                result = Err(error);
            }
        }
        result
    }
}

struct Deeper(Shared, u32);

impl Deeper {
    fn new(world: &Shared) -> Deeper {
        let before = world.depth.replace(world.depth.get() + 1);
        Deeper(world.clone(), before)
    }
}

impl Drop for Deeper {
    fn drop(&mut self) {
        self.0.depth.set(self.1);
    }
}

impl Dispatcher for Any {
    fn readable(&self, _: &Channel<'_>) -> bool {
        self.id % 3 != 0 || self.world.random(4) != 0
    }
    fn writable(&self, _: &Channel<'_>) -> bool {
        self.id % 3 == 0 && self.world.random(4) == 0
    }
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.world.lives.borrow_mut()[self.id].opens += 1;
        self.hook(ch, "open")
    }
    fn handle_connect(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.hook(ch, "connect")
    }
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
        let early = self.world.random(2) == 0;
        if early {
            self.hook(ch, "accept")?;
        }
        let any = make(&self.world);
        let id = any.id;
        let token = match self.world.random(3) {
            0 => ch.map_mut().add(socket, Box::new(any) as Box<dyn Dispatcher>)?.token(),
            _ => ch.map_mut().add(socket, any)?.token(),
        };
        added(&self.world, id, token);
        if !early {
            self.hook(ch, "accept, late")?;
        }
        Ok(())
    }
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        match self.world.random(5) {
            0 => self.hook(ch, "read"),
            1 => {
                let world = self.world.clone();
                let id = self.id;
                self.world.lives.borrow_mut()[self.id].trace.push("read with".into());
                ch.read_with(|ch, data| {
                    let _in = Deeper::new(&world);
                    act(&world, ch, Some(id))?;
                    ch.push(data)
                })
            }
            2 => {
                let mut buffer = [0; 500];
                let read = ch.recv(&mut buffer)?;
                ch.push(&buffer[..read])?;
                self.hook(ch, "read and push")
            }
            3 => loop {
                if ch.recv(&mut [0; 3000])? == 0 {
                    return Ok(());
                }
            },
            _ => ch.read_with(|ch, data| ch.push(data)),
        }
    }
    fn handle_write(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.hook(ch, "write")
    }
    fn handle_eof(&mut self, ch: &mut Channel<'_>) -> io::Result<Eof> {
        self.hook(ch, "eof")?;
        Ok([Eof::Close, Eof::KeepWriting][self.world.random(2)])
    }
    fn handle_high(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.hook(ch, "high")
    }
    fn handle_low(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.hook(ch, "low")
    }
    fn handle_drained(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.hook(ch, "drained")
    }
    fn handle_wrapped(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.hook(ch, "wrapped")
    }
    fn handle_timeout(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.hook(ch, "timeout")
    }
    fn handle_error(&mut self, ch: &mut Channel<'_>, _: &io::Error) -> OnError {
        let _ = self.hook(ch, "error");
        [OnError::End, OnError::Keep][self.world.random(2)]
    }
    fn handle_close(&mut self, ch: &mut Channel<'_>, reason: &Reason) {
        let world = self.world.clone();
        {
            let mut lives = world.lives.borrow_mut();
            let life = &mut lives[self.id];
            life.closes += 1;
            life.trace.push(format!("close: {reason}"));
        }
        world.current.borrow_mut().retain(|_, id| *id != self.id);
        let _in = Deeper::new(&world);
        if world.random(2) == 0 {
            let _ = act(&world, ch, None);
        }
    }
}

fn grow(world: &Shared, map: &mut ChannelMap) -> io::Result<()> {
    for _ in 0..[1, 5, 40][world.random(3)] {
        let far = TcpStream::connect(world.bystander.local_addr()?)?;
        let (near, _) = world.bystander.accept()?;
        let any = make(world);
        let id = any.id;
        let token = map.add(near, any)?.token();
        added(world, id, token);
        if world.random(3) == 0 {
            far.set_nonblocking(true)?;
            world.far.borrow_mut().push(far);
        }
    }
    Ok(())
}

fn listen(world: &Shared, map: &mut ChannelMap) -> io::Result<()> {
    let any = make(world);
    let id = any.id;
    let handle = map.listen(loopbacks()[0], any)?;
    added(world, id, handle.token());
    let address = map.channel(handle)?.local_addr()?;
    let mut listeners = world.listeners.borrow_mut();
    listeners.extend(address.ip());
    if listeners.len() > 4 {
        listeners.remove(0);
    }
    Ok(())
}

fn act(world: &Shared, ch: &mut Channel<'_>, id: Option<usize>) -> io::Result<()> {
    let what = world.random(46);
    if let Some(id) = id {
        world.lives.borrow_mut()[id].trace.push(format!("  {what}"));
    }
    match what {
        0 => ch.close(),
        1 => ch.abort(),
        2 => ch.pause_reading(),
        3 => ch.resume_reading(),
        4 | 5 => {
            let any = make(world);
            let new = any.id;
            let token = ch.token();
            ch.replace_dispatcher(any)?;
            let before = world.current.borrow_mut().insert(token, new);
            let mut lives = world.lives.borrow_mut();
            lives[new].added = true;
            lives[new].trace.push(format!("replaces {before:?}"));
            if let Some(before) = before {
                lives[before].replaced = true;
                lives[before].trace.push(format!("replaced by {new}"));
            }
        }
        6 if !world.no_swaps => {
            if let Some(mut spare) = world.spare.take() {
                mem::swap(ch.map_mut(), &mut spare);
                let left = world.spare.replace(Some(spare));
                drop(left);
            }
        }
        7 if world.random(6) == 0 && !world.no_swaps => *ch.map_mut() = ChannelMap::new()?,
        8 => grow(world, ch.map_mut())?,
        9 => ch.map_mut().stop(),
        10 => panic!("a hook"),
        11 => {
            if let Some(token) = world.token() {
                let mut other = ch.map_mut().channel(token)?;
                match world.random(6) {
                    0 => other.abort(),
                    1 => other.close(),
                    2 => other.push(b"from another")?,
                    3 => other.pause_reading(),
                    4 => other.shutdown_write(),
                    _ => return act(world, &mut other, None),
                }
            }
        }
        12 => match world.random(3) {
            0 => ch.wrap_source(Ok)?,
            1 => ch.wrap_source(|_| Err(io::Error::other("no")))?,
            _ => ch.wrap_source(|_| panic!("a source"))?,
        },
        13 => ch.set_timeout(Some(Duration::from_millis(1))),
        14 => drop(ch.detach()?),
        15 => ch.set_background(world.random(2) == 0),
        16 => {
            if let Some(token) = world.token() {
                ch.auto_pause_with(token)?;
            }
        }
        17 | 35 => {
            let w = world.clone();
            let f = move |map: &mut ChannelMap| {
                let _in = Deeper::new(&w);
                if let Some(mut ch) = w.token().and_then(|token| map.channel(token).ok()) {
                    let _ = act(&w, &mut ch, None);
                }
            };
            match world.random(8) {
                0 => ch.map_mut().call_every(Duration::from_millis(1), f),
                _ => ch.map_mut().call_soon(move |map| f(map)),
            };
        }
        18 => {
            let w = world.clone();
            ch.call_later(Duration::from_millis(1), move |ch| {
                let _in = Deeper::new(&w);
                act(&w, ch, None)
            });
        }
        19 => ch.push(&vec![b'x'; [1, 100, 5000, 300_000][world.random(4)]])?,
        20 => ch.push_vec(vec![b'y'; [1, 100, 5000, 300_000][world.random(4)]])?,
        21 => return Err(io::Error::other("an error")),
        22 => {
            if let Some(token) = world.token().filter(|_| world.depth.get() < 5) {
                let w = world.clone();
                ch.map_mut().with(token.typed::<Any>(), move |any, ch| {
                    let _in = Deeper::new(&w);
                    act(&w, ch, Some(any.id))
                })?;
            }
        }
        23 => ch.shutdown_write(),
        24 => ch.source_ready(),
        25 => ch.discard_queued(),
        26 | 27 => {
            let listeners = world.listeners.borrow().clone();
            let any = make(world);
            let id = any.id;
            let to = listeners[world.random(listeners.len())];
            let token = ch.map_mut().connect(to, any)?.token();
            added(world, id, token);
        }
        28 => ch.unread(b"again"),
        29 => ch.set_auto_pause(true),
        30 => ch.set_watermarks(10, 1000),
        31 if world.no_swaps => assert!(ch.map_mut().turn(Some(Duration::ZERO)).is_err()),
        32 => {
            let tokens: Vec<Token> = ch.map().tokens().collect();
            ch.map_mut().broadcast(tokens, b"to all");
        }
        33 if world.random(4) == 0 => ch.map_mut().close_all(),
        34 => {
            let w = world.clone();
            ch.call_every(Duration::ZERO, move |ch| {
                let _in = Deeper::new(&w);
                match w.random(8) {
                    0 => act(&w, ch, None),
                    _ => Ok(()),
                }
            });
        }
        36 => listen(world, ch.map_mut())?,
        37 => wear_out(ch.map_mut(), 1),
        38 => ch.set_limit(200, OnLimit::End),
        39 => ch.push_producer(|_: &mut Vec<u8>| -> io::Result<More> { panic!("a producer") })?,
        40 => ch.set_linger(Duration::ZERO),
        41 => ch.set_close_timeout(Duration::from_millis(2)),
        42 => ch.map_mut().set_limit(100_000),
        43 if world.random(4) == 0 => drop(ch.map_mut().remote().call(|_| ())),
        44 => drop(ch.send(b"sent")?),
        _ => drop(ch.recv(&mut [0; 10])?),
    }
    Ok(())
}

/// What peers do.
fn far(world: &World) {
    for _ in 0..world.random(4) {
        let listeners = world.listeners.borrow();
        if listeners.is_empty() {
            return;
        }
        if let Ok(far) = TcpStream::connect(listeners[world.random(listeners.len())]) {
            far.set_nonblocking(true).unwrap();
            world.far.borrow_mut().push(far);
        }
    }
    let mut fars = world.far.borrow_mut();
    for _ in 0..fars.len().min(8) {
        let at = world.random(fars.len());
        match world.random(8) {
            0..=2 => drop(fars[at].write(&vec![b'z'; [1, 100, 70_000][world.random(3)]])),
            3 => drop(fars.swap_remove(at)),
            4 => {
                let _ = fars[at].write(b"last words");
                reset(fars.swap_remove(at));
            }
            5 => drop(fars[at].shutdown(Shutdown::Write)),
            _ => drop(fars[at].read(&mut [0; 100_000])),
        }
    }
}

fn play(seed: u64, no_swaps: bool) {
    let world = Rc::new(World {
        state: Cell::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
        lives: RefCell::default(),
        current: RefCell::default(),
        spare: RefCell::new(Some(ChannelMap::new().unwrap())),
        far: RefCell::default(),
        listeners: RefCell::default(),
        bystander: TcpListener::bind(loopbacks()[0]).unwrap(),
        depth: Cell::new(0),
        quiet: Cell::new(false),
        no_swaps,
        faults: RefCell::default(),
    });
    let mut map = ChannelMap::new().unwrap();
    let briefly = LoopOptions::default().with_count(3).with_timeout(Duration::from_millis(1));
    for _ in 0..60 {
        if world.random(4) == 0 || map.is_empty() {
            drop(listen(&world, &mut map));
        }
        far(&world);
        match world.random(4) {
            0 => drop(map.turn(Some(Duration::from_millis(1)))),
            1 => drop(run_with(&mut map, &briefly)),
            2 if world.no_swaps => {
                map.call_later(Duration::from_millis(3), |map| map.stop());
                drop(run(&mut map));
            }
            _ => drop(map.turn(Some(Duration::ZERO))),
        }
    }
    world.quiet.set(true);
    drop(map);
    while let Some(spare) = world.spare.take() {
        drop(spare);
    }
    assert_eq!(*world.faults.borrow(), [""; 0], "seed {seed}");
    for (id, life) in world.lives.borrow().iter().enumerate() {
        let told = u32::from(life.added && !life.replaced);
        let got = (life.closes, life.drops, life.opens.min(1));
        assert_eq!(got, (told, 1, life.opens), "seed {seed}, dispatcher {id}: {:#?}", life.trace);
    }
}

/// EDGE_CASES 131.
#[test]
fn whatever_hooks_do_a_dispatcher_has_one_end() {
    alone(None, || {
        // Its own panics are many.
        std::panic::set_hook(Box::new(|info| {
            if info.to_string().contains("seed") {
                eprintln!("{info}");
            }
        }));
        (1..=20).for_each(|seed| play(seed, seed % 2 == 0));
    });
}
