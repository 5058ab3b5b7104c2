//! What is served: a directory, and no way out of it. Paths come in as the targets of requests, and open
//! files go out.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, statat};

use crate::answer::{BAD_REQUEST, NOT_FOUND, Status};

/// A symbolic link is not followed; a pipe or a terminal does not make us wait.
const FLAGS: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// On the way to a file, a directory need not be readable, only open to us.
#[cfg(any(target_os = "linux", target_os = "android"))]
const DIRECTORY: OFlags = FLAGS.union(OFlags::DIRECTORY).union(OFlags::PATH);
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const DIRECTORY: OFlags = FLAGS.union(OFlags::DIRECTORY);

/// A directory and all below it.
pub struct Site {
    root: File,
    /// The same, without symbolic links in it.
    path: PathBuf,
}

impl Site {
    pub fn new(root: &Path) -> io::Result<Site> {
        let path = fs::canonicalize(root)?;
        let root = rustix::fs::open(&path, DIRECTORY, Mode::empty())?.into();
        Ok(Site { root, path })
    }

    /// Open the file or directory that is there; a directory's names are read with [`names`]. Symbolic
    /// links count as long as they lead to something below the root.
    pub fn open(&self, path: &Path) -> io::Result<File> {
        self.walk(path).or_else(|_| {
            let real = fs::canonicalize(self.path.join(path))?;
            let below = real.strip_prefix(&self.path).map_err(|_| ErrorKind::NotFound)?;
            self.walk(below)
        })
    }

    /// Open one name after the other, each from the directory before it. Without `..` and symbolic links,
    /// not even one that is created at this moment, there is no way out.
    fn walk(&self, path: &Path) -> io::Result<File> {
        let mut names = path.iter();
        let last = names.next_back();
        let step =
            |from: File, name| Ok::<_, io::Error>(openat(&from, name, DIRECTORY, Mode::empty())?.into());
        let start = openat(&self.root, ".", DIRECTORY, Mode::empty())?.into();
        let directory = names.try_fold(start, step)?;
        match last {
            Some(name) => open_last(directory, name),
            None => Ok(directory),
        }
    }
}

/// To open a device or a pipe is to do something to it. So it is looked at before.
fn open_last(from: File, name: &OsStr) -> io::Result<File> {
    let about = statat(&from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(about.st_mode) {
        FileType::RegularFile => Ok(openat(&from, name, FLAGS, Mode::empty())?.into()),
        FileType::Directory => Ok(openat(&from, name, DIRECTORY, Mode::empty())?.into()),
        _ => Err(ErrorKind::NotFound.into()),
    }
}

/// Open a directory to read what is in it.
pub fn names(directory: &File) -> io::Result<File> {
    Ok(openat(directory, ".", FLAGS, Mode::empty())?.into())
}

/// The target of a request, decoded.
pub struct Target {
    /// Below the root, without `.` and `..`.
    pub path: PathBuf,
    /// It can only be a directory.
    pub ends_in_slash: bool,
}

impl Target {
    /// `/path?query`, or the `https://host/path?query` that a proxy is sent. A name that no file can
    /// have is not found, and neither is `..`, which clients must resolve before they ask.
    pub fn parse(target: &str) -> Result<Target, Status> {
        let (path, _) = target.split_once('?').unwrap_or((target, ""));
        let path = match path.split_once("://") {
            Some((scheme, rest)) if ["http", "https"].iter().any(|one| scheme.eq_ignore_ascii_case(one)) => {
                match rest.find('/') {
                    Some(0) => "", // without a host
                    Some(slash) => &rest[slash..],
                    None => "/",
                }
            }
            _ => path,
        };
        if !path.starts_with('/') {
            return Err(BAD_REQUEST);
        }
        let mut names = Vec::new();
        let mut ends_in_slash = true;
        for part in path.split('/') {
            let name = decode(part).ok_or(BAD_REQUEST)?;
            ends_in_slash = matches!(name.as_slice(), b"" | b".");
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => return Err(NOT_FOUND),
                name if name.contains(&b'/') || name.contains(&0) => return Err(NOT_FOUND),
                _ => names.push(name),
            }
        }
        Ok(Target { path: OsString::from_vec(names.join(&b'/')).into(), ends_in_slash })
    }
}

/// Take the `%41`s out; `None` if one is not whole.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            byte => byte,
        });
    }
    Some(decoded)
}

/// A name as a part of a URL.
pub fn encode(name: &[u8]) -> String {
    let mut encoded = String::new();
    for &byte in name {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(byte.into()),
            byte => encoded += &format!("%{byte:02X}"),
        }
    }
    encoded
}

/// What browsers should do with a file of this name.
pub fn content_type(path: &Path) -> &'static str {
    let extension = path.extension().unwrap_or_default().as_bytes().to_ascii_lowercase();
    match extension.as_slice() {
        b"html" | b"htm" => "text/html; charset=utf-8",
        b"css" => "text/css; charset=utf-8",
        b"js" | b"mjs" => "text/javascript; charset=utf-8",
        b"csv" => "text/csv; charset=utf-8",
        b"md" => "text/markdown; charset=utf-8",
        b"txt" | b"log" | b"rs" | b"toml" | b"lock" | b"py" | b"sh" | b"c" | b"h" | b"yml" | b"yaml" => {
            "text/plain; charset=utf-8"
        }
        b"json" | b"map" => "application/json",
        b"xml" => "application/xml",
        b"wasm" => "application/wasm",
        b"pdf" => "application/pdf",
        b"zip" => "application/zip",
        b"gz" | b"tgz" => "application/gzip",
        b"svg" => "image/svg+xml",
        b"png" => "image/png",
        b"jpg" | b"jpeg" => "image/jpeg",
        b"gif" => "image/gif",
        b"webp" => "image/webp",
        b"avif" => "image/avif",
        b"ico" => "image/x-icon",
        b"woff2" => "font/woff2",
        b"woff" => "font/woff",
        b"mp3" => "audio/mpeg",
        b"ogg" => "audio/ogg",
        b"wav" => "audio/wav",
        b"mp4" => "video/mp4",
        b"webm" => "video/webm",
        _ => "application/octet-stream",
    }
}
