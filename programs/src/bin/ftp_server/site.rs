//! The files below a folder. Everything in here may block.
//!
//! A path is gone along name by name, from the descriptor of one folder to that of the next, and no symbolic link is
//! followed: there is no way out, whatever is renamed meanwhile.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::fs::{mkdirat, open, openat, renameat, statat, unlinkat};

/// The most names in a listing.
const NAMES: usize = 100_000;
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// A pipe is not waited for.
const FILE: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

pub struct Site {
    root: OwnedFd,
    pub may_write: bool,
}

impl Site {
    pub fn new(root: &Path, may_write: bool) -> io::Result<Site> {
        let root = open(root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Site { root, may_write })
    }

    pub fn folder(&self, path: &[OsString]) -> io::Result<OwnedFd> {
        let mut folder = openat(&self.root, ".", FOLDER, Mode::empty())?;
        for name in path {
            folder = openat(&folder, name, FOLDER, Mode::empty())?;
        }
        Ok(folder)
    }

    /// The folder that a name is in.
    fn around<'a>(&self, path: &'a [OsString]) -> io::Result<(OwnedFd, &'a OsStr)> {
        let (name, folder) = path.split_last().ok_or(ErrorKind::PermissionDenied)?;
        Ok((self.folder(folder)?, name))
    }

    pub fn entry(&self, path: &[OsString]) -> io::Result<Entry> {
        match self.around(path) {
            Ok((folder, name)) => entry(&folder, name)?.ok_or_else(|| ErrorKind::NotFound.into()),
            Err(_) if path.is_empty() => {
                entry(&self.root, OsStr::new("."))?.ok_or_else(|| ErrorKind::NotFound.into())
            }
            Err(error) => Err(error),
        }
    }

    /// What is in a folder, or the file itself, by name.
    pub fn list(&self, path: &[OsString]) -> io::Result<Vec<Entry>> {
        let folder = match self.folder(path) {
            Err(error) if error.kind() == ErrorKind::NotADirectory => return Ok(vec![self.entry(path)?]),
            folder => folder?,
        };
        let mut entries = Vec::new();
        for item in Dir::read_from(&folder)? {
            let item = item?;
            let name = OsStr::from_bytes(item.file_name().to_bytes());
            let is_shown = name != "." && name != ".." && !name.as_bytes().iter().any(u8::is_ascii_control);
            // What was removed meanwhile is not there.
            entries.extend(is_shown.then(|| entry(&folder, name).ok().flatten()).flatten());
            if entries.len() > NAMES {
                return Err(io::Error::other(format!("more than {NAMES} names")));
            }
        }
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    pub fn open(&self, path: &[OsString], offset: u64) -> io::Result<File> {
        let (folder, name) = self.around(path)?;
        let mut file = regular(openat(folder, name, OFlags::RDONLY | FILE, Mode::empty())?)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(file)
    }

    /// Under another name until it is whole.
    pub fn store(&self, path: &[OsString]) -> io::Result<Upload> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let (folder, name) = self.around(path)?;
        if entry(&folder, name).is_ok_and(|entry| entry.is_some_and(|entry| entry.is_folder)) {
            return Err(ErrorKind::IsADirectory.into());
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let unfinished = OsString::from(format!(".ftp-{}-{number}.part", std::process::id()));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | FILE;
        let file = openat(&folder, &unfinished, flags, Mode::from_raw_mode(0o644))?.into();
        Ok(Upload { file, becomes: Some((folder, unfinished, name.to_owned())) })
    }

    pub fn append(&self, path: &[OsString]) -> io::Result<Upload> {
        let (folder, name) = self.around(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | FILE;
        let file = regular(openat(folder, name, flags, Mode::from_raw_mode(0o644))?)?;
        Ok(Upload { file, becomes: None })
    }

    pub fn delete(&self, path: &[OsString]) -> io::Result<()> {
        let (folder, name) = self.around(path)?;
        Ok(unlinkat(folder, name, AtFlags::empty())?)
    }

    pub fn remove_folder(&self, path: &[OsString]) -> io::Result<()> {
        let (folder, name) = self.around(path)?;
        Ok(unlinkat(folder, name, AtFlags::REMOVEDIR)?)
    }

    pub fn make_folder(&self, path: &[OsString]) -> io::Result<()> {
        let (folder, name) = self.around(path)?;
        Ok(mkdirat(folder, name, Mode::from_raw_mode(0o755))?)
    }

    pub fn rename(&self, from: &[OsString], to: &[OsString]) -> io::Result<()> {
        let ((folder, name), (to, new)) = (self.around(from)?, self.around(to)?);
        Ok(renameat(folder, name, to, new)?)
    }
}

fn regular(file: OwnedFd) -> io::Result<File> {
    let file = File::from(file);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no file")),
    }
}

/// A file that comes.
pub struct Upload {
    file: File,
    /// The name that it has until then, and the one that it gets, in this folder.
    becomes: Option<(OwnedFd, OsString, OsString)>,
}

impl Upload {
    pub fn write(&mut self, data: &[u8]) -> io::Result<()> {
        self.file.write_all(data)
    }

    pub fn finish(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        if let Some((folder, unfinished, name)) = &self.becomes {
            renameat(folder, unfinished, folder, name)?;
            self.becomes = None;
        }
        Ok(())
    }
}

/// Not at all, then.
impl Drop for Upload {
    fn drop(&mut self) {
        if let Some((folder, unfinished, _)) = &self.becomes {
            let _ = unlinkat(folder, unfinished, AtFlags::empty());
        }
    }
}

pub struct Entry {
    name: Vec<u8>,
    pub is_folder: bool,
    pub size: u64,
    seconds: i64,
}

/// A file or a folder; nothing else is shown.
fn entry(folder: &OwnedFd, name: &OsStr) -> io::Result<Option<Entry>> {
    let stat: Stat = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    Ok([FileType::RegularFile, FileType::Directory].contains(&kind).then(|| Entry {
        name: name.as_bytes().to_vec(),
        is_folder: kind == FileType::Directory,
        size: stat.st_size as u64,
        seconds: stat.st_mtime as i64,
    }))
}

impl Entry {
    pub fn name(&self) -> Vec<u8> {
        self.name.clone()
    }

    /// When it was changed, as `YYYYMMDDhhmmss`.
    pub fn modified(&self) -> String {
        let ((year, month, day), of_day) = (date(self.seconds), self.seconds.rem_euclid(86_400));
        let (hours, minutes, seconds) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        format!("{year:04}{month:02}{day:02}{hours:02}{minutes:02}{seconds:02}")
    }

    /// For programs (RFC 3659).
    pub fn facts(&self) -> String {
        let (size, modified) = (self.size, self.modified());
        match self.is_folder {
            true => format!("type=dir;modify={modified};"),
            false => format!("type=file;size={size};modify={modified};"),
        }
    }

    pub fn machine(&self) -> Vec<u8> {
        [self.facts().as_bytes(), b" ", &self.name].concat()
    }

    /// As `ls -l` has it.
    pub fn long(&self) -> Vec<u8> {
        const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
        let (year, month, day) = date(self.seconds);
        let (kind, month) = (if self.is_folder { "drwxr-xr-x" } else { "-rw-r--r--" }, 3 * month as usize);
        let month = &MONTHS[month - 3..month];
        let head = format!("{kind} 1 ftp ftp {:>12} {month} {day:>2}  {year} ", self.size);
        [head.as_bytes(), &self.name].concat()
    }
}

/// Year, month and day of a time since 1970 (Hinnant's `civil_from_days`).
fn date(seconds: i64) -> (i64, i64, i64) {
    let days = seconds.div_euclid(86_400) + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + 400 * era + i64::from(month <= 2), month, day)
}
