//! A drain, the orderly end of a server: what is asked for, how far it is, and what the loop notes of it. The
//! loop's part is in `event_loop/drain.rs`.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::Time;
use crate::timers::TimerKey;
use crate::token::Token;

/// How a [drain](crate::ChannelMap::drain) goes.
///
/// ```
/// use dispatch_loop::{ChannelMap, DrainOptions, DrainState};
/// use std::time::Duration;
///
/// let mut map = ChannelMap::new()?;
/// map.drain(&DrainOptions::default().with_lame_duck(Duration::from_secs(2)));
/// assert_eq!(map.drain_state(), DrainState::LameDuck);
/// dispatch_loop::run(&mut map)?;                  // there is nothing to wait for
/// assert_eq!(map.drain_state(), DrainState::Drained);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainOptions {
    /// How long the listeners go on accepting, and idle channels are kept, so that whoever sends clients here
    /// can learn that it must not. [`handle_drain`](crate::Dispatcher::handle_drain) runs when this begins.
    /// Default: zero.
    pub lame_duck: Duration,
    /// How long the whole drain may take, the lame-duck time included; what is left then is aborted.
    /// Default: 30 s.
    pub deadline: Duration,
}

impl Default for DrainOptions {
    fn default() -> DrainOptions {
        DrainOptions { lame_duck: Duration::ZERO, deadline: Duration::from_secs(30) }
    }
}

impl DrainOptions {
    /// Set [`lame_duck`](DrainOptions::lame_duck).
    #[must_use]
    pub fn with_lame_duck(mut self, time: Duration) -> DrainOptions {
        self.lame_duck = time;
        self
    }

    /// Set [`deadline`](DrainOptions::deadline).
    #[must_use]
    pub fn with_deadline(mut self, time: Duration) -> DrainOptions {
        self.deadline = time;
        self
    }
}

/// How far a map is with its [drain](crate::ChannelMap::drain).
///
/// ```
/// let map = dispatch_loop::ChannelMap::new()?;
/// assert_eq!(map.drain_state(), dispatch_loop::DrainState::Running);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DrainState {
    /// No drain was begun.
    #[default]
    Running,
    /// The end was announced by [`handle_drain`](crate::Dispatcher::handle_drain); all else goes on.
    LameDuck,
    /// Listeners accept what is in their backlogs and close; channels close when nothing is under way on them.
    Draining,
    /// It is over: no channel is left but those in the background, or the deadline has passed.
    Drained,
}

/// How far a [drain](crate::ChannelMap::drain) is, in numbers. Channels in the background are not counted; when one
/// of them closes, it is in the foreground.
///
/// Connections that were begun so late that they were in the backlog of a listener when it closed are
/// reset by the system, which does not tell how many those were.
///
/// ```
/// use dispatch_loop::{Channel, ChannelMap, Dispatcher, DrainOptions};
///
/// struct Idle;
/// impl Dispatcher for Idle {}
///
/// let (near, _far) = std::os::unix::net::UnixStream::pair()?;
/// let mut map = ChannelMap::new()?;
/// map.add(near, Idle)?;
/// map.drain(&DrainOptions::default());
/// dispatch_loop::run(&mut map)?;
/// let progress = map.drain_progress().unwrap();
/// assert_eq!((progress.closed_idle, progress.finished, progress.aborted), (1, 0, 0));
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainProgress {
    /// How far it is.
    pub state: DrainState,
    /// Channels that are left, without the listeners.
    pub channels: usize,
    /// Listeners that are left.
    pub listeners: usize,
    /// Channels that were closed because nothing was under way on them.
    pub closed_idle: u64,
    /// Channels that ended by themselves since the drain began, or with everything sent at its deadline.
    pub finished: u64,
    /// Channels that were cut short at the deadline.
    pub aborted: u64,
    /// The second signal, which has ended the drain before its time: see
    /// `ChannelMap::drain_on_signals` (feature `signals`). A program that was ended so exits with 128
    /// and this number, as a shell has it.
    pub signal: Option<i32>,
}

/// For how long after the drain began a channel is idle only if nothing has passed since the look before:
/// what keeps asking is given the time to be told, with an answer, that this is the last.
const PATIENCE: Duration = Duration::from_millis(100);

/// What the looks have found on one channel.
#[derive(Default)]
struct Look {
    /// All bytes that had passed.
    traffic: Option<u64>,
    /// How many a listener has accepted without coming to the end of its backlog.
    taken: u32,
    fate: Fate,
}

/// How a channel is being ended.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Not by the drain.
    #[default]
    Own,
    Idle,
    CutShort,
}

/// A drain that was begun.
pub(crate) struct Drain {
    state: DrainState,
    lame_until: Time,
    deadline: Time,
    /// The next sweep.
    pub(crate) timer: Option<TimerKey>,
    /// What was left at the deadline was aborted.
    expired: bool,
    /// A signal has begun it, or brought it nearer.
    #[cfg(feature = "signals")]
    pub(crate) signalled: bool,
    looks: HashMap<Token, Look>,
    counts: DrainProgress,
    /// What the map's hook was told last.
    told: DrainProgress,
}

impl Drain {
    pub(crate) fn begin(options: &DrainOptions, now: Time) -> Drain {
        let mut drain = Drain {
            state: DrainState::LameDuck,
            lame_until: now.after(options.lame_duck),
            deadline: now.after(options.deadline),
            timer: None,
            expired: false,
            #[cfg(feature = "signals")]
            signalled: false,
            looks: HashMap::new(),
            counts: DrainProgress::default(),
            told: DrainProgress::default(),
        };
        drain.pass(now);
        drain
    }

    /// It was asked for again: what is sooner holds.
    pub(crate) fn hasten(&mut self, options: &DrainOptions, now: Time) {
        self.lame_until = self.lame_until.min(now.after(options.lame_duck));
        self.deadline = self.deadline.min(now.after(options.deadline));
        self.pass(now);
    }

    /// Whether it is under way because of an earlier signal; then this one is noted.
    #[cfg(feature = "signals")]
    pub(crate) fn is_second_signal(&mut self, signal: i32) -> bool {
        let is_second = self.signalled && self.is_under_way();
        if is_second {
            self.counts.signal = Some(signal);
        }
        is_second
    }

    /// The lame-duck time may be over.
    pub(crate) fn pass(&mut self, now: Time) {
        if self.state == DrainState::LameDuck && now >= self.lame_until {
            self.state = DrainState::Draining;
        }
    }

    pub(crate) fn state(&self) -> DrainState {
        self.state
    }

    pub(crate) fn is_under_way(&self) -> bool {
        matches!(self.state, DrainState::LameDuck | DrainState::Draining)
    }

    /// The deadline has passed; `true` once.
    pub(crate) fn expire(&mut self, now: Time) -> bool {
        now >= self.deadline && !std::mem::replace(&mut self.expired, true)
    }

    pub(crate) fn has_expired(&self) -> bool {
        self.expired
    }

    /// When the next sweep is due, if the last took from `begun` to `now`: they use up a tenth of the time.
    pub(crate) fn next_sweep(&self, begun: Time, now: Time) -> Time {
        let next = match self.state {
            DrainState::LameDuck => self.lame_until,
            _ => now.after((now.since(begun) * 10).max(Duration::from_millis(10))),
        };
        next.min(self.deadline)
    }

    /// A channel has nothing under way now, and so many bytes have passed: is it idle?
    pub(crate) fn is_idle(&mut self, token: Token, traffic: u64, now: Time) -> bool {
        let before = self.looks.entry(token).or_default().traffic.replace(traffic);
        before.is_some_and(|before| before == traffic || now >= self.lame_until.after(PATIENCE))
    }

    /// A listener has accepted so many, and more wait: how many it has accepted by now.
    pub(crate) fn accepted(&mut self, token: Token, taken: u32) -> u32 {
        let look = self.looks.entry(token).or_default();
        look.taken += taken;
        look.taken
    }

    pub(crate) fn decide(&mut self, token: Token, fate: Fate) {
        self.looks.entry(token).or_default().fate = fate;
    }

    /// A channel is gone.
    pub(crate) fn ended(&mut self, token: Token, counts: bool) {
        let fate = self.looks.remove(&token).map_or(Fate::Own, |look| look.fate);
        if counts && self.is_under_way() {
            match fate {
                Fate::Own => self.counts.finished += 1,
                Fate::Idle => self.counts.closed_idle += 1,
                Fate::CutShort => self.counts.aborted += 1,
            }
        }
    }

    pub(crate) fn is_over(&mut self) {
        self.state = DrainState::Drained;
        self.looks = HashMap::new();
    }

    pub(crate) fn progress(&self, channels: usize, listeners: usize) -> DrainProgress {
        DrainProgress { state: self.state, channels, listeners, ..self.counts }
    }

    /// Whether this is news for the map's hook.
    pub(crate) fn tells(&mut self, progress: DrainProgress) -> bool {
        std::mem::replace(&mut self.told, progress) != progress
    }
}
