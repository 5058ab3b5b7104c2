//! How much the system still holds of what was sent: the one `ioctl` of the library.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::sys::faults::{self, Call};

/// Bytes that were sent and have not left for good: over TCP, those that the peer's system has not
/// acknowledged; on a Unix-domain socket, those that the peer has not read, with what the system needs to
/// keep them. 0 where the system does not tell.
pub(crate) fn unsent(fd: BorrowedFd<'_>) -> io::Result<usize> {
    faults::pass(Call::Unsent)?;
    Ok(usize::try_from(ask(fd)?).unwrap_or(0))
}

#[cfg(any(target_os = "freebsd", target_os = "netbsd"))]
use libc::FIONWRITE as QUESTION;
#[cfg(any(target_os = "linux", target_os = "android"))]
use libc::TIOCOUTQ as QUESTION;

#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd", target_os = "netbsd"))]
fn ask(fd: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open, as it is borrowed. `SIOCOUTQ` (Linux, under the name and number of
    // `TIOCOUTQ`) and `FIONWRITE` only read the socket's state and write one `int`, to which the pointer is
    // valid; where a descriptor does not know the request, nothing is written and the call fails.
    #[allow(unsafe_code)]
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), QUESTION as _, &raw mut bytes) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(bytes) }
}

/// The same question as a socket option.
#[cfg(target_vendor = "apple")]
fn ask(fd: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    let mut bytes: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open, as it is borrowed. `getsockopt` writes at most `len` bytes to `bytes`,
    // which has as many, and the length to `len`; both pointers are valid for the call.
    #[allow(unsafe_code)]
    let result = unsafe {
        let value = (&raw mut bytes).cast();
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_NWRITE, value, &raw mut len)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(bytes) }
}

#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_os = "freebsd",
    target_os = "netbsd",
    target_vendor = "apple"
)))]
fn ask(_: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    Ok(0)
}
