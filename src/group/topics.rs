//! Topics: what one channel publishes, all that have subscribed to it get, on whichever loop they are.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::group::loops::{Loops, not_told};
use crate::{Channel, ChannelMap, Token};

/// Publish and subscribe over all loops of a [`LoopGroup`](crate::LoopGroup). Clones are the same topics.
///
/// What one channel publishes arrives at each subscriber in that order, once; what is published on several loops
/// at once may arrive in another order at subscribers on other loops. A subscription ends with its channel. A
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
///         ch.read_with(|ch, data| topics.publish(ch.map_mut(), "room", data))
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
pub struct Topics {
    loops: Loops,
    /// For each loop its subscribers, by topic. Only its own thread changes them.
    subscribers: Arc<[Subscribers]>,
}

#[derive(Default)]
struct Subscribers(Mutex<HashMap<String, BTreeSet<Token>>>);

impl Subscribers {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, BTreeSet<Token>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Topics {
    /// Topics over these loops.
    pub fn new(loops: &Loops) -> Topics {
        let subscribers = (0..loops.len()).map(|_| Subscribers::default()).collect();
        Topics { loops: loops.clone(), subscribers }
    }

    /// From now on the channel gets what is published under `topic`, what it publishes itself included. No
    /// effect if it has subscribed already, or its map is none of the group's.
    pub fn subscribe(&self, ch: &mut Channel<'_>, topic: &str) {
        let Some(own) = self.loops.index_of(ch.map()) else { return };
        let token = ch.token();
        self.subscribers[own].lock().entry(topic.to_owned()).or_default().insert(token);
    }

    /// The channel no longer gets what is published under `topic`.
    pub fn unsubscribe(&self, ch: &mut Channel<'_>, topic: &str) {
        let Some(own) = self.loops.index_of(ch.map()) else { return };
        let mut topics = self.subscribers[own].lock();
        if let Some(tokens) = topics.get_mut(topic) {
            tokens.remove(&ch.token());
            if tokens.is_empty() {
                topics.remove(topic);
            }
        }
    }

    /// Send `bytes` to all that have subscribed to `topic`: those on this loop at once, and one message to each
    /// other loop, which share one copy.
    ///
    /// # Errors
    /// Another loop could not be told, because its queue is full or it has ended; the others were.
    pub fn publish(&self, map: &mut ChannelMap, topic: &str, bytes: &[u8]) -> io::Result<()> {
        let own = self.loops.index_of(map);
        if let Some(own) = own {
            self.deliver(own, map, topic, bytes);
        }
        let message: Arc<(String, Box<[u8]>)> = Arc::new((topic.to_owned(), bytes.into()));
        let mut result = Ok(());
        for index in (0..self.loops.len()).filter(|index| Some(*index) != own) {
            let (topics, message) = (self.clone(), message.clone());
            let sent = self.loops.remote(index).call(move |map| {
                let (topic, bytes) = &*message;
                topics.deliver(index, map, topic, bytes);
            });
            if let Err(refused) = sent {
                result = result.and(Err(not_told(index, &refused)));
            }
        }
        result
    }

    fn deliver(&self, index: usize, map: &mut ChannelMap, topic: &str, bytes: &[u8]) {
        let mut topics = self.subscribers[index].lock();
        let Some(tokens) = topics.get_mut(topic) else { return };
        tokens.retain(|token| map.contains(*token));
        map.broadcast(tokens.iter().copied(), bytes);
        if tokens.is_empty() {
            topics.remove(topic);
        }
    }
}

impl fmt::Debug for Topics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topics: usize = self.subscribers.iter().map(|topics| topics.lock().len()).sum();
        f.debug_struct("Topics").field("topics", &topics).finish_non_exhaustive()
    }
}
