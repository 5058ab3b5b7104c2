//! What the loop is at, written by the loop with plain stores, and read by other threads at any time: whether
//! it waits, and which hook runs.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};
use std::time::{Duration, Instant};

use crate::token::Token;

/// What the loop may be at, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Work {
    /// On the short way of a message only that it is some channel's hook is written down.
    Read,
    Accept,
    AcceptError,
    Open,
    Connect,
    Datagram,
    NetworkError,
    Write,
    Expt,
    Eof,
    High,
    Low,
    Drained,
    Wrapped,
    Timeout,
    Deadline,
    Drain,
    Error,
    Close,
    Ask,
    Timer,
    RemoteCall,
    Signal,
    DrainProgress,
    Blocking,
}

impl Work {
    const COUNT: usize = 25;

    const ALL: [(Work, &'static str); Work::COUNT] = [
        (Work::Read, "handle_read"),
        (Work::Accept, "handle_accept"),
        (Work::AcceptError, "handle_accept_error"),
        (Work::Open, "handle_open"),
        (Work::Connect, "handle_connect"),
        (Work::Datagram, "handle_datagram"),
        (Work::NetworkError, "handle_network_error"),
        (Work::Write, "handle_write"),
        (Work::Expt, "handle_expt"),
        (Work::Eof, "handle_eof"),
        (Work::High, "handle_high"),
        (Work::Low, "handle_low"),
        (Work::Drained, "handle_drained"),
        (Work::Wrapped, "handle_wrapped"),
        (Work::Timeout, "handle_timeout"),
        (Work::Deadline, "handle_deadline"),
        (Work::Drain, "handle_drain"),
        (Work::Error, "handle_error"),
        (Work::Close, "handle_close"),
        (Work::Ask, "readable or writable"),
        (Work::Timer, "a timer"),
        (Work::RemoteCall, "a remote call"),
        (Work::Signal, "a signal's callback"),
        (Work::DrainProgress, "the function of on_drain"),
        (Work::Blocking, "the result of a blocking call"),
    ];

    pub(crate) fn name(self) -> &'static str {
        Work::ALL[self as usize].1
    }
}

/// No work of the user's that has a name.
const NONE: u8 = u8::MAX;

/// The lowest bit of `turns`: the loop waits, or nobody runs it.
const AT_REST: u64 = 1;

/// Written by the loop alone. A reader may see parts of two moments; what it sees twice in the same state,
/// some time apart, was so.
pub(crate) struct Pulse {
    /// Twice the number of turns, with `AT_REST`.
    turns: AtomicU64,
    /// The channel whose output is gathered, which is that of the running hook, but for some.
    owner_key: AtomicU64,
    owner_slot: AtomicU32,
    /// What runs that is not on the short way, of which channel, and how many there were before.
    work: AtomicU8,
    work_slot: AtomicU32,
    work_key: AtomicU64,
    works: AtomicU64,
    /// How often each was found to be slow; the watcher writes it.
    slow: [AtomicU64; Work::COUNT],
    /// When the loop was last seen at the beginning or at the end of its wait, in nanoseconds since `made`;
    /// kept while there is a meter.
    seen: AtomicU64,
    made: Instant,
}

/// What the loop is at. Equal ones that are seen some time apart are the same work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    turn: u64,
    works: u64,
    work: Option<(Work, Option<Token>)>,
}

impl Pulse {
    pub(crate) fn new() -> Pulse {
        Pulse {
            turns: AtomicU64::new(AT_REST),
            owner_key: AtomicU64::new(Token::NONE.key),
            owner_slot: AtomicU32::new(Token::NONE.slot),
            work: AtomicU8::new(NONE),
            work_slot: AtomicU32::new(Token::NONE.slot),
            work_key: AtomicU64::new(Token::NONE.key),
            works: AtomicU64::new(0),
            slow: [const { AtomicU64::new(0) }; Work::COUNT],
            seen: AtomicU64::new(0),
            made: Instant::now(),
        }
    }

    // The loop's side. Nobody else writes, so a load and a store are as good as an atomic addition.

    /// The loop is run.
    pub(crate) fn begin(&self) {
        // A hook that swapped the maps has ended for another one.
        self.end_work();
        self.turns.store(self.turns.load(Relaxed) & !AT_REST, Release);
    }

    /// It waits, or is not run any more.
    #[inline(always)]
    pub(crate) fn rest(&self) {
        self.turns.store(self.turns.load(Relaxed) | AT_REST, Release);
    }

    /// The wait is over, and the next turn begins.
    #[inline(always)]
    pub(crate) fn waited(&self) {
        self.turns.store(self.turns.load(Relaxed) + AT_REST, Release);
    }

    pub(crate) fn turns(&self) -> u64 {
        self.turns.load(Relaxed) / 2
    }

    pub(crate) fn is_at_rest(&self) -> bool {
        self.turns.load(Acquire) & AT_REST != 0
    }

    /// How long ago it was made.
    pub(crate) fn age(&self) -> Duration {
        self.made.elapsed()
    }

    pub(crate) fn see(&self, now: Instant) {
        let since = now.saturating_duration_since(self.made).as_nanos();
        self.seen.store(u64::try_from(since).unwrap_or(u64::MAX), Relaxed);
    }

    #[inline(always)]
    pub(crate) fn owner(&self) -> Token {
        Token { key: self.owner_key.load(Relaxed), slot: self.owner_slot.load(Relaxed) }
    }

    #[inline(always)]
    pub(crate) fn set_owner(&self, owner: Token) {
        self.owner_key.store(owner.key, Relaxed);
        self.owner_slot.store(owner.slot, Relaxed);
    }

    #[inline(always)]
    pub(crate) fn has_owner(&self) -> bool {
        self.owner_slot.load(Relaxed) != Token::NONE.slot
    }

    #[inline(always)]
    pub(crate) fn clear_owner(&self) {
        // Clearing the slot is enough: no token has this one.
        self.owner_slot.store(Token::NONE.slot, Relaxed);
    }

    /// `work` begins, for a channel or for none.
    #[inline(always)]
    pub(crate) fn begin_work(&self, work: Work, token: Token) {
        self.works.store(self.works.load(Relaxed) + 1, Relaxed);
        self.work_key.store(token.key, Relaxed);
        self.work_slot.store(token.slot, Relaxed);
        self.work.store(work as u8, Relaxed);
    }

    #[inline(always)]
    pub(crate) fn end_work(&self) {
        self.work.store(NONE, Relaxed);
    }

    // The readers'.

    /// What the loop is at; `None` if it waits, or is not run.
    pub(crate) fn now(&self) -> Option<Moment> {
        let turns = self.turns.load(Acquire);
        if turns & AT_REST != 0 {
            return None;
        }
        let of_channel = |token: Token| (token.slot != Token::NONE.slot).then_some(token);
        let work = match Work::ALL.get(usize::from(self.work.load(Relaxed))) {
            Some(&(work, _)) => {
                let token = Token { key: self.work_key.load(Relaxed), slot: self.work_slot.load(Relaxed) };
                Some((work, of_channel(token)))
            }
            None => of_channel(self.owner()).map(|owner| (Work::Read, Some(owner))),
        };
        Some(Moment { turn: turns / 2, works: self.works.load(Relaxed), work })
    }

    pub(crate) fn count_slow(&self, work: Work) {
        self.slow[work as usize].fetch_add(1, Relaxed);
    }

    /// What was found to be slow, and how often.
    pub(crate) fn slow(&self) -> Vec<(&'static str, u64)> {
        let counts = self.slow.iter().map(|count| count.load(Relaxed));
        let all = Work::ALL.into_iter().zip(counts).map(|((_, name), count)| (name, count));
        all.filter(|(_, count)| *count > 0).collect()
    }

    /// How long the loop has been at work since it was last seen at its wait; `None` if it waits, or is not
    /// run.
    pub(crate) fn busy_for(&self) -> Option<Duration> {
        if self.is_at_rest() {
            return None;
        }
        let seen = Duration::from_nanos(self.seen.load(Relaxed));
        Some(self.age().saturating_sub(seen))
    }
}

impl Moment {
    /// Both are of one turn.
    pub(crate) fn is_of_turn_of(&self, other: &Moment) -> bool {
        self.turn == other.turn
    }

    /// What runs, and of which channel, if it is known.
    pub(crate) fn work(&self) -> Option<(Work, Option<Token>)> {
        self.work
    }
}

/// While this lives, the loop is run.
pub(crate) struct Running(Arc<Pulse>);

impl Running {
    pub(crate) fn now(pulse: Arc<Pulse>) -> Running {
        pulse.begin();
        Running(pulse)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.rest();
    }
}
