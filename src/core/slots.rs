//! The generational table: what a `Token` names, found in O(1).

use crate::token::Token;

/// The slots of one map. A slot whose generations are used up is not used again.
pub(crate) struct Slots<T> {
    map: u64,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    live: usize,
}

struct Slot<T> {
    generation: u32,
    state: Option<Box<T>>,
}

impl<T> Slots<T> {
    pub(crate) fn new(map: u64) -> Slots<T> {
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
    pub(crate) fn insert(&mut self, state: Box<T>) -> Option<Token> {
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
    pub(crate) fn get(&self, token: Token) -> Option<&T> {
        let slot = self.slots.get(token.slot as usize)?;
        if token.map != self.map || token.generation != slot.generation {
            return None;
        }
        slot.state.as_deref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, token: Token) -> Option<&mut T> {
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

    pub(crate) fn remove(&mut self, token: Token) -> Option<Box<T>> {
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
    #[cfg(debug_assertions)]
    pub(crate) fn wear_out(&mut self, left: u32) {
        self.free.push(self.slots.len() as u32);
        self.slots.push(Slot { generation: u32::MAX - left, state: None });
    }
}
