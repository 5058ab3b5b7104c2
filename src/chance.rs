//! Random numbers, for jitter. On a thread with a map for testing they follow its seed.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

/// From a hasher with a random seed.
pub(crate) fn random() -> u64 {
    #[cfg(feature = "testing")]
    if let Some(number) = seeded::next() {
        return number;
    }
    RandomState::new().build_hasher().finish()
}

/// What a map for testing has set for its thread.
#[cfg(feature = "testing")]
pub(crate) mod seeded {
    use std::cell::Cell;

    use super::Chance;

    thread_local! {
        static CHANCE: Cell<Option<Chance>> = const { Cell::new(None) };
    }

    pub(crate) fn set(seed: Option<u64>) {
        CHANCE.set(seed.map(Chance::new));
    }

    pub(super) fn next() -> Option<u64> {
        let mut chance = CHANCE.get()?;
        let number = chance.number();
        CHANCE.set(Some(chance));
        Some(number)
    }
}

/// SplitMix64: numbers that look random, the same for the same seed.
#[cfg(feature = "testing")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chance(u64);

#[cfg(feature = "testing")]
impl Chance {
    pub(crate) fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to less than `most`, which is not 0.
    pub(crate) fn below(&mut self, most: usize) -> usize {
        (self.number() % most as u64) as usize
    }
}
