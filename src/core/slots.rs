//! The generational table: finds what a [`Token`] names in O(1), and never another thing in its place.

use crate::token::{Token, key};

struct Slot<T> {
    /// Map and generation of what is in this slot. In a vacant one: the next generation and the map
    /// number 0, so that no token matches.
    key: u64,
    /// In a vacant slot: the default, or what the caller of `vacate` left.
    value: T,
}

impl<T> Slot<T> {
    fn is_vacant(&self) -> bool {
        self.key >> 32 == 0
    }
}

/// The slots of one map. A slot that has used up its generations is retired.
pub(crate) struct Slots<T> {
    map: u32,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    live: usize,
}

impl<T: Default> Slots<T> {
    pub(crate) fn new(map: u32) -> Slots<T> {
        Slots { map, slots: Vec::new(), free: Vec::new(), live: 0 }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    /// Slots in use or ever used: the bound for [`token_at`](Slots::token_at).
    pub(crate) fn used(&self) -> usize {
        self.slots.len()
    }

    /// Take a vacant slot, whose value the caller fills in; `None` when all 2^32 are in use.
    #[inline(always)]
    pub(crate) fn occupy(&mut self) -> Option<(Token, &mut T)> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => self.new_slot()?,
        };
        let slot = self.slots.get_mut(index as usize)?;
        let token = Token::new(self.map, index, slot.key as u32);
        slot.key = token.key;
        self.live += 1;
        Some((token, &mut slot.value))
    }

    #[cold]
    fn new_slot(&mut self) -> Option<u32> {
        let index = u32::try_from(self.slots.len()).ok().filter(|&index| index < u32::MAX)?;
        self.slots.push(Slot { key: 0, value: T::default() });
        Some(index)
    }

    #[inline]
    pub(crate) fn get(&self, token: Token) -> Option<&T> {
        let slot = self.slots.get(token.slot as usize)?;
        (slot.key == token.key).then_some(&slot.value)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, token: Token) -> Option<&mut T> {
        let slot = self.slots.get_mut(token.slot as usize)?;
        (slot.key == token.key).then_some(&mut slot.value)
    }

    /// What is in this slot now, and its token, which is [stale](Token::is_stale) if the slot is vacant.
    #[inline]
    pub(crate) fn entry_at(&mut self, index: usize) -> Option<(Token, &mut T)> {
        let slot = self.slots.get_mut(index)?;
        Some((Token { key: slot.key, slot: index as u32 }, &mut slot.value))
    }

    /// The token of what is in this slot now.
    pub(crate) fn token_at(&self, index: usize) -> Option<Token> {
        let slot = self.slots.get(index).filter(|slot| !slot.is_vacant())?;
        Some(Token { key: slot.key, slot: index as u32 })
    }

    /// Free a slot. The caller empties the value, which is kept for the next to occupy the slot.
    pub(crate) fn vacate(&mut self, token: Token) -> Option<&mut T> {
        let slot = self.slots.get_mut(token.slot as usize).filter(|slot| slot.key == token.key)?;
        slot.key = 0;
        if let Some(next) = token.generation().checked_add(1) {
            slot.key = key(0, next);
            self.free.push(token.slot);
        }
        self.live -= 1;
        Some(&mut slot.value)
    }

    pub(crate) fn tokens(&self) -> impl Iterator<Item = Token> + '_ {
        (0..self.slots.len()).filter_map(|index| self.token_at(index))
    }

    /// For tests: the next insertion uses a slot with only `left` generations after it.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn wear_out(&mut self, left: u32) {
        if let Some(index) = self.new_slot() {
            self.slots[index as usize].key = key(0, u32::MAX - left);
            self.free.push(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert<T: Default>(slots: &mut Slots<T>, value: T) -> Token {
        let (token, place) = slots.occupy().unwrap();
        *place = value;
        token
    }

    #[test]
    fn a_token_names_one_thing_for_ever() {
        let mut slots = Slots::new(1);
        let tokens: Vec<Token> = (0..200).map(|n| insert(&mut slots, n)).collect();
        assert!(tokens.iter().enumerate().all(|(n, token)| slots.get(*token) == Some(&n)));
        assert_eq!(slots.vacate(tokens[70]), Some(&mut 70));
        let again = insert(&mut slots, 1000);
        assert_eq!(again.slot, tokens[70].slot);
        assert_eq!(slots.get(tokens[70]), None);
        assert_eq!(slots.vacate(tokens[70]), None);
        assert_eq!(slots.get_mut(again), Some(&mut 1000));
        assert_eq!(slots.len(), 200);
    }

    #[test]
    fn a_token_of_another_map_names_nothing() {
        let (mut here, mut there) = (Slots::new(1), Slots::new(2));
        let token = insert(&mut here, 'a');
        insert(&mut there, 'b');
        assert_eq!(there.get(token), None);
    }

    #[test]
    fn a_worn_out_slot_is_not_used_again() {
        let mut slots = Slots::new(1);
        slots.wear_out(1);
        let first = insert(&mut slots, 1);
        slots.vacate(first);
        let last = insert(&mut slots, 2);
        assert_eq!((last.slot, last.generation()), (first.slot, u32::MAX));
        slots.vacate(last);
        assert_ne!(insert(&mut slots, 3).slot, last.slot);
        assert_eq!(slots.get(last), None);
    }
}
