//! What the loop knows of one channel: no map, no dispatcher, no poller. The fields are private to this
//! folder and change only by transitions, each of which records in `due` what follows from it.

pub(crate) mod account;
pub(crate) mod admission;
pub(crate) mod bandwidth;
pub(crate) mod chunk;
pub(crate) mod datagram;
pub(crate) mod deadlines;
pub(crate) mod descriptors;
pub(crate) mod dial;
pub(crate) mod due;
pub(crate) mod gathered;
pub(crate) mod guarded;
pub(crate) mod held;
pub(crate) mod input;
pub(crate) mod leaving;
pub(crate) mod life;
pub(crate) mod limited;
pub(crate) mod limits;
pub(crate) mod looks;
pub(crate) mod marks;
pub(crate) mod outbox;
pub(crate) mod output;
pub(crate) mod partners;
pub(crate) mod piece;
#[cfg(feature = "proxy-protocol")]
pub(crate) mod preface;
pub(crate) mod producer;
pub(crate) mod pushed;
pub(crate) mod rare;
pub(crate) mod room;
pub(crate) mod running;
pub(crate) mod sending;
pub(crate) mod shortage;
pub(crate) mod shown;
pub(crate) mod source;
pub(crate) mod state;
pub(crate) mod tokens;
pub(crate) mod unread;
pub(crate) mod upgrade;
pub(crate) mod watch;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::clock::{Time, Turn};
use crate::guard::drop_caught;
use crate::link::due::{Due, Step};
use crate::link::held::Held;
use crate::link::rare::Rare;
use crate::link::source::Source;
use crate::link::state::{Link, READ_BUDGET, Role, WRITE_BUDGET};
use crate::net::address::Address;
use crate::net::peer::Peer;
use crate::sys::Kind;
use crate::sys::poll::Interest;

const INPUT_ALONE: Interest = Interest { read: true, write: false };

impl Link {
    // What is due.

    #[inline]
    pub(crate) fn is_quiet(&self) -> bool {
        self.due.is_quiet()
    }

    pub(crate) fn has_steps(&self) -> bool {
        self.due.has_steps()
    }

    pub(crate) fn set_due(&mut self, step: Step) {
        self.due.set(step);
    }

    pub(crate) fn clear_due(&mut self, step: Step) {
        self.due.clear(step);
    }

    pub(crate) fn is_due(&self, step: Step) -> bool {
        self.due.has(step)
    }

    /// Nothing is left of this settle; what is done to the channel from now on is left for the next.
    #[inline]
    pub(crate) fn begin_anew(&mut self) {
        self.listed = false;
        self.due.clear(Step::Look);
    }

    /// What this settle does; what is set from now on is left for the next.
    pub(crate) fn take_due(&mut self) -> Due {
        self.due.take()
    }

    /// The settle is done with the channel: decide whether its next input can take the short way.
    pub(crate) fn settled(&mut self) {
        // It is registered for what it wants: input, and no output.
        let usual = self.watch.told == Some(INPUT_ALONE) && self.is_plain_and_idle();
        debug_assert_eq!(usual, self.is_usual());
        self.due.set_unusual(!usual);
        if !usual {
            self.note_undrained();
        }
    }

    /// The same for a channel that [`interest_if_usual`](Link::interest_if_usual) has found.
    #[inline]
    pub(crate) fn settled_with_nothing_rare(&mut self) {
        debug_assert_eq!(self.watch.told == Some(INPUT_ALONE), self.is_usual());
        self.due.set_unusual(self.watch.told != Some(INPUT_ALONE));
    }

    /// The usual state, which the short way of a message relies on: an open stream over a plain socket
    /// that is registered for input only, with nothing suspended, queued or put back, and limits that the
    /// gathered pushes of one hook cannot exceed.
    pub(crate) fn is_usual(&self) -> bool {
        self.watch.told == Some(INPUT_ALONE)
            && self.interest() == Some(INPUT_ALONE)
            && self.is_plain_and_idle()
    }

    #[inline]
    fn is_plain_and_idle(&self) -> bool {
        self.is_open()
            && self.is_plain_and_idle_stream()
            && self.rare.as_ref().is_none_or(|rare| rare.is_usual())
    }

    #[inline(always)]
    pub(super) fn is_plain_and_idle_stream(&self) -> bool {
        self.kind == Kind::Stream && matches!(self.socket, Some(Held::Plain(_))) && self.output.is_idle()
    }

    // Identity.

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn is_datagram(&self) -> bool {
        self.kind == Kind::Datagram
    }

    pub(crate) fn role(&self) -> Role {
        self.role
    }

    /// The channel has ended: free everything. Returns its role.
    #[inline(always)]
    pub(crate) fn empty(&mut self) -> Role {
        debug_assert!(self.socket.is_none() && self.output.is_empty() && self.is_told());
        self.output.queue = None;
        self.local = None;
        if let Some(rare) = self.rare.take() {
            // An error in it may be a user's.
            drop_caught("an error", rare);
        }
        self.role
    }

    pub(crate) fn set_role(&mut self, role: Role) -> Role {
        std::mem::replace(&mut self.role, role)
    }

    /// Whether `readable` and `writable` must be asked, because the dispatcher may override them.
    #[inline]
    pub(crate) fn asks(&self) -> bool {
        self.due.asks()
    }

    pub(crate) fn set_asks(&mut self, asks: bool) {
        self.due.set_asks(asks);
    }

    #[inline(always)]
    pub(crate) fn peer(&self) -> Option<Address> {
        match self.peer {
            Peer::Elsewhere => self.rare.as_ref()?.peer.clone(),
            peer => peer.address(),
        }
    }

    pub(crate) fn set_peer(&mut self, address: Option<Address>) {
        let Some(address) = address else { return };
        self.peer = Peer::new(&address);
        if matches!(self.peer, Peer::Elsewhere) {
            self.rare().peer = Some(address);
        }
    }

    pub(crate) fn local(&self) -> Option<&Arc<Address>> {
        self.local.as_ref()
    }

    pub(crate) fn set_local(&mut self, address: Option<Arc<Address>>) {
        self.local = address;
    }

    // The socket.

    #[inline]
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref()?.descriptor()
    }

    pub(crate) fn source(&self) -> Option<&Held> {
        self.socket.as_ref()
    }

    pub(crate) fn source_mut(&mut self) -> Option<&mut dyn Source> {
        self.socket.as_mut().map(Held::as_dyn)
    }

    pub(crate) fn take_source(&mut self) -> Option<Held> {
        self.socket.take()
    }

    pub(crate) fn set_source(&mut self, source: Option<Held>) {
        self.socket = source;
        self.output.blocked = false;
        self.due.set(Step::Look);
        if !self.output.is_empty() {
            self.due.set(Step::Flush);
        }
    }

    /// Whether the source is not a plain socket.
    pub(crate) fn has_own_source(&self) -> bool {
        matches!(self.socket, Some(Held::Own(_)))
    }

    pub(crate) fn is_established(&self) -> bool {
        match &self.socket {
            Some(Held::Plain(_)) => true,
            Some(Held::Own(source)) => source.is_established(),
            None => false,
        }
    }

    pub(crate) fn output_pending(&self) -> bool {
        match &self.socket {
            Some(Held::Own(source)) => source.output_pending(),
            _ => false,
        }
    }

    // Time.

    /// A byte was received or sent. The time of the turn is good enough here.
    #[inline]
    pub(crate) fn stamp(&mut self, now: Time) {
        self.active = Some(now);
    }

    pub(crate) fn active(&self) -> Option<Time> {
        self.active
    }

    /// The turn in which a byte was last received or sent; 0 if that was never.
    pub(crate) fn last_turn(&self) -> u32 {
        self.turn
    }

    // The budgets.

    #[inline]
    pub(super) fn renew_budgets(&mut self, turn: Turn) {
        if self.turn != turn.number {
            self.new_budgets(turn.number);
        }
    }

    #[inline]
    fn new_budgets(&mut self, turn: u32) {
        self.turn = turn;
        self.read_left = READ_BUDGET;
        self.write_left = WRITE_BUDGET;
    }

    pub(crate) fn read_budget(&mut self, turn: Turn) -> &mut u32 {
        self.renew_budgets(turn);
        &mut self.read_left
    }

    pub(crate) fn write_budget(&mut self, turn: Turn) -> &mut u32 {
        self.renew_budgets(turn);
        &mut self.write_left
    }

    // What most channels never have.

    pub(crate) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    pub(crate) fn rare_if_any(&self) -> Option<&Rare> {
        self.rare.as_deref()
    }

    pub(crate) fn rare_mut_if_any(&mut self) -> Option<&mut Rare> {
        self.rare.as_deref_mut()
    }

    /// Note the error of a `with` on the channel for the settle; only the first is kept.
    pub(crate) fn note_failure(&mut self, error: io::Error) {
        self.rare().failure.get_or_insert(error);
        self.due.set(Step::Failure);
    }
}
