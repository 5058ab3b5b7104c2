//! Who is in the room, and what its members are told. Without a bus, or cut off from it, what a member does is shown at
//! once; otherwise it goes over the bus, and is shown when it comes back in its place among what others do.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use dispatch_loop::{ChannelMap, Token};

use crate::bus::{self, Bus, Entry};

#[derive(Default)]
pub struct Room {
    /// Of this node, by number.
    members: BTreeMap<u64, Member>,
    /// The last number that was given out.
    last: u64,
    /// The last guest that was named here.
    last_guest: u64,
    /// Of the other nodes.
    others: HashMap<String, Other>,
    /// The highest order of arrival that was seen.
    latest: u64,
    pub bus: Option<Bus>,
    /// Why the program ends.
    pub failure: Option<String>,
}

struct Member {
    token: Token,
    /// `None` until it has come in: the bus gives the name.
    name: Option<String>,
    order: u64,
}

struct Other {
    name: String,
    order: u64,
}

/// What members do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Join,
    Name,
    Leave,
    Line,
}

/// What a member alone is told.
#[derive(Debug)]
pub enum Answer {
    Line(&'static [u8]),
    /// Who is here.
    Names,
    /// Nothing more.
    End,
}

/// Something that a member has done.
#[derive(Debug)]
pub struct Op {
    /// Its number on the bus.
    pub number: u64,
    pub kind: Kind,
    pub member: u64,
    /// What the member was called, if that was known.
    pub name: String,
    /// The line, or the new name.
    pub text: Vec<u8>,
    /// The members of this node have seen it.
    pub shown: bool,
}

pub const BAD_NAME: &[u8] = b"* bad name\r\n";

type Shared = Rc<RefCell<Room>>;

pub fn enter(room: &Shared, map: &mut ChannelMap, token: Token) -> u64 {
    let number = {
        let mut room = room.borrow_mut();
        room.last += 1;
        let number = room.last;
        room.members.insert(number, Member { token, name: None, order: u64::MAX });
        number
    };
    act(room, map, number, Kind::Join, b"");
    number
}

pub fn rename(room: &Shared, map: &mut ChannelMap, member: u64, name: &[u8]) {
    act(room, map, member, Kind::Name, name);
}

pub fn say(room: &Shared, map: &mut ChannelMap, member: u64, line: &[u8]) {
    act(room, map, member, Kind::Line, line);
}

pub fn leave(room: &Shared, map: &mut ChannelMap, member: u64) {
    if !map.is_draining() {
        return act(room, map, member, Kind::Leave, b"");
    }
    // The server ends, and so they all do.
    room.borrow_mut().members.remove(&member);
    bus::finish(room, map);
}

/// Answer a member, after all that this node has done before is in its place; whether that is later.
pub fn answer(room: &Shared, map: &mut ChannelMap, member: u64, answer: Answer) -> bool {
    let room = &mut *room.borrow_mut();
    let now = match &mut room.bus {
        Some(bus) => bus.defer(member, answer),
        None => Some(answer),
    };
    let is_later = now.is_none();
    if let Some(answer) = now {
        room.answer_now(map, member, answer);
    }
    is_later
}

fn act(shared: &Shared, map: &mut ChannelMap, member: u64, kind: Kind, text: &[u8]) {
    {
        let mut room = shared.borrow_mut();
        let name = match kind {
            Kind::Leave => room.members.remove(&member).and_then(|member| member.name),
            _ => room.members.get(&member).and_then(|member| member.name.clone()),
        };
        let name = name.unwrap_or_default();
        let mut op = Op { number: 0, kind, member, name, text: text.to_vec(), shown: false };
        if room.bus.as_ref().is_none_or(|bus| bus.is_cut) && !room.show(map, &mut op) {
            return;
        }
        let Some(bus) = &mut room.bus else { return };
        bus.owe(op);
    }
    bus::flush(shared, map);
    bus::finish(shared, map);
}

impl Room {
    /// The bus is behind: whoever has spoken waits.
    pub fn is_to_wait(&mut self, token: Token) -> bool {
        self.bus.as_mut().is_some_and(|bus| bus.is_to_wait(token))
    }

    pub fn tokens(&self) -> Vec<Token> {
        self.members.values().map(|member| member.token).collect()
    }

    /// The members that have come in, and their names.
    pub fn named(&self) -> Vec<(u64, String)> {
        let named = self.members.iter().filter_map(|(number, member)| Some((*number, member.name.clone()?)));
        named.collect()
    }

    /// Tell the members of this node that have come in.
    pub fn tell(&self, map: &mut ChannelMap, but: Option<u64>, line: &[u8]) {
        let all =
            self.members.iter().filter(|(number, member)| Some(**number) != but && member.name.is_some());
        map.broadcast(all.map(|(_, member)| member.token), line);
    }

    pub fn tell_one(&self, map: &mut ChannelMap, member: u64, line: &[u8]) {
        let token = self.members.get(&member).map(|member| member.token);
        map.broadcast(token, line);
    }

    pub fn answer_now(&self, map: &mut ChannelMap, member: u64, answer: Answer) {
        match answer {
            Answer::Line(line) => self.tell_one(map, member, line),
            Answer::Names => self.tell_names(map, member),
            Answer::End => {
                if let Some(Ok(mut ch)) = self.members.get(&member).map(|member| map.channel(member.token)) {
                    ch.close();
                }
            }
        }
    }

    fn tell_names(&self, map: &mut ChannelMap, member: u64) {
        let members =
            self.members.iter().filter_map(|(number, one)| Some((one.order, *number, one.name.as_ref()?)));
        let others = self.others.values().map(|other| (other.order, 0, &other.name));
        let mut all: Vec<(u64, u64, &String)> = members.chain(others).collect();
        all.sort();
        let names: Vec<&str> = all.iter().map(|(.., name)| name.as_str()).collect();
        self.tell_one(map, member, format!("* here: {}\r\n", names.join(", ")).as_bytes());
    }

    fn is_taken(&self, name: &str) -> bool {
        let is_member = self.members.values().any(|member| member.name.as_deref() == Some(name));
        is_member || self.others.values().any(|other| other.name == name)
    }

    /// Show what a member of this node does, on this node alone; `false` if it is not done.
    pub fn show(&mut self, map: &mut ChannelMap, op: &mut Op) -> bool {
        op.shown = true;
        if let Some(Member { name: Some(name), .. }) = self.members.get(&op.member) {
            op.name.clone_from(name);
        }
        match op.kind {
            Kind::Join => {
                op.name = loop {
                    self.last_guest += 1;
                    let name = format!("guest{}", self.last_guest);
                    if !self.is_taken(&name) {
                        break name;
                    }
                };
                op.text = op.name.clone().into_bytes();
                self.latest = self.latest.saturating_add(1);
                let (name, order) = (op.name.clone(), self.latest);
                if let Some(member) = self.members.get_mut(&op.member) {
                    (member.name, member.order) = (Some(name), order);
                    self.tell(map, Some(op.member), format!("* {} joined\r\n", op.name).as_bytes());
                }
            }
            Kind::Name => {
                let new = String::from_utf8_lossy(&op.text).into_owned();
                if self.is_taken(&new) {
                    self.tell_one(map, op.member, BAD_NAME);
                    return false;
                }
                self.renamed(map, op.member, &op.name, new);
            }
            Kind::Leave if op.name.is_empty() => {}
            Kind::Leave => self.tell(map, None, format!("* {} left\r\n", op.name).as_bytes()),
            Kind::Line => self.tell_line(map, Some(op.member), op.name.as_bytes(), &op.text),
        }
        true
    }

    fn renamed(&mut self, map: &mut ChannelMap, number: u64, old: &str, new: String) {
        self.tell(map, Some(number), format!("* {old} is now {new}\r\n").as_bytes());
        if let Some(member) = self.members.get_mut(&number) {
            member.name = Some(new);
        }
    }

    fn tell_line(&self, map: &mut ChannelMap, but: Option<u64>, name: &[u8], text: &[u8]) {
        self.tell(map, but, &[name, b": ", text, b"\r\n"].concat());
    }

    /// The bus has been heard of somebody on another node.
    pub fn hear(&mut self, map: &mut ChannelMap, entry: Entry) {
        self.latest = self.latest.max(entry.order);
        let Entry { client, order, old, new, .. } = entry;
        match entry.what.as_str() {
            "joined" => {
                self.note_guest(&new);
                self.tell(map, None, format!("* {new} joined\r\n").as_bytes());
                self.others.insert(client, Other { name: new, order });
            }
            "renamed" => {
                self.tell(map, None, format!("* {old} is now {new}\r\n").as_bytes());
                self.others.insert(client, Other { name: new, order });
            }
            "left" => {
                self.tell(map, None, format!("* {old} left\r\n").as_bytes());
                self.others.remove(&client);
            }
            "line" => self.tell_line(map, None, old.as_bytes(), &entry.text),
            _ => {}
        }
    }

    /// What one of this node's has done is in its place; `is_last` if it has not changed its name since.
    pub fn hear_own(&mut self, map: &mut ChannelMap, op: &Op, is_last: bool, entry: Entry) {
        self.latest = self.latest.max(entry.order);
        self.note_guest(&entry.new);
        let number = op.member;
        let member = self.members.get_mut(&number);
        if let Some(member) = member.filter(|_| entry.order > 0 && op.kind != Kind::Line) {
            member.order = entry.order;
            if entry.what == "joined" && !op.shown {
                member.name = Some(entry.new.clone());
            }
        }
        match entry.what.as_str() {
            // It was shown as it was meant. The bus may have had to see it otherwise.
            "joined" | "renamed" | "refused" | "nothing" if op.shown => {
                let held = self.members.get(&number).and_then(|member| member.name.clone());
                if let Some(held) = held.filter(|held| is_last && *held != entry.new && !entry.new.is_empty())
                {
                    let line = format!("* {held} is now {}\r\n", entry.new);
                    self.renamed(map, number, &held, entry.new);
                    self.tell_one(map, number, line.as_bytes());
                }
            }
            _ if op.shown => {}
            "joined" => self.tell(map, Some(number), format!("* {} joined\r\n", entry.new).as_bytes()),
            "renamed" => self.renamed(map, number, &entry.old, entry.new),
            "refused" => self.tell_one(map, number, BAD_NAME),
            "left" => self.tell(map, None, format!("* {} left\r\n", entry.old).as_bytes()),
            "line" => self.tell_line(map, Some(number), entry.old.as_bytes(), &entry.text),
            _ => {}
        }
    }

    /// Guests that come while the bus is away have the numbers after those that were given out.
    fn note_guest(&mut self, name: &str) {
        let number = name.strip_prefix("guest").and_then(|number| number.parse::<u32>().ok());
        self.last_guest = self.last_guest.max(number.unwrap_or(0).into());
    }

    /// All clients of the other nodes, as the bus has them: identity, order, name.
    pub fn set_others(&mut self, all: impl Iterator<Item = (String, u64, String)>) {
        self.others = all.map(|(client, order, name)| (client, Other { name, order })).collect();
        let names: Vec<String> = self.others.values().map(|other| other.name.clone()).collect();
        names.iter().for_each(|name| self.note_guest(name));
        let latest = self.others.values().map(|other| other.order).max();
        self.latest = self.latest.max(latest.unwrap_or(0));
    }
}
