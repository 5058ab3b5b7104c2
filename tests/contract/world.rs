//! The world of `model.rs`: channels whose hooks do to each other what a script says, and the record
//! of what happened to each.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpListener;
use std::rc::Rc;
use std::time::Duration;

use dispatch_loop::{Address, Channel, ChannelMap, Dispatcher, Eof, Handle, LookupError, Reason, Token};

#[cfg(feature = "layers")]
use dispatch_loop::chat::ChatDispatcher;

#[cfg(feature = "layers")]
use super::world_chat::Talk;
use super::world_more::{Messages, Timer, cancel, set_timer, tell};
use crate::support::peers::{loopbacks, pair, unix_pair};

/// Kinds of channels; the last is a chat.
pub const KINDS: u8 = if cfg!(feature = "layers") { 4 } else { 3 };
/// Channels that one program makes, at most.
pub const CHANNELS: usize = 12;
/// The bytes of every stream, over and over, begun elsewhere for each.
pub const PERIOD: usize = 65_521;

/// What a hook, a timer or the test does, to the channel of this number.
#[derive(Clone, Debug)]
pub enum Action {
    Add(u8),
    /// Take one out of the map, close it, and add another, which may have its descriptor's number.
    Renew(usize),
    Push(usize, usize),
    /// So many pushes of so many bytes, to the channel whose hook or timer this is.
    Answer(usize, usize),
    Close(usize),
    Abort(usize),
    ShutdownWrite(usize),
    Pause(usize, bool),
    AutoPause(usize),
    WantWrite(usize),
    /// A limit of its idle time that is never reached.
    Timeout(usize),
    /// Do the next action of the script after so many milliseconds, on behalf of a channel.
    Later(usize, u64),
    /// The same, in the next turn and on behalf of nobody.
    Soon,
    /// A timer of a channel, or of nobody, after so many milliseconds, or every so many.
    Timer(Option<usize>, u64, bool),
    /// Cancel the timer of this number.
    Cancel(usize),
    /// Have the loop called to do the next action of the script.
    Tell,
    /// Return an error, or panic, if this is a hook.
    Fail,
    Panic,
    Nothing,
}

thread_local! {
    /// Broken promises: an assertion would be a panic that the loop catches.
    pub static WRONG: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

pub fn must(promise: bool, what: impl Into<String>) {
    if !promise {
        WRONG.with_borrow_mut(|wrong| wrong.push(what.into()));
    }
}

/// What is known of one channel.
#[derive(Debug)]
pub struct Life {
    pub handle: Option<Named>,
    pub far: Option<socket2::Socket>,
    pub connects: bool,
    pub connected: u32,
    pub opens: u32,
    pub closes: u32,
    pub drops: u32,
    pub eofs: u32,
    pub wants_write: bool,
    /// Something was queued when nothing could be done, and `handle_drained` has not come since.
    pub waits: bool,
    /// Bytes of the stream to the far end, and of the one from there.
    pub pushed: usize,
    pub far_got: usize,
    pub far_wrote: usize,
    pub got: usize,
    /// Ended by us: no more can be pushed. Closed: nor read. Cut: what was pushed may be lost.
    pub ended: bool,
    pub closed: bool,
    pub cut: bool,
    /// The far end did so.
    pub far_ended: bool,
    pub far_cut: bool,
    /// It wrote to a socket that is closed: the reset may destroy what is on its way to it.
    pub far_late: bool,
}

#[derive(Default)]
pub struct World {
    pub lives: Vec<Life>,
    pub timers: Vec<Timer>,
    pub messages: Messages,
    pub script: VecDeque<Action>,
    pub pattern: Vec<u8>,
    pub dropping: bool,
}

pub type Shared = Rc<RefCell<World>>;

impl World {
    /// The `len` bytes at `at` of the stream of this channel.
    pub fn bytes(&self, index: usize, at: usize, len: usize) -> Vec<u8> {
        let start = (at + index * 1999) % PERIOD;
        self.pattern.iter().cycle().skip(start).take(len).copied().collect()
    }

    /// A channel got this much more of its stream.
    pub fn took(&mut self, index: usize, data: &[u8]) {
        let at = self.lives[index].got;
        self.check(index, at, data, "the channel");
        self.lives[index].got += data.len();
        let life = &self.lives[index];
        must(data.is_empty() || !life.closed && life.eofs == 0, format!("data after the end: {life:?}"));
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
    pub fn far_read(&mut self, index: usize, most: usize) -> Option<usize> {
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

/// Whose dispatcher is asked `writable`, or never; their input goes different ways.
#[derive(Clone, Copy, Debug)]
pub enum Named {
    Asked(Handle<Actor>),
    Plain(Handle<Plain>),
    #[cfg(feature = "layers")]
    Chat(Handle<ChatDispatcher<Talk>>),
}

impl Named {
    pub fn token(self) -> Token {
        match self {
            Named::Asked(handle) => handle.token(),
            Named::Plain(handle) => handle.token(),
            #[cfg(feature = "layers")]
            Named::Chat(handle) => handle.token(),
        }
    }

    pub fn is_there(self, map: &ChannelMap) -> bool {
        match self {
            Named::Asked(handle) => map.get(handle).is_ok(),
            Named::Plain(handle) => map.get(handle).is_ok(),
            #[cfg(feature = "layers")]
            Named::Chat(handle) => map.get(handle).is_ok(),
        }
    }
}

pub struct Actor {
    pub index: usize,
    pub world: Shared,
}

/// An actor that is never asked `writable`.
pub struct Plain(Actor);

impl Dispatcher for Plain {
    fn handle_connect(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.0.handle_connect(ch)
    }
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.0.handle_open(ch)
    }
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.0.handle_read(ch)
    }
    fn handle_eof(&mut self, ch: &mut Channel<'_>) -> io::Result<Eof> {
        self.0.handle_eof(ch)
    }
    fn handle_high(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.0.handle_high(ch)
    }
    fn handle_low(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.0.handle_low(ch)
    }
    fn handle_drained(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.0.handle_drained(ch)
    }
    fn handle_close(&mut self, ch: &mut Channel<'_>, reason: &Reason) {
        self.0.handle_close(ch, reason);
    }
}

impl Actor {
    /// Every hook but `handle_close`: note it, then do what is next in the script.
    pub fn hook(&self, ch: &mut Channel<'_>, note: impl FnOnce(&mut Life)) -> io::Result<()> {
        let action = {
            let mut world = self.world.borrow_mut();
            let life = &mut world.lives[self.index];
            must(life.closes + life.drops == 0, "a hook after handle_close");
            note(life);
            world.script.pop_front()
        };
        match action {
            Some(Action::Fail) => {
                let life = &mut self.world.borrow_mut().lives[self.index];
                // Where the connection is lost already, this is only logged, and reading goes on.
                if !life.far_cut {
                    life.cut();
                }
                Err(io::Error::other("a hook that fails"))
            }
            Some(Action::Panic) => {
                self.world.borrow_mut().lives[self.index].cut();
                panic!("a hook that panics");
            }
            Some(action) => {
                act_on(ch, self.index, &self.world, action);
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
        self.hook(ch, |life| {
            life.connected += 1;
            must(life.connects && life.connected == 1 && life.opens == 0, "handle_connect");
        })
    }
    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.hook(ch, |life| {
            life.opens += 1;
            must(life.opens == 1 && life.connected == u32::from(life.connects), "handle_open");
        })
    }
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        let index = self.index;
        let world = self.world.clone();
        let take = |data: &[u8]| world.borrow_mut().took(index, data);
        let left = self.world.borrow().script.len();
        if left % 2 == 0 {
            let mut buffer = [0; 5000];
            let read = ch.recv(&mut buffer)?;
            take(&buffer[..read]);
        } else {
            ch.read_with(|ch, data| {
                // Some of it comes once more.
                let whole = left % 3 > 0 || data.len() < 2;
                let (taken, back) = data.split_at(if whole { data.len() } else { data.len() / 2 });
                take(taken);
                ch.unread(back);
                Ok(())
            })?;
        }
        self.hook(ch, |life| must(life.opens == 1, "read before open"))
    }
    fn handle_write(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        act(ch.map_mut(), &self.world, Action::Push(self.index, 10));
        self.hook(ch, |life| life.wants_write = false)
    }
    fn handle_eof(&mut self, ch: &mut Channel<'_>) -> io::Result<Eof> {
        self.hook(ch, |life| {
            life.eofs += 1;
            must(life.eofs == 1 && life.far_ended, "handle_eof");
        })?;
        Ok(if self.index % 2 == 0 { Eof::Close } else { Eof::KeepWriting })
    }
    fn handle_high(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.hook(ch, |_| ())
    }
    fn handle_low(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.hook(ch, |_| ())
    }
    fn handle_drained(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        must(ch.queued() == 0, "handle_drained with a queue");
        self.hook(ch, |life| {
            must(!life.closed, "handle_drained after close");
            life.waits = false;
        })
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
        act(ch.map_mut(), &world, action.unwrap_or(Action::Nothing));
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.world.borrow_mut().lives[self.index].drops += 1;
    }
}

impl Life {
    fn has_pushed(&mut self, len: usize, result: io::Result<()>) {
        match result {
            Ok(()) => {
                must(!self.ended || self.far_cut, "pushed after the end");
                self.pushed += len;
            }
            Err(error) => {
                must(error.kind() == ErrorKind::BrokenPipe, error.to_string());
                must(self.ended || self.far_ended, "a push is refused");
            }
        }
    }

    fn cut(&mut self) {
        self.ended = true;
        self.closed = true;
        self.cut = true;
    }
}

/// Do one action. The world stays borrowed all the while: a hook that ran inside one of the calls
/// would be found out.
pub fn act(map: &mut ChannelMap, shared: &Shared, action: Action) {
    let world = &mut *shared.borrow_mut();
    let (target, what) = match action {
        Action::Add(kind) => return add(map, shared, world, kind),
        Action::Soon => {
            let shared = shared.clone();
            map.call_soon(move |map| next(map, &shared));
            return;
        }
        Action::Timer(owner, millis, every) => return set_timer(map, shared, world, owner, millis, every),
        Action::Cancel(number) => return cancel(map, world, number),
        Action::Tell => return tell(map, world, |message| message()),
        Action::Answer(..) | Action::Fail | Action::Panic | Action::Nothing => return,
        Action::Push(target, _)
        | Action::Close(target)
        | Action::Abort(target)
        | Action::ShutdownWrite(target)
        | Action::Pause(target, _)
        | Action::AutoPause(target)
        | Action::WantWrite(target)
        | Action::Timeout(target)
        | Action::Renew(target)
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
    let mut ch = match map.channel(handle.token()) {
        Ok(ch) => ch,
        Err(error) => {
            must(life.closes == 1 && error == LookupError::Gone(handle.token()), "a channel is lost");
            return;
        }
    };
    match what {
        Action::Push(_, len) => life.has_pushed(len, ch.push(&bytes)),
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
        Action::Renew(_) => {
            if let Ok(detached) = ch.detach() {
                life.cut();
                drop(detached);
                add(map, shared, world, 0);
                let renewed = world.lives.len() - 1;
                // It is ready in the batch that is being served, perhaps.
                if renewed != index {
                    far_write(world, renewed, 100);
                }
            }
        }
        Action::Pause(_, true) => ch.pause_reading(),
        Action::Pause(_, false) => ch.resume_reading(),
        Action::AutoPause(_) => ch.set_auto_pause(true),
        Action::WantWrite(_) => life.wants_write = true,
        Action::Timeout(_) => ch.set_timeout(Some(Duration::from_secs(1000))),
        Action::Later(_, millis) => {
            let shared = shared.clone();
            ch.call_later(Duration::from_millis(millis), move |ch| {
                must(shared.borrow().lives[index].closes == 0, "a timer after handle_close");
                let action = shared.borrow_mut().script.pop_front();
                act_on(ch, index, &shared, action.unwrap_or(Action::Nothing));
                Ok(())
            });
        }
        _ => unreachable!(),
    }
}

/// Do one action with the channel's own view.
fn act_on(ch: &mut Channel<'_>, index: usize, shared: &Shared, action: Action) {
    let Action::Answer(pushes, len) = action else { return act(ch.map_mut(), shared, action) };
    let world = &mut *shared.borrow_mut();
    for _ in 0..pushes {
        let bytes = world.bytes(index, world.lives[index].pushed, len);
        world.lives[index].has_pushed(len, ch.push(&bytes));
    }
}

/// The far end says so much more, as far as there is room.
pub fn far_write(world: &mut World, index: usize, len: usize) {
    let bytes = world.bytes(index, world.lives[index].far_wrote, len);
    let life = &mut world.lives[index];
    if let Some(Ok(written)) = life.far.as_mut().map(|far| far.write(&bytes)) {
        life.far_wrote += written;
        life.far_late |= life.closes > 0;
    }
}

/// Do what is next in the script, on behalf of no hook.
pub fn next(map: &mut ChannelMap, shared: &Shared) {
    let action = shared.borrow_mut().script.pop_front();
    act(map, shared, action.unwrap_or(Action::Nothing));
}

pub fn add(map: &mut ChannelMap, shared: &Shared, world: &mut World, kind: u8) {
    let index = world.lives.len();
    if index == CHANNELS || world.dropping {
        return;
    }
    let actor = Actor { index, world: shared.clone() };
    let on = loopbacks()[0];
    let (far, handle): (socket2::Socket, io::Result<Named>) = match kind {
        0 => {
            let (near, far) = unix_pair();
            (far.into(), map.add(near, Plain(actor)).map(Named::Plain))
        }
        #[cfg(feature = "layers")]
        3 => {
            let (near, far) = unix_pair();
            let chat = Talk::new(actor);
            let chat = ChatDispatcher::new(chat.wanted, chat).unwrap();
            (far.into(), map.add(near, chat).map(Named::Chat))
        }
        1 => {
            let (near, far) = pair(on);
            let handle = match index % 2 {
                0 => map.add(near, actor).map(Named::Asked),
                _ => map.add(near, Plain(actor)).map(Named::Plain),
            };
            (far.into(), handle)
        }
        _ => {
            let listener = TcpListener::bind(on).unwrap();
            let handle = map.connect(Address::Ip(listener.local_addr().unwrap()), actor);
            (listener.accept().unwrap().0.into(), handle.map(Named::Asked))
        }
    };
    far.set_nonblocking(true).unwrap();
    world.lives.push(Life {
        handle: Some(handle.unwrap()),
        far: Some(far),
        connects: kind == 2,
        connected: 0,
        opens: 0,
        closes: 0,
        drops: 0,
        eofs: 0,
        wants_write: false,
        waits: false,
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
