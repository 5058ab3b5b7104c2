//! The generational table: what a [`Token`] names, found in O(1) and never another thing in its place.

use crate::token::Token;

/// Slots that one page has. What is in a slot stays where it is; a page is never given back.
const PAGE: usize = 64;

struct Slot<T> {
    /// Map and generation of what is, or comes next, in this slot: one compare finds a stale token.
    key: u64,
    value: Option<T>,
}

/// The slots of one map. A slot whose generations are used up is not used again.
pub(crate) struct Slots<T> {
    map: u32,
    pages: Vec<Box<[Slot<T>]>>,
    /// Slots that were ever used: the bound of [`token_at`](Slots::token_at).
    used: usize,
    free: Vec<u32>,
    live: usize,
}

fn key(map: u32, generation: u32) -> u64 {
    u64::from(map) << 32 | u64::from(generation)
}

impl<T> Slots<T> {
    pub(crate) fn new(map: u32) -> Slots<T> {
        Slots { map, pages: Vec::new(), used: 0, free: Vec::new(), live: 0 }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// `None` when all 2^32 are in use.
    pub(crate) fn insert(&mut self, value: T) -> Option<Token> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => self.new_slot()?,
        };
        let slot = self.slot_mut(index)?;
        slot.value = Some(value);
        let generation = slot.key as u32;
        self.live += 1;
        Some(Token { map: self.map, slot: index, generation })
    }

    #[cold]
    fn new_slot(&mut self) -> Option<u32> {
        let index = u32::try_from(self.used).ok().filter(|&index| index < u32::MAX)?;
        if self.used == self.pages.len() * PAGE {
            let fresh = key(self.map, 0);
            self.pages.push((0..PAGE).map(|_| Slot { key: fresh, value: None }).collect());
        }
        self.used += 1;
        Some(index)
    }

    #[inline]
    fn slot(&self, index: u32) -> Option<&Slot<T>> {
        self.pages.get(index as usize / PAGE)?.get(index as usize % PAGE)
    }

    #[inline]
    fn slot_mut(&mut self, index: u32) -> Option<&mut Slot<T>> {
        self.pages.get_mut(index as usize / PAGE)?.get_mut(index as usize % PAGE)
    }

    #[inline]
    pub(crate) fn get(&self, token: Token) -> Option<&T> {
        let slot = self.slot(token.slot)?;
        if slot.key != token.key() {
            return None;
        }
        slot.value.as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, token: Token) -> Option<&mut T> {
        let slot = self.slot_mut(token.slot)?;
        if slot.key != token.key() {
            return None;
        }
        slot.value.as_mut()
    }

    /// What is in this slot now, and its name.
    #[inline]
    pub(crate) fn entry_at(&mut self, index: usize) -> Option<(Token, &mut T)> {
        let index = u32::try_from(index).ok()?;
        let map = self.map;
        let slot = self.slot_mut(index)?;
        let token = Token { map, slot: index, generation: slot.key as u32 };
        Some((token, slot.value.as_mut()?))
    }

    /// The name of what is in this slot now.
    pub(crate) fn token_at(&self, index: usize) -> Option<Token> {
        let index = u32::try_from(index).ok()?;
        let slot = self.slot(index)?;
        slot.value.as_ref()?;
        Some(Token { map: self.map, slot: index, generation: slot.key as u32 })
    }

    pub(crate) fn remove(&mut self, token: Token) -> Option<T> {
        let slot = self.slot_mut(token.slot).filter(|slot| slot.key == token.key())?;
        let value = slot.value.take()?;
        if let Some(next) = token.generation.checked_add(1) {
            slot.key = key(token.map, next);
            self.free.push(token.slot);
        }
        self.live -= 1;
        Some(value)
    }

    pub(crate) fn tokens(&self) -> impl Iterator<Item = Token> + '_ {
        (0..self.used).filter_map(|index| self.token_at(index))
    }

    /// For a test: let the next thing have a slot with only `left` generations after it.
    #[cfg(any(test, feature = "faults"))]
    pub(crate) fn wear_out(&mut self, left: u32) {
        if let Some(index) = self.new_slot() {
            let worn = key(self.map, u32::MAX - left);
            if let Some(slot) = self.slot_mut(index) {
                slot.key = worn;
            }
            self.free.push(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_one_thing_for_ever() {
        let mut slots = Slots::new(1);
        let tokens: Vec<Token> = (0..200).map(|n| slots.insert(n).unwrap()).collect();
        assert!(tokens.iter().enumerate().all(|(n, token)| slots.get(*token) == Some(&n)));
        assert_eq!(slots.remove(tokens[70]), Some(70));
        let again = slots.insert(1000).unwrap();
        assert_eq!(again.slot, tokens[70].slot);
        assert_eq!(slots.get(tokens[70]), None);
        assert_eq!(slots.remove(tokens[70]), None);
        assert_eq!(slots.get_mut(again), Some(&mut 1000));
        assert_eq!(slots.len(), 200);
    }

    #[test]
    fn a_token_of_another_map_names_nothing() {
        let (mut here, mut there) = (Slots::new(1), Slots::new(2));
        let token = here.insert('a').unwrap();
        there.insert('b').unwrap();
        assert_eq!(there.get(token), None);
    }

    #[test]
    fn a_worn_out_slot_is_not_used_again() {
        let mut slots = Slots::new(1);
        slots.wear_out(1);
        let first = slots.insert(1).unwrap();
        slots.remove(first);
        let last = slots.insert(2).unwrap();
        assert_eq!((last.slot, last.generation), (first.slot, u32::MAX));
        slots.remove(last);
        assert_ne!(slots.insert(3).unwrap().slot, last.slot);
        assert_eq!(slots.get(last), None);
    }
}
