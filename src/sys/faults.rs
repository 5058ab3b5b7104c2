//! The door through which the tests make a system call of `sys` fail, be cut short, be interrupted or
//! say would-block, and count the calls. In a release build there is none; in a debug build a call
//! costs one relaxed load until the process first uses the door.

/// The system calls that the library makes itself, as the tests name them.
#[cfg_attr(not(debug_assertions), allow(dead_code, unreachable_pub))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `socket`
    Socket,
    /// `bind`
    Bind,
    /// `listen`
    Listen,
    /// `connect`
    Connect,
    /// `accept4`
    Accept,
    /// `recv`, `recvmsg` or `read`
    Recv,
    /// `recv` with `MSG_OOB`
    RecvUrgent,
    /// `send`, `sendto`, `sendmsg` or `writev`
    Send,
    /// `shutdown`
    Shutdown,
    /// `getsockopt` of `SO_ERROR`
    TakeError,
    /// `getsockname` or `getpeername`
    Address,
    /// `setsockopt`, `getsockopt` or `fcntl`
    Option,
    /// `ioctl` of `SIOCOUTQ`, or what stands for it
    Unsent,
    /// `epoll_create` and `eventfd`, or what stands for them, through `polling`
    Poller,
    /// `epoll_ctl` or what stands for it, through `polling`
    Control,
    /// `poll` without waiting
    Look,
    /// `socketpair`
    Pair,
    /// Starting a thread, which a look-up needs
    Thread,
    /// `lstat`, `realpath` or `chmod` of the file of a socket that was just bound to it
    File,
    /// `epoll_wait` or what stands for it
    Wait,
}

#[cfg(debug_assertions)]
pub use open::{Fault, clear, count, inject};
#[cfg(debug_assertions)]
pub(crate) use open::{pass, pass_bytes};
#[cfg(not(debug_assertions))]
pub(crate) use walled::{pass, pass_bytes};

#[cfg(debug_assertions)]
mod open {
    use super::Call;
    use std::cell::{Cell, RefCell};
    use std::io;
    use std::sync::atomic::{AtomicBool, Ordering};

    const CALLS: usize = Call::Wait as usize + 1;

    /// Set by the first use of the door, and never cleared. Relaxed is enough: plans and counts are
    /// each thread's own, and a thread sees what it stored itself.
    static USED: AtomicBool = AtomicBool::new(false);

    thread_local! {
        static PLANS: RefCell<Vec<Plan>> = const { RefCell::new(Vec::new()) };
        static COUNTS: [Cell<u64>; CALLS] = const { [const { Cell::new(0) }; CALLS] };
    }

    struct Plan {
        call: Call,
        skip: u64,
        times: u64,
        fault: Fault,
    }

    /// What happens to a call instead of, or beside, its usual work.
    #[derive(Clone, Copy, Debug)]
    pub enum Fault {
        /// It fails with this `errno` and does nothing.
        Errno(i32),
        /// It moves at most this many bytes.
        Short(usize),
    }

    /// From now on in this thread: after `skip` more calls of `call`, the next `times` have `fault`.
    pub fn inject(call: Call, skip: u64, times: u64, fault: Fault) {
        USED.store(true, Ordering::Relaxed);
        PLANS.with_borrow_mut(|plans| plans.push(Plan { call, skip, times, fault }));
    }

    /// Forget what was planned in this thread.
    pub fn clear() {
        PLANS.with_borrow_mut(Vec::clear);
    }

    /// How often this thread has made `call`, injected failures included, since the process first used
    /// the door: the difference of two counts is exact.
    pub fn count(call: Call) -> u64 {
        USED.store(true, Ordering::Relaxed);
        COUNTS.with(|counts| counts[call as usize].get())
    }

    #[inline]
    pub(crate) fn pass(call: Call) -> io::Result<()> {
        pass_bytes(call, 0).map(|_| ())
    }

    #[inline]
    pub(crate) fn pass_bytes(call: Call, wanted: usize) -> io::Result<usize> {
        if !USED.load(Ordering::Relaxed) {
            return Ok(wanted);
        }
        match fault(call) {
            None => Ok(wanted),
            Some(Fault::Errno(code)) => Err(io::Error::from_raw_os_error(code)),
            Some(Fault::Short(most)) => Ok(wanted.min(most)),
        }
    }

    /// Count the call, and what is planned for it.
    fn fault(call: Call) -> Option<Fault> {
        COUNTS.with(|counts| {
            let count = &counts[call as usize];
            count.set(count.get() + 1);
        });
        let planned = PLANS.try_with(|plans| {
            let mut plans = plans.borrow_mut();
            let at = plans.iter().position(|plan| plan.call == call)?;
            let plan = &mut plans[at];
            if plan.skip > 0 {
                plan.skip -= 1;
                return None;
            }
            let fault = plan.fault;
            plan.times -= 1;
            if plan.times == 0 {
                plans.remove(at);
            }
            Some(fault)
        });
        // A map may be dropped after the plans of its thread.
        planned.unwrap_or(None)
    }
}

#[cfg(not(debug_assertions))]
mod walled {
    use super::Call;
    use std::io;

    #[inline(always)]
    pub(crate) fn pass(_: Call) -> io::Result<()> {
        Ok(())
    }

    #[inline(always)]
    pub(crate) fn pass_bytes(_: Call, wanted: usize) -> io::Result<usize> {
        Ok(wanted)
    }
}
