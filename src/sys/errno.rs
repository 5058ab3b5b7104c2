//! What the system's error codes mean to a channel, where `io::ErrorKind` has no word for it.
//! Where there is a code it is compared first: finding the kind takes longer.

use std::io::{self, ErrorKind};

use rustix::io::Errno;

fn is_one_of(error: &io::Error, codes: &[Errno]) -> bool {
    error.raw_os_error().is_some_and(|code| codes.iter().any(|errno| errno.raw_os_error() == code))
}

/// Nothing can be done now without waiting.
pub(crate) fn would_block(error: &io::Error) -> bool {
    match error.raw_os_error() {
        Some(code) => code == Errno::AGAIN.raw_os_error(),
        None => error.kind() == ErrorKind::WouldBlock,
    }
}

/// A signal interrupted the call.
pub(crate) fn is_interrupted(error: &io::Error) -> bool {
    match error.raw_os_error() {
        Some(code) => code == Errno::INTR.raw_os_error(),
        None => error.kind() == ErrorKind::Interrupted,
    }
}

/// A non-blocking `connect` goes on by itself. An interrupted one does, too.
pub(crate) fn is_in_progress(error: &io::Error) -> bool {
    is_one_of(error, &[Errno::INPROGRESS, Errno::INTR])
}

pub(crate) fn is_not_a_socket(error: &io::Error) -> bool {
    is_one_of(error, &[Errno::NOTSOCK])
}

/// What `recv` with `MSG_OOB` returns where there is no urgent data, now or ever.
pub(crate) fn has_no_urgent_data(error: &io::Error) -> bool {
    would_block(error) || is_one_of(error, &[Errno::INVAL, Errno::NOTSOCK, Errno::OPNOTSUPP])
}

/// What the system says to who writes and has no reader.
pub(crate) fn broken_pipe() -> io::Error {
    Errno::PIPE.into()
}

/// What a terminal's `read` returns once the other side is gone.
pub(crate) fn is_input_output(error: &io::Error) -> bool {
    is_one_of(error, &[Errno::IO])
}

/// No descriptor or no memory for another socket, or no room for it in the poller: this passes, and is not
/// the channel's fault.
pub(crate) fn out_of_resources(error: &io::Error) -> bool {
    is_one_of(error, &[Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::NOSPC])
}

/// No buffer or no memory to send with: this passes, and is not the connection's fault.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    is_one_of(error, &[Errno::NOBUFS, Errno::NOMEM])
}

/// The connection is gone, so what has arrived can be read to an end. After any other error of a send the
/// peer may be there as before.
pub(crate) fn connection_is_gone(error: &io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, HostUnreachable};
    use ErrorKind::{NetworkDown, NetworkUnreachable, NotConnected, TimedOut};
    matches!(
        error.kind(),
        BrokenPipe
            | ConnectionAborted
            | ConnectionReset
            | HostUnreachable
            | NetworkDown
            | NetworkUnreachable
            | NotConnected
            | TimedOut
    )
}

/// This machine does not have the address, or its family.
pub(crate) fn is_address_unavailable(error: &io::Error) -> bool {
    error.kind() == ErrorKind::AddrNotAvailable || is_one_of(error, &[Errno::AFNOSUPPORT])
}

/// The listener itself is unusable; any other error of `accept` is about one connection, also EOPNOTSUPP,
/// as accept(2) says.
pub(crate) fn listener_is_broken(error: &io::Error) -> bool {
    is_one_of(error, &[Errno::BADF, Errno::INVAL, Errno::NOTSOCK])
}

/// An error that a datagram sent earlier has caused, returned by the next call.
pub(crate) fn is_of_an_earlier_datagram(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable};
    matches!(error.kind(), ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable)
}
