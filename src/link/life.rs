//! Where a channel is in its life, and the transitions that move it on. Each says what is due.

use std::io;
use std::sync::Arc;

use crate::clock::Turn;
use crate::link::Link;
use crate::link::dial::Dial;
use crate::link::due::Step;
use crate::link::input::InputEnd;
use crate::link::output::Way;
use crate::link::watch::Rest;
use crate::reason::Reason;
use crate::sys;

/// Where a channel is in its life. What only one state has lies in that state.
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
    /// The system is at it.
    InProgress,
    /// It could not be begun; a timer tries again.
    Retry,
    /// It succeeded; `handle_connect` is due.
    Done,
    Failed(io::Error),
}

/// A channel whose end has begun.
pub(crate) struct Ending {
    stage: Stage,
    /// Let `close(2)` reset the connection.
    reset: bool,
    cause: Reason,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// What is queued is being sent.
    Flushing,
    /// FIN is sent; what still comes is dropped for a while, so that it does not become a reset.
    Lingering,
    /// All over but for `handle_close`.
    Over,
    /// `handle_close` is running.
    Told,
}

/// Whose a channel is, and whether it keeps the loop going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    User,
    /// The user's, but the loop does not wait for it.
    Background,
    /// The library's own: a connect attempt.
    Internal,
}

impl Link {
    // What it is.

    pub(crate) fn is_listening(&self) -> bool {
        matches!(self.life, Life::Listening)
    }

    pub(crate) fn is_connecting(&self) -> bool {
        matches!(self.life, Life::Connecting(_))
    }

    /// The system is at a connect, whose outcome it will report.
    pub(crate) fn connect_is_in_progress(&self) -> bool {
        matches!(self.life, Life::Connecting(Connecting::InProgress))
    }

    pub(crate) fn connect_waits(&self) -> bool {
        matches!(self.life, Life::Connecting(Connecting::Retry))
    }

    pub(crate) fn is_opening(&self) -> bool {
        matches!(self.life, Life::Opening)
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.life, Life::Open)
    }

    /// What is queued is being sent before the end.
    pub(crate) fn is_flushing(&self) -> bool {
        matches!(self.life, Life::Ending(Ending { stage: Stage::Flushing, .. }))
    }

    pub(crate) fn is_lingering(&self) -> bool {
        matches!(self.life, Life::Ending(Ending { stage: Stage::Lingering, .. }))
    }

    /// All is over but for `handle_close`.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.life, Life::Ending(Ending { stage: Stage::Over, .. }))
    }

    /// `handle_close` is running.
    pub(crate) fn is_told(&self) -> bool {
        matches!(self.life, Life::Ending(Ending { stage: Stage::Told, .. }))
    }

    /// Connected, and a source can be put around its socket.
    pub(crate) fn has_open_stream(&self) -> bool {
        matches!(self.life, Life::Connecting(Connecting::Done) | Life::Opening | Life::Open)
    }

    pub(crate) fn is_ending(&self) -> bool {
        matches!(self.life, Life::Ending(_))
    }

    /// Whether the end has begun, by whatever cause, or nothing can be sent any more.
    pub(crate) fn is_closing(&self) -> bool {
        self.is_ending() || self.is_broken()
    }

    /// The connection failed under a read or a write.
    pub(crate) fn is_broken(&self) -> bool {
        self.output.way == Way::Broken
    }

    /// The error that the connection was lost with.
    pub(crate) fn lost_error(&self) -> Option<&io::Error> {
        match &self.life {
            _ if !self.is_broken() => None,
            Life::Ending(ending) => ending.cause.error(),
            _ => self.rare.as_ref()?.lost.as_deref(),
        }
    }

    /// For the log and `Debug`.
    pub(crate) fn state_name(&self) -> &'static str {
        match &self.life {
            Life::Listening => "listening",
            Life::Connecting(_) => "connecting",
            Life::Opening => "opening",
            Life::Open if self.is_broken() => "broken",
            Life::Open => "open",
            Life::Ending(Ending { stage: Stage::Flushing, .. }) => "closing",
            Life::Ending(Ending { stage: Stage::Lingering, .. }) => "lingering",
            Life::Ending(_) => "ended",
        }
    }

    // Connecting.

    /// How a connect began; `true`: it is to be tried again later.
    pub(crate) fn connect_began(&mut self, begun: sys::stream::Connect) -> bool {
        use sys::stream::Connect;
        let connecting = match begun {
            Connect::InProgress => Connecting::InProgress,
            Connect::Done => Connecting::Done,
            Connect::Later => Connecting::Retry,
            Connect::Refused(error) => Connecting::Failed(error),
        };
        let later = matches!(connecting, Connecting::Retry);
        self.connect_is(connecting);
        later
    }

    pub(crate) fn connect_is(&mut self, connecting: Connecting) {
        if matches!(connecting, Connecting::Done | Connecting::Failed(_)) {
            self.due.set(Step::Open);
        }
        self.life = Life::Connecting(connecting);
    }

    pub(crate) fn dial(&mut self) -> Option<&mut Dial> {
        match &mut self.life {
            Life::Connecting(Connecting::ByName(dial)) => Some(dial),
            _ => None,
        }
    }

    /// What is known of the connect, if it is over: its attempts are to be called off.
    pub(crate) fn take_dial(&mut self) -> Option<Box<Dial>> {
        match &mut self.life {
            Life::Connecting(connecting @ Connecting::ByName(_)) => {
                match std::mem::replace(connecting, Connecting::Retry) {
                    Connecting::ByName(dial) => Some(dial),
                    _ => None,
                }
            }
            Life::Ending(_) => self.rare.as_mut()?.dial.take(),
            _ => None,
        }
    }

    /// `handle_open` is due, perhaps after a handshake; `lost` if the connection is gone again already.
    pub(crate) fn connected(&mut self, turn: Turn, lost: Option<io::Error>) {
        self.life = Life::Opening;
        self.due.set(Step::Open);
        self.moved(turn);
        if let Some(error) = lost {
            self.write_lost(error);
        }
    }

    /// What the opening of a channel is up to.
    pub(crate) fn opening(&mut self) -> OpenStep {
        let established = self.is_established();
        match &mut self.life {
            Life::Connecting(Connecting::Done) => OpenStep::Connected,
            Life::Connecting(Connecting::Failed(error)) => {
                OpenStep::Failed(std::mem::replace(error, io::ErrorKind::NotConnected.into()))
            }
            Life::Opening if established => OpenStep::Ready,
            _ => OpenStep::Nothing,
        }
    }

    /// `handle_open` is about to run. What waited for it is due.
    pub(crate) fn opened(&mut self) {
        self.life = Life::Open;
        if self.input.end == InputEnd::Read {
            self.due.set(Step::Eof);
        }
        if !self.output.is_empty() || self.output.way == Way::FinDue {
            self.due.set(Step::Flush);
        }
        if self.output.marks.has_news() {
            self.due.set(Step::Watermark);
        }
    }

    // The end.

    /// Begin the friendly end: send what is queued first.
    pub(crate) fn close(&mut self, cause: Reason) {
        match self.life {
            Life::Ending(_) => {}
            Life::Opening if !self.is_established() => self.end(cause),
            // There is nobody to send anything to.
            Life::Opening | Life::Open if self.is_broken() => self.end(cause),
            Life::Opening | Life::Open => {
                self.life = Life::Ending(Ending { stage: Stage::Flushing, reset: false, cause });
                self.set_rest(Rest::No);
                self.due.set(Step::Flush);
            }
            Life::Listening | Life::Connecting(_) => self.end(cause),
        }
    }

    /// End it now: drop what is queued. The settle does the rest.
    pub(crate) fn end(&mut self, cause: Reason) {
        // What is cut short must not look like an end.
        let cut_short = !self.output.is_empty()
            && matches!(cause, Reason::TimedOut | Reason::Error(_) | Reason::MapEnded);
        self.end_now(cause, cut_short);
    }

    /// As `end`, and reset the connection.
    pub(crate) fn end_by_reset(&mut self, cause: Reason) {
        self.end_now(cause, true);
    }

    fn end_now(&mut self, cause: Reason, reset: bool) {
        if self.is_over() || self.is_told() {
            return;
        }
        let cause = self.first_cause(cause);
        self.is_over_because(cause, reset);
    }

    fn is_over_because(&mut self, cause: Reason, reset: bool) {
        self.output.clear();
        self.note_marks();
        let over = Life::Ending(Ending { stage: Stage::Over, reset, cause });
        if let Life::Connecting(Connecting::ByName(dial)) = std::mem::replace(&mut self.life, over) {
            // The settle calls its attempts off.
            self.rare().dial = Some(dial);
        }
        self.due.set(Step::End);
    }

    /// An ended connection is to be reset.
    pub(crate) fn reset_at_the_end(&mut self) {
        if let Life::Ending(ending) = &mut self.life {
            ending.reset |= ending.stage == Stage::Over;
        }
    }

    /// The first cause stays, unless it was a friendly one and this one keeps queued bytes from being
    /// sent.
    fn first_cause(&self, cause: Reason) -> Reason {
        let lost = || self.rare.as_ref().and_then(|rare| rare.lost.clone());
        let unfriendly =
            matches!(cause, Reason::Aborted | Reason::Error(_) | Reason::Limit | Reason::TimedOut);
        let keeps_bytes = unfriendly && (!self.output.is_empty() || self.output_pending());
        match &self.life {
            Life::Ending(Ending { cause: Reason::EndOfStream | Reason::Closed, .. }) if keeps_bytes => cause,
            Life::Ending(first) => first.cause.clone(),
            _ => lost().map_or(cause, Reason::Error),
        }
    }

    /// A channel that is closing because of `Closed` or the end of the stream has failed since.
    pub(crate) fn closing_failed(&mut self, error: Arc<io::Error>) {
        if let Life::Ending(Ending { cause: cause @ (Reason::Closed | Reason::EndOfStream), .. }) =
            &mut self.life
        {
            *cause = Reason::Error(error);
        }
        self.end(Reason::Closed);
    }

    /// A hook that was told of an error has closed the channel itself: the error is why.
    pub(crate) fn closed_because(&mut self, reason: &Reason) {
        if let Life::Ending(Ending { cause: cause @ Reason::Closed, .. }) = &mut self.life {
            *cause = reason.clone();
        }
    }

    pub(crate) fn linger(&mut self) {
        if let Life::Ending(ending) = &mut self.life {
            ending.stage = Stage::Lingering;
            self.output.way = Way::FinSent;
        }
    }

    /// All is sent, or the time of lingering is over.
    pub(crate) fn end_of_ending(&mut self) {
        if let Life::Ending(ending) = &mut self.life {
            if ending.stage != Stage::Told {
                ending.stage = Stage::Over;
                self.due.set(Step::End);
            }
        }
    }

    /// `handle_close` is about to run: why, and whether to reset.
    pub(crate) fn tell_end(&mut self) -> (Reason, bool) {
        let told = |cause| Life::Ending(Ending { stage: Stage::Told, reset: false, cause });
        match std::mem::replace(&mut self.life, told(Reason::Closed)) {
            Life::Ending(Ending { cause, reset, .. }) => (cause, reset),
            _ => (Reason::Closed, false),
        }
    }

    /// Reading met an error: the connection is gone.
    pub(crate) fn read_lost(&mut self, error: io::Error) -> Arc<io::Error> {
        let error = Arc::new(error);
        self.end(Reason::Error(error.clone()));
        self.output.way = Way::Broken;
        error
    }

    /// Writing met an error: nothing more can be sent, but what has come may still be read.
    pub(crate) fn write_lost(&mut self, error: io::Error) {
        if self.is_over() || self.is_told() {
            return;
        }
        let error = Arc::new(error);
        let cause = self.first_cause(Reason::Error(error.clone()));
        self.output.clear();
        self.note_marks();
        self.output.way = Way::Broken;
        self.output.blocked = false;
        if self.is_opening() || self.reads() {
            self.rare().lost.get_or_insert(error);
            self.due.set(Step::Look);
        } else {
            self.is_over_because(cause, false);
        }
    }
}

/// What the opening of a channel is up to.
pub(crate) enum OpenStep {
    Nothing,
    /// `handle_connect`.
    Connected,
    Failed(io::Error),
    /// `handle_open`.
    Ready,
}
