//! The bus: a stream in Redis, whose order is that of the room. One client writes, another one reads.
//!
//! What this node owes the others has numbers. Redis does each number once and in turn (`say.lua`), so that after a
//! lost connection all whose outcome is unknown is simply sent again. What is read back in the stream is shown, and no
//! longer owed.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use dispatch_loop::reconnect::Backoff;
use dispatch_loop::{ChannelMap, Token};
use dispatch_loop_redis::{Cause, Command, Error, Handler, Options, Redis, Server, Value};

use crate::room::{Answer, Kind, Op, Room};

/// What all keys in Redis begin with.
const PREFIX: &str = "chat";
const SAY: &str = include_str!("say.lua");
const LEASE: &str = include_str!("lease.lua");
/// All that a node must know when it begins to read: the first and the last entry, and who is there.
const LOOK: &str = "local s = KEYS[1] .. ':stream'
    local function id(entries) return entries[1] and entries[1][1] or '0-0' end
    return {id(redis.call('XRANGE', s, '-', '+', 'COUNT', 1)), id(redis.call('XREVRANGE', s, '+', '-', 'COUNT', 1)),
        redis.call('HGETALL', KEYS[1] .. ':clients')}";

/// How long the bus may be away before the room goes on without it.
const GRACE: Duration = Duration::from_secs(3);
/// After this long without a word a node is dead.
const LEASE_TIME: Duration = Duration::from_secs(5);
/// How often the lease is renewed.
const RENEWAL: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(250);
/// How many lines, and bytes of them, are owed at most.
const MOST_OPS: usize = 10_000;
const MOST_BYTES: usize = 16 << 20;
/// How many entries the stream keeps, about.
const MOST_ENTRIES: u32 = 100_000;
/// How many entries are read at a time: less than what a client may leave unread.
const BATCH: u32 = 100;

type Shared = Rc<RefCell<Room>>;

pub struct Bus {
    writer: Redis,
    reader: Redis,
    /// `NODE:EPOCH`; the epoch is new for each process, and when Redis has forgotten us.
    me: String,
    /// What the identities of our clients begin with.
    clients: String,
    last_number: u64,
    /// What was not read back yet.
    ops: VecDeque<Op>,
    bytes: usize,
    /// The number that is sent next.
    next: u64,
    /// Changes whenever something is to be sent again: older answers say nothing then.
    round: u64,
    script: Option<String>,
    /// The lease was renewed on this connection.
    is_leased: bool,
    /// It was held at least once.
    was_leased: bool,
    /// Our clients must be made known again.
    is_to_join: bool,
    leased_since: Option<Instant>,
    renewed: Instant,
    /// The last entry that was read.
    last: Option<String>,
    is_reading: bool,
    /// What there is was looked at on this connection.
    has_looked: bool,
    /// The entry after which it was read on then.
    looked_from: Option<String>,
    /// The bus works.
    is_linked: bool,
    /// Since when it does not, or nothing was taken.
    since: Option<Instant>,
    /// The last line was refused.
    is_refused: bool,
    /// The room goes on without it.
    pub is_cut: bool,
    /// What did not fit while it was cut off: lines, and anything else.
    dropped: (u64, u64),
    /// What members are told when all is in its place that this node had done before: the number, and whom.
    answers: VecDeque<(u64, u64, Answer)>,
    paused: Vec<Token>,
    is_ending: bool,
    has_ended: bool,
}

/// An entry of the stream.
pub struct Entry {
    me: String,
    number: u64,
    pub what: String,
    pub client: String,
    pub order: u64,
    pub old: String,
    pub new: String,
    pub text: Vec<u8>,
}

/// A name for a node that was given none.
pub fn any_node() -> String {
    format!("{:04x}", random() as u16)
}

fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

pub fn begin(map: &mut ChannelMap, room: &Shared, url: &str, node: String) -> io::Result<()> {
    let waits =
        Backoff::default().with_first(Duration::from_millis(50)).with_longest(Duration::from_millis(500));
    let options = Options::default()
        .with_backoff(waits)
        .with_connect_timeout(GRACE)
        .with_timeout(GRACE)
        .with_keep_unsent(false)
        .with_background(true)
        .with_max_bytes(2 * MOST_BYTES);
    let mut connect = |is_writer: bool| {
        let what = if is_writer { "writes" } else { "reads" };
        let handler = Link { room: Rc::downgrade(room), is_writer };
        Redis::connect(map, url, &options.clone().with_name(format!("chat-{node}-{what}")), handler)
    };
    let (writer, reader) = (connect(true)?, connect(false)?);
    let me = format!("{node}:{:016x}", random());
    room.borrow_mut().bus = Some(Bus {
        writer,
        reader,
        clients: format!("{me}:"),
        me,
        last_number: 0,
        ops: VecDeque::new(),
        bytes: 0,
        next: 1,
        round: 0,
        script: None,
        is_leased: false,
        was_leased: false,
        is_to_join: false,
        leased_since: None,
        renewed: Instant::now(),
        last: None,
        is_reading: false,
        has_looked: false,
        looked_from: None,
        is_linked: false,
        since: Some(Instant::now()),
        is_refused: false,
        is_cut: false,
        dropped: (0, 0),
        answers: VecDeque::new(),
        paused: Vec::new(),
        is_ending: false,
        has_ended: false,
    });
    let shared = room.clone();
    let timer = map.call_every(TICK, move |map| tick(&shared, map));
    map.set_timer_background(timer, true);
    Ok(())
}

impl Bus {
    /// What a member has done is to be told to the others.
    pub fn owe(&mut self, mut op: Op) {
        let is_full = self.ops.len() >= MOST_OPS || self.bytes >= MOST_BYTES;
        if self.is_cut && is_full {
            match op.kind {
                Kind::Line => self.dropped.0 += 1,
                _ => self.dropped.1 += 1,
            }
            return;
        }
        self.last_number += 1;
        op.number = self.last_number;
        self.bytes += op.text.len();
        self.ops.push_back(op);
    }

    /// Too much is owed: remember who is to wait.
    pub fn is_to_wait(&mut self, token: Token) -> bool {
        let is_much = self.ops.len().max(self.answers.len()) >= MOST_OPS / 2 || self.bytes >= MOST_BYTES / 2;
        let waits = is_much && !self.is_cut;
        if waits && !self.paused.contains(&token) {
            self.paused.push(token);
        }
        waits
    }

    /// To be answered after what was done before; gives the answer back if that is now.
    pub fn defer(&mut self, member: u64, answer: Answer) -> Option<Answer> {
        if self.is_cut || self.ops.is_empty() {
            return Some(answer);
        }
        self.answers.push_back((self.last_number, member, answer));
        None
    }

    /// Say that this node lives, and whose clients are to be taken out.
    fn lease(&self, whose: &str) -> Command {
        let command = Command::from(["EVAL", LEASE, "1", PREFIX]).arg(&self.me);
        command.arg(LEASE_TIME.as_millis() as u64).arg(whose).arg(MOST_ENTRIES)
    }

    fn send_again(&mut self, from: u64) {
        self.round += 1;
        self.next = from;
    }

    fn resume(&mut self, map: &mut ChannelMap) {
        for token in self.paused.drain(..) {
            if let Ok(mut ch) = map.channel(token) {
                ch.resume_reading();
            }
        }
    }

    fn is_down(&mut self) {
        self.is_linked = false;
        self.since.get_or_insert_with(Instant::now);
    }
}

/// Send what is owed and was not sent.
pub fn flush(shared: &Shared, map: &mut ChannelMap) {
    let mut guard = shared.borrow_mut();
    let Some(bus) = guard.bus.as_mut().filter(|bus| bus.is_linked) else { return };
    let Some(script) = bus.script.clone() else { return };
    let Some(first) = bus.ops.front().map(|op| op.number) else { return };
    bus.next = bus.next.max(first);
    while let Some(op) = bus.ops.get((bus.next - first) as usize) {
        let kind = match op.kind {
            Kind::Join => "join",
            Kind::Name => "name",
            Kind::Leave => "leave",
            Kind::Line => "line",
        };
        let command = Command::from(["EVALSHA", &script, "1", PREFIX]).arg(&bus.me).arg(op.number).arg(kind);
        let command = command.arg(format!("{}{}", bus.clients, op.member)).arg(&op.text).arg(&op.name);
        let command = command.arg(if op.shown { "1" } else { "0" }).arg(MOST_ENTRIES);
        let (to, round, number) = (shared.clone(), bus.round, op.number);
        let called =
            bus.writer.call(map, command, move |map, answer| written(&to, map, round, number, answer));
        if called.is_err() {
            break;
        }
        bus.next += 1;
    }
}

/// The answer to what was sent: the last number that Redis has done.
fn written(shared: &Shared, map: &mut ChannelMap, round: u64, number: u64, answer: Result<Value, Error>) {
    {
        let mut guard = shared.borrow_mut();
        let Some(bus) = &mut guard.bus else { return };
        match answer.as_ref().map(Value::as_int) {
            Ok(Some(done)) if done as u64 >= number => {
                // What was read back was dealt with; all else waits for that.
                if bus.is_linked && round == bus.round {
                    (bus.since, bus.is_refused) = (None, false);
                }
            }
            _ if round != bus.round => {}
            Ok(done) => {
                let done = done.unwrap_or(0) as u64;
                if bus.ops.front().is_some_and(|op| done + 1 >= op.number) {
                    bus.send_again(done + 1);
                } else {
                    log::warn!("Redis has forgotten this node: it begins anew");
                    bus.me = format!("{}:{:016x}", bus.me.split(':').next().unwrap_or_default(), random());
                    renumber(bus);
                    bus.is_to_join = true;
                    (bus.is_leased, bus.was_leased, bus.has_looked) = (false, false, false);
                    bus.is_down();
                    drop(guard);
                    lease(shared, map);
                    return;
                }
            }
            // It is sent again on the next connection.
            Err(Error::Lost(_) | Error::NotSent(_) | Error::TimedOut { .. }) => return,
            Err(error) => {
                log::error!("the bus does not take a line: {error}");
                // Load it again, and renew the lease; if both succeed, what follows is sent again.
                (bus.script, bus.is_leased, bus.is_refused) = (None, false, true);
                bus.round += 1;
                bus.is_down();
                return;
            }
        }
    }
    flush(shared, map);
}

/// What is owed gets new numbers, from 1.
fn renumber(bus: &mut Bus) {
    let first = bus.ops.front().map_or(bus.last_number + 1, |op| op.number) - 1;
    for op in &mut bus.ops {
        op.number -= first;
    }
    for (after, ..) in &mut bus.answers {
        *after = after.saturating_sub(first);
    }
    bus.last_number -= first;
    bus.send_again(1);
}

fn tick(shared: &Shared, map: &mut ChannelMap) {
    if map.is_draining() {
        end(map, shared); // where nobody was left to be told
    }
    let (is_late, is_due) = {
        let guard = shared.borrow();
        let Some(bus) = &guard.bus else { return };
        let is_late = bus.since.is_some_and(|since| since.elapsed() > GRACE) && !bus.is_cut;
        (is_late, !bus.is_leased || bus.renewed.elapsed() > RENEWAL)
    };
    if is_late {
        cut(shared, map);
    }
    if is_due {
        lease(shared, map);
    }
    read(shared, map);
}

/// The room goes on without the others.
fn cut(shared: &Shared, map: &mut ChannelMap) {
    let room = &mut *shared.borrow_mut();
    let (mut ops, answers) = {
        let Some(bus) = &mut room.bus else { return };
        bus.is_cut = true;
        bus.resume(map);
        (std::mem::take(&mut bus.ops), std::mem::take(&mut bus.answers))
    };
    room.tell(map, None, CUT);
    let mut answers = answers.into_iter().peekable();
    for op in &mut ops {
        if !op.shown {
            let is_join = op.kind == Kind::Join;
            if !room.show(map, op) {
                // It was a bad name after all, and the number has to be something.
                op.text = op.name.clone().into_bytes();
            }
            if is_join {
                // It has not heard it with the others.
                room.tell_one(map, op.member, CUT);
            }
        }
        while let Some((_, member, answer)) = answers.next_if(|(after, ..)| *after <= op.number) {
            room.answer_now(map, member, answer);
        }
    }
    answers.for_each(|(_, member, answer)| room.answer_now(map, member, answer));
    if let Some(bus) = &mut room.bus {
        bus.bytes = ops.iter().map(|op| op.text.len()).sum();
        bus.ops = ops;
    }
}

const CUT: &[u8] = b"* cut off from the other nodes\r\n";

/// Say that this node lives; load the script, if it must be.
fn lease(shared: &Shared, map: &mut ChannelMap) {
    let mut guard = shared.borrow_mut();
    let Some(bus) = guard.bus.as_mut().filter(|bus| bus.writer.is_ready() && !bus.has_ended) else { return };
    bus.renewed = Instant::now();
    if bus.script.is_none() {
        let to = shared.clone();
        // If it is refused, the next tick tries again.
        let _ = bus.writer.call(map, ["SCRIPT", "LOAD", SAY], move |map, answer| {
            if let (Ok(script), Some(bus)) = (answer, &mut to.borrow_mut().bus) {
                bus.script = Some(script.text().into_owned());
            }
            link(&to, map);
        });
    }
    // Others that come back at the same time as we do are given time to say so.
    let may_reap = bus.leased_since.is_some_and(|since| since.elapsed() > LEASE_TIME);
    let command = bus.lease(if may_reap { "others" } else { "nobody" });
    let (to, me) = (shared.clone(), bus.me.clone());
    let _ = bus.writer.call(map, command, move |map, answer| {
        {
            let mut guard = to.borrow_mut();
            let Some(bus) = guard.bus.as_mut().filter(|bus| bus.me == me) else { return };
            match answer {
                Ok(was) => {
                    if bus.was_leased && was.as_int() == Some(0) {
                        // It was away for too long, or Redis has forgotten all: who is there?
                        (bus.is_to_join, bus.has_looked) = (true, false);
                        bus.is_down();
                    }
                    bus.leased_since.get_or_insert_with(Instant::now);
                    (bus.is_leased, bus.was_leased) = (true, true);
                }
                Err(error) => {
                    match error.server_code() {
                        // It has just begun.
                        None | Some("LOADING") => {}
                        Some(_) => log::error!("the bus does not take the lease: {error}"),
                    }
                    bus.is_leased = false;
                    bus.is_down();
                }
            }
        }
        link(&to, map);
    });
}

/// If all is ready, the bus works; if it did not before, what is owed is sent.
fn link(shared: &Shared, map: &mut ChannelMap) {
    {
        let room = &mut *shared.borrow_mut();
        let Some(bus) = &mut room.bus else { return };
        let is_ready = bus.is_leased && bus.script.is_some() && bus.is_reading && bus.has_looked;
        let was_linked = bus.is_linked;
        let is_back = |bus: &Bus| bus.is_cut && !bus.is_refused && (!was_linked || bus.since.is_none());
        if !is_ready || !bus.writer.is_ready() || (was_linked && !bus.is_to_join && !is_back(bus)) {
            return;
        }
        if !was_linked {
            bus.is_linked = true;
            log::info!("the bus works; {} lines were not read back", bus.ops.len());
            // All that was not read back: what is in the stream already is not done again.
            match bus.ops.front().map(|op| op.number) {
                Some(first) => {
                    bus.send_again(first);
                    if !bus.is_refused {
                        bus.since = Some(Instant::now());
                    }
                }
                None => (bus.since, bus.is_refused) = (None, false),
            }
        }
        if is_back(bus) {
            bus.is_cut = false;
            bus.is_to_join = true;
            let (lines, others) = std::mem::take(&mut bus.dropped);
            if others > 0 {
                // It does not know any more who of its clients is known to the others: all leave, and join again.
                let _ = bus.writer.call(map, bus.lease("self"), |_, _| {});
            }
            let mut line = "* back with the other nodes\r\n".to_owned();
            if lines > 0 {
                line += &format!("* {lines} lines were too many to be kept for them\r\n");
            }
            room.tell(map, None, line.as_bytes());
        }
        let named = room.named();
        let Some(bus) = &mut room.bus else { return };
        if std::mem::take(&mut bus.is_to_join) {
            for (member, name) in named {
                let text = name.clone().into_bytes();
                let op = Op { number: 0, kind: Kind::Join, member, name, text, shown: true };
                bus.owe(op);
            }
        }
    }
    flush(shared, map);
}

/// Read on, if nobody does.
fn read(shared: &Shared, map: &mut ChannelMap) {
    let mut guard = shared.borrow_mut();
    let Some(bus) = &mut guard.bus else { return };
    if bus.is_reading || !bus.reader.is_ready() || bus.has_ended {
        return;
    }
    let to = shared.clone();
    let called = match bus.last.as_ref().filter(|_| bus.has_looked) {
        Some(last) => {
            let command = Command::new("XREAD").arg("COUNT").arg(BATCH).arg("BLOCK").arg(1000);
            let command = command.arg("STREAMS").arg(format!("{PREFIX}:stream")).arg(last);
            let command = command.with_timeout(Duration::from_secs(1) + GRACE);
            bus.reader.call(map, command, move |map, answer| have_read(&to, map, answer))
        }
        _ => bus.reader.call(map, ["EVAL", LOOK, "1", PREFIX], move |map, answer| looked(&to, map, answer)),
    };
    bus.is_reading = called.is_ok();
}

/// What there is in Redis, when reading begins.
fn looked(shared: &Shared, map: &mut ChannelMap, answer: Result<Value, Error>) {
    {
        let room = &mut *shared.borrow_mut();
        let Some(bus) = &mut room.bus else { return };
        bus.is_reading = false;
        let answer = answer.ok().and_then(Value::into_array).unwrap_or_default();
        let [first, last, clients] = &answer[..] else { return };
        let ours = bus.clients.clone();
        let clients = clients.as_array().unwrap_or_default().chunks_exact(2).filter_map(|pair| {
            let text = pair[1].text();
            let mut words = text.split(' ');
            let order = words.next()?.parse().ok()?;
            Some((pair[0].text().into_owned(), order, words.nth(1)?.to_owned()))
        });
        bus.has_looked = true;
        let (first, end) = (place(&first.text()), place(&last.text()));
        let had = bus.last.as_deref().map(place);
        match had {
            None => bus.last = Some(last.text().into_owned()),
            // It is another stream, or an old copy of this one: what is in it may have been shown already.
            Some(had) if end < had => bus.last = Some(last.text().into_owned()),
            Some(_) => {}
        }
        bus.looked_from.clone_from(&bus.last);
        let is_gap = had.is_some_and(|had| had > (0, 0) && (had < first || (end < had && end > (0, 0))));
        let others: Vec<_> = clients.filter(|(client, ..)| !client.starts_with(&ours)).collect();
        room.set_others(others.into_iter());
        if is_gap {
            room.tell(map, None, MISSING);
        }
    }
    read(shared, map);
    link(shared, map);
}

const MISSING: &[u8] = b"* lines of the other nodes may be missing\r\n";

/// More is there than was asked for: whether what followed `from` was dropped before we came to it.
fn look_behind(room: &mut Room, shared: &Shared, map: &mut ChannelMap, from: String) {
    let Some(bus) = &mut room.bus else { return };
    let to = shared.clone();
    let command = Command::new("XRANGE").arg(format!("{PREFIX}:stream")).args(["-", "+", "COUNT", "1"]);
    let _ = bus.reader.call(map, command, move |map, answer| {
        let first =
            answer.ok().and_then(Value::into_array).and_then(|mut entries| entries.pop()?.into_array());
        let first = first.and_then(|entry| Some(place(&entry.first()?.text())));
        if first.is_some_and(|first| first > place(&from)) {
            to.borrow().tell(map, None, MISSING);
        }
    });
}

/// The two numbers of an entry.
fn place(id: &str) -> (u64, u64) {
    let (time, count) = id.split_once('-').unwrap_or((id, "0"));
    (time.parse().unwrap_or(0), count.parse().unwrap_or(0))
}

fn have_read(shared: &Shared, map: &mut ChannelMap, answer: Result<Value, Error>) {
    {
        let room = &mut *shared.borrow_mut();
        let Some(bus) = &mut room.bus else { return };
        bus.is_reading = false;
        match answer {
            Ok(streams) => {
                let (from, entries) = (bus.last.clone(), entries(streams));
                let is_all = entries.len() < BATCH as usize || from == bus.looked_from;
                for (id, entry) in entries {
                    hear(room, map, id, entry);
                }
                if let Some(from) = from.filter(|_| !is_all) {
                    look_behind(room, shared, map, from);
                }
            }
            Err(Error::Server(error)) => {
                log::error!("the bus cannot be read: {error}");
                bus.is_down();
                return; // the next tick tries again
            }
            // The next connection goes on.
            Err(_) => return,
        }
        if let Some(bus) = &mut room.bus {
            if bus.ops.len() < MOST_OPS / 4 && bus.bytes < MOST_BYTES / 4 {
                bus.resume(map);
            }
        }
    }
    read(shared, map);
    finish(shared, map);
}

/// One entry, in its place.
fn hear(room: &mut Room, map: &mut ChannelMap, id: String, entry: Entry) {
    let Some(bus) = &mut room.bus else { return };
    bus.last = Some(id);
    if !entry.client.starts_with(&bus.clients) {
        return room.hear(map, entry);
    }
    // That the others have given up one of ours is put right when we join again.
    if entry.me != bus.me || entry.number == 0 {
        return;
    }
    while bus.ops.front().is_some_and(|op| op.number <= entry.number) {
        let Some(op) = bus.ops.pop_front() else { break };
        bus.bytes -= op.text.len();
        if op.number < entry.number {
            continue; // it was in the stream, and is no more
        }
        let again = |later: &Op| later.member == op.member && matches!(later.kind, Kind::Join | Kind::Name);
        // Asked of few: it goes through all that is owed.
        let is_last = op.shown && op.kind != Kind::Line && !bus.ops.iter().any(again);
        room.hear_own(map, &op, is_last, entry);
        break;
    }
    while let Some(bus) = &mut room.bus {
        let seen = bus.ops.front().map_or(bus.last_number, |op| op.number - 1);
        if bus.answers.front().is_none_or(|(after, ..)| *after > seen) {
            break;
        }
        let Some((_, member, answer)) = bus.answers.pop_front() else { break };
        room.answer_now(map, member, answer);
    }
}

/// What `XREAD` has answered: RESP3 has a map, RESP2 an array of pairs.
fn entries(streams: Value) -> Vec<(String, Entry)> {
    let entries = match streams {
        Value::Map(streams) => streams.into_iter().next().map(|(_, entries)| entries),
        Value::Array(streams) => {
            streams.into_iter().next().and_then(Value::into_array).and_then(|mut stream| stream.pop())
        }
        _ => None,
    };
    let entries = entries.and_then(Value::into_array).unwrap_or_default();
    let read = |entry: Value| {
        let entry = entry.into_array()?;
        let [id, fields] = &entry[..] else { return None };
        let text = |name: &str| fields.get(name).map(|value| value.text().into_owned()).unwrap_or_default();
        let number = |name: &str| text(name).parse().unwrap_or(0);
        let bytes = fields.get("text").and_then(Value::as_bytes).unwrap_or_default().to_vec();
        Some((
            id.text().into_owned(),
            Entry {
                me: text("me"),
                number: number("number"),
                what: text("what"),
                client: text("client"),
                order: number("order"),
                old: text("old"),
                new: text("new"),
                text: bytes,
            },
        ))
    };
    entries.into_iter().filter_map(read).collect()
}

/// The server ends: what its clients say until they are closed goes out, and they leave.
pub fn end(map: &mut ChannelMap, shared: &Shared) {
    if let Some(bus) = &mut shared.borrow_mut().bus {
        bus.is_ending = true;
    }
    finish(shared, map);
}

/// If the server ends: no client is closed while something is owed, and the bus ends with the last of them.
pub fn finish(shared: &Shared, map: &mut ChannelMap) {
    let mut guard = shared.borrow_mut();
    if !guard.bus.as_ref().is_some_and(|bus| bus.is_ending && !bus.has_ended) {
        return;
    }
    let tokens = guard.tokens();
    let Some(bus) = &mut guard.bus else { return };
    let owes = bus.is_linked && !bus.ops.is_empty();
    for token in &tokens {
        if let Ok(mut ch) = map.channel(*token) {
            ch.set_busy(owes);
        }
    }
    if owes || !tokens.is_empty() {
        return;
    }
    bus.has_ended = true;
    let command =
        Command::from(["EVAL", LEASE, "1", PREFIX]).arg(&bus.me).arg(0).arg("self").arg(MOST_ENTRIES);
    let _ = bus.writer.call(map, command, |_, _| {});
    bus.writer.close(map);
    bus.reader.abort(map);
}

/// What the two clients tell.
struct Link {
    room: Weak<RefCell<Room>>,
    is_writer: bool,
}

impl Link {
    fn what(&self) -> &'static str {
        if self.is_writer { "who writes" } else { "who reads" }
    }
}

impl Handler for Link {
    fn connected(&mut self, map: &mut ChannelMap, _: &Redis, _: &Server) {
        let Some(room) = self.room.upgrade() else { return };
        log::info!("{} is connected to the bus", self.what());
        match self.is_writer {
            true => lease(&room, map),
            false => read(&room, map),
        }
        link(&room, map);
    }

    fn disconnected(&mut self, map: &mut ChannelMap, _: &Redis, cause: &Cause) {
        let Some(room) = self.room.upgrade() else { return };
        log::info!("{} is not connected to the bus: {cause}", self.what());
        if let Some(bus) = &mut room.borrow_mut().bus {
            if self.is_writer {
                (bus.is_leased, bus.leased_since, bus.script) = (false, None, None);
            } else {
                (bus.is_reading, bus.has_looked) = (false, false);
            }
            bus.is_down();
        }
        finish(&room, map);
    }

    fn gone(&mut self, map: &mut ChannelMap, _: &Redis, cause: &Cause) {
        let Some(room) = self.room.upgrade() else { return };
        if let Cause::Refused(error) = cause {
            room.borrow_mut().failure = Some(format!("the bus refuses this node: {error}"));
            map.stop();
        }
    }
}
