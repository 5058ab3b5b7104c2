//! What only Unix-domain sockets have: a file, that may be stale and is removed in the end, and peers
//! that the system vouches for.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::net::address::Address;
use crate::sys::faults;

/// Who is at the other end of a Unix-domain socket, as the system had it when it connected:
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
/// # #[cfg(target_os = "linux")]
/// assert_eq!(map.channel(quiet)?.peer_credentials()?.pid, std::process::id());
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Credentials {
    /// The process.
    pub pid: u32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

#[cfg(target_os = "linux")]
pub(crate) fn credentials(fd: BorrowedFd<'_>) -> io::Result<Credentials> {
    faults::pass(faults::Call::Option)?;
    let peer = rustix::net::sockopt::socket_peercred(fd)?;
    Ok(Credentials {
        pid: peer.pid.as_raw_pid().unsigned_abs(),
        uid: peer.uid.as_raw(),
        gid: peer.gid.as_raw(),
    })
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn credentials(_: BorrowedFd<'_>) -> io::Result<Credentials> {
    Err(io::Error::new(ErrorKind::Unsupported, "the peer's credentials can be asked for on Linux only"))
}

pub(crate) fn sock_addr(address: &Address) -> io::Result<SockAddr> {
    match address {
        Address::Unix(path) if path.as_os_str().is_empty() || path.as_os_str().as_bytes().contains(&0) => {
            let what = "this is no path of a socket: it is empty, or has a NUL in it";
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

/// The file that a listener is bound to. Removed with it, unless somebody else has put another one
/// in its place.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    /// Bind `socket` to `path`. A file that a server has left behind is removed; one that somebody
    /// listens on, or that is no socket at all, is not.
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
        let file = fs::symlink_metadata(path)?;
        let bound = SocketFile { path: fs::canonicalize(path)?, inode: (file.dev(), file.ino()) };
        if let Some(mode) = mode {
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        Ok(bound)
    }
}

impl SocketFile {
    /// Do not remove it.
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

/// Whether the file is a socket that nobody listens on.
fn is_stale(address: &SockAddr, path: &Path) -> bool {
    if !fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
        return false;
    }
    let Ok(probe) = Socket::new(Domain::UNIX, Type::STREAM, None) else { return false };
    // A listener whose backlog is full would let us wait.
    let refused = |error: io::Error| error.kind() == ErrorKind::ConnectionRefused;
    probe.set_nonblocking(true).is_ok() && probe.connect(address).is_err_and(refused)
}
