//! The pieces that a queue consists of.

use std::cell::Ref;
use std::io;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::link::chunk::Range;
use crate::link::producer::Producer;
use crate::link::source::MakeSource;
use crate::net::address::Address;

/// A part of a queue.
pub(super) enum Piece {
    Owned(Vec<u8>),
    Shared(Arc<[u8]>),
    Range(Range),
    Producer(Box<dyn Producer>),
    /// In the place of a producer that has failed; `true` if it panicked.
    Failed(io::Error, bool),
    /// For this address, or the one peer.
    Datagram(Vec<u8>, Option<Box<Address>>),
    /// Bytes, with the first of which the descriptors go.
    Descriptors(Vec<u8>, Vec<OwnedFd>),
    /// What was pushed before it goes through the old source, what comes after it through the new one.
    Upgrade(MakeSource),
}

/// The bytes of a piece.
pub(super) enum Bytes<'a> {
    Own(&'a [u8]),
    InChunk(Ref<'a, [u8]>),
}

impl Deref for Bytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Own(bytes) => bytes,
            Bytes::InChunk(bytes) => bytes,
        }
    }
}

impl Piece {
    /// Unless it is no part of a stream, or not yet.
    pub(super) fn len(&self) -> Option<usize> {
        match self {
            Piece::Range(range) => Some(range.len()),
            piece => piece.bytes().map(|bytes| bytes.len()),
        }
    }

    pub(super) fn bytes(&self) -> Option<Bytes<'_>> {
        match self {
            Piece::Owned(bytes) => Some(Bytes::Own(bytes)),
            Piece::Shared(bytes) => Some(Bytes::Own(bytes)),
            Piece::Range(range) => Some(Bytes::InChunk(range.bytes())),
            Piece::Producer(_) | Piece::Failed(..) | Piece::Datagram(..) => None,
            Piece::Descriptors(..) | Piece::Upgrade(_) => None,
        }
    }
}

/// Memory that a buffer has room in, and does not use.
pub(super) fn give_back_slack(bytes: &mut Vec<u8>) {
    if bytes.capacity() - bytes.len() > bytes.len() / 8 {
        bytes.shrink_to_fit();
    }
}
