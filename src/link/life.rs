//! The life of a channel, and the transitions that move it on. Each records what is due.

use std::io;
use std::sync::Arc;

use rustix::io::Errno;

use crate::clock::{Time, Turn};
use crate::error::{clone_error, same, shared};
use crate::guard::drop_caught;
use crate::link::dial::Dial;
use crate::link::due::Step;
use crate::link::held::Held;
use crate::link::rare::Rest;
use crate::link::state::{Connecting, Ending, InputEnd, Life, Link, Stage, Way};
use crate::numbers::Numbers;
use crate::reason::Reason;
use crate::sys;
use crate::sys::Kind;
use crate::sys::errno::connection_is_gone;

impl Link {
    // Questions.

    pub(crate) fn is_listening(&self) -> bool {
        matches!(self.life, Life::Listening)
    }

    /// Also one that has ended.
    pub(crate) fn is_listener(&self) -> bool {
        self.kind == Kind::Listener
    }

    pub(crate) fn is_connecting(&self) -> bool {
        matches!(self.life, Life::Connecting(_))
    }

    /// The system is connecting, and will report the outcome.
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

    /// Closing: what is queued is being sent.
    pub(crate) fn is_flushing(&self) -> bool {
        matches!(self.life, Life::Ending(Ending { stage: Stage::Flushing, .. }))
    }

    pub(crate) fn is_lingering(&self) -> bool {
        matches!(self.life, Life::Ending(Ending { stage: Stage::Lingering, .. }))
    }

    /// Only `handle_close` is left.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.life, Life::Ending(Ending { stage: Stage::Over, .. }))
    }

    /// `handle_close` is running.
    pub(crate) fn is_told(&self) -> bool {
        matches!(self.life, Life::Ending(Ending { stage: Stage::Told, .. }))
    }

    pub(crate) fn is_ending(&self) -> bool {
        matches!(self.life, Life::Ending(_))
    }

    /// Whether the channel is ending, for whatever cause, or can send nothing more.
    pub(crate) fn is_closing(&self) -> bool {
        self.is_ending() || self.is_broken()
    }

    /// The connection failed under a read or a write.
    pub(crate) fn is_broken(&self) -> bool {
        self.output.way == Way::Broken
    }

    /// The error with which the connection broke.
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

    /// Bytes received, and sent.
    pub(crate) fn traffic(&self) -> (u64, u64) {
        (self.received, self.sent)
    }

    /// Add the channel to a snapshot.
    pub(crate) fn add_to(&self, numbers: &mut Numbers) {
        let state = match &self.life {
            Life::Listening => &mut numbers.listening,
            Life::Connecting(_) => &mut numbers.connecting,
            Life::Opening | Life::Open => &mut numbers.open,
            Life::Ending(_) => &mut numbers.closing,
        };
        *state += 1;
        numbers.channels += 1;
        numbers.queued += self.queued() as u64;
        // What it has carried was counted before its last hook.
        if !self.is_told() {
            numbers.bytes_in += self.received;
            numbers.bytes_out += self.sent;
        }
    }

    // Connecting.

    /// A connect has begun, or not; `true` if it is to be retried later.
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

    /// Take out the state of a connect by name, which is over, to call off its attempts.
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

    /// `handle_open` is due, perhaps after a handshake; `lost` if the connection has broken since.
    pub(crate) fn connected(&mut self, turn: Turn, lost: Option<io::Error>) {
        self.life = Life::Opening;
        self.due.set(Step::Open);
        self.moved(turn);
        if let Some(error) = lost {
            self.write_lost(error);
        }
    }

    /// The next step in opening the channel.
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

    /// Whether it was accepted, and nothing has happened to it yet: then it is open now.
    #[inline(always)]
    pub(crate) fn opens_untouched(&mut self) -> bool {
        let untouched = self.is_opening()
            && self.is_plain_and_idle_stream()
            && self.rare.is_none()
            && self.input.end == InputEnd::NotYet;
        if untouched {
            // `Opening` has nothing to drop.
            std::mem::forget(std::mem::replace(&mut self.life, Life::Open));
        }
        untouched
    }

    /// `handle_open` is about to run. What waited for it becomes due.
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

    /// Begin to close: what is queued is sent first.
    pub(crate) fn close(&mut self, cause: Reason) {
        match self.life {
            Life::Ending(_) => {}
            // In a handshake, what is queued waits for its end.
            Life::Opening if !self.is_established() && self.output.is_empty() => self.end(cause),
            // Nothing can be sent.
            Life::Opening | Life::Open if self.is_broken() => self.end(cause),
            Life::Opening | Life::Open => {
                self.life = Life::Ending(Ending { stage: Stage::Flushing, reset: false, cause });
                self.set_rest(Rest::No);
                self.due.set(Step::Flush);
            }
            Life::Listening | Life::Connecting(_) => self.end(cause),
        }
    }

    /// End at once: drop what is queued. The settle does the rest.
    pub(crate) fn end(&mut self, cause: Reason) {
        // A stream that is cut short must not look as if it had ended.
        let cut_short =
            self.has_unsent() && matches!(cause, Reason::TimedOut | Reason::Error(_) | Reason::MapEnded);
        self.end_now(cause, cut_short);
    }

    /// Whether something that was pushed is still queued, inside the source, or on its way from an outlet.
    pub(crate) fn has_unsent(&self) -> bool {
        let credit = || self.rare.as_ref()?.credit.as_ref();
        !self.output.is_empty() || self.output_pending() || credit().is_some_and(|credit| credit.owes())
    }

    /// As `end`, but reset the connection.
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
        if let Some(Held::Own(source)) = &mut self.socket {
            source.give_back();
        }
        self.note_marks();
        let over = Life::Ending(Ending { stage: Stage::Over, reset, cause });
        if let Life::Connecting(Connecting::ByName(dial)) = std::mem::replace(&mut self.life, over) {
            // The settle calls off its attempts.
            self.rare().dial = Some(dial);
        }
        self.due.set(Step::End);
    }

    /// Reset the connection, which has ended, when it is closed.
    pub(crate) fn reset_at_the_end(&mut self) {
        if let Life::Ending(ending) = &mut self.life {
            ending.reset |= ending.stage == Stage::Over;
        }
    }

    /// The first cause stays, unless it was a close or the end of the stream and this one keeps queued
    /// bytes from being sent.
    fn first_cause(&self, cause: Reason) -> Reason {
        let lost = || self.rare.as_ref().and_then(|rare| rare.lost.clone());
        let unfriendly =
            matches!(cause, Reason::Aborted | Reason::Error(_) | Reason::Limit | Reason::TimedOut);
        let keeps_bytes = unfriendly && self.has_unsent();
        match &self.life {
            Life::Ending(Ending { cause: Reason::EndOfStream | Reason::Closed, .. }) if keeps_bytes => cause,
            Life::Ending(first) => first.cause.clone(),
            _ => lost().map_or(cause, Reason::Error),
        }
    }

    /// A channel that was closing, because of `Closed` or the end of the stream, has failed.
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

    pub(crate) fn linger(&mut self, now: Time) {
        if let Life::Ending(ending) = &mut self.life {
            ending.stage = Stage::Lingering;
            self.output.way = Way::FinSent;
            self.active = Some(now);
            self.set_rest(Rest::No);
            let rare = self.rare();
            rare.leaving = None;
            rare.lingering = Some(now);
        }
    }

    /// All is sent, or the time to linger is over.
    pub(crate) fn end_of_ending(&mut self) {
        if let Life::Ending(ending) = &mut self.life {
            if ending.stage != Stage::Told {
                ending.stage = Stage::Over;
                self.due.set(Step::End);
            }
        }
    }

    /// `handle_close` is about to run; returns the reason, and whether to reset.
    pub(crate) fn tell_end(&mut self) -> (Reason, bool) {
        let told = |cause| Life::Ending(Ending { stage: Stage::Told, reset: false, cause });
        match std::mem::replace(&mut self.life, told(Reason::Closed)) {
            Life::Ending(Ending { cause, reset, .. }) => (cause, reset),
            _ => (Reason::Closed, false),
        }
    }

    /// As `read_lost`, of a channel on the short way: nothing is queued, and there is no cause before this.
    pub(super) fn quick_read_lost(&mut self, errno: Errno) {
        debug_assert!(self.is_usual());
        let cause = Reason::Error(shared(errno));
        if self.is_open() {
            self.life = Life::Ending(Ending { stage: Stage::Over, reset: false, cause });
        }
        self.output.way = Way::Broken;
        self.due.set(Step::End);
    }

    /// Whether the channel has ended by a lost connection, as `error` says, and nothing else is due.
    pub(crate) fn has_only_lost(&self, error: &io::Error) -> bool {
        self.is_over() && self.due.has_end_only() && self.lost_error().is_some_and(|lost| same(lost, error))
    }

    /// A read failed: the connection is gone. Returns a copy of the error.
    pub(crate) fn read_lost(&mut self, error: io::Error) -> io::Error {
        let error = Arc::new(error);
        self.end(Reason::Error(error.clone()));
        self.output.way = Way::Broken;
        let copy = clone_error(&error);
        drop_caught("an error", error);
        copy
    }

    /// A write failed: nothing more can be sent, but what has arrived may still be read.
    pub(crate) fn write_lost(&mut self, error: io::Error) {
        let error = Arc::new(error);
        if !self.is_over() && !self.is_told() {
            self.is_lost_because(error.clone());
        }
        // It may be a user's, and this the last of it.
        drop_caught("an error", error);
    }

    fn is_lost_because(&mut self, error: Arc<io::Error>) {
        let cause = self.first_cause(Reason::Error(error.clone()));
        self.output.clear();
        self.note_marks();
        self.output.way = Way::Broken;
        self.output.blocked = false;
        // What a source of one's own says of its state is not known here.
        let gone = self.has_own_source() || connection_is_gone(&error);
        if gone && (self.is_opening() || self.wants_input()) {
            self.rare().lost.get_or_insert(error);
            self.due.set(Step::Look);
        } else {
            // Where the peer may still be there, what is cut short must not look like an end.
            self.is_over_because(cause, !gone);
        }
    }

    /// Whether a timer is to bound the wait for the end of input of a connection that can send nothing more.
    pub(crate) fn needs_end_timer(&self) -> bool {
        let waits = self.is_broken() && !self.is_ending();
        waits && self.rare.as_ref().is_none_or(|rare| rare.end_timer.is_none())
    }
}

/// The next step in opening a channel.
pub(crate) enum OpenStep {
    Nothing,
    /// `handle_connect`.
    Connected,
    Failed(io::Error),
    /// `handle_open`.
    Ready,
}
