//! Who has subscribed to what, what waits to be acknowledged, and what is retained.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::rc::Rc;

use dispatch_loop::{Channel, ChannelMap, Token};

use crate::packet::{self, Connect, FILTERS, Message};

/// For all together: bytes that are kept for sessions, sessions that are to be kept, retained messages and their bytes.
const KEPT: usize = 256 * 1024 * 1024;
const SESSIONS: usize = 10_000;
const RETAINED: usize = 4000;
const RETAINED_BYTES: usize = 8 * 1024 * 1024;
/// For each session: messages that wait to be acknowledged and their bytes, subscriptions with wildcards.
const WAITING: usize = 4000;
const WAITING_BYTES: usize = 8 * 1024 * 1024;
const WILDCARDS: usize = 64;
/// The longest filter, and what it takes to keep anything.
const FILTER: usize = 1024;
const EACH: usize = 128;

const REFUSED: u8 = 0x80;

type Subscribers = HashMap<Rc<str>, u8>;

#[derive(Default)]
pub struct Broker {
    sessions: HashMap<Rc<str>, Session>,
    /// Who is sent what, with which QoS: by filters that are topics, and by the others.
    topics: HashMap<String, Subscribers>,
    wildcards: HashMap<String, Subscribers>,
    retained: HashMap<String, Rc<Message>>,
    retained_bytes: usize,
    kept: usize,
}

#[derive(Default)]
struct Session {
    /// Its connection, while it has one.
    token: Option<Token>,
    is_clean: bool,
    filters: HashSet<String>,
    wildcards: usize,
    waiting: VecDeque<(u16, Rc<Message>)>,
    bytes: usize,
    last: u16,
}

impl Broker {
    pub fn has_room_for(&self, connect: &Connect) -> bool {
        connect.is_clean || self.sessions.len() < SESSIONS || self.sessions.contains_key(&*connect.id)
    }

    /// A client has come: whoever had its name before is shown out, and it gets what it has not acknowledged.
    pub fn enter(&mut self, ch: &mut Channel<'_>, id: Rc<str>, is_clean: bool) -> io::Result<Rc<str>> {
        let before = self.sessions.get(&id).map(|session| (session.token, session.is_clean));
        if let Some(Ok(mut other)) =
            before.and_then(|(token, _)| token).map(|token| ch.map_mut().channel(token))
        {
            other.close();
        }
        if before.is_some_and(|(_, was_clean)| is_clean || was_clean) {
            self.forget(&id);
        }
        let is_present = self.sessions.contains_key(&id);
        ch.push(&[packet::CONNACK, 2, is_present.into(), 0])?;
        let session = self.sessions.entry(id.clone()).or_default();
        (session.token, session.is_clean) = (Some(ch.token()), is_clean);
        for (number, message) in &session.waiting {
            ch.push_vec(packet::publish(message, Some(*number), false, true))?;
        }
        Ok(id)
    }

    /// A connection has ended, which may have been taken over by another.
    pub fn leave(&mut self, id: &str, token: Token) {
        let Some(session) = self.sessions.get_mut(id).filter(|session| session.token == Some(token)) else {
            return;
        };
        session.token = None;
        if session.is_clean {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: &str) {
        let filters: Vec<String> =
            self.sessions.get(id).into_iter().flat_map(|session| session.filters.clone()).collect();
        filters.iter().for_each(|filter| self.unsubscribe(id, filter));
        if let Some(session) = self.sessions.remove(id) {
            self.kept -= session.bytes;
        }
    }

    fn table(&mut self, filter: &str) -> &mut HashMap<String, Subscribers> {
        if is_wild(filter) { &mut self.wildcards } else { &mut self.topics }
    }

    /// Returns what is granted.
    pub fn subscribe(&mut self, id: &Rc<str>, filter: &str, qos: u8) -> u8 {
        let Some(session) = self.sessions.get_mut(id) else { return REFUSED };
        if !session.filters.contains(filter) {
            let wildcards = session.wildcards + usize::from(is_wild(filter));
            let is_full = session.filters.len() >= FILTERS || wildcards > WILDCARDS;
            if is_full || filter.len() > FILTER || self.kept + filter.len() + EACH > KEPT {
                return REFUSED;
            }
            self.kept += filter.len() + EACH;
            session.filters.insert(filter.to_owned());
            session.wildcards = wildcards;
        }
        self.table(filter).entry(filter.to_owned()).or_default().insert(id.clone(), qos.min(1));
        qos.min(1)
    }

    pub fn unsubscribe(&mut self, id: &str, filter: &str) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        if !session.filters.remove(filter) {
            return;
        }
        session.wildcards -= usize::from(is_wild(filter));
        self.kept -= filter.len() + EACH;
        let table = self.table(filter);
        if let Some(subscribers) = table.get_mut(filter) {
            subscribers.remove(id);
            if subscribers.is_empty() {
                table.remove(filter);
            }
        }
    }

    pub fn publish(&mut self, map: &mut ChannelMap, message: Message) {
        let message = Rc::new(message);
        if message.retain {
            self.retain(&message);
        }
        // Once to everybody, with the best QoS.
        let mut to = self.topics.get(&message.topic).cloned().unwrap_or_default();
        let wild = self.wildcards.iter().filter(|(filter, _)| matches(filter, &message.topic));
        for (id, qos) in wild.flat_map(|(_, subscribers)| subscribers) {
            let best = to.entry(id.clone()).or_default();
            *best = *qos.max(best);
        }
        let (certain, perhaps): (Vec<_>, Vec<_>) =
            to.into_iter().partition(|(_, qos)| qos.min(&message.qos) > &0);
        let tokens = perhaps.iter().filter_map(|(id, _)| self.sessions.get(id)?.token);
        map.broadcast(tokens, &packet::publish(&message, None, false, false));
        certain.iter().for_each(|(id, _)| self.send(map, id, &message, false));
    }

    fn retain(&mut self, message: &Rc<Message>) {
        if let Some(old) = self.retained.remove(&message.topic) {
            self.retained_bytes -= size(&old);
        }
        let bytes = self.retained_bytes + size(message);
        if message.payload.is_empty() {
            return;
        }
        if bytes > RETAINED_BYTES || self.retained.len() >= RETAINED {
            return log::warn!("a message is not retained: there are too many");
        }
        self.retained_bytes = bytes;
        self.retained.insert(message.topic.clone(), message.clone());
    }

    pub fn send_retained(&mut self, map: &mut ChannelMap, id: &str, filter: &str, qos: u8) {
        let all: Vec<_> = match is_wild(filter) {
            false => self.retained.get(filter).cloned().into_iter().collect(),
            true => {
                self.retained.values().filter(|message| matches(filter, &message.topic)).cloned().collect()
            }
        };
        for message in all {
            let token = self.sessions.get(id).and_then(|session| session.token);
            match token.map(|token| map.channel(token)) {
                _ if qos.min(message.qos) > 0 => self.send(map, id, &message, true),
                // It refuses only a channel that has ended, or is about to.
                Some(Ok(mut ch)) => drop(ch.push_vec(packet::publish(&message, None, true, false))),
                _ => {}
            }
        }
    }

    /// Send a message that is to be acknowledged, now or when the client comes back.
    fn send(&mut self, map: &mut ChannelMap, id: &str, message: &Rc<Message>, is_retained: bool) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        let bytes = size(message);
        let is_full = session.waiting.len() >= WAITING || session.bytes + bytes > WAITING_BYTES;
        if is_full || self.kept + bytes > KEPT {
            return log::debug!("a message for {id:?} is dropped: too many wait to be acknowledged");
        }
        self.kept += bytes;
        session.bytes += bytes;
        let is_used = |number| number == 0 || session.waiting.iter().any(|(used, _)| *used == number);
        session.last = session.last.wrapping_add(1);
        while is_used(session.last) {
            session.last = session.last.wrapping_add(1);
        }
        session.waiting.push_back((session.last, message.clone()));
        if let Some(Ok(mut ch)) = session.token.map(|token| map.channel(token)) {
            drop(ch.push_vec(packet::publish(message, Some(session.last), is_retained, false)));
        }
    }

    pub fn acknowledged(&mut self, id: &str, number: u16) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        let Some(at) = session.waiting.iter().position(|(used, _)| *used == number) else { return };
        let bytes = session.waiting.remove(at).map_or(0, |(_, message)| size(&message));
        session.bytes -= bytes;
        self.kept -= bytes;
    }
}

fn size(message: &Message) -> usize {
    message.topic.len() + message.payload.len() + EACH
}

fn is_wild(filter: &str) -> bool {
    filter.contains(['+', '#'])
}

fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false; // the broker's own topics must be asked for
    }
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        match levels.next() {
            _ if wanted == "#" => return true,
            Some(level) if wanted == "+" || wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}
