//! The system calls on descriptors that are not sockets: pipes, terminals, FIFOs.
//! Which of them may be channels is decided in `channels/file.rs`.

use std::io::{self, IoSlice};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, OFlags};

use crate::sys::faults::{self, Call};
use crate::sys::uninterrupted;

/// Type and access mode of a descriptor that is not a socket.
pub(crate) struct FileMode {
    pub(crate) reads: bool,
    pub(crate) writes: bool,
    pub(crate) was_nonblocking: bool,
    pub(crate) is_regular: bool,
    pub(crate) is_device: bool,
    inode: (u64, u64),
}

impl FileMode {
    /// The same for all descriptors that share one open file, and perhaps for others.
    pub(crate) fn key(&self) -> (u64, u64, bool, bool) {
        (self.inode.0, self.inode.1, self.reads, self.writes)
    }
}

pub(crate) fn mode(fd: BorrowedFd<'_>) -> io::Result<FileMode> {
    faults::pass(Call::Option)?;
    let flags = rustix::fs::fcntl_getfl(fd)?;
    let stat = rustix::fs::fstat(fd)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let access = flags & OFlags::RWMODE;
    Ok(FileMode {
        reads: access != OFlags::WRONLY,
        writes: access != OFlags::RDONLY,
        was_nonblocking: flags.contains(OFlags::NONBLOCK),
        is_regular: matches!(kind, FileType::RegularFile | FileType::Directory),
        is_device: kind == FileType::CharacterDevice,
        inode: (stat.st_dev as u64, stat.st_ino as u64),
    })
}

/// A second descriptor of the same open file, close-on-exec.
pub(crate) fn duplicate(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    faults::pass(Call::Option)?;
    fd.try_clone_to_owned()
}

pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    faults::pass(Call::Option)?;
    let mut flags = rustix::fs::fcntl_getfl(fd)?;
    flags.set(OFlags::NONBLOCK, on);
    Ok(rustix::fs::fcntl_setfl(fd, flags)?)
}

/// Whether two descriptors share one open file, and with it the flags. No portable call says so: a flag that
/// means nothing to a pipe or a terminal is changed through one, looked for through the other, and restored.
pub(crate) fn is_same_open_file(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    let changed = || -> io::Result<bool> {
        faults::pass(Call::Option)?;
        let (flags, before) = (rustix::fs::fcntl_getfl(one)?, rustix::fs::fcntl_getfl(other)?);
        rustix::fs::fcntl_setfl(one, flags ^ OFlags::APPEND)?;
        let after = rustix::fs::fcntl_getfl(other);
        rustix::fs::fcntl_setfl(one, flags)?;
        Ok((after? ^ before).contains(OFlags::APPEND))
    };
    changed().unwrap_or(false)
}

/// Whether the pipe's other end is closed.
pub(crate) fn has_hung_up(fd: BorrowedFd<'_>) -> io::Result<bool> {
    faults::pass(Call::Look)?;
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::empty())];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    Ok(fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP))
}

pub(crate) fn read(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    uninterrupted(|| {
        let most = faults::pass_bytes(Call::Recv, buffer.len())?;
        Ok(rustix::io::read(fd, &mut buffer[..most])?)
    })
}

pub(crate) fn write(fd: BorrowedFd<'_>, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    uninterrupted(|| {
        let wanted = pieces.iter().map(|piece| piece.len()).sum();
        let most = faults::pass_bytes(Call::Send, wanted)?;
        if most < wanted {
            let first = pieces.first().map_or(&[][..], |piece| piece);
            return Ok(rustix::io::write(fd, &first[..most.min(first.len())])?);
        }
        Ok(rustix::io::writev(fd, pieces)?)
    })
}
