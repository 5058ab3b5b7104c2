//! The names of channels: `Token` for any, `Handle<T>` for one whose dispatcher is a `T`.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

/// Names one channel for ever: never another one, even after its slot or its descriptor was reused.
/// The keys of asyncore's map are descriptors, which the system reuses.
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
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    /// Map and generation in one, as the slot has them: one compare finds a stale token.
    pub(crate) key: u64,
    pub(crate) slot: u32,
}

impl Token {
    /// Names nothing: no map has the number 0.
    pub(crate) const NONE: Token = Token { key: 0, slot: u32::MAX };

    pub(crate) fn new(map: u32, slot: u32, generation: u32) -> Token {
        Token { key: key(map, generation), slot }
    }

    pub(crate) fn number_of_map(self) -> u32 {
        (self.key >> 32) as u32
    }

    /// Whether it is of no map, as is that of a vacant slot.
    pub(crate) fn is_stale(self) -> bool {
        self.number_of_map() == 0
    }

    pub(crate) fn generation(self) -> u32 {
        self.key as u32
    }

    /// A handle for this channel. Whether its dispatcher is a `T` is checked at each use.
    pub fn typed<T>(self) -> Handle<T> {
        Handle { token: self, dispatcher: PhantomData }
    }
}

/// The key by which a slot knows its channel.
pub(crate) fn key(map: u32, generation: u32) -> u64 {
    u64::from(map) << 32 | u64::from(generation)
}

impl PartialOrd for Token {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// By map, slot and generation.
impl Ord for Token {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.number_of_map(), self.slot, self.generation()).cmp(&(
            other.number_of_map(),
            other.slot,
            other.generation(),
        ))
    }
}

/// Slot and generation, as in the log.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({self} of map {})", self.number_of_map())
    }
}

/// A [`Token`] with the type of the channel's dispatcher, which it gives access to without a downcast.
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
    /// The channel's token.
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

impl<T> PartialOrd for Handle<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Handle<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.token.cmp(&other.token)
    }
}

impl<T> Hash for Handle<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.token.hash(state);
    }
}

impl<T> fmt::Debug for Handle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({} of map {})", self.token, self.token.number_of_map())
    }
}

impl<T> From<Handle<T>> for Token {
    fn from(handle: Handle<T>) -> Self {
        handle.token
    }
}
