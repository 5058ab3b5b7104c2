//! What is queued on one channel: bytes, producers and datagrams, in order. When to send is decided
//! elsewhere.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::guard::drop_caught;
use crate::link::account::{Account, Share};
use crate::link::chunk::Broadcast;
use crate::link::piece::{Piece, give_back_slack};
use crate::link::producer::Producer;
use crate::link::source::MakeSource;
use crate::net::address::Address;

/// What a producer counts towards the limits, in bytes.
const PRODUCER: usize = 4 * 1024;
/// What a descriptor counts.
const DESCRIPTOR: usize = 4 * 1024;
/// What a datagram counts at least, in bytes.
const DATAGRAM: usize = 512;
/// With so much of its own behind the last part of a chunk, a queue takes part in the next broadcast.
const JOIN: usize = 2 * 1024;
/// More than this is copied in several pieces, each of which is given back when it is sent.
const BLOCK: usize = 64 * 1024;
/// Small pieces are gathered in buffers of up to this many bytes.
pub(super) const GATHER: usize = 16 * 1024;

#[derive(Default)]
pub(crate) struct Outbox {
    pub(super) pieces: VecDeque<Piece>,
    /// How much of the first piece has been sent.
    pub(super) sent: usize,
    /// Bytes in `pieces` not yet sent, without what producers are still to make.
    pub(super) queued: usize,
    pub(super) producers: usize,
    /// Of the bytes, those in chunks, which other queues may hold as well.
    pub(super) in_chunks: usize,
    /// What small datagrams, and descriptors, count beyond their bytes.
    padding: usize,
    /// What the queue holds of the map's account.
    share: Option<Share>,
    /// The first producer had nothing, and waits to be woken.
    pub(super) stalled: bool,
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// How many pieces are queued.
    pub(crate) fn pieces(&self) -> usize {
        self.pieces.len()
    }

    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// What counts towards the limits: the bytes, and a fixed amount for what is small but takes memory, because
    /// a peer that requests much and reads nothing could cause any number of them: producers, datagrams, descriptors.
    pub(crate) fn weight(&self) -> usize {
        self.cost() + self.weight_of_producers()
    }

    /// The same without producers.
    pub(crate) fn cost(&self) -> usize {
        self.queued + self.padding
    }

    pub(crate) fn weight_of_producers(&self) -> usize {
        self.producers * PRODUCER
    }

    /// What would be free without the queue, if no other had parts of the same chunks.
    pub(crate) fn keeps(&self) -> usize {
        let in_chunks = self.pieces.iter().map(|piece| match piece {
            Piece::Range(range) => range.keeps(),
            _ => 0,
        });
        self.weight() + in_chunks.sum::<usize>()
    }

    /// Enter what the queue holds in the account, but for chunks, which have shares of their own.
    pub(crate) fn count(&mut self, account: &Account) {
        let first_is_own = !matches!(self.pieces.front(), Some(Piece::Range(_)));
        let sent = if first_is_own { self.sent } else { 0 };
        let table = self.pieces.capacity() * size_of::<Piece>();
        let held = self.weight() - self.in_chunks + sent + table;
        self.share.get_or_insert_with(|| account.open()).set(held);
    }

    /// Copy `bytes` to the end.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        match self.pieces.back_mut() {
            Some(Piece::Owned(last)) if last.len() + bytes.len() <= GATHER => last.extend_from_slice(bytes),
            _ => bytes.chunks(BLOCK).for_each(|block| self.append(Piece::Owned(block.to_vec()))),
        }
        self.grown(bytes.len());
    }

    /// Take over `bytes`, of which the first `sent` have been sent (only if the queue was empty).
    pub(crate) fn push_vec(&mut self, mut bytes: Vec<u8>, sent: usize) {
        give_back_slack(&mut bytes);
        self.push_piece(bytes.len(), sent, Piece::Owned(bytes));
    }

    /// As [`push_vec`](Outbox::push_vec), for shared bytes.
    pub(crate) fn push_shared(&mut self, bytes: Arc<[u8]>, sent: usize) {
        self.push_piece(bytes.len(), sent, Piece::Shared(bytes));
    }

    /// As [`push_vec`](Outbox::push_vec), for bytes that go to several channels.
    pub(crate) fn push_broadcast(&mut self, bytes: &[u8], broadcast: &mut Broadcast, sent: usize) {
        let left = bytes.len() - sent;
        let continues = match self.pieces.back_mut() {
            _ if left == 0 => return,
            Some(Piece::Range(last)) => broadcast.continues(bytes, last),
            _ => false,
        };
        if continues {
            self.in_chunks += left;
            return self.grown(left);
        }
        // A part of a chunk keeps all of it, and is a piece of its own, so few begin within one.
        let own = match self.pieces.back() {
            Some(Piece::Owned(last)) => last.len() < JOIN,
            None => false,
            Some(_) => !broadcast.begins_a_chunk(),
        };
        if own && left < JOIN {
            return self.push(&bytes[sent..]);
        }
        self.in_chunks += left;
        self.push_piece(bytes.len(), sent, Piece::Range(broadcast.range(bytes)));
    }

    fn push_piece(&mut self, len: usize, sent: usize, piece: Piece) {
        if sent == len {
            return;
        }
        if sent > 0 {
            debug_assert!(self.pieces.is_empty());
            self.sent = sent;
        }
        self.append(piece);
        self.grown(len - sent);
    }

    fn append(&mut self, piece: Piece) {
        if let Some(Piece::Owned(last)) = self.pieces.back_mut() {
            give_back_slack(last);
        }
        self.pieces.push_back(piece);
    }

    pub(crate) fn push_producer(&mut self, producer: Box<dyn Producer>) {
        self.append(Piece::Producer(producer));
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
        if self.pieces.iter().any(|piece| piece.len().is_none()) {
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
        self.padding += padding_of(bytes.len());
        self.grown(bytes.len());
    }

    /// The first of a queue of datagrams.
    pub(crate) fn take_datagram(&mut self) -> Option<(Vec<u8>, Option<Box<Address>>)> {
        match self.pieces.pop_front() {
            Some(Piece::Datagram(bytes, to)) => {
                self.queued -= bytes.len();
                self.padding -= padding_of(bytes.len());
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
        self.padding += padding_of(len);
        self.grown(len);
    }

    pub(crate) fn push_descriptors(&mut self, bytes: &[u8], descriptors: Vec<OwnedFd>) {
        self.padding += descriptors.len() * DESCRIPTOR;
        self.append(Piece::Descriptors(bytes.to_vec(), descriptors));
        self.grown(bytes.len());
    }

    /// So many bytes of the first piece, which has descriptors, have left, and those with them.
    pub(super) fn descriptors_left(&mut self, taken: usize) {
        if let Some(Piece::Descriptors(mut bytes, descriptors)) = self.pieces.pop_front() {
            self.padding -= descriptors.len() * DESCRIPTOR;
            self.queued -= taken;
            bytes.drain(..taken);
            if !bytes.is_empty() {
                self.pieces.push_front(Piece::Owned(bytes));
            }
        }
    }

    /// Drop everything.
    pub(crate) fn clear(&mut self) {
        for piece in std::mem::take(&mut self.pieces) {
            // These are a user's values, and their drop may panic.
            match piece {
                Piece::Producer(producer) => drop_caught("a producer", producer),
                Piece::Failed(error, _) => drop_caught("an error", error),
                Piece::Upgrade(make) => drop_caught("what makes a source", make),
                Piece::Owned(_) | Piece::Shared(_) | Piece::Range(_) => {}
                Piece::Datagram(..) | Piece::Descriptors(..) => {}
            }
        }
        self.sent = 0;
        self.queued = 0;
        self.producers = 0;
        self.in_chunks = 0;
        self.padding = 0;
        self.share = None;
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

    pub(super) fn grown(&mut self, bytes: usize) {
        self.queued += bytes;
    }
}

fn padding_of(datagram: usize) -> usize {
    DATAGRAM.saturating_sub(datagram)
}
