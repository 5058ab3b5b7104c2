//! Random programs against a simple model: what is done to channels, by hooks, timers and from
//! outside, in any order, keeps the promises that do not depend on the order.

mod util;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use dispatch_loop::{Address, Channel, ChannelMap, Dispatcher, Eof, Handle, LookupError, Reason};
use proptest::prelude::*;
use util::{DEADLINE, loopbacks, open_descriptors, pair};

/// Channels that one program makes, at most.
const CHANNELS: usize = 12;
/// The bytes of every stream, over and over, begun elsewhere for each.
const PERIOD: usize = 65_521;

/// What a hook, a timer or the test does, to the channel of this number.
#[derive(Clone, Debug)]
enum Action {
    Add(u8),
    Push(usize, usize),
    Close(usize),
    Abort(usize),
    ShutdownWrite(usize),
    Pause(usize, bool),
    AutoPause(usize),
    WantWrite(usize),
    /// Do the next action of the script after so many milliseconds, on behalf of a channel.
    Later(usize, u64),
    /// The same, in the next turn and on behalf of nobody.
    Soon,
    /// Return an error, or panic, if this is a hook.
    Fail,
    Panic,
    Nothing,
}

/// What the test itself does.
#[derive(Clone, Debug)]
enum Step {
    Do(Action),
    FarWrite(usize, usize),
    FarRead(usize, usize),
    FarShutdown(usize),
    FarClose(usize),
    FarReset(usize),
    Turn,
    Idle,
}

thread_local! {
    /// Broken promises: an assertion would be a panic that the loop catches.
    static WRONG: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn must(promise: bool, what: impl Into<String>) {
    if !promise {
        WRONG.with_borrow_mut(|wrong| wrong.push(what.into()));
    }
}

/// What is known of one channel.
#[derive(Debug)]
struct Life {
    handle: Option<Handle<Actor>>,
    far: Option<socket2::Socket>,
    connects: bool,
    connected: u32,
    opens: u32,
    closes: u32,
    drops: u32,
    eofs: u32,
    wants_write: bool,
    /// Bytes of the stream to the far end, and of the one from there.
    pushed: usize,
    far_got: usize,
    far_wrote: usize,
    got: usize,
    /// Ended by us: no more can be pushed. Closed: nor read. Cut: what was pushed may be lost.
    ended: bool,
    closed: bool,
    cut: bool,
    /// The far end did so.
    far_ended: bool,
    far_cut: bool,
    /// It wrote to a socket that is closed: the reset may destroy what is on its way to it.
    far_late: bool,
}

struct World {
    lives: Vec<Life>,
    script: VecDeque<Action>,
    pattern: Vec<u8>,
    dropping: bool,
}

type Shared = Rc<RefCell<World>>;

impl World {
    /// The `len` bytes at `at` of the stream of this channel.
    fn bytes(&self, index: usize, at: usize, len: usize) -> Vec<u8> {
        let start = (at + index * 1999) % PERIOD;
        self.pattern.iter().cycle().skip(start).take(len).copied().collect()
    }

    fn check(&self, index: usize, at: usize, got: &[u8], whose: &str) {
        let start = (at + index * 1999) % PERIOD;
        let mut rest = got;
        let mut from = start;
        while !rest.is_empty() {
            let len = rest.len().min(PERIOD - from);
            must(
                rest[..len] == self.pattern[from..from + len],
                format!("{whose} {index}: wrong bytes after {at}"),
            );
            rest = &rest[len..];
            from = 0;
        }
    }

    /// Read for the far end, at most so much; `None` if there is nothing.
    fn far_read(&mut self, index: usize, most: usize) -> Option<usize> {
        let mut buffer = vec![0; most];
        let read = match self.lives[index].far.as_mut()?.read(&mut buffer) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            Err(_) => 0,
        };
        let at = self.lives[index].far_got;
        self.check(index, at, &buffer[..read], "the far end of");
        self.lives[index].far_got += read;
        Some(read)
    }
}

struct Actor {
    index: usize,
    world: Shared,
}

impl Actor {
    /// Every hook but `handle_close`: note it, then do what is next in the script.
    fn hook(&self, map: &mut ChannelMap, note: impl FnOnce(&mut Life)) -> io::Result<()> {
        let action = {
            let mut world = self.world.borrow_mut();
            let life = &mut world.lives[self.index];
            must(life.closes + life.drops == 0, "a hook after handle_close");
            note(life);
            world.script.pop_front()
        };
        match action {
            Some(Action::Fail) => {
                self.world.borrow_mut().lives[self.index].cut();
                Err(io::Error::other("a hook that fails"))
            }
            Some(Action::Panic) => {
                self.world.borrow_mut().lives[self.index].cut();
                panic!("a hook that panics");
            }
            Some(action) => {
                act(map, &self.world, action);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Dispatcher for Actor {
    fn writable(&self, _: &Channel<'_>) -> bool {
        self.world.borrow().lives[self.index].wants_write
    }
    fn handle_connect(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.hook(ch.map(), |life| {
            life.connected += 1;
            must(life.connects && life.connected == 1 && life.opens == 0, "handle_connect");
        })
    }
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.hook(ch.map(), |life| {
            life.opens += 1;
            must(life.opens == 1 && life.connected == u32::from(life.connects), "handle_open");
        })
    }
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        let index = self.index;
        let world = self.world.clone();
        let take = |data: &[u8]| {
            let mut world = world.borrow_mut();
            let at = world.lives[index].got;
            world.check(index, at, data, "the channel");
            world.lives[index].got += data.len();
            must(world.lives[index].eofs == 0 && !world.lives[index].closed, "data after the end");
        };
        let some = self.world.borrow().script.len() % 2 == 0;
        if some {
            let mut buffer = [0; 5000];
            let read = ch.recv(&mut buffer)?;
            take(&buffer[..read]);
        } else {
            ch.read_with(|_, data| {
                take(data);
                Ok(())
            })?;
        }
        self.hook(ch.map(), |life| must(life.opens == 1, "read before open"))
    }
    fn handle_write(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        act(ch.map(), &self.world, Action::Push(self.index, 10));
        self.hook(ch.map(), |life| life.wants_write = false)
    }
    fn handle_eof(&mut self, ch: &mut Channel<'_>) -> io::Result<Eof> {
        self.hook(ch.map(), |life| {
            life.eofs += 1;
            must(life.eofs == 1 && life.far_ended, "handle_eof");
        })?;
        Ok(if self.index % 2 == 0 { Eof::Close } else { Eof::KeepWriting })
    }
    fn handle_high(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.hook(ch.map(), |_| ())
    }
    fn handle_low(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.hook(ch.map(), |_| ())
    }
    fn handle_close(&mut self, ch: &mut Channel<'_>, reason: &Reason) {
        must(ch.socket().is_none(), "a descriptor in handle_close");
        let world = self.world.clone();
        let action = {
            let mut world = world.borrow_mut();
            let dropping = world.dropping;
            let life = &mut world.lives[self.index];
            life.closes += 1;
            let excused = match reason {
                Reason::Closed | Reason::EndOfStream => true,
                Reason::MapEnded => dropping,
                Reason::Error(_) => life.cut || life.far_cut,
                _ => life.cut,
            };
            must(excused, format!("channel {}: {reason}", self.index));
            life.ended = true;
            life.cut |= dropping;
            world.script.pop_front()
        };
        act(ch.map(), &world, action.unwrap_or(Action::Nothing));
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.world.borrow_mut().lives[self.index].drops += 1;
    }
}

impl Life {
    fn cut(&mut self) {
        self.ended = true;
        self.closed = true;
        self.cut = true;
    }
}

/// Do one action. The world stays borrowed all the while: a hook that ran inside one of the calls
/// would be found out.
fn act(map: &mut ChannelMap, shared: &Shared, action: Action) {
    let world = &mut *shared.borrow_mut();
    let (target, what) = match action {
        Action::Add(kind) => return add(map, shared, world, kind),
        Action::Soon => {
            let shared = shared.clone();
            map.call_soon(move |map| next(map, &shared));
            return;
        }
        Action::Fail | Action::Panic | Action::Nothing => return,
        Action::Push(target, _)
        | Action::Close(target)
        | Action::Abort(target)
        | Action::ShutdownWrite(target)
        | Action::Pause(target, _)
        | Action::AutoPause(target)
        | Action::WantWrite(target)
        | Action::Later(target, _) => (target, action),
    };
    if world.lives.is_empty() {
        return;
    }
    let index = target % world.lives.len();
    let at = world.lives[index].pushed;
    let bytes = match what {
        Action::Push(_, len) => world.bytes(index, at, len),
        _ => Vec::new(),
    };
    let life = &mut world.lives[index];
    let Some(handle) = life.handle else { return };
    let mut ch = match map.channel(handle) {
        Ok(ch) => ch,
        Err(error) => {
            must(life.closes == 1 && error == LookupError::Gone(handle.token()), "a channel is lost");
            return;
        }
    };
    match what {
        Action::Push(_, len) => match ch.push(&bytes) {
            Ok(()) => {
                must(!life.ended || life.far_cut, "pushed after the end");
                life.pushed += len;
            }
            Err(error) => {
                must(error.kind() == ErrorKind::BrokenPipe, error.to_string());
                must(life.ended || life.far_ended, "a push is refused");
            }
        },
        Action::Close(_) => {
            ch.close();
            life.ended = true;
            life.closed = true;
            // There is no connection yet, or it is not known.
            life.cut |= life.connects && life.connected == 0;
        }
        Action::Abort(_) => {
            ch.abort();
            life.cut();
        }
        Action::ShutdownWrite(_) => {
            ch.shutdown_write();
            life.ended = true;
        }
        Action::Pause(_, true) => ch.pause_reading(),
        Action::Pause(_, false) => ch.resume_reading(),
        Action::AutoPause(_) => ch.set_auto_pause(true),
        Action::WantWrite(_) => life.wants_write = true,
        Action::Later(_, millis) => {
            let shared = shared.clone();
            ch.call_later(Duration::from_millis(millis), move |ch| {
                must(shared.borrow().lives[index].closes == 0, "a timer after handle_close");
                next(ch.map(), &shared);
                Ok(())
            });
        }
        _ => unreachable!(),
    }
}

/// Do what is next in the script, on behalf of no hook.
fn next(map: &mut ChannelMap, shared: &Shared) {
    let action = shared.borrow_mut().script.pop_front();
    act(map, shared, action.unwrap_or(Action::Nothing));
}

fn add(map: &mut ChannelMap, shared: &Shared, world: &mut World, kind: u8) {
    let index = world.lives.len();
    if index == CHANNELS || world.dropping {
        return;
    }
    let actor = Actor { index, world: shared.clone() };
    let on = loopbacks()[0];
    let (far, handle): (socket2::Socket, _) = match kind {
        0 => {
            let (near, far) = UnixStream::pair().unwrap();
            (far.into(), map.add(near, actor))
        }
        1 => {
            let (near, far) = pair(on);
            (far.into(), map.add(near, actor))
        }
        _ => {
            let listener = TcpListener::bind(on).unwrap();
            let handle = map.connect(Address::Ip(listener.local_addr().unwrap()), actor);
            (listener.accept().unwrap().0.into(), handle)
        }
    };
    far.set_nonblocking(true).unwrap();
    world.lives.push(Life {
        handle: Some(handle.unwrap()),
        far: Some(far),
        connects: kind > 1,
        connected: 0,
        opens: 0,
        closes: 0,
        drops: 0,
        eofs: 0,
        wants_write: false,
        pushed: 0,
        far_got: 0,
        far_wrote: 0,
        got: 0,
        ended: false,
        closed: false,
        cut: false,
        far_ended: false,
        far_cut: false,
        far_late: false,
    });
}

fn far(world: &mut World, step: Step) {
    if world.lives.is_empty() {
        return;
    }
    let count = world.lives.len();
    match step {
        Step::FarWrite(index, len) => {
            let index = index % count;
            let bytes = world.bytes(index, world.lives[index].far_wrote, len);
            let life = &mut world.lives[index];
            if let Some(Ok(written)) = life.far.as_mut().map(|far| far.write(&bytes)) {
                life.far_wrote += written;
                life.far_late |= life.closes > 0;
            }
        }
        Step::FarRead(index, most) => drop(world.far_read(index % count, most)),
        Step::FarShutdown(index) => {
            let life = &mut world.lives[index % count];
            life.far_ended = true;
            let _ = life.far.as_ref().map(|far| far.shutdown(Shutdown::Write));
        }
        Step::FarClose(index) | Step::FarReset(index) => {
            let life = &mut world.lives[index % count];
            life.far_ended = true;
            life.far_cut = true;
            if let (Some(far), Step::FarReset(_)) = (life.far.take(), step) {
                let _ = far.set_linger(Some(Duration::ZERO));
            }
        }
        Step::Do(_) | Step::Turn | Step::Idle => unreachable!(),
    }
}

/// Turn until one turn has waited for all of its time.
fn until_idle(map: &mut ChannelMap, shared: &Shared) {
    for _ in 0..5000 {
        let begun = Instant::now();
        map.turn(Some(Duration::from_millis(5))).unwrap();
        if begun.elapsed() >= Duration::from_millis(4) {
            return;
        }
    }
    must(false, format!("the loop spins: {:#?}", living(map, shared)));
}

/// What there is to say of the channels that live.
fn living(map: &mut ChannelMap, shared: &Shared) -> Vec<String> {
    let world = shared.borrow();
    let lives = world.lives.iter().filter(|life| life.closes == 0);
    lives.map(|life| format!("{:?}: {life:?}", map.channel(life.handle.unwrap()))).collect()
}

/// What ended is gone for good; what has not, is there.
fn look_up(map: &mut ChannelMap, world: &World) {
    for life in &world.lives {
        let handle = life.handle.unwrap();
        must(life.closes == life.drops && life.closes <= 1, "handle_close or drop, and not the other");
        must(map.contains(handle) == (life.closes == 0), "in the map or not");
        must(map.get(handle).is_ok() == (life.closes == 0), "a dispatcher is there or not");
        must(map.channel(handle).is_ok() == (life.closes == 0), "a channel is there or not");
    }
}

/// Read all that comes for the far ends; those at their end are closed. Whether anything came.
fn read_all(world: &mut World) -> bool {
    let mut moved = false;
    for index in 0..world.lives.len() {
        while let Some(read) = world.far_read(index, 1 << 16) {
            moved = true;
            if read == 0 {
                world.lives[index].far = None;
                world.lives[index].far_ended = true;
            }
        }
    }
    moved
}

fn play(steps: Vec<Step>, script: Vec<Action>, dropping: bool) {
    WRONG.take();
    let descriptors = open_descriptors();
    let pattern: Vec<u8> = (0..PERIOD as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let world = World { lives: vec![], script: script.into(), pattern, dropping: false };
    let shared = Rc::new(RefCell::new(world));
    let mut map = ChannelMap::new().unwrap();
    for step in steps {
        match step {
            Step::Do(action) => act(&mut map, &shared, action),
            Step::Turn => map.turn(Some(Duration::from_millis(1))).unwrap(),
            Step::Idle => until_idle(&mut map, &shared),
            step => far(&mut shared.borrow_mut(), step),
        }
        look_up(&mut map, &shared.borrow());
    }
    // The script is over; everybody reads, and all that was sent arrives.
    shared.borrow_mut().script.clear();
    let count = shared.borrow().lives.len();
    let deadline = Instant::now() + DEADLINE;
    for target in 0..count {
        act(&mut map, &shared, Action::Pause(target, false));
    }
    while {
        until_idle(&mut map, &shared);
        read_all(&mut shared.borrow_mut())
    } {
        assert!(Instant::now() < deadline, "it goes on for ever");
    }
    for (index, life) in shared.borrow().lives.iter().enumerate() {
        let all = life.closed || life.far_cut || life.got == life.far_wrote;
        must(all, format!("channel {index} got {} of {}: {life:?}", life.got, life.far_wrote));
    }
    if dropping {
        shared.borrow_mut().dropping = true;
        drop(map);
    } else {
        (0..count).for_each(|target| act(&mut map, &shared, Action::Close(target)));
        while !map.is_empty() {
            assert!(Instant::now() < deadline, "not all channels end: {:#?}", living(&mut map, &shared));
            map.turn(Some(Duration::from_millis(1))).unwrap();
            read_all(&mut shared.borrow_mut());
        }
        look_up(&mut map, &shared.borrow());
        drop(map);
    }
    read_all(&mut shared.borrow_mut());
    for (index, life) in shared.borrow_mut().lives.iter_mut().enumerate() {
        must(life.closes == 1 && life.drops == 1, format!("channel {index}: {} closes", life.closes));
        let all = life.far_got == life.pushed || life.cut || life.far_cut || life.far_late;
        must(all, format!("the far end of {index} got {} of {}", life.far_got, life.pushed));
        life.far = None;
    }
    must(open_descriptors() == descriptors, "a descriptor is left");
    let wrong = WRONG.take();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn action() -> impl Strategy<Value = Action> {
    use Action::*;
    let channel = 0..CHANNELS;
    prop_oneof![
        3 => (0..3u8).prop_map(Add),
        6 => (channel.clone(), 1..3000usize).prop_map(|(to, len)| Push(to, len)),
        2 => (channel.clone(), 50_000..400_000usize).prop_map(|(to, len)| Push(to, len)),
        2 => channel.clone().prop_map(Close),
        1 => channel.clone().prop_map(Abort),
        1 => channel.clone().prop_map(ShutdownWrite),
        3 => (channel.clone(), any::<bool>()).prop_map(|(of, on)| Pause(of, on)),
        1 => channel.clone().prop_map(AutoPause),
        1 => channel.clone().prop_map(WantWrite),
        3 => (channel, 0..3u64).prop_map(|(of, millis)| Later(of, millis)),
        1 => Just(Soon),
        1 => prop_oneof![Just(Fail), Just(Panic)],
        6 => Just(Nothing),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    use Step::*;
    let channel = 0..CHANNELS;
    prop_oneof![
        6 => action().prop_map(Do),
        3 => (channel.clone(), 1..100_000usize).prop_map(|(of, len)| FarWrite(of, len)),
        3 => (channel.clone(), 1..100_000usize).prop_map(|(of, most)| FarRead(of, most)),
        1 => channel.clone().prop_map(FarShutdown),
        1 => prop_oneof![channel.clone().prop_map(FarClose), channel.prop_map(FarReset)],
        5 => Just(Turn),
        1 => Just(Idle),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 96,
        failure_persistence: None,
        max_shrink_iters: 60,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_programs(
        steps in prop::collection::vec(step(), 10..80),
        script in prop::collection::vec(action(), 0..60),
        dropping in any::<bool>(),
    ) {
        let mut all = vec![Step::Do(Action::Add(0)), Step::Do(Action::Add(1)), Step::Do(Action::Add(2))];
        all.extend(steps);
        play(all, script, dropping);
    }
}
