//! What a listener with limits knows: which of them hold somebody up, and a connection that has taken one of
//! the last descriptors.

use crate::net::full::Full;
use crate::net::limits::AcceptLimits;
use crate::net::places::{Permit, Waiter};
use crate::sys::stream::Accepted;

pub(crate) struct Admission {
    limits: AcceptLimits,
    waiter: Waiter,
    /// Descriptors from this number on are held back.
    ceiling: i32,
    in_hand: Option<InHand>,
    holding: Vec<Holding>,
}

/// A limit that holds somebody up.
pub(crate) struct Holding {
    pub(crate) full: Full,
    /// Since it began to.
    pub(crate) refused: u64,
    lately: bool,
}

/// A connection that is handed over when there are more descriptors.
pub(crate) struct InHand {
    pub(crate) accepted: Accepted,
    pub(crate) permit: Box<Permit>,
}

impl Admission {
    pub(crate) fn new(limits: AcceptLimits, waiter: Waiter) -> Admission {
        let ceiling = limits.ceiling().unwrap_or(i32::MAX);
        Admission { limits, waiter, ceiling, in_hand: None, holding: Vec::new() }
    }

    pub(crate) fn limits(&self) -> &AcceptLimits {
        &self.limits
    }

    pub(crate) fn waiter(&self) -> &Waiter {
        &self.waiter
    }

    pub(crate) fn is_held_back(&self, number: i32) -> bool {
        number >= self.ceiling
    }

    pub(crate) fn keep_in_hand(&mut self, accepted: Accepted, permit: Box<Permit>) {
        self.in_hand = Some(InHand { accepted, permit });
    }

    pub(crate) fn take_in_hand(&mut self) -> Option<InHand> {
        self.in_hand.take()
    }

    /// A limit holds somebody up, or refuses; `true` if it has just begun to.
    pub(crate) fn holds(&mut self, full: &Full, refuses: bool) -> bool {
        let limit = full.limit();
        let known = self.holding.iter_mut().find(|held| held.full.limit() == limit);
        let begins = known.is_none();
        match known {
            Some(held) => {
                held.refused += u64::from(refuses);
                held.lately = true;
            }
            None => self.holding.push(Holding { full: full.clone(), refused: refuses.into(), lately: true }),
        }
        begins
    }

    /// Take over what these limits replace.
    pub(super) fn follows(&mut self, before: Admission) {
        self.in_hand = before.in_hand;
        self.holding = before.holding;
    }

    pub(super) fn has_in_hand(&self) -> bool {
        self.in_hand.is_some()
    }

    pub(crate) fn holds_any(&self) -> bool {
        !self.holding.is_empty()
    }

    /// Take out those that have held nobody up since the last call.
    pub(crate) fn take_over(&mut self) -> Vec<Holding> {
        let (over, mut holding): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.holding).into_iter().partition(|held| !held.lately);
        holding.iter_mut().for_each(|held| held.lately = false);
        self.holding = holding;
        over
    }
}
