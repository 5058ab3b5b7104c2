//! Descriptors over a Unix-domain socket: `SCM_RIGHTS`.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage};

use crate::sys::faults::{self, Call};
use crate::sys::{SEND_FLAGS, uninterrupted};

/// The most descriptors in one message: Linux's `SCM_MAX_FD`.
pub(crate) const MOST: usize = 253;

/// Close-on-exec from the start, where the system can.
#[cfg(not(target_vendor = "apple"))]
const RECV_FLAGS: RecvFlags = RecvFlags::CMSG_CLOEXEC;
#[cfg(target_vendor = "apple")]
const RECV_FLAGS: RecvFlags = RecvFlags::empty();

/// Send bytes, at least one, and `descriptors` with the first of them. They have left if any byte has.
pub(crate) fn send(fd: BorrowedFd<'_>, bytes: &[u8], descriptors: &[OwnedFd]) -> io::Result<usize> {
    let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    uninterrupted(|| {
        let most = faults::pass_bytes(Call::Send, bytes.len())?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(Errno::INVAL.into());
        }
        match rustix::net::sendmsg(fd, &[IoSlice::new(&bytes[..most])], &mut control, SEND_FLAGS) {
            // Too many are on their way: a shortage, which passes.
            Err(Errno::TOOMANYREFS) => Err(Errno::NOBUFS.into()),
            sent => Ok(sent?),
        }
    })
}

/// Bytes, and the descriptors that came with them: close-on-exec, and closed if there was not room for all, of
/// which `true` tells.
pub(crate) fn recv(
    fd: BorrowedFd<'_>,
    buffer: &mut [u8],
    into: &mut Vec<OwnedFd>,
) -> io::Result<(usize, bool)> {
    uninterrupted(|| {
        let most = faults::pass_bytes(Call::Recv, buffer.len())?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut buffer[..most])];
        let got = rustix::net::recvmsg(fd, &mut slices, &mut control, RECV_FLAGS)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                into.extend(descriptors);
            }
        }
        #[cfg(target_vendor = "apple")]
        for descriptor in &*into {
            rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::CLOEXEC)?;
        }
        let cut = got.flags.contains(ReturnFlags::CTRUNC);
        if cut {
            into.clear();
        }
        Ok((got.bytes, cut))
    })
}
