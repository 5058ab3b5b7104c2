//! What is pushed: bytes in the shapes in which a caller may have them.

use crate::link::outbox::Outbox;
use std::borrow::Cow;
use std::io::IoSlice;
use std::sync::Arc;

/// What is pushed.
pub(crate) enum Pushed<'a> {
    Bytes(&'a [u8]),
    Slices(&'a [IoSlice<'a>]),
    Vec(Vec<u8>),
    Shared(Arc<[u8]>),
    /// For several channels, which share one copy, made when needed.
    Broadcast(&'a [u8], &'a mut Option<Arc<[u8]>>),
}

/// Below this a copy is cheaper than a piece of its own.
const SMALL: usize = 512;

/// From here on a push is offered to the socket at once.
pub(super) const LARGE: usize = 4 * 1024;

impl Pushed<'_> {
    /// All of it, unless it is in slices.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Pushed::Bytes(bytes) | Pushed::Broadcast(bytes, _) => bytes,
            Pushed::Slices(_) => &[],
            Pushed::Vec(bytes) => bytes,
            Pushed::Shared(bytes) => bytes,
        }
    }

    /// In one piece: a datagram.
    pub(super) fn to_bytes(&self) -> Cow<'_, [u8]> {
        match self {
            Pushed::Slices(slices) => slices.iter().flat_map(|slice| slice.iter().copied()).collect(),
            other => other.bytes().into(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Pushed::Slices(slices) => slices.iter().map(|slice| slice.len()).sum(),
            other => other.bytes().len(),
        }
    }

    /// To the end of a queue, but for the first `sent` bytes, which are gone already.
    pub(super) fn queue_into(self, queue: &mut Outbox, sent: usize) {
        let left = self.len() - sent;
        match self {
            Pushed::Slices(slices) => {
                let mut skip = sent;
                for slice in slices {
                    let skipped = skip.min(slice.len());
                    skip -= skipped;
                    queue.push(&slice[skipped..]);
                }
            }
            small if left < SMALL => queue.push(&small.bytes()[sent..]),
            Pushed::Bytes(bytes) => queue.push(&bytes[sent..]),
            Pushed::Vec(bytes) => queue.push_vec(bytes, sent),
            Pushed::Shared(bytes) => queue.push_shared(bytes, sent),
            Pushed::Broadcast(bytes, shared) => {
                queue.push_shared(shared.get_or_insert_with(|| bytes.into()).clone(), sent);
            }
        }
    }
}
