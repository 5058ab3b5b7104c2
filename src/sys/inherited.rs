//! What a service manager gives to a process: descriptors, and a socket to which it tells how it is. One of the three
//! places with `unsafe`; the others are `poll.rs` and `unsent.rs`.

use std::io::{self, ErrorKind};
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_setfd};
use socket2::{Domain, Socket, Type};

use crate::net::address::Address;
use crate::sys::faults::{self, Call};
use crate::sys::sock_addr_of;

/// The number of the first descriptor, as `sd_listen_fds` has it.
const FIRST: RawFd = 3;

/// The first `count` descriptors that the process was started with, beyond the standard three; close-on-exec. `None`
/// if they were taken before.
pub(crate) fn take(count: u16) -> io::Result<Option<Vec<OwnedFd>>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(None);
    }
    faults::pass(Call::Option)?;
    let numbers = FIRST..FIRST + RawFd::from(count);
    for number in numbers.clone() {
        // SAFETY: it is looked at, and whoever else may have it cannot close it meanwhile, unless the caller is wrong
        // in that the process was given these descriptors and nobody has taken them.
        #[allow(unsafe_code)]
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        // Also tells whether it is open.
        fcntl_setfd(fd, FdFlags::CLOEXEC)?;
    }
    // SAFETY: they are open, as was just seen. The service manager gave them to this process, as the caller has found
    // in the environment, so nobody else owns them; and they are given away here once.
    #[allow(unsafe_code)]
    let taken = numbers.map(|number| unsafe { OwnedFd::from_raw_fd(number) }).collect();
    Ok(Some(taken))
}

/// Send a datagram, and wait for at most so long.
pub(crate) fn tell(to: &Address, message: &[u8], patience: Duration) -> io::Result<()> {
    faults::pass(Call::Socket)?;
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    match patience.is_zero() {
        true => socket.set_nonblocking(true)?,
        false => socket.set_write_timeout(Some(patience))?,
    }
    faults::pass(Call::Send)?;
    match socket.send_to(message, &sock_addr_of(to)?)? {
        sent if sent == message.len() => Ok(()),
        _ => Err(ErrorKind::WriteZero.into()),
    }
}
