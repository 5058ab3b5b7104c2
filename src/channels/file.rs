//! Pipes, terminals and other pollable files that are not sockets: asyncore's `file_dispatcher`.

use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use crate::core::dispatcher::Dispatcher;
use crate::core::map::ChannelMap;
use crate::link::held::Held;
use crate::link::source::Source;
use crate::link::state::Link;
use crate::sys::poll::Interest;
use crate::sys::{self, Kind};
use crate::token::Handle;

impl ChannelMap {
    /// Make a channel of a pipe, a terminal, a FIFO, or a child's standard input or output: asyncore's
    /// `file_dispatcher`, asyncio's `connect_read_pipe` and `connect_write_pipe`.
    ///
    /// The descriptor is duplicated, so `file` can be passed by value or by reference. It is made
    /// non-blocking, which affects every process that shares the open file; when the channel ends, that
    /// is undone. When the reader of a pipe closes it, the writing channel ends with `BrokenPipe`; it
    /// also ends once [`shutdown_write`](crate::Channel::shutdown_write) has sent what was queued. (Rust
    /// programs ignore SIGPIPE; a program whose `main` is not Rust's must do so itself.)
    ///
    /// ```
    /// use dispatch_loop::{Channel, ChannelMap, Dispatcher};
    /// use std::io;
    /// use std::process::{Command, Stdio};
    ///
    /// struct Output(Vec<u8>);
    ///
    /// impl Dispatcher for Output {
    ///     fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
    ///         ch.read_with(|_, data| Ok(self.0.extend_from_slice(data)))
    ///     }
    ///     fn handle_close(&mut self, _: &mut Channel<'_>, _: &dispatch_loop::Reason) {
    ///         assert_eq!(self.0, b"hello\n");
    ///     }
    /// }
    ///
    /// let mut child = Command::new("echo").arg("hello").stdout(Stdio::piped()).spawn()?;
    /// let mut map = ChannelMap::new()?;
    /// map.add_file(child.stdout.take().unwrap(), Output(Vec::new()))?;
    /// dispatch_loop::run(&mut map)?;
    /// # child.wait()?;
    /// # io::Result::Ok(())
    /// ```
    ///
    /// # Errors
    /// `InvalidInput` for a regular file or a directory: these are always ready, and the poller rejects
    /// them. Send a file with [`producers::from_reader`](crate::producers::from_reader); read one in a
    /// thread, with [`read_lines`](crate::read_lines) or into an [`Outlet`](crate::Outlet).
    pub fn add_file<D: Dispatcher>(&mut self, file: impl AsFd, dispatcher: D) -> io::Result<Handle<D>> {
        let made = self.accepted(file.as_fd()).map(|file| {
            let reads = file.mode.reads;
            // Input that is not read is left for others that have the file open, so do not linger.
            let mut link = Link::of_socket(Held::own(Box::new(file)), Kind::File);
            link.set_peer(link.fd().and_then(|fd| sys::peer_addr(fd).ok()));
            if !reads {
                link.has_no_input();
            }
            link
        });
        self.insert(made, dispatcher)
    }

    /// Only the poller knows what it accepts.
    fn accepted(&self, file: BorrowedFd<'_>) -> io::Result<File> {
        let file = File::new(file)?;
        match self.poll.add(file.fd(), usize::MAX >> 1, Interest::NONE) {
            Ok(()) => self.poll.delete(file.fd())?,
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Err(not_pollable()),
            // It is not known yet; then the settle tells.
            Err(error) if sys::errno::out_of_resources(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(file)
    }
}

fn not_pollable() -> io::Error {
    io::Error::new(
        ErrorKind::InvalidInput,
        "a regular file (or a device such as /dev/null) is always ready, and cannot be waited for: send it with producers::from_reader, or read it in a thread",
    )
}

struct File {
    fd: Arc<OwnedFd>,
    mode: sys::file::FileMode,
}

/// One open file and the descriptors that channels of this process have for it. They share its flags: the
/// last one restores them.
struct OpenFile {
    /// All files with another inode, or opened otherwise, are others. Those with the same one may be: every
    /// eventfd has the same inode, and a FIFO can be opened twice.
    key: (u64, u64, bool, bool),
    was_blocking: bool,
    channels: Vec<Arc<OwnedFd>>,
}

static LIVING: Mutex<Vec<OpenFile>> = Mutex::new(Vec::new());

impl File {
    fn new(fd: BorrowedFd<'_>) -> io::Result<File> {
        let mut living = LIVING.lock().unwrap_or_else(PoisonError::into_inner);
        let mode = sys::file::mode(fd)?;
        if mode.is_regular {
            return Err(not_pollable());
        }
        let fd = Arc::new(sys::file::duplicate(fd)?);
        let is_the_same = |open: &OpenFile| {
            let one_of_them = open.channels.first().filter(|_| open.key == mode.key());
            one_of_them.is_some_and(|other| sys::file::is_same_open_file(fd.as_fd(), other.as_fd()))
        };
        let at = living.iter().position(is_the_same);
        sys::file::set_nonblocking(fd.as_fd(), true)?;
        match at {
            Some(at) => living[at].channels.push(fd.clone()),
            None => living.push(OpenFile {
                key: mode.key(),
                was_blocking: !mode.was_nonblocking,
                channels: vec![fd.clone()],
            }),
        }
        Ok(File { fd, mode })
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let mut living = LIVING.lock().unwrap_or_else(PoisonError::into_inner);
        let is_own = |open: &mut OpenFile| {
            let at = open.channels.iter().position(|fd| Arc::ptr_eq(fd, &self.fd))?;
            Some(open.channels.swap_remove(at))
        };
        let Some(at) = living.iter_mut().position(|open| is_own(open).is_some()) else { return };
        if living[at].channels.is_empty() && living.swap_remove(at).was_blocking {
            let _ = sys::file::set_nonblocking(self.fd.as_fd(), false);
        }
    }
}

impl File {
    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Source for File {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd())
    }

    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match sys::file::read(self.fd(), buffer) {
            // What a terminal reports when the other side is gone.
            Err(error) if self.mode.is_device && sys::errno::is_input_output(&error) => Ok(0),
            result => result,
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        sys::file::write(self.fd(), &[IoSlice::new(bytes)])
    }

    fn send_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        sys::file::write(self.fd(), pieces)
    }

    /// A pipe has no half-close. A write-only file ends its channel; otherwise a no-op.
    fn shutdown_write(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// On a write-only descriptor, input readiness means hang-up.
    fn drive(&mut self, ready: Interest) -> io::Result<bool> {
        match ready.read && !self.mode.reads && sys::file::has_hung_up(self.fd())? {
            true => Err(ErrorKind::BrokenPipe.into()),
            false => Ok(false),
        }
    }

    fn interest(&self, wanted: Interest) -> Interest {
        Interest { read: wanted.read && self.mode.reads, write: wanted.write && self.mode.writes }
    }
}
