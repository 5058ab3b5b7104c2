//! What a map for testing holds besides: its peers, its server, its seed.

use std::cell::RefCell;
use std::rc::Rc;

use crate::chance::{Chance, seeded};
use crate::clock::Time;
use crate::clock::by_hand::Hand;
use crate::kit::end::End;
use crate::kit::peer::Peer;
use crate::kit::pipe::{Dice, Pipe};
use crate::kit::server::{Answer, Server};
use crate::sys::poll::{Interest, Ready};
use crate::token::Token;

pub(crate) struct Stage {
    /// Those whose channel lives, or is still to be added.
    pipes: Vec<Rc<RefCell<Pipe>>>,
    /// How many there were.
    pub(crate) pairs: usize,
    pub(crate) server: Server,
    /// Connects that are to be answered.
    connects: Vec<(Time, Token, Answer)>,
    dice: Dice,
    clock: Hand,
}

impl Stage {
    /// With a seed, chance varies what it can.
    pub(crate) fn new(seed: Option<u64>) -> Stage {
        seeded::set(Some(seed.unwrap_or_default()));
        Stage {
            pipes: Vec::new(),
            pairs: 0,
            server: Server::new(),
            connects: Vec::new(),
            dice: Rc::new(RefCell::new(seed.map(Chance::new))),
            clock: Hand::new(),
        }
    }

    pub(crate) fn pair(&mut self) -> (End, Peer) {
        let pipe = Rc::new(RefCell::new(Pipe::new(self.dice.clone())));
        self.pipes.push(pipe.clone());
        self.pairs += 1;
        (End(pipe.clone()), Peer(pipe))
    }

    /// A channel connects.
    pub(crate) fn connects(&mut self, token: Token, address: String) {
        let (answer, at) = self.server.is_asked(address);
        self.connects.push((at, token, answer));
    }

    /// The answers that are due.
    pub(crate) fn take_answers(&mut self, now: Time) -> Vec<(Token, Answer)> {
        let (due, left) = std::mem::take(&mut self.connects).into_iter().partition(|(at, ..)| *at <= now);
        self.connects = left;
        let mut due: Vec<(Time, Token, Answer)> = due;
        self.shuffle(&mut due);
        due.into_iter().map(|(_, token, answer)| (token, answer)).collect()
    }

    /// When something is to happen next, if ever.
    pub(crate) fn next(&self) -> Option<Time> {
        let answers = self.connects.iter().filter(|(.., answer)| !matches!(answer, Answer::Ignore));
        let answers = answers.map(|(at, ..)| *at);
        answers.chain(self.pipes.iter().filter_map(|pipe| pipe.borrow().next())).min()
    }

    /// Every peer does what is due.
    pub(crate) fn play(&mut self, now: Time) {
        self.pipes.retain(|pipe| !pipe.borrow().closed);
        for pipe in &self.pipes {
            pipe.borrow_mut().play(now);
        }
    }

    /// What the channels are ready for, of what each waits for.
    pub(crate) fn ready(&self, waits_for: impl Fn(Token) -> Option<Interest>) -> Vec<(usize, Ready)> {
        let mut all = Vec::new();
        for pipe in &self.pipes {
            let mut pipe = pipe.borrow_mut();
            let Some(token) = pipe.token.filter(|_| !pipe.closed) else { continue };
            let Some(wanted) = waits_for(token) else { continue };
            let ready = Ready {
                read: wanted.read && pipe.has_input(),
                write: wanted.write && pipe.has_room(),
                hup: pipe.has_hung_up(),
                ..Ready::default()
            };
            pipe.is_lost = !wanted.read && pipe.is_reset_by_peer();
            if ready.read || ready.write || ready.hup {
                all.push((token.slot as usize, ready));
            }
        }
        all
    }

    /// In another order, and not all of them at once, if there is a seed.
    pub(crate) fn vary<T>(&self, ready: &mut Vec<T>) {
        self.shuffle(ready);
        if let Some(dice) = &mut *self.dice.borrow_mut() {
            let kept = if dice.below(4) == 0 { 1 + dice.below(ready.len().max(1)) } else { ready.len() };
            ready.truncate(kept);
        }
    }

    fn shuffle<T>(&self, all: &mut [T]) {
        let Some(dice) = &mut *self.dice.borrow_mut() else { return };
        for last in (1..all.len()).rev() {
            all.swap(last, dice.below(last + 1));
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.clock.is_the_only_one() {
            seeded::set(None);
        }
    }
}
