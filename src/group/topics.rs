//! Topics: what one channel publishes, all that have subscribed to it get, on whichever loop they are.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::group::loops::Loops;
use crate::{Channel, ChannelMap, Token};

/// Publish and subscribe over all loops of a [`LoopGroup`](crate::LoopGroup). Clones are the same topics.
///
/// What is published on one loop arrives at each subscriber in that order, once; what is published on several
/// loops at once may arrive in another order at subscribers on other loops. A subscription ends with its channel. A
/// subscriber that does not read is ended at its limit, as by [`broadcast`](ChannelMap::broadcast).
///
/// ```
/// use dispatch_loop::{Channel, Dispatcher, LoopGroup, Topics};
/// use std::io;
///
/// struct Member {
///     topics: Topics,
/// }
///
/// impl Dispatcher for Member {
///     fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
///         self.topics.subscribe(ch, "room");
///         Ok(())
///     }
///     fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
///         let topics = self.topics.clone();
///         let own = ch.token();
///         ch.read_with(|ch, data| topics.publish_from(ch.map_mut(), own, "room", data))
///     }
/// }
///
/// let group = LoopGroup::start(2, |_, _| Ok(()))?;
/// let topics = Topics::new(&group.loops());
/// # group.stop();
/// # group.join()?;
/// # io::Result::Ok(())
/// ```
#[derive(Clone)]
pub struct Topics(Arc<Shared>);

struct Shared {
    loops: Loops,
    desks: Box<[Desk]>,
}

/// One loop.
#[derive(Default)]
struct Desk {
    /// Only its own thread changes them.
    subscribers: Mutex<Subscribers>,
    /// What other loops have published and this one has not delivered.
    inbox: Mutex<Inbox>,
}

#[derive(Default)]
struct Subscribers {
    topics: HashMap<String, BTreeSet<Token>>,
    /// How many subscriptions there are, those of channels that have ended included.
    count: usize,
    /// At how many those are looked for.
    look_at: usize,
}

#[derive(Default)]
struct Inbox {
    waiting: VecDeque<Arc<Message>>,
    bytes: usize,
    /// A call to the loop is under way, which delivers what waits: there is one at most.
    is_told: bool,
}

struct Message {
    topic: String,
    bytes: Box<[u8]>,
}

/// What may wait for one loop, in bytes.
const LIMIT: usize = 16 * 1024 * 1024;

/// How much of it one call delivers.
const BATCH: usize = 256;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Message {
    fn cost(&self) -> usize {
        size_of::<Message>() + self.topic.len() + self.bytes.len()
    }
}

impl Subscribers {
    fn add(&mut self, map: &ChannelMap, topic: &str, token: Token) {
        let subscribers = self.topics.entry(topic.to_owned()).or_default();
        self.count += usize::from(subscribers.insert(token));
        if self.count > self.look_at {
            // There are as many that live as those that have come since the last look: a small share of each.
            self.topics.retain(|_, tokens| {
                tokens.retain(|token| map.contains(*token));
                !tokens.is_empty()
            });
            self.count = self.topics.values().map(BTreeSet::len).sum();
            self.look_at = 64.max(2 * self.count);
        }
    }

    fn remove(&mut self, topic: &str, token: Token) {
        let Some(tokens) = self.topics.get_mut(topic) else { return };
        self.count -= usize::from(tokens.remove(&token));
        if tokens.is_empty() {
            self.topics.remove(topic);
        }
    }
}

impl Topics {
    /// Topics over these loops.
    pub fn new(loops: &Loops) -> Topics {
        let desks = (0..loops.len()).map(|_| Desk::default()).collect();
        Topics(Arc::new(Shared { loops: loops.clone(), desks }))
    }

    /// From now on the channel gets what is published under `topic`. No effect if it has subscribed already, or
    /// its map is none of these loops'.
    pub fn subscribe(&self, ch: &mut Channel<'_>, topic: &str) {
        if let Some(desk) = self.desk_of(ch.map()) {
            lock(&desk.subscribers).add(ch.map(), topic, ch.token());
        }
    }

    /// The channel no longer gets what is published under `topic`.
    pub fn unsubscribe(&self, ch: &mut Channel<'_>, topic: &str) {
        if let Some(desk) = self.desk_of(ch.map()) {
            lock(&desk.subscribers).remove(topic, ch.token());
        }
    }

    fn desk_of(&self, map: &ChannelMap) -> Option<&Desk> {
        self.0.loops.index_of(map).map(|own| &self.0.desks[own])
    }

    /// Send `bytes` to all that have subscribed to `topic`: those on this loop at once, and one message to each
    /// other loop, which share one copy. Never waits.
    ///
    /// # Errors
    /// `QuotaExceeded`: 16 MiB wait for one of the other loops, which was left out. Whoever
    /// publishes for a peer should read no more from it while [much waits](Topics::backlog).
    pub fn publish(&self, map: &mut ChannelMap, topic: &str, bytes: &[u8]) -> io::Result<()> {
        self.send(map, None, topic, bytes)
    }

    /// As [`publish`](Topics::publish), to all but `from`.
    ///
    /// # Errors
    /// As that.
    pub fn publish_from(
        &self,
        map: &mut ChannelMap,
        from: impl Into<Token>,
        topic: &str,
        bytes: &[u8],
    ) -> io::Result<()> {
        self.send(map, Some(from.into()), topic, bytes)
    }

    /// The most that waits for one of the loops, in bytes, because it was busy since it was published.
    pub fn backlog(&self) -> usize {
        self.0.desks.iter().map(|desk| lock(&desk.inbox).bytes).max().unwrap_or(0)
    }

    fn send(&self, map: &mut ChannelMap, but: Option<Token>, topic: &str, bytes: &[u8]) -> io::Result<()> {
        let own = self.0.loops.index_of(map);
        if let Some(own) = own {
            self.0.deliver(own, map, but, topic, bytes);
        }
        let mut message = None;
        let mut result = Ok(());
        for index in (0..self.0.desks.len()).filter(|index| Some(*index) != own) {
            let new = || Arc::new(Message { topic: topic.to_owned(), bytes: bytes.into() });
            let sent = self.0.post(index, message.get_or_insert_with(new));
            result = result.and(sent);
        }
        result
    }
}

impl Shared {
    fn post(self: &Arc<Shared>, index: usize, message: &Arc<Message>) -> io::Result<()> {
        let mut inbox = lock(&self.desks[index].inbox);
        if self.loops.remote(index).is_stopped() {
            // It has ended, and so have its subscribers.
            *inbox = Inbox::default();
            return Ok(());
        }
        if inbox.bytes + message.cost() > LIMIT && !inbox.waiting.is_empty() {
            let why = format!("loop {index}: {} bytes wait to be delivered", inbox.bytes);
            return Err(io::Error::new(ErrorKind::QuotaExceeded, why));
        }
        inbox.bytes += message.cost();
        inbox.waiting.push_back(message.clone());
        if !std::mem::replace(&mut inbox.is_told, true) {
            drop(inbox);
            self.tell(index);
        }
        Ok(())
    }

    /// One call at a time is under way to each loop: it needs no room in the queue of the others.
    fn tell(self: &Arc<Shared>, index: usize) {
        let own = self.clone();
        // Refused only if it has ended.
        let _ = self.loops.remote(index).call_after_stop(move |map| own.take_in(index, map));
    }

    fn take_in(self: &Arc<Shared>, index: usize, map: &mut ChannelMap) {
        for _ in 0..BATCH {
            let mut inbox = lock(&self.desks[index].inbox);
            let Some(message) = inbox.waiting.pop_front() else {
                inbox.is_told = false;
                return;
            };
            inbox.bytes -= message.cost();
            drop(inbox);
            self.deliver(index, map, None, &message.topic, &message.bytes);
        }
        self.tell(index);
    }

    fn deliver(&self, index: usize, map: &mut ChannelMap, but: Option<Token>, topic: &str, bytes: &[u8]) {
        let subscribers = lock(&self.desks[index].subscribers);
        if let Some(tokens) = subscribers.topics.get(topic) {
            map.broadcast(tokens.iter().copied().filter(|token| Some(*token) != but), bytes);
        }
    }
}

impl fmt::Debug for Topics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subscriptions: usize = self.0.desks.iter().map(|desk| lock(&desk.subscribers).count).sum();
        f.debug_struct("Topics")
            .field("subscriptions", &subscriptions)
            .field("backlog", &self.backlog())
            .finish_non_exhaustive()
    }
}
