//! The dispatchers of a scenario, which check the order of their hooks and the bytes that they get, and
//! what is known of each.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use dispatch_loop::{Address, Channel, Datagram, Dispatcher, Eof, OnError, Reason, Socket, Token};

use super::far::Far;
use crate::support::peers::{pattern, pattern_at};

/// What a channel does.
#[derive(Clone, Copy)]
pub struct Role {
    pub name: &'static str,
    /// What its `handle_open` pushes, of the pattern.
    pub says: usize,
    pub echoes: bool,
    /// And what it does then.
    pub opens: fn(&mut Channel<'_>),
    /// When it has got so many bytes (datagrams) it does the next.
    pub expects: usize,
    pub then: fn(&mut Channel<'_>),
    pub eof: Eof,
    /// What it answers to the end of the stream.
    pub answers: usize,
    pub accepted: Option<&'static Role>,
}

pub const QUIET: Role = Role {
    name: "",
    says: 0,
    echoes: false,
    opens: |_| (),
    expects: usize::MAX,
    then: |_| (),
    eof: Eof::Close,
    answers: 0,
    accepted: None,
};

/// What happened to one channel.
#[derive(Clone, Default)]
pub struct Record {
    pub name: &'static str,
    /// The hooks that ran, without repetitions and without those about the queue, which come as it comes.
    pub hooks: Vec<&'static str>,
    /// `add`, `listen` or `connect` was `Ok`.
    pub token: Option<Token>,
    pub connects: bool,
    /// Bytes (datagrams) that came, and that were pushed.
    pub got: usize,
    pub pushed: usize,
    /// Why it ended, and the error's number.
    pub reason: Option<(String, Option<i32>)>,
    /// It was told of this.
    pub told: Vec<String>,
    pub closes: u32,
    pub drops: u32,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Record { name, hooks, got, pushed, told, closes, drops, .. } = self;
        write!(
            f,
            "{name} {hooks:?}, got {got}, pushed {pushed}, told {told:?}, {closes} closes, {drops} drops"
        )?;
        match &self.reason {
            Some((reason, _)) => write!(f, ", {reason}"),
            None => Ok(()),
        }
    }
}

#[derive(Default)]
pub struct World {
    pub records: Vec<Record>,
    pub fars: Vec<Far>,
    pub wrong: Vec<String>,
    /// Something happened since this was last reset.
    pub moved: bool,
}

pub type Shared = Rc<RefCell<World>>;

pub struct Actor {
    pub index: usize,
    pub role: Role,
    pub world: Shared,
}

impl Actor {
    pub fn new(role: Role, world: &Shared) -> Actor {
        let records = &mut world.borrow_mut().records;
        records.push(Record { name: role.name, ..Record::default() });
        Actor { index: records.len() - 1, role, world: world.clone() }
    }

    fn hook(&self, hook: &'static str) {
        let world = &mut *self.world.borrow_mut();
        world.moved = true;
        let record = &mut world.records[self.index];
        let before = |hook| record.hooks.contains(&hook);
        let in_order = match hook {
            "connect" => record.connects && record.hooks.is_empty(),
            "open" => !before("open") && record.connects == before("connect") && !before("eof"),
            "eof" => before("open") && !before("eof"),
            "read" => before("open") && !before("eof"),
            "timer" => true,
            "error" | "close" | "accept" => true,
            _ => before("open"),
        };
        if record.closes + record.drops > 0 || !in_order {
            world.wrong.push(format!("{} {hook} after {:?}", record.name, record.hooks));
        }
        if record.hooks.last() != Some(&hook) {
            record.hooks.push(hook);
        }
    }

    pub fn note(&self, f: impl FnOnce(&mut Record)) {
        f(&mut self.world.borrow_mut().records[self.index]);
    }

    /// Push so many more bytes of the pattern.
    fn push(&self, ch: &mut Channel<'_>, len: usize) -> io::Result<()> {
        // An empty push is an empty datagram.
        if len == 0 {
            return Ok(());
        }
        let at = self.world.borrow().records[self.index].pushed;
        ch.push(&pattern(at + len)[at..])?;
        self.note(|record| record.pushed += len);
        Ok(())
    }

    fn took(&self, data: &[u8]) -> usize {
        let world = &mut *self.world.borrow_mut();
        let record = &mut world.records[self.index];
        if !data
            .iter()
            .enumerate()
            .fold(true, |right, (at, byte)| right && *byte == pattern_at(record.got + at))
        {
            world.wrong.push(format!("{} got wrong bytes after {}", record.name, record.got));
        }
        record.got += data.len();
        record.got
    }
}

impl Dispatcher for Actor {
    fn handle_connect(&mut self, _: &mut Channel<'_>) -> io::Result<()> {
        self.hook("connect");
        Ok(())
    }

    fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.hook("open");
        ch.set_close_timeout(Duration::from_millis(200));
        ch.set_linger(Duration::from_millis(200));
        self.push(ch, self.role.says)?;
        (self.role.opens)(ch);
        Ok(())
    }

    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
        self.hook("accept");
        let Some(role) = self.role.accepted else { return Ok(()) };
        let actor = Actor::new(*role, &self.world);
        let index = actor.index;
        let handle = ch.map_mut().add(socket, actor)?;
        self.world.borrow_mut().records[index].token = Some(handle.token());
        Ok(())
    }

    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.hook("read");
        let mut got = 0;
        ch.read_with(|ch, data| {
            got = self.took(data);
            if self.role.echoes { self.push(ch, data.len()) } else { Ok(()) }
        })?;
        if got >= self.role.expects {
            (self.role.then)(ch);
        }
        Ok(())
    }

    fn handle_datagram(&mut self, ch: &mut Channel<'_>, datagram: &Datagram<'_>) -> io::Result<()> {
        self.hook("datagram");
        if datagram.truncated {
            self.note(|record| record.told.push("truncated".to_owned()));
            return Ok(());
        }
        {
            let world = &mut *self.world.borrow_mut();
            let record = &mut world.records[self.index];
            let number = usize::from(datagram.data[0]);
            if datagram.data != [datagram.data[0]; 100] || number < record.got {
                world.wrong.push(format!("datagram {number} of {} bytes", datagram.data.len()));
            }
            record.got = number + 1;
        }
        let from = datagram.from.clone();
        if self.role.echoes {
            ch.push_to(datagram.data, &from)?;
            self.note(|record| record.pushed += 1);
        }
        if self.world.borrow().records[self.index].got >= self.role.expects {
            (self.role.then)(ch);
        }
        Ok(())
    }

    fn handle_network_error(&mut self, _: &mut Channel<'_>, error: &io::Error) -> io::Result<()> {
        self.note(|record| record.told.push(error.to_string()));
        Ok(())
    }

    fn handle_expt(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.hook("expt");
        let mut byte = [0];
        match ch.recv_urgent(&mut byte) {
            Ok(1) if byte == *b"!" => Ok(()),
            Ok(read) => {
                self.world.borrow_mut().wrong.push(format!("{read} urgent bytes: {byte:?}"));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn handle_eof(&mut self, ch: &mut Channel<'_>) -> io::Result<Eof> {
        self.hook("eof");
        if self.role.answers > 0 {
            self.push(ch, self.role.answers)?;
            ch.shutdown_write();
        }
        Ok(self.role.eof)
    }

    fn handle_timeout(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        self.hook("timeout");
        ch.close();
        Ok(())
    }

    fn handle_wrapped(&mut self, _: &mut Channel<'_>) -> io::Result<()> {
        self.hook("wrapped");
        Ok(())
    }

    fn handle_error(&mut self, _: &mut Channel<'_>, error: &io::Error) -> OnError {
        self.hook("error");
        self.note(|record| record.told.push(error.to_string()));
        OnError::End
    }

    fn handle_close(&mut self, ch: &mut Channel<'_>, reason: &Reason) {
        self.hook("close");
        if ch.socket().is_some() {
            self.world.borrow_mut().wrong.push("a descriptor in handle_close".to_owned());
        }
        self.note(|record| {
            record.closes += 1;
            let errno = reason.error().and_then(|error| error.raw_os_error());
            record.reason = Some((reason.to_string(), errno));
        });
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.note(|record| record.drops += 1);
    }
}
