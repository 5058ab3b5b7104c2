//! A shortage: the system has no buffer or no memory to send with. It passes, and is nothing that is wrong
//! with the connection. Nothing reports its end, so output is offered again after a pause.

use crate::link::due::Step;
use crate::link::rare::Shortage;
use crate::link::state::Link;

impl Link {
    /// A send has met a shortage: what is queued waits.
    #[cold]
    pub(super) fn meets_shortage(&mut self) {
        self.output.blocked = true;
        let rare = self.rare();
        rare.shortage = match rare.shortage {
            Shortage::None => Shortage::Met { before: 0 },
            Shortage::Over { before } => Shortage::Met { before: before.saturating_add(1) },
            other => other,
        };
        self.due.set(Step::Look);
    }

    /// How many pauses there were before this one, if one is to begin now.
    pub(crate) fn begins_pause(&mut self) -> Option<u8> {
        let rare = self.rare.as_mut()?;
        let Shortage::Met { before } = rare.shortage else { return None };
        rare.shortage = Shortage::Waits { before };
        Some(before)
    }

    /// The pause is over: offer the output again.
    pub(crate) fn ends_pause(&mut self) {
        let Some(rare) = &mut self.rare else { return };
        if let Shortage::Waits { before } = rare.shortage {
            rare.shortage = Shortage::Over { before };
            self.output.blocked = false;
            self.due.set(Step::Flush);
        }
    }

    /// A byte was sent.
    pub(super) fn forget_shortage(&mut self) {
        if let Some(rare) = &mut self.rare {
            rare.shortage = Shortage::None;
        }
    }

    /// Whether output waits for the end of a pause.
    pub(super) fn is_short(&self) -> bool {
        let shortage = self.rare.as_ref().map(|rare| rare.shortage);
        matches!(shortage, Some(Shortage::Met { .. } | Shortage::Waits { .. }))
    }
}
