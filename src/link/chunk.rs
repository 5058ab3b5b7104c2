//! Bytes that several queues send: what is broadcast is held once, however many wait for it, and small
//! broadcasts lie side by side.

use std::cell::{Ref, RefCell};
use std::rc::Rc;

use crate::link::account::{Account, Share};

/// Small broadcasts are gathered in chunks of up to this many bytes.
const CHUNK: usize = 16 * 1024;

pub(crate) struct Chunk {
    bytes: RefCell<Vec<u8>>,
    share: Share,
}

impl Chunk {
    fn new(bytes: &[u8], account: &Account) -> Rc<Chunk> {
        let chunk = Chunk { bytes: RefCell::new(bytes.to_vec()), share: account.open() };
        chunk.count();
        Rc::new(chunk)
    }

    /// Where the bytes are now, if there was room for them.
    fn append(&self, bytes: &[u8]) -> Option<usize> {
        let at = {
            let mut all = self.bytes.borrow_mut();
            let at = all.len();
            if at + bytes.len() > CHUNK {
                return None;
            }
            if all.capacity() < at + bytes.len() {
                // To double its room, but not beyond the chunk's.
                let room = (2 * at).max(at + bytes.len()).min(CHUNK);
                all.reserve_exact(room - at);
            }
            all.extend_from_slice(bytes);
            at
        };
        self.count();
        Some(at)
    }

    fn count(&self) {
        self.share.set(self.bytes.borrow().capacity() + size_of::<Chunk>());
    }
}

/// A part of a chunk, in the queue of one channel.
pub(super) struct Range {
    chunk: Rc<Chunk>,
    start: usize,
    end: usize,
}

impl Range {
    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }

    /// What it keeps in memory beside its own bytes.
    pub(super) fn keeps(&self) -> usize {
        self.chunk.bytes.borrow().len() - self.len()
    }

    pub(super) fn bytes(&self) -> Ref<'_, [u8]> {
        Ref::map(self.chunk.bytes.borrow(), |bytes| &bytes[self.start..self.end])
    }
}

/// Where the bytes of a broadcast are, once one of the channels has to wait for them.
pub(crate) struct Broadcast {
    account: Account,
    place: Option<(Rc<Chunk>, usize)>,
}

impl Broadcast {
    pub(crate) fn new(account: &Account) -> Broadcast {
        Broadcast { account: account.clone(), place: None }
    }

    /// Whether the bytes could be put behind `last`, the last in a queue, and were: at no cost.
    pub(super) fn continues(&mut self, bytes: &[u8], last: &mut Range) -> bool {
        if self.place.is_none() && last.end == last.chunk.bytes.borrow().len() {
            self.place = last.chunk.append(bytes).map(|at| (last.chunk.clone(), at));
        }
        let Some((chunk, at)) = &self.place else { return false };
        let continues = Rc::ptr_eq(chunk, &last.chunk) && *at == last.end;
        if continues {
            last.end += bytes.len();
        }
        continues
    }

    /// Whether nothing that other queues have sent would be held for this one alone.
    pub(super) fn begins_a_chunk(&self) -> bool {
        self.place.as_ref().is_none_or(|(_, at)| *at == 0)
    }

    /// A piece for a queue.
    pub(super) fn range(&mut self, bytes: &[u8]) -> Range {
        let account = &self.account;
        let (chunk, start) = self.place.get_or_insert_with(|| (Chunk::new(bytes, account), 0));
        Range { chunk: chunk.clone(), start: *start, end: *start + bytes.len() }
    }
}
