//! What is pushed: bytes in the forms that callers have.

use crate::link::chunk::Broadcast;
use crate::link::outbox::Outbox;
use std::borrow::Cow;
use std::io::IoSlice;
use std::sync::Arc;

/// Bytes that are pushed.
pub(crate) enum Pushed<'a> {
    Bytes(&'a [u8]),
    Slices(&'a [IoSlice<'a>]),
    Vec(Vec<u8>),
    Shared(Arc<[u8]>),
    /// For several channels, which share one copy that is made when needed.
    Broadcast(&'a [u8], &'a mut Broadcast),
}

/// Below this size a copy is cheaper than a separate piece, which takes some memory of its own.
const SMALL: usize = 2 * 1024;

/// From this size on a push is offered to the socket at once.
pub(super) const LARGE: usize = 4 * 1024;

impl Pushed<'_> {
    /// All bytes, unless they are in slices.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Pushed::Bytes(bytes) | Pushed::Broadcast(bytes, _) => bytes,
            Pushed::Slices(_) => &[],
            Pushed::Vec(bytes) => bytes,
            Pushed::Shared(bytes) => bytes,
        }
    }

    /// The bytes in one piece, for a datagram.
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

    /// Append to a queue, except the first `sent` bytes, which have been sent.
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
            Pushed::Broadcast(bytes, broadcast) => queue.push_broadcast(bytes, broadcast, sent),
            small if left < SMALL => queue.push(&small.bytes()[sent..]),
            Pushed::Bytes(bytes) => queue.push(&bytes[sent..]),
            Pushed::Vec(bytes) => queue.push_vec(bytes, sent),
            Pushed::Shared(bytes) => queue.push_shared(bytes, sent),
        }
    }
}
