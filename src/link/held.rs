//! How a channel holds its source.

use crate::link::guarded::Guarded;
use crate::link::source::{Plain, Source};
use std::any::Any;
use std::io;
use std::os::fd::BorrowedFd;

/// What a slot holds: the plain socket in place, everything else in a box.
pub(crate) enum Held {
    Own(Box<Guarded>),
    Plain(Plain),
}

impl Held {
    pub(crate) fn own(source: Box<dyn Source>) -> Held {
        Held::Own(Box::new(Guarded::new(source)))
    }

    /// The error of the source's panic, if there was one.
    pub(crate) fn panic(&self) -> Option<io::Error> {
        match self {
            Held::Plain(_) => None,
            Held::Own(source) => source.panic(),
        }
    }

    #[inline]
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Held::Plain(plain) => Some(plain.fd()),
            Held::Own(source) => source.descriptor(),
        }
    }

    pub(crate) fn as_dyn(&mut self) -> &mut dyn Source {
        match self {
            Held::Plain(plain) => plain,
            Held::Own(source) => &mut **source,
        }
    }

    /// The user's source, if it is of this type.
    pub(crate) fn as_type<T: Source>(&self) -> Option<&T> {
        match self {
            Held::Plain(_) => None,
            Held::Own(guarded) => (&*guarded.source as &dyn Any).downcast_ref(),
        }
    }

    pub(crate) fn is_plain(&self) -> bool {
        matches!(self, Held::Plain(_))
    }

    pub(crate) fn into_box(self) -> Box<dyn Source> {
        match self {
            Held::Plain(plain) => Box::new(plain),
            Held::Own(guarded) => guarded.source,
        }
    }
}
