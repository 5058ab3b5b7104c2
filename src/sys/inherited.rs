//! What a service manager gives to a process: descriptors, and a socket to which it tells how it is. One of the three
//! places with `unsafe`; the others are `poll.rs` and `unsent.rs`.

use std::io::{self, ErrorKind};
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
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
        // SAFETY: it is only asked for its flags; if it is closed meanwhile, so is the answer.
        #[allow(unsafe_code)]
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        // What was opened since the start, by `std` or any careful library, does not survive the start of a program,
        // and what has survived that does not have the flag.
        if fcntl_getfd(fd)?.contains(FdFlags::CLOEXEC) {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                format!("{number} was opened by the program"),
            ));
        }
    }
    // SAFETY: they are open, and were when the program was started, as was just seen. The service manager gave them to
    // this process, as the caller has found in the environment, so nobody else owns them; and they are given away once.
    #[allow(unsafe_code)]
    let taken: Vec<OwnedFd> = numbers.map(|number| unsafe { OwnedFd::from_raw_fd(number) }).collect();
    for fd in &taken {
        fcntl_setfd(fd, FdFlags::CLOEXEC)?;
    }
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
