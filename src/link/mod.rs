//! What a slot holds: all that the loop knows of one channel, and the few transitions that need
//! nothing but this knowledge.

pub(crate) mod datagram;
pub(crate) mod dial;
pub(crate) mod guarded;
pub(crate) mod outbox;
pub(crate) mod output;
pub(crate) mod producer;
pub(crate) mod source;
pub(crate) mod unread;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::dispatcher::Dispatcher;
use crate::error::clone_error;
use crate::link::dial::Dial;
use crate::link::outbox::{OnLimit, Outbox};
use crate::link::source::{Held, Source};
use crate::link::unread::Unread;
use crate::net::address::Address;
use crate::net::unix::SocketFile;
use crate::reason::Reason;
use crate::sys::poll::Interest;
use crate::sys::stream::Connect;
use crate::threads::credit::Credit;

/// Bytes that one channel may read, and may write, in one turn.
const READ_BUDGET: u32 = 64 * 1024;
const WRITE_BUDGET: u32 = 64 * 1024;

/// How long a closing channel may go without getting rid of a byte.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

/// Where a channel is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// A listener, for all of its life.
    Listening,
    /// On the way to a name.
    Dialing,
    /// `connect` was begun.
    Connecting,
    /// It could not yet be begun; a timer tries again.
    ConnectLater,
    /// It succeeded; `handle_connect` is due.
    Connected,
    /// It failed at once; the error waits in `failure`.
    ConnectFailed,
    /// A stream; `handle_open` is due, perhaps after a handshake.
    Opening,
    Open,
    /// What is queued is being sent; then the end.
    Closing,
    /// FIN is sent; what still comes is dropped for a while, so that it does not become a reset.
    Lingering,
    /// All over but for `handle_close`.
    Dead,
    /// `handle_close` is running.
    Closed,
}

/// How far a channel is out of the poller because nobody did anything with it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disarmed {
    No,
    /// Its input is not watched.
    Input,
    /// And it was ready for output, to no avail, too.
    All,
}

pub(crate) struct State {
    pub(crate) source: Option<Held>,
    /// Not there while one of its hooks runs.
    pub(crate) dispatcher: Option<Box<dyn Dispatcher>>,
    pub(crate) outbox: Outbox,
    /// Why the channel ends or ended; the first cause, but see `give_reason`.
    pub(crate) reason: Option<Reason>,
    /// What `handle_error` is still to be told.
    pub(crate) failure: Option<io::Error>,
    /// And what the network has said to its datagrams.
    pub(crate) network_error: Option<io::Error>,
    pub(crate) local: Option<Arc<Address>>,
    pub(crate) peer: Option<Address>,
    pub(crate) clock: Option<Box<Clock>>,
    /// The account with its outlets.
    pub(crate) credit: Option<Arc<Credit>>,
    /// Input that was put back.
    pub(crate) unread: Option<Box<Unread>>,
    /// Of a socket that is bound to a path.
    pub(crate) file: Option<Box<SocketFile>>,
    /// Of a connect to a name, while it is under way.
    pub(crate) dial: Option<Box<Dial>>,

    /// The turn that the two budgets are of, and the last one with a send outside the queue.
    turn: u32,
    read_left: u32,
    write_left: u32,
    pub(crate) direct_turn: u32,

    pub(crate) phase: Phase,
    /// What the poller was last told; `None` if the descriptor is not in it.
    pub(crate) armed: Option<Interest>,
    pub(crate) on_limit: OnLimit,
    /// The last answers of `readable` and `writable`.
    pub(crate) wants_read: bool,
    pub(crate) wants_write: bool,
    pub(crate) paused: bool,
    pub(crate) auto_pause: bool,
    /// In the list of what the next settle looks at.
    pub(crate) touched: bool,
    /// The socket took less than it was offered: wait until there is room.
    pub(crate) blocked: bool,
    /// The connection failed under a read or a write.
    pub(crate) lost: bool,
    /// The end of input was read, and `handle_eof` was told.
    pub(crate) read_ended: bool,
    pub(crate) eof_told: bool,
    /// `shutdown_write` was asked for, and is done.
    pub(crate) shut: bool,
    pub(crate) fin_sent: bool,
    /// Let `close(2)` reset the connection.
    pub(crate) reset: bool,
    /// The peer hung up while reading is paused: out of the poller until it is resumed.
    pub(crate) parked: bool,
    /// Out of the poller until a timer says otherwise: ready, and nobody does anything about it,
    /// or a listener without descriptors.
    pub(crate) disarmed: Disarmed,
    /// The same for `handle_write` alone, which had nothing to send though `writable` said so.
    pub(crate) write_muted: bool,
    /// In the list of sources with input inside.
    pub(crate) pending: bool,
    /// The event that is being dispatched led to something.
    pub(crate) busy: bool,
    /// Turns in a row in which it was ready and nothing was done with it; and how often that has
    /// led to a pause.
    pub(crate) idle_turns: u8,
    pub(crate) pauses: u8,
    pub(crate) default_logged: bool,
    /// Does not keep the loop going.
    pub(crate) background: bool,
    /// Carries datagrams, not a stream.
    pub(crate) datagrams: bool,
    /// Its unread input is dropped before it is closed.
    pub(crate) lingers: bool,
    /// Nobody's but our own.
    pub(crate) hidden: bool,
    pub(crate) has_timers: bool,
    /// The next settle is to look at it once more.
    pub(crate) again: bool,
}

/// Times of a channel that has some.
pub(crate) struct Clock {
    /// When a byte last came or went; before that, when the channel began.
    pub(crate) active: Instant,
    pub(crate) timeout: Option<Duration>,
    pub(crate) idle_timer: Option<u64>,
    pub(crate) close_timeout: Duration,
    pub(crate) flush_timer: bool,
    /// Ends `disarmed`.
    pub(crate) rewatch: Option<u64>,
}

impl State {
    pub(crate) fn new(source: Held, dispatcher: Box<dyn Dispatcher>, phase: Phase) -> State {
        State { source: Some(source), ..State::without_source(dispatcher, phase) }
    }

    /// A channel that has no socket yet.
    pub(crate) fn without_source(dispatcher: Box<dyn Dispatcher>, phase: Phase) -> State {
        State {
            source: None,
            dispatcher: Some(dispatcher),
            outbox: Outbox::new(),
            reason: None,
            failure: None,
            network_error: None,
            local: None,
            peer: None,
            clock: None,
            credit: None,
            unread: None,
            file: None,
            dial: None,
            turn: 0,
            read_left: READ_BUDGET,
            write_left: WRITE_BUDGET,
            direct_turn: 0,
            phase,
            armed: None,
            on_limit: OnLimit::Refuse,
            wants_read: true,
            wants_write: false,
            paused: false,
            auto_pause: false,
            touched: false,
            blocked: false,
            lost: false,
            read_ended: false,
            eof_told: false,
            shut: false,
            fin_sent: false,
            reset: false,
            parked: false,
            disarmed: Disarmed::No,
            write_muted: false,
            pending: false,
            busy: false,
            idle_turns: 0,
            pauses: 0,
            default_logged: false,
            background: false,
            datagrams: false,
            lingers: true,
            hidden: false,
            has_timers: false,
            again: false,
        }
    }

    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.source.as_ref().map(AsFd::as_fd)
    }

    pub(crate) fn is_established(&self) -> bool {
        self.source.as_ref().is_some_and(|source| source.as_dyn_ref().is_established())
    }

    pub(crate) fn is_boxed(&self) -> bool {
        self.source.as_ref().is_some_and(|source| !source.is_plain())
    }

    pub(crate) fn output_pending(&self) -> bool {
        self.source.as_ref().is_some_and(|source| source.as_dyn_ref().output_pending())
    }

    pub(crate) fn is_connecting(&self) -> bool {
        matches!(
            self.phase,
            Phase::Dialing
                | Phase::Connecting
                | Phase::ConnectLater
                | Phase::Connected
                | Phase::ConnectFailed
        )
    }

    /// What to do next about a connect; `true`: to try again later.
    pub(crate) fn connect_began(&mut self, begun: Connect) -> bool {
        self.phase = match begun {
            Connect::InProgress => Phase::Connecting,
            Connect::Done => Phase::Connected,
            Connect::Later => Phase::ConnectLater,
            Connect::Refused(error) => {
                self.failure = Some(error);
                Phase::ConnectFailed
            }
        };
        self.phase == Phase::ConnectLater
    }

    /// Whether the end has begun, by whatever cause.
    pub(crate) fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing | Phase::Lingering | Phase::Dead | Phase::Closed) || self.lost
    }

    /// Whether `handle_read` may be called, apart from what `readable` says.
    fn may_read(&self) -> bool {
        self.phase == Phase::Open && !self.is_at_end() && !self.is_paused()
    }

    /// The end of input was read, and nothing was put back.
    pub(crate) fn is_at_end(&self) -> bool {
        self.read_ended && self.unread.is_none()
    }

    /// Input that is here already: the socket need not be ready for it.
    pub(crate) fn has_input_inside(&self) -> bool {
        let in_source = |source: &Held| !source.is_plain() && source.as_dyn_ref().input_pending();
        self.unread.is_some() || self.source.as_ref().is_some_and(in_source)
    }

    pub(crate) fn unread_len(&self) -> usize {
        self.unread.as_ref().map_or(0, |unread| unread.len())
    }

    /// By a call, or by itself because the peer does not take what it is owed.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused || (self.auto_pause && self.outbox.is_above())
    }

    pub(crate) fn reads(&self) -> bool {
        self.may_read() && self.wants_read
    }

    pub(crate) fn accepts(&self) -> bool {
        self.phase == Phase::Listening && self.wants_read && !self.paused
    }

    /// Whether `handle_write` may be called.
    pub(crate) fn writes(&self) -> bool {
        self.phase == Phase::Open
            && self.wants_write
            && !self.write_muted
            && self.outbox.is_empty()
            && !self.shut
            && !self.lost
            && self.is_established()
    }

    /// What the poller should watch; `None`: nothing, and not even hang-ups.
    pub(crate) fn interest(&self) -> Option<Interest> {
        let flushing = !self.outbox.is_empty() && self.blocked;
        if self.disarmed == Disarmed::All {
            return None;
        }
        if self.parked || self.disarmed == Disarmed::Input {
            return flushing.then_some(Interest { read: false, write: true });
        }
        let wanted = match self.phase {
            Phase::Listening => return Some(Interest { read: self.accepts(), write: false }),
            Phase::Connecting => return Some(Interest { read: false, write: true }),
            Phase::Dialing
            | Phase::ConnectLater
            | Phase::Connected
            | Phase::ConnectFailed
            | Phase::Dead
            | Phase::Closed => {
                return None;
            }
            Phase::Opening => Interest::NONE,
            Phase::Open => Interest { read: self.reads(), write: flushing || self.writes() },
            Phase::Closing => Interest { read: false, write: flushing },
            Phase::Lingering => Interest { read: true, write: false },
        };
        match &self.source {
            Some(Held::Boxed(source)) => Some(source.interest(wanted)),
            _ => Some(wanted),
        }
    }

    /// Whether a watermark was crossed that the dispatcher is to be told of.
    pub(crate) fn has_news(&self) -> bool {
        self.phase == Phase::Open && !self.lost && self.outbox.has_news()
    }

    /// Nothing is due but to ask `readable` and `writable`: the common case after a `handle_read`
    /// whose answers went out at once.
    pub(crate) fn is_quiet(&self) -> bool {
        let plain = matches!(self.source, Some(Held::Plain(_))) && self.disarmed == Disarmed::No;
        let eventful = self.lost
            || self.read_ended
            || self.shut
            || self.again
            || self.failure.is_some()
            || self.network_error.is_some();
        plain && self.phase == Phase::Open && self.outbox.is_empty() && !self.outbox.has_news() && !eventful
    }

    /// How much may be read in this turn.
    pub(crate) fn read_budget(&mut self, turn: u32) -> &mut u32 {
        self.renew_budgets(turn);
        &mut self.read_left
    }

    /// How much may be written in this turn.
    pub(crate) fn write_budget(&mut self, turn: u32) -> &mut u32 {
        self.renew_budgets(turn);
        &mut self.write_left
    }

    fn renew_budgets(&mut self, turn: u32) {
        if self.turn != turn {
            self.turn = turn;
            self.read_left = READ_BUDGET;
            self.write_left = WRITE_BUDGET;
        }
    }

    /// A byte came or went.
    pub(crate) fn stamp(&mut self) {
        self.busy = true;
        if let Some(clock) = &mut self.clock {
            clock.active = Instant::now();
        }
    }

    pub(crate) fn clock(&mut self) -> &mut Clock {
        self.clock.get_or_insert_with(|| {
            Box::new(Clock {
                active: Instant::now(),
                timeout: None,
                idle_timer: None,
                close_timeout: CLOSE_TIMEOUT,
                flush_timer: false,
                rewatch: None,
            })
        })
    }

    /// Note why the channel ends. The first cause stays, unless it was a friendly one and this one
    /// keeps queued bytes from being sent.
    pub(crate) fn give_reason(&mut self, reason: Reason) {
        let unfriendly =
            matches!(reason, Reason::Aborted | Reason::Error(_) | Reason::Limit | Reason::TimedOut);
        let keeps_bytes = unfriendly && (!self.outbox.is_empty() || self.output_pending());
        match &self.reason {
            None => self.reason = Some(reason),
            Some(Reason::EndOfStream | Reason::Closed) if keeps_bytes => self.reason = Some(reason),
            Some(_) => {}
        }
    }

    /// Begin the friendly end: send what is queued first.
    pub(crate) fn close(&mut self, reason: Reason) {
        match self.phase {
            Phase::Closing | Phase::Lingering | Phase::Dead | Phase::Closed => {}
            Phase::Opening if !self.is_established() => self.kill(reason),
            // There is nobody to send anything to.
            Phase::Opening | Phase::Open if self.lost => self.kill(reason),
            Phase::Opening | Phase::Open => {
                self.give_reason(reason);
                self.phase = Phase::Closing;
                self.parked = false;
                self.disarmed = Disarmed::No;
            }
            Phase::Listening
            | Phase::Dialing
            | Phase::Connecting
            | Phase::ConnectLater
            | Phase::Connected
            | Phase::ConnectFailed => self.kill(reason),
        }
    }

    /// End it now: drop what is queued. The settle does the rest.
    pub(crate) fn kill(&mut self, reason: Reason) {
        if matches!(self.phase, Phase::Dead | Phase::Closed) {
            return;
        }
        // What is cut short must not look like an end.
        self.reset |= !self.outbox.is_empty() && matches!(reason, Reason::TimedOut | Reason::Error(_));
        self.give_reason(reason);
        self.outbox.clear();
        self.phase = Phase::Dead;
    }

    /// Reading met an error: the connection is gone.
    pub(crate) fn lost_reading(&mut self, error: &io::Error) {
        self.kill(Reason::from(clone_error(error)));
        self.lost = true;
    }

    /// Writing met an error: nothing more can be sent, but what has come may still be read.
    pub(crate) fn lost_writing(&mut self, error: &io::Error) {
        self.give_reason(Reason::from(clone_error(error)));
        self.lost = true;
        self.outbox.clear();
        self.blocked = false;
        if self.phase != Phase::Opening && !self.reads() {
            self.phase = Phase::Dead;
        }
    }

    /// The error that the connection was lost with.
    pub(crate) fn lost_error(&self) -> Option<&io::Error> {
        self.reason.as_ref().filter(|_| self.lost).and_then(Reason::error)
    }
}
