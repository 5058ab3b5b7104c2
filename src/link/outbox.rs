//! What is queued on one channel: bytes, producers and datagrams, in order. When to send is decided
//! elsewhere.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::error::panicked;
use crate::guard::drop_caught;
use crate::link::held::Held;
use crate::link::producer::{More, Producer};
use crate::link::source::{MakeSource, Source};
use crate::net::address::Address;
use crate::sys::errno::would_block;

/// The most pieces in one `sendmsg`.
const PIECES: usize = 16;
/// What a producer counts towards the limits, in bytes.
const PRODUCER: usize = 4 * 1024;
/// Small pieces are gathered in buffers of up to this many bytes.
const GATHER: usize = 16 * 1024;
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

enum Piece {
    Owned(Vec<u8>),
    Shared(Arc<[u8]>),
    Producer(Box<dyn Producer>),
    /// In the place of a producer that has failed; `true` if it panicked.
    Failed(io::Error, bool),
    /// For this address, or the one peer.
    Datagram(Vec<u8>, Option<Box<Address>>),
    /// What was pushed before it goes through the old source, what comes after it through the new one.
    Upgrade(MakeSource),
}

impl Piece {
    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Piece::Owned(bytes) => Some(bytes),
            Piece::Shared(bytes) => Some(bytes),
            Piece::Producer(_) | Piece::Failed(..) | Piece::Datagram(..) | Piece::Upgrade(_) => None,
        }
    }
}

#[derive(Default)]
pub(crate) struct Outbox {
    pieces: VecDeque<Piece>,
    /// How much of the first piece has been sent.
    sent: usize,
    /// Bytes in `pieces` not yet sent, without what producers are still to make.
    queued: usize,
    producers: usize,
    /// The first producer had nothing, and waits to be woken.
    stalled: bool,
}

/// How a flush ended.
pub(crate) enum Flushed {
    /// All is sent.
    Empty,
    /// The socket takes no more now.
    Blocked,
    /// The budget is used up; the socket may take more.
    Budget,
    /// The first piece is a producer that has nothing now, or is not to be asked.
    Stalled,
    /// The first piece is an upgrade: all before it is sent.
    Upgrade,
    /// A producer has failed; `true` if it panicked.
    Producer(io::Error, bool),
    /// The socket failed.
    Lost(io::Error),
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// What counts towards the limits: the bytes, and a fixed amount for each producer, because a peer
    /// that requests much and reads nothing could cause any number of them.
    pub(crate) fn weight(&self) -> usize {
        self.queued + self.weight_of_producers()
    }

    pub(crate) fn weight_of_producers(&self) -> usize {
        self.producers * PRODUCER
    }

    /// Copy `bytes` to the end.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        match self.pieces.back_mut() {
            Some(Piece::Owned(last)) if last.len() + bytes.len() <= GATHER => last.extend_from_slice(bytes),
            _ => self.pieces.push_back(Piece::Owned(bytes.to_vec())),
        }
        self.grown(bytes.len());
    }

    /// Take over `bytes`, of which the first `sent` have been sent (only if the queue was empty).
    pub(crate) fn push_vec(&mut self, bytes: Vec<u8>, sent: usize) {
        self.push_piece(bytes.len(), sent, Piece::Owned(bytes));
    }

    /// As [`push_vec`](Outbox::push_vec), for shared bytes.
    pub(crate) fn push_shared(&mut self, bytes: Arc<[u8]>, sent: usize) {
        self.push_piece(bytes.len(), sent, Piece::Shared(bytes));
    }

    fn push_piece(&mut self, len: usize, sent: usize, piece: Piece) {
        if sent == len {
            return;
        }
        if sent > 0 {
            debug_assert!(self.pieces.is_empty());
            self.sent = sent;
        }
        self.pieces.push_back(piece);
        self.grown(len - sent);
    }

    pub(crate) fn push_producer(&mut self, producer: Box<dyn Producer>) {
        self.pieces.push_back(Piece::Producer(producer));
        self.producers += 1;
    }

    pub(crate) fn push_upgrade(&mut self, make: MakeSource) {
        self.pieces.push_back(Piece::Upgrade(make));
    }

    /// Take out the upgrade, wherever it is; there is at most one.
    pub(crate) fn take_upgrade(&mut self) -> Option<MakeSource> {
        let at = self.pieces.iter().position(|piece| matches!(piece, Piece::Upgrade(_)))?;
        match self.pieces.remove(at) {
            Some(Piece::Upgrade(make)) => Some(make),
            _ => None,
        }
    }

    /// Take everything out, as bytes; `None`, with nothing changed, if a producer or an upgrade is
    /// among it.
    pub(crate) fn take_bytes(&mut self) -> Option<Vec<u8>> {
        if self.pieces.iter().any(|piece| piece.bytes().is_none()) {
            return None;
        }
        let mut bytes = Vec::with_capacity(self.queued);
        let mut skip = self.sent;
        for piece in self.pieces.iter().filter_map(Piece::bytes) {
            bytes.extend_from_slice(&piece[std::mem::take(&mut skip)..]);
        }
        self.clear();
        Some(bytes)
    }

    pub(crate) fn push_datagram(&mut self, bytes: &[u8], to: Option<&Address>) {
        self.pieces.push_back(Piece::Datagram(bytes.to_vec(), to.cloned().map(Box::new)));
        self.grown(bytes.len());
    }

    /// The first of a queue of datagrams.
    pub(crate) fn take_datagram(&mut self) -> Option<(Vec<u8>, Option<Box<Address>>)> {
        match self.pieces.pop_front() {
            Some(Piece::Datagram(bytes, to)) => {
                self.queued -= bytes.len();
                Some((bytes, to))
            }
            _ => {
                self.pieces = VecDeque::new();
                None
            }
        }
    }

    pub(crate) fn put_datagram_back(&mut self, bytes: Vec<u8>, to: Option<Box<Address>>) {
        let len = bytes.len();
        self.pieces.push_front(Piece::Datagram(bytes, to));
        self.grown(len);
    }

    pub(crate) fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Drop everything.
    pub(crate) fn clear(&mut self) {
        for piece in std::mem::take(&mut self.pieces) {
            // These are a user's values, and their drop may panic.
            match piece {
                Piece::Producer(producer) => drop_caught("a producer", producer),
                Piece::Failed(error, _) => drop_caught("an error", error),
                Piece::Upgrade(make) => drop_caught("what makes a source", make),
                Piece::Owned(_) | Piece::Shared(_) | Piece::Datagram(..) => {}
            }
        }
        self.sent = 0;
        self.queued = 0;
        self.producers = 0;
        self.stalled = false;
    }

    /// A producer that had nothing may have something now.
    pub(crate) fn wake_producer(&mut self) {
        self.stalled = false;
    }

    /// Whether the queue has something to send.
    pub(crate) fn is_due(&self) -> bool {
        match self.pieces.front() {
            Some(Piece::Producer(_)) => !self.stalled,
            // It waits for what is in the old source, which the source announces.
            Some(Piece::Upgrade(_)) => false,
            first => first.is_some(),
        }
    }

    /// Send as much as possible within `budget`, from which each call is subtracted; `moved` is set if a
    /// byte was sent. Producers are asked only if `produces`.
    pub(crate) fn flush(
        &mut self,
        source: &mut Held,
        budget: &mut u32,
        moved: &mut bool,
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
                Some(Piece::Producer(_)) if self.stalled || !produces => return Flushed::Stalled,
                Some(_) if *budget == 0 => return Flushed::Budget,
                Some(Piece::Failed(..)) => return self.take_failure(),
                Some(_) => {}
            }
            let (result, offered) = self.send(source.as_dyn(), *budget as usize);
            *budget = left_of(*budget, *result.as_ref().unwrap_or(&0));
            match result {
                Ok(taken) => {
                    self.advance(taken);
                    *moved |= taken > 0;
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
        let mut skip = self.sent;
        let unsent = self.pieces.iter().map_while(Piece::bytes).map(|bytes| {
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
                piece => ready += piece.bytes()?.len(),
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
        while let Some(bytes) = self.pieces.front().and_then(Piece::bytes) {
            let left = bytes.len() - self.sent;
            if taken < left {
                self.sent += taken;
                break;
            }
            taken -= left;
            self.sent = 0;
            self.pieces.pop_front();
        }
    }

    fn grown(&mut self, bytes: usize) {
        self.queued += bytes;
    }
}
