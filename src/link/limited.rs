//! The limits of a listener, and the place that a connection has taken within them.

use crate::link::admission::Admission;
use crate::link::rare::Rare;
use crate::link::state::Link;
use crate::net::limits::AcceptLimits;
use crate::net::places::Permit;

impl Link {
    /// Limits of a listener. What it has in hand stays there.
    pub(crate) fn set_admission(&mut self, mut admission: Admission) {
        let rare = self.rare();
        if let Some(before) = rare.admission.take() {
            admission.follows(*before);
        }
        rare.admission = Some(Box::new(admission));
    }

    #[inline]
    pub(crate) fn is_limited(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.admission.is_some())
    }

    pub(crate) fn admission(&mut self) -> Option<&mut Admission> {
        self.rare.as_mut()?.admission.as_deref_mut()
    }

    pub(crate) fn accept_limits(&self) -> Option<&AcceptLimits> {
        Some(self.rare.as_ref()?.admission.as_ref()?.limits())
    }

    /// Whether a connection is to be handed over, for which no event comes.
    pub(crate) fn has_in_hand(&self) -> bool {
        let has = |rare: &Rare| rare.admission.as_ref().is_some_and(|admission| admission.has_in_hand());
        self.rare.as_deref().is_some_and(has)
    }

    /// The place that the connection has.
    #[cfg(feature = "proxy-protocol")]
    pub(crate) fn permit(&mut self) -> Option<&mut Permit> {
        self.rare.as_mut()?.permit.as_deref_mut()
    }

    /// The place that the connection has taken.
    pub(crate) fn take_permit(&mut self) -> Option<Box<Permit>> {
        self.rare.as_mut()?.permit.take()
    }
}
