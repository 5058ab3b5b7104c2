//! The names of channels: `Token` for any, `Handle<T>` for one whose dispatcher is a `T`; and the
//! table of slots that they name.

use std::fmt;
use std::marker::PhantomData;

use crate::state::State;

/// Names one channel for ever: never another one, even when its slot or its descriptor is used
/// again. asyncore's map has descriptors in this place, and those come back.
///
/// ```
/// use dispatch_loop::{ChannelMap, Dispatcher};
///
/// struct Quiet;
/// impl Dispatcher for Quiet {}
///
/// let mut map = ChannelMap::new()?;
/// let token = map.listen("127.0.0.1:0", Quiet)?.token();
/// map.channel(token)?.close();
/// dispatch_loop::run(&mut map)?;
/// assert!(map.channel(token).is_err());
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token {
    pub(crate) map: u64,
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl Token {
    /// A handle for this channel, if its dispatcher is a `T`; that is checked when it is used.
    pub fn typed<T>(self) -> Handle<T> {
        Handle { token: self, dispatcher: PhantomData }
    }
}

/// As in the log: slot and generation.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({self} of map {})", self.map)
    }
}

/// A [`Token`] that knows the type of the dispatcher behind it, and so leads to it without a
/// downcast.
///
/// ```
/// use dispatch_loop::{ChannelMap, Dispatcher};
///
/// struct Counter(u32);
/// impl Dispatcher for Counter {}
///
/// let mut map = ChannelMap::new()?;
/// let counter = map.listen("127.0.0.1:0", Counter(0))?;
/// map.get_mut(counter)?.0 += 1;
/// assert_eq!(map.get(counter)?.0, 1);
/// # std::io::Result::Ok(())
/// ```
pub struct Handle<T> {
    token: Token,
    dispatcher: PhantomData<fn() -> T>,
}

impl<T> Handle<T> {
    /// The name of the channel.
    pub fn token(&self) -> Token {
        self.token
    }
}

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Handle<T> {}

impl<T> PartialEq for Handle<T> {
    fn eq(&self, other: &Self) -> bool {
        self.token == other.token
    }
}

impl<T> Eq for Handle<T> {}

impl<T> fmt::Debug for Handle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({} of map {})", self.token, self.token.map)
    }
}

impl<T> From<Handle<T>> for Token {
    fn from(handle: Handle<T>) -> Self {
        handle.token
    }
}

/// The slots of one map. A slot whose generations are used up is not used again.
pub(crate) struct Slots {
    map: u64,
    slots: Vec<Slot>,
    free: Vec<u32>,
    live: usize,
}

struct Slot {
    generation: u32,
    state: Option<Box<State>>,
}

impl Slots {
    pub(crate) fn new(map: u64) -> Slots {
        Slots { map, slots: Vec::new(), free: Vec::new(), live: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.live
    }

    /// Slots in use or ever used: the bound of [`token_at`](Slots::token_at).
    pub(crate) fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// `None` when there are more than four thousand million.
    pub(crate) fn insert(&mut self, state: Box<State>) -> Option<Token> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let index = u32::try_from(self.slots.len()).ok().filter(|&index| index < u32::MAX)?;
                self.slots.push(Slot { generation: 0, state: None });
                index
            }
        };
        let slot = &mut self.slots[index as usize];
        slot.state = Some(state);
        self.live += 1;
        Some(Token { map: self.map, slot: index, generation: slot.generation })
    }

    #[inline]
    pub(crate) fn get(&self, token: Token) -> Option<&State> {
        let slot = self.slots.get(token.slot as usize)?;
        if token.map != self.map || token.generation != slot.generation {
            return None;
        }
        slot.state.as_deref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, token: Token) -> Option<&mut State> {
        let slot = self.slots.get_mut(token.slot as usize)?;
        if token.map != self.map || token.generation != slot.generation {
            return None;
        }
        slot.state.as_deref_mut()
    }

    /// The channel that is in this slot now.
    pub(crate) fn token_at(&self, index: usize) -> Option<Token> {
        let slot = self.slots.get(index)?;
        slot.state.as_ref()?;
        Some(Token { map: self.map, slot: index as u32, generation: slot.generation })
    }

    pub(crate) fn remove(&mut self, token: Token) -> Option<Box<State>> {
        self.get(token)?;
        let slot = &mut self.slots[token.slot as usize];
        let state = slot.state.take();
        self.live -= 1;
        if let Some(next) = slot.generation.checked_add(1) {
            slot.generation = next;
            self.free.push(token.slot);
        }
        state
    }

    pub(crate) fn tokens(&self) -> impl Iterator<Item = Token> + '_ {
        (0..self.slots.len()).filter_map(|index| self.token_at(index))
    }

    /// For a test: make a slot that has only `left` generations after the next one.
    #[cfg(feature = "faults")]
    pub(crate) fn wear_out(&mut self, left: u32) {
        self.free.push(self.slots.len() as u32);
        self.slots.push(Slot { generation: u32::MAX - left, state: None });
    }
}
