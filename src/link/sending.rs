//! Sending what is queued, several pieces in a call; producers are asked for what is missing.

use std::io::{self, ErrorKind, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::clock::Turn;
use crate::error::panicked;
use crate::guard::drop_caught;
use crate::link::held::Held;
use crate::link::outbox::{GATHER, Outbox};
use crate::link::piece::{Bytes, Piece};
use crate::link::producer::More;
use crate::link::source::Source;
use crate::link::state::Link;
use crate::sys;
use crate::sys::errno::{is_shortage, would_block};

/// The most pieces in one `sendmsg`.
const PIECES: usize = 16;
/// With so much to send, no producer is asked for more.
const ENOUGH: usize = 4 * 1024;
/// What a call to send takes from the budget of a turn at least, however little it sends: so there are at
/// most 64.
const CALL: u32 = 1024;

/// As many of `bytes` as one call takes, at most `most` bytes in all; and the number of slices used.
pub(crate) fn slices_of<'a>(
    bytes: impl Iterator<Item = &'a [u8]>,
    most: usize,
) -> ([IoSlice<'a>; PIECES], usize) {
    let mut slices = [IoSlice::new(&[]); PIECES];
    let (mut count, mut left) = (0, most);
    for bytes in bytes.filter(|bytes| !bytes.is_empty()) {
        if left == 0 || count == PIECES {
            break;
        }
        let bytes = &bytes[..bytes.len().min(left)];
        slices[count] = IoSlice::new(bytes);
        count += 1;
        left -= bytes.len();
    }
    (slices, count)
}

/// What is left of a budget after a call that has sent so much.
pub(crate) fn left_of(budget: u32, sent: usize) -> u32 {
    let sent = u32::try_from(sent).unwrap_or(u32::MAX);
    budget.saturating_sub(sent.max(CALL))
}

/// How a flush ended.
pub(crate) enum Flushed {
    /// All is sent.
    Empty,
    /// The socket takes no more now.
    Blocked,
    /// The budget is used up; the socket may take more.
    Budget,
    /// The first piece is a producer that has nothing now; or one that is not to be asked, or has failed, which
    /// is told where producers are asked.
    Stalled,
    /// The first piece is an upgrade: all before it is sent.
    Upgrade,
    /// A producer has failed; `true` if it panicked.
    Producer(io::Error, bool),
    /// The socket failed.
    Lost(io::Error),
}

impl Link {
    /// Send what is queued on a stream, within the budget of the turn and its bandwidth.
    pub(super) fn flush_bytes(&mut self, turn: Turn, produces: bool) -> Flushed {
        self.renew_budgets(turn);
        let most = self.admit_queued();
        if self.waits_for_its_turn_to_send() {
            return Flushed::Blocked;
        }
        let (Some(source), Some(queue)) = (&mut self.socket, &mut self.output.queue) else {
            return Flushed::Empty;
        };
        let mut sent = 0;
        let mut left = most;
        let flushed = queue.flush(source, &mut left, &mut sent, produces);
        self.write_left -= most - left;
        if sent > 0 {
            self.sent += sent as u64;
            self.output_passed(sent);
            self.output.undrained |= self.output_pending();
            self.forget_shortage();
            self.moved(turn);
        }
        if matches!(flushed, Flushed::Budget) {
            self.admit_queued();
            if self.waits_for_its_turn_to_send() {
                return Flushed::Blocked;
            }
        }
        self.output.blocked = matches!(flushed, Flushed::Blocked);
        match flushed {
            Flushed::Lost(error) if is_shortage(&error) => {
                self.meets_shortage();
                Flushed::Blocked
            }
            flushed => flushed,
        }
    }
}

impl Outbox {
    /// Send as much as possible within `budget`, from which each call is subtracted; what was
    /// sent is added to `sent`. Producers are asked only if `produces`.
    pub(crate) fn flush(
        &mut self,
        source: &mut Held,
        budget: &mut u32,
        sent: &mut usize,
        produces: bool,
    ) -> Flushed {
        let plain = source.is_plain();
        loop {
            if produces && *budget > 0 {
                self.produce();
            }
            match self.pieces.front() {
                None => return Flushed::Empty,
                Some(Piece::Upgrade(_)) => return Flushed::Upgrade,
                Some(Piece::Producer(_)) if self.stalled => return Flushed::Stalled,
                Some(Piece::Producer(_) | Piece::Failed(..)) if !produces => return Flushed::Stalled,
                Some(_) if *budget == 0 => return Flushed::Budget,
                Some(Piece::Failed(..)) => return self.take_failure(),
                Some(_) => {}
            }
            if let Some(result) = self.send_descriptors(source) {
                *budget = left_of(*budget, *result.as_ref().unwrap_or(&0));
                match result {
                    Ok(taken) => *sent += taken,
                    Err(error) if would_block(&error) => return Flushed::Blocked,
                    Err(error) => return Flushed::Lost(error),
                }
                continue;
            }
            let (result, offered) = self.send(source.as_dyn(), *budget as usize);
            *budget = left_of(*budget, *result.as_ref().unwrap_or(&0));
            match result {
                Ok(taken) => {
                    self.advance(taken);
                    *sent += taken;
                    // A source may take one record at a time, and still have room.
                    if taken == 0 || (plain && taken < offered) {
                        return Flushed::Blocked;
                    }
                }
                Err(error) if would_block(&error) => return Flushed::Blocked,
                Err(error) => return Flushed::Lost(error),
            }
        }
    }

    /// One call for as many pieces as fit; returns the result and how much was offered.
    fn send(&self, source: &mut dyn Source, most: usize) -> (io::Result<usize>, usize) {
        let mut pieces = self.pieces.iter().map_while(Piece::bytes).fuse();
        let pieces: [Option<Bytes<'_>>; PIECES] = std::array::from_fn(|_| pieces.next());
        let mut skip = self.sent;
        let unsent = pieces.iter().flatten().map(|bytes| {
            let skipped = std::mem::take(&mut skip);
            &bytes[skipped..]
        });
        let (slices, count) = slices_of(unsent, most);
        let offered = slices.iter().map(|slice| slice.len()).sum();
        let result = match &slices[..count] {
            [one] => source.send(one),
            several => source.send_vectored(several),
        };
        (result.map(|taken| taken.min(offered)), offered)
    }

    /// If the first piece has descriptors, send those and as much of it as fits.
    fn send_descriptors(&mut self, source: &Held) -> Option<io::Result<usize>> {
        let Some(Piece::Descriptors(bytes, descriptors)) = self.pieces.front() else { return None };
        let Held::Plain(plain) = source else {
            return Some(Err(io::Error::new(ErrorKind::Unsupported, "a source carries no descriptors")));
        };
        let result = sys::descriptors::send(plain.fd(), bytes, descriptors);
        if let Ok(taken) = result {
            self.descriptors_left(taken);
        }
        Some(result)
    }

    /// Let the producers make enough for one call; what each makes is put in front of it.
    fn produce(&mut self) {
        let mut made = Vec::new();
        while !self.stalled && self.producers > 0 {
            let Some(at) = self.next_producer() else { return };
            self.ask(at, &mut made);
        }
    }

    /// Where the first producer is, if what is before it is less than one call takes.
    fn next_producer(&self) -> Option<usize> {
        let mut ready = 0;
        for (at, piece) in self.pieces.iter().take(PIECES).enumerate() {
            match piece {
                Piece::Producer(_) => return Some(at),
                piece => ready += piece.len()?,
            }
            if ready - self.sent >= ENOUGH {
                break;
            }
        }
        None
    }

    fn ask(&mut self, mut at: usize, made: &mut Vec<u8>) {
        let Some(Piece::Producer(producer)) = self.pieces.get_mut(at) else { return };
        let answer = match catch_unwind(AssertUnwindSafe(|| producer.more(made))) {
            Ok(Ok(More::Again)) if made.is_empty() => Err((
                io::Error::new(ErrorKind::InvalidInput, "a producer said More::Again and gave nothing"),
                false,
            )),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err((error, false)),
            Err(payload) => Err((panicked(payload), true)),
        };
        self.stalled = matches!(answer, Ok(More::Later));
        if !matches!(answer, Ok(More::Again | More::Later)) {
            let finished = self.pieces.remove(at);
            self.producers -= 1;
            drop_caught("a producer", finished);
        }
        // What was made before is still sent.
        if let Err((error, panicked)) = answer {
            self.pieces.insert(at, Piece::Failed(error, panicked));
            at += 1;
        }
        self.grown(made.len());
        match at.checked_sub(1).and_then(|before| self.pieces.get_mut(before)) {
            _ if made.is_empty() => {}
            Some(Piece::Owned(last)) if last.len() + made.len() <= GATHER => last.append(made),
            _ => self.pieces.insert(at, Piece::Owned(std::mem::take(made))),
        }
    }

    fn take_failure(&mut self) -> Flushed {
        match self.pieces.pop_front() {
            Some(Piece::Failed(error, panicked)) => Flushed::Producer(error, panicked),
            _ => Flushed::Empty,
        }
    }

    fn advance(&mut self, mut taken: usize) {
        self.queued -= taken;
        while let Some(len) = self.pieces.front().and_then(Piece::len) {
            let now = taken.min(len - self.sent);
            if matches!(self.pieces.front(), Some(Piece::Range(_))) {
                self.in_chunks -= now;
            }
            taken -= now;
            self.sent += now;
            if self.sent < len {
                return;
            }
            self.sent = 0;
            self.pieces.pop_front();
        }
    }
}
