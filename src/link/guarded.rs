//! Catches the panics of a user's source.

use std::cell::RefCell;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{BorrowedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{clone_error, panicked};
use crate::guard::drop_error;
use crate::link::account::{Account, Share};
use crate::link::source::Source;
use crate::sys::errno::{is_interrupted, would_block};
use crate::sys::poll::Interest;
use crate::threads::source_waker::SourceWaker;

/// A user's source, whose panics become errors. After a panic it is not called again.
pub(crate) struct Guarded {
    pub(crate) source: Box<dyn Source>,
    /// The number of the descriptor that the poller was told, while it is registered.
    pub(super) watched: Option<RawFd>,
    /// It was said to be ready: its descriptor may be another of the same number.
    pub(super) announced: bool,
    panic: RefCell<Option<io::Error>>,
    /// Of what it holds.
    share: Option<Share>,
}

impl Guarded {
    pub(crate) fn new(source: Box<dyn Source>) -> Guarded {
        Guarded { source, watched: None, announced: false, panic: RefCell::new(None), share: None }
    }

    /// The error of its panic, if there was one.
    pub(crate) fn panic(&self) -> Option<io::Error> {
        self.panic.borrow().as_ref().map(clone_error)
    }

    /// Enter what it holds in the account; `false` if that is nothing.
    pub(super) fn count(&mut self, account: &Account) -> bool {
        let held = self.output_held();
        if held > 0 {
            self.share.get_or_insert_with(|| account.open()).set(held);
        } else {
            self.share = None;
        }
        held > 0
    }

    /// What it holds counts no longer: its channel has ended.
    pub(super) fn give_back(&mut self) {
        self.share = None;
    }

    fn ask<R>(&self, otherwise: R, question: impl FnOnce(&dyn Source) -> R) -> R {
        if self.panic.borrow().is_some() {
            return otherwise;
        }
        catch_unwind(AssertUnwindSafe(|| question(&*self.source))).unwrap_or_else(|payload| {
            *self.panic.borrow_mut() = Some(panicked(payload));
            otherwise
        })
    }

    /// Calls again if a signal interrupts it.
    fn tell<R>(&mut self, mut call: impl FnMut(&mut dyn Source) -> io::Result<R>) -> io::Result<R> {
        if let Some(error) = self.panic() {
            return Err(error);
        }
        loop {
            match catch_unwind(AssertUnwindSafe(|| call(&mut *self.source))) {
                Ok(Err(error)) if is_interrupted(&error) => drop_error(error),
                Ok(Err(error)) if would_block(&error) => {
                    drop_error(error);
                    return Err(ErrorKind::WouldBlock.into());
                }
                Ok(result) => return result,
                Err(payload) => {
                    let error = panicked(payload);
                    *self.panic.borrow_mut() = Some(clone_error(&error));
                    return Err(error);
                }
            }
        }
    }
}

impl Source for Guarded {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        // It is asked after a panic, too: the descriptor is to leave the poller.
        catch_unwind(AssertUnwindSafe(|| self.source.descriptor())).unwrap_or_else(|payload| {
            *self.panic.borrow_mut() = Some(panicked(payload));
            None
        })
    }

    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.tell(|source| source.recv(buffer))
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tell(|source| source.send(bytes))
    }

    fn send_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.tell(|source| source.send_vectored(pieces))
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        self.tell(|source| source.shutdown_write())
    }

    fn is_established(&self) -> bool {
        self.ask(false, |source| source.is_established())
    }

    fn interest(&self, wanted: Interest) -> Interest {
        self.ask(wanted, |source| source.interest(wanted))
    }

    fn drive(&mut self, ready: Interest) -> io::Result<bool> {
        self.tell(|source| source.drive(ready))
    }

    fn input_pending(&self) -> bool {
        self.ask(false, |source| source.input_pending())
    }

    fn output_pending(&self) -> bool {
        self.ask(false, |source| source.output_pending())
    }

    fn output_held(&self) -> usize {
        self.ask(0, |source| source.output_held())
    }

    fn unacknowledged(&self) -> usize {
        self.ask(0, |source| source.unacknowledged())
    }

    fn set_waker(&mut self, waker: &SourceWaker) {
        // What it panics with ends the channel.
        let _ = self.tell(|source| {
            source.set_waker(waker);
            Ok(())
        });
    }

    fn reset(&mut self) {
        let _ = self.tell(|source| {
            source.reset();
            Ok(())
        });
    }
}
