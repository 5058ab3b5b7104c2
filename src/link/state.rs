//! The data model of one channel. The fields are visible in this folder only; the transitions that change
//! them are in the files beside this one.

use std::io;
use std::sync::Arc;

use crate::clock::Time;
use crate::link::dial::Dial;
use crate::link::due::Due;
use crate::link::held::Held;
use crate::link::marks::Marks;
use crate::link::outbox::Outbox;
use crate::link::rare::Rare;
use crate::net::address::Address;
use crate::net::peer::Peer;
use crate::reason::Reason;
use crate::sys::Kind;
use crate::sys::poll::Interest;

/// Bytes that one channel may read, and may write, in one turn.
pub(super) const READ_BUDGET: u32 = 64 * 1024;
pub(super) const WRITE_BUDGET: u32 = 64 * 1024;

pub(crate) struct Link {
    pub(super) due: Due,
    pub(super) kind: Kind,
    pub(super) role: Role,
    /// In the list of the next settle.
    pub(crate) listed: bool,
    pub(crate) noted: Noted,
    /// The turn to which the two budgets belong.
    pub(super) turn: u32,
    pub(super) read_left: u32,
    pub(super) write_left: u32,
    /// Bytes that have come from the peer, and that the system has taken for it.
    pub(super) received: u64,
    pub(super) sent: u64,
    /// When a byte was last received or sent, or the channel began; updated while there are timers.
    pub(super) active: Option<Time>,
    pub(super) life: Life,
    pub(super) socket: Option<Held>,
    pub(super) input: Input,
    pub(super) output: Output,
    pub(super) watch: Watch,
    pub(super) peer: Peer,
    pub(super) local: Option<Arc<Address>>,
    /// What most channels never have.
    pub(super) rare: Option<Box<Rare>>,
}

// 10,000 idle channels are 10,000 of these, each with 8 bytes of its slot and 16 for the dispatcher.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<Link>() <= 152);

/// The stage of a channel's life. Data that only one stage has is in that variant.
pub(crate) enum Life {
    /// A listener.
    Listening,
    Connecting(Connecting),
    /// A stream; `handle_open` is due, perhaps after a handshake.
    Opening,
    Open,
    Ending(Ending),
}

impl Life {
    pub(super) const OVER: Life =
        Life::Ending(Ending { stage: Stage::Told, reset: false, cause: Reason::Closed });
}

/// How far a connect is.
pub(crate) enum Connecting {
    /// To a name: looked up, and its addresses tried.
    ByName(Box<Dial>),
    /// The system is connecting.
    InProgress,
    /// It could not begin; a timer retries.
    Retry,
    /// It succeeded; `handle_connect` is due.
    Done,
    Failed(io::Error),
}

/// A channel whose end has begun.
pub(crate) struct Ending {
    pub(super) stage: Stage,
    /// `close(2)` is to reset the connection.
    pub(super) reset: bool,
    pub(super) cause: Reason,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// What is queued is being sent.
    Flushing,
    /// FIN is sent; input is dropped for a while, so that it does not cause a reset.
    Lingering,
    /// Only `handle_close` is left.
    Over,
    /// `handle_close` is running.
    Told,
}

/// Who owns a channel, and whether it keeps the loop going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    User,
    /// The user's, but it does not keep the loop going.
    Background,
    /// The library's: a connect attempt, a signal watch. It does not keep the loop going.
    Internal,
}

/// What is looked at so rarely that it shares a byte.
pub(crate) struct Noted(u8);

#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Note {
    /// It was logged that a hook does its default.
    Default = 1,
    /// It is one of the connections that its map counts for a group.
    Counted = 1 << 1,
}

impl Noted {
    /// Whether it was noted before.
    pub(crate) fn set(&mut self, note: Note) -> bool {
        let before = self.0 & note as u8 != 0;
        self.0 |= note as u8;
        before
    }

    pub(crate) fn take(&mut self, note: Note) -> bool {
        let before = self.0 & note as u8 != 0;
        self.0 &= !(note as u8);
        before
    }
}

/// How far the end of input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InputEnd {
    NotYet,
    /// It was read; `handle_eof` is due.
    Read,
    Told,
    /// A write-only file.
    Never,
}

pub(super) struct Input {
    pub(super) end: InputEnd,
    /// The last answer of `readable`.
    pub(super) wanted: bool,
    pub(super) paused: bool,
    pub(super) auto_pause: bool,
    /// In the list of channels with buffered input.
    pub(super) pending: bool,
    pub(super) work: Work,
}

impl Input {
    pub(super) const NEW: Input = Input {
        end: InputEnd::NotYet,
        wanted: true,
        paused: false,
        auto_pause: false,
        pending: false,
        work: Work::NONE,
    };
}

/// What is under way for the peer that nothing else shows, in one byte.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Work(u8);

impl Work {
    pub(super) const NONE: Work = Work(0);
    /// A message has begun that is not complete.
    pub(super) const MESSAGE: Work = Work(1);
    /// The dispatcher says that it is busy.
    pub(super) const BUSY: Work = Work(2);
    /// The result of a call that blocks is awaited.
    pub(super) const AWAITS: Work = Work(4);

    pub(super) fn has(self, work: Work) -> bool {
        self.0 & work.0 != 0
    }

    /// Whether it was under way before.
    pub(super) fn set(&mut self, work: Work, on: bool) -> bool {
        let before = self.has(work);
        self.0 = self.0 & !work.0 | if on { work.0 } else { 0 };
        before
    }
}

/// The state of the output direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Open,
    /// `shutdown_write` was called: FIN follows when all is sent.
    FinDue,
    FinSent,
    /// Nothing more can be sent.
    Broken,
}

pub(super) struct Output {
    /// `Some` only while something is queued.
    pub(super) queue: Option<Box<Outbox>>,
    pub(super) way: Way,
    /// The last answer of `writable`.
    pub(super) wanted: bool,
    /// The socket took less than it was offered: wait for room.
    pub(super) blocked: bool,
    /// Something had to wait, in the queue beyond its turn or inside the source, and `handle_drained` has
    /// not run for it.
    pub(super) undrained: bool,
    pub(super) marks: Marks,
}

impl Output {
    pub(super) const NEW: Output = Output {
        queue: None,
        way: Way::Open,
        wanted: false,
        blocked: false,
        undrained: false,
        marks: Marks::NEW,
    };

    pub(super) fn is_empty(&self) -> bool {
        self.queue.as_ref().is_none_or(|queue| queue.is_empty())
    }

    pub(super) fn is_open(&self) -> bool {
        self.way == Way::Open
    }

    /// Nothing is queued, due or to be told about output.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_none() && self.is_open() && !self.blocked && !self.marks.has_news()
    }

    pub(super) fn weight(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.weight())
    }

    pub(super) fn queue(&mut self) -> &mut Outbox {
        self.queue.get_or_insert_default()
    }

    pub(super) fn queue_if_any(&mut self) -> Option<&mut Outbox> {
        self.queue.as_deref_mut()
    }

    /// Drop what is queued.
    pub(super) fn clear(&mut self) {
        if let Some(mut queue) = self.queue.take() {
            queue.clear();
        }
    }

    /// Free the memory of an empty queue.
    pub(super) fn trim(&mut self) {
        if self.queue.as_ref().is_some_and(|queue| queue.is_empty()) {
            self.queue = None;
        }
    }
}

pub(super) struct Watch {
    /// What the poller was last told; `None` if the descriptor is not registered.
    pub(super) told: Option<Interest>,
    /// There was progress in the event that is being served.
    pub(super) progress: bool,
    /// Turns in a row in which the channel was ready without progress, and how often in a row that has led
    /// to a rest.
    pub(super) idle_turns: u8,
    pub(super) rests: u8,
}

impl Watch {
    pub(super) const NEW: Watch = Watch { told: None, progress: false, idle_turns: 0, rests: 0 };
}

/// The link of a vacant slot, which has ended.
impl Default for Link {
    #[inline(always)]
    fn default() -> Link {
        Link::with(None, Kind::Stream, Life::OVER)
    }
}

impl Link {
    #[inline(always)]
    pub(crate) fn new(socket: Held, kind: Kind, peer: Peer, local: Option<Arc<Address>>, asks: bool) -> Link {
        let life = if kind == Kind::Listener { Life::Listening } else { Life::Opening };
        Link { peer, local, due: Due::to_open(asks), ..Link::with(Some(socket), kind, life) }
    }

    pub(crate) fn of_socket(socket: Held, kind: Kind) -> Link {
        Link::new(socket, kind, Peer::Unknown, None, true)
    }

    /// Take the place of the link of a vacant slot, in which there is nothing left to drop.
    #[inline(always)]
    pub(crate) fn put_into(self, vacant: &mut Link) {
        debug_assert!(vacant.is_told() && vacant.socket.is_none() && vacant.rare.is_none());
        std::mem::forget(std::mem::replace(vacant, self));
    }

    /// A channel that connects.
    pub(crate) fn connecting(socket: Option<Held>, connecting: Connecting) -> Link {
        Link::with(socket, Kind::Stream, Life::Connecting(connecting))
    }

    #[inline(always)]
    fn with(socket: Option<Held>, kind: Kind, life: Life) -> Link {
        Link {
            due: Due::to_open(true),
            kind,
            role: Role::User,
            listed: true,
            noted: Noted(0),
            turn: 0,
            read_left: READ_BUDGET,
            write_left: WRITE_BUDGET,
            received: 0,
            sent: 0,
            active: None,
            life,
            socket,
            input: Input::NEW,
            output: Output::NEW,
            watch: Watch::NEW,
            peer: Peer::Unknown,
            local: None,
            rare: None,
        }
    }
}
