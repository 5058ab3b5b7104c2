//! The one file that speaks to `polling`: which descriptor is watched for what, and the wait.
//! Level mode only. One of the three places with `unsafe`; the others are `unsent.rs` and `inherited.rs`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

use polling::{Event, PollMode, Poller};

use crate::sys;
use crate::sys::faults::{self, Call};

/// Events that one wait takes at most; the rest comes with the next.
const BATCH: usize = 1024;

/// Whether the wait is our own call on `polling`'s descriptor, or `polling`'s.
#[cfg(all(any(target_os = "linux", target_os = "android"), not(dispatch_loop_polling_wait)))]
type Batch = Vec<rustix::event::epoll::Event>;
#[cfg(not(all(any(target_os = "linux", target_os = "android"), not(dispatch_loop_polling_wait))))]
type Batch = Vec<Event>;

pub(crate) struct Poll {
    poller: Arc<Poller>,
    batch: Batch,
    /// What `polling` itself reports: the batch on the portable path, else only thrown away.
    events: polling::Events,
    /// What a map for testing has besides: keys, and what each is ready for.
    #[cfg(feature = "testing")]
    pub(crate) scripted: Vec<(usize, Ready)>,
}

/// What to wait for: C's `POLLIN` and `POLLOUT`.
///
/// ```
/// use dispatch_loop::Interest;
///
/// let interest = Interest { read: true, ..Interest::NONE };
/// assert!(!interest.write);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// Until there is input.
    pub read: bool,
    /// Until there is room for output.
    pub write: bool,
}

impl Interest {
    /// Neither.
    pub const NONE: Interest = Interest { read: false, write: false };
}

/// What one descriptor is ready for. `hup` and `err` come unasked where the system reports them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ready {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) urgent: bool,
    pub(crate) hup: bool,
    pub(crate) err: bool,
}

impl Poll {
    pub(crate) fn new() -> io::Result<Poll> {
        faults::pass(Call::Poller)?;
        let poller = Arc::new(Poller::new()?);
        if !poller.supports_level() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this system's poller has no level-triggered mode, which dispatch-loop needs",
            ));
        }
        let capacity = const { std::num::NonZeroUsize::new(BATCH).unwrap() };
        let events = polling::Events::with_capacity(capacity);
        Ok(Poll {
            poller,
            batch: Batch::with_capacity(BATCH),
            events,
            #[cfg(feature = "testing")]
            scripted: Vec::new(),
        })
    }

    /// What ends a wait from another thread. It does not keep the poller's descriptors open.
    pub(crate) fn waker(&self) -> Waker {
        Waker(Arc::downgrade(&self.poller))
    }

    /// Watch a descriptor. Hang-ups and errors are reported even if `interest` is in nothing.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, key: usize, interest: Interest) -> io::Result<()> {
        faults::pass(Call::Control)?;
        // SAFETY: `polling` asks that a source be deleted before it is dropped. It keeps the number of the
        // descriptor and `key`, neither of which it follows anywhere; the kernel (epoll, kqueue) takes a
        // closed descriptor out by itself. So all that a breach can cause is an event under a key that is
        // out of date, and keys are slots that are looked up, and say themselves whether they are in use.
        // Nevertheless every place that closes or gives away a source deletes it first: `finish` and
        // `drop_source` in teardown.rs, `change_source` in upgrade.rs, `detach` in handover.rs, `won` in
        // dial.rs. A source of the user's may close its descriptor, or exchange it, in safe code: `unwatch`
        // in registration.rs notices that its number has changed, and deletes the old one.
        #[allow(unsafe_code)]
        unsafe {
            self.poller.add_with_mode(fd.as_raw_fd(), event(key, interest), PollMode::Level)
        }
    }

    /// Delete a descriptor that its source no longer shows, by its number. No channel of this poller has
    /// that number now.
    pub(crate) fn delete_left(&self, fd: RawFd) {
        // SAFETY: the number was that of a descriptor. It is looked up in the poller's own table, and if it
        // was closed, or is another's now, which is not in this poller, that is all that happens: nothing
        // is read, written or closed through it, and it is not kept.
        #[allow(unsafe_code)]
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        // This fails if the kernel has taken it out before.
        let _ = self.delete(fd);
    }

    pub(crate) fn modify(&self, fd: BorrowedFd<'_>, key: usize, interest: Interest) -> io::Result<()> {
        faults::pass(Call::Control)?;
        self.poller.modify_with_mode(fd, event(key, interest), PollMode::Level)
    }

    pub(crate) fn delete(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        faults::pass(Call::Control)?;
        self.poller.delete(fd)
    }

    /// Wait until something is ready or `timeout` is over; [`key`](Poll::key) and
    /// [`event`](Poll::event) then give each. `Interrupted` if a signal came.
    #[cfg(all(any(target_os = "linux", target_os = "android"), not(dispatch_loop_polling_wait)))]
    #[inline(always)]
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        sys::epoll_wait(&*self.poller, &mut self.batch, timeout)
    }

    /// How many descriptors the last wait has reported.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.batch.len()
    }

    /// Behind what the system has reported.
    #[cfg(feature = "testing")]
    fn scripted_at(&self, at: usize) -> Option<(usize, Ready)> {
        self.scripted.get(at.checked_sub(self.batch.len())?).copied()
    }

    /// If this is `polling`'s own key, [`Waker::wake`] was called. Its own wait, with no time to spend,
    /// takes that back; what else it reports is level-triggered and in our batch already.
    #[cold]
    #[inline(never)]
    pub(crate) fn take_notification_back(&mut self, key: usize) {
        #[cfg(all(any(target_os = "linux", target_os = "android"), not(dispatch_loop_polling_wait)))]
        if key as u64 == NOTIFY_KEY {
            self.events.clear();
            // If it fails, so will our next wait.
            let _ = self.poller.wait(&mut self.events, Some(Duration::ZERO));
        }
        let _ = key;
    }

    /// The key of an event, and whether all that it asks for is a read: input, the peer's end, an error.
    #[cfg(all(any(target_os = "linux", target_os = "android"), not(dispatch_loop_polling_wait)))]
    #[inline(always)]
    pub(crate) fn key(&self, at: usize) -> Option<(usize, bool)> {
        use rustix::event::epoll::EventFlags;
        const TO_READ: EventFlags = EventFlags::IN.union(EventFlags::HUP).union(EventFlags::ERR);
        #[cfg(feature = "testing")]
        if let Some((key, _)) = self.scripted_at(at) {
            return Some((key, false));
        }
        let event = self.batch.get(at)?;
        let flags = event.flags;
        Some((event.data.u64() as usize, TO_READ.contains(flags)))
    }

    #[cfg(all(any(target_os = "linux", target_os = "android"), not(dispatch_loop_polling_wait)))]
    pub(crate) fn event(&self, at: usize) -> Ready {
        use rustix::event::epoll::EventFlags;
        #[cfg(feature = "testing")]
        if let Some((_, ready)) = self.scripted_at(at) {
            return ready;
        }
        let Some(event) = self.batch.get(at) else { return Ready::default() };
        let flags = event.flags;
        Ready {
            read: flags.contains(EventFlags::IN),
            write: flags.contains(EventFlags::OUT),
            urgent: flags.contains(EventFlags::PRI),
            hup: flags.contains(EventFlags::HUP),
            err: flags.contains(EventFlags::ERR),
        }
    }

    #[cfg(not(all(any(target_os = "linux", target_os = "android"), not(dispatch_loop_polling_wait))))]
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.batch.clear();
        sys::polling_wait(&self.poller, &mut self.events, timeout)?;
        self.batch.extend(self.events.iter());
        Ok(())
    }

    #[cfg(not(all(any(target_os = "linux", target_os = "android"), not(dispatch_loop_polling_wait))))]
    pub(crate) fn key(&self, at: usize) -> Option<(usize, bool)> {
        #[cfg(feature = "testing")]
        if let Some((key, _)) = self.scripted_at(at) {
            return Some((key, false));
        }
        let Ready { write, urgent, .. } = self.ready(at)?;
        Some((self.batch.get(at)?.key, !(write || urgent)))
    }

    #[cfg(not(all(any(target_os = "linux", target_os = "android"), not(dispatch_loop_polling_wait))))]
    pub(crate) fn event(&self, at: usize) -> Ready {
        #[cfg(feature = "testing")]
        if let Some((_, ready)) = self.scripted_at(at) {
            return ready;
        }
        self.ready(at).unwrap_or_default()
    }

    /// `polling` reports hang-ups, errors and urgent data as readable and writable, too: look at what
    /// the channel is registered for.
    #[cfg(not(all(any(target_os = "linux", target_os = "android"), not(dispatch_loop_polling_wait))))]
    fn ready(&self, at: usize) -> Option<Ready> {
        let event = self.batch.get(at)?;
        Some(Ready {
            read: event.readable,
            write: event.writable,
            urgent: event.is_priority(),
            hup: event.is_interrupt(),
            err: event.is_err().unwrap_or(false),
        })
    }
}

/// Ends the current wait, or the next one. Calls between two waits cost one system call
/// together.
#[derive(Debug)]
pub(crate) struct Waker(Weak<Poller>);

impl Waker {
    pub(crate) fn wake(&self) {
        if let Some(poller) = self.0.upgrade() {
            // It can only fail when the poller is beyond use, which its own wait will tell.
            let _ = poller.notify();
        }
    }
}

impl AsFd for Poll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poller.as_fd()
    }
}

/// The key that `polling` 3 keeps for itself.
#[cfg(all(any(target_os = "linux", target_os = "android"), not(dispatch_loop_polling_wait)))]
const NOTIFY_KEY: u64 = usize::MAX as u64;

fn event(key: usize, interest: Interest) -> Event {
    Event::new(key, interest.read, interest.write)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// Our own wait relies on two facts about `polling` that its documentation does not state: the
    /// key of `notify`, and that its own wait takes the notification back.
    #[test]
    fn a_notification_ends_one_wait_and_is_no_event() {
        let mut poll = Poll::new().unwrap();
        for _ in 0..3 {
            poll.poller.notify().unwrap();
            let begun = Instant::now();
            poll.wait(Some(Duration::from_secs(20))).unwrap();
            assert!(begun.elapsed() < Duration::from_secs(10), "the notification did not end the wait");
            while let Some((key, _)) = poll.key(0) {
                poll.take_notification_back(key);
                poll.batch.remove(0);
            }
            let begun = Instant::now();
            poll.wait(Some(Duration::from_millis(30))).unwrap();
            assert!(begun.elapsed() >= Duration::from_millis(30), "the notification was not taken back");
        }
    }
}
