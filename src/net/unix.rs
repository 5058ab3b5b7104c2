//! What only Unix-domain sockets have: a file, which may be stale and is removed at the end, and the
//! peer's credentials.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::net::address::Address;
use crate::sys::faults::{self, Call};

/// The process at the other end of a Unix-domain socket, as of its connect; returned by
/// [`Channel::peer_credentials`](crate::Channel::peer_credentials).
///
/// ```
/// use dispatch_loop::{ChannelMap, Dispatcher};
///
/// struct Quiet;
/// impl Dispatcher for Quiet {}
///
/// let (near, _far) = std::os::unix::net::UnixStream::pair()?;
/// let mut map = ChannelMap::new()?;
/// let quiet = map.add(near, Quiet)?;
/// # #[cfg(any(target_os = "linux", target_os = "android"))]
/// assert_eq!(map.channel(quiet)?.peer_credentials()?.pid, std::process::id());
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Credentials {
    /// Its process id.
    pub pid: u32,
    /// Its effective user id.
    pub uid: u32,
    /// Its effective group id.
    pub gid: u32,
}

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn credentials(fd: BorrowedFd<'_>) -> io::Result<Credentials> {
    faults::pass(Call::Option)?;
    let peer = rustix::net::sockopt::socket_peercred(fd)?;
    Ok(Credentials {
        pid: peer.pid.as_raw_pid().unsigned_abs(),
        uid: peer.uid.as_raw(),
        gid: peer.gid.as_raw(),
    })
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn credentials(_: BorrowedFd<'_>) -> io::Result<Credentials> {
    Err(io::Error::new(ErrorKind::Unsupported, "only Linux and Android tell the peer's credentials"))
}

pub(crate) fn sock_addr(address: &Address) -> io::Result<SockAddr> {
    match address {
        Address::Unix(path) if path.as_os_str().is_empty() || path.as_os_str().as_bytes().contains(&0) => {
            let what = "the path of a Unix-domain socket cannot be empty or contain a NUL byte";
            Err(io::Error::new(ErrorKind::InvalidInput, what))
        }
        Address::Unix(path) => SockAddr::unix(path).map_err(|_| too_long("the path of a Unix-domain socket")),
        Address::Abstract(name) => {
            let path = [&[0], &name[..]].concat();
            SockAddr::unix(OsStr::from_bytes(&path)).map_err(|_| too_long("an abstract name"))
        }
        _ => Err(io::Error::new(ErrorKind::InvalidInput, "not the address of a Unix-domain socket")),
    }
}

fn too_long(what: &str) -> io::Error {
    io::Error::new(
        ErrorKind::InvalidInput,
        format!("{what} has at most 107 bytes (103 on macOS and the BSDs)"),
    )
}

/// The file that a socket is bound to. It is removed with the socket, unless another file has taken
/// its place.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    /// Bind `socket` to `path`. A stale socket file is removed first; one with a listener is not, nor is
    /// a file of another kind.
    pub(crate) fn bind(
        socket: &Socket,
        address: &SockAddr,
        path: &Path,
        mode: Option<u32>,
    ) -> io::Result<SocketFile> {
        match socket.bind(address) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && is_stale(address, path) => {
                fs::remove_file(path)?;
                socket.bind(address)?;
            }
            result => result?,
        }
        SocketFile::of(path, mode).inspect_err(|_| {
            // What was bound to it is about to be closed.
            let _ = fs::remove_file(path);
        })
    }

    /// The file that was just made.
    fn of(path: &Path, mode: Option<u32>) -> io::Result<SocketFile> {
        let bound = SocketFile::adopt(path)?;
        if let Some(mode) = mode {
            faults::pass(Call::File)?;
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        Ok(bound)
    }

    /// The file to which a socket is bound already.
    pub(crate) fn adopt(path: &Path) -> io::Result<SocketFile> {
        faults::pass(Call::File)?;
        let file = fs::symlink_metadata(path)?;
        faults::pass(Call::File)?;
        Ok(SocketFile { path: fs::canonicalize(path)?, inode: (file.dev(), file.ino()) })
    }

    /// Do not remove it on drop.
    pub(crate) fn keep(mut self) {
        self.path = PathBuf::new();
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.inode);
        if ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether the file is a socket without a listener.
fn is_stale(address: &SockAddr, path: &Path) -> bool {
    if !fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
        return false;
    }
    let Ok(probe) = Socket::new(Domain::UNIX, Type::STREAM, None) else { return false };
    // Without it, a full backlog would block the connect.
    let refused = |error: io::Error| error.kind() == ErrorKind::ConnectionRefused;
    probe.set_nonblocking(true).is_ok() && probe.connect(address).is_err_and(refused)
}
