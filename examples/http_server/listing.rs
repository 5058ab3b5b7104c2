//! The page that lists a directory: one table, legible on a phone and in the dark, without anything else
//! to fetch.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, Dir, FileType, statat};

use crate::answer::http_date;
use crate::site::{Site, encode};

/// The limit of entries on a page, so that the largest directory costs a few MiB at most.
const LIMIT: usize = 10_000;

const STYLE: &str = "\
:root{color-scheme:light dark;--soft:#666;--line:#8883;--link:#0550ae;font:16px/1.5 system-ui,sans-serif}\
@media(prefers-color-scheme:dark){:root{--soft:#999;--link:#79b8ff}}\
body{max-width:56rem;margin:0 auto;padding:1rem}\
h1{font-size:1.25rem;font-weight:600;margin:.5rem;overflow-wrap:anywhere}\
table{width:100%;border-collapse:collapse}\
th,td{padding:.4rem .5rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:baseline}\
td:first-child{width:100%;overflow-wrap:anywhere}\
th,p,td+td{color:var(--soft);font-size:.875rem;font-weight:400}\
td+td,th+th{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}\
a{color:var(--link);text-decoration:none}a:hover{text-decoration:underline}\
.dir a{font-weight:600}tbody tr:hover{background:var(--line)}p{margin:.75rem .5rem}\
@media(max-width:36rem){.clock{display:none}}";

struct Entry {
    is_file: bool,
    name: Vec<u8>,
    size: u64,
    modified: SystemTime,
}

/// The page of `dir`, which is at `path`. Reading all its names may take a while.
pub fn page(site: &Site, dir: &File, path: &Path) -> io::Result<Vec<u8>> {
    let (entries, is_whole) = entries(site, dir, path)?;
    let files = entries.iter().filter(|entry| entry.is_file).count();
    let title = format!("/{}", escape(&path.to_string_lossy()));
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n\
         <body>\n<h1>{}</h1>\n<table>\n\
         <thead><tr><th>Name</th><th>Size</th><th>Modified</th></tr></thead>\n<tbody>\n",
        way(path)
    );
    if path != Path::new("") {
        page += "<tr class=\"dir\"><td><a href=\"../\">..</a></td><td></td><td></td></tr>\n";
    }
    entries.iter().for_each(|entry| page += &row(entry));
    page += &format!(
        "</tbody>\n</table>\n<p>{}, {}{}. Times are in UTC.</p>\n</body>\n</html>\n",
        count(entries.len() - files, "directory", "directories"),
        count(files, "file", "files"),
        if is_whole { "" } else { ", and more that are not shown" },
    );
    Ok(page.into_bytes())
}

/// What is in a directory, in order, and whether that is all. A symbolic link is shown as what it leads to, or not at
/// all.
fn entries(site: &Site, dir: &File, path: &Path) -> io::Result<(Vec<Entry>, bool)> {
    let (mut found, mut entries, mut is_whole) = (Dir::read_from(dir)?, Vec::new(), true);
    while let Some(name) = found.read() {
        let Some(entry) = entry(site, dir, path, name?.file_name())? else { continue };
        if entries.len() == LIMIT {
            is_whole = false;
            break;
        }
        entries.push(entry);
    }
    entries.sort_by_cached_key(|entry| (entry.is_file, entry.name.to_ascii_lowercase(), entry.name.clone()));
    Ok((entries, is_whole))
}

/// What is there under a name, if it is to be shown.
fn entry(site: &Site, dir: &File, path: &Path, name: &CStr) -> io::Result<Option<Entry>> {
    // It may be gone by now.
    let Ok(about) = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) else { return Ok(None) };
    let name = name.to_bytes();
    let (is_dir, is_file, size, modified) = match FileType::from_raw_mode(about.st_mode) {
        _ if matches!(name, b"." | b"..") => return Ok(None),
        FileType::Symlink => {
            let target = site.open(&path.join(OsStr::from_bytes(name))).and_then(|file| file.metadata());
            let Ok(about) = target else { return Ok(None) };
            (about.is_dir(), about.is_file(), about.len(), about.modified()?)
        }
        kind => {
            let modified = UNIX_EPOCH + Duration::from_secs(about.st_mtime.max(0) as u64);
            (kind == FileType::Directory, kind == FileType::RegularFile, about.st_size as u64, modified)
        }
    };
    Ok((is_dir || is_file).then(|| Entry { is_file, name: name.to_vec(), size, modified }))
}

fn row(Entry { is_file, name, size, modified }: &Entry) -> String {
    let (class, slash, size) = match is_file {
        true => ("file", "", human(*size)),
        false => ("dir", "/", String::new()),
    };
    let (href, text) = (encode(name), escape(&String::from_utf8_lossy(name)));
    // Of `Sun, 06 Nov 1994 08:49:37 GMT`.
    let date = http_date(*modified);
    let (day, clock) = (&date[5..16], &date[17..22]);
    format!(
        "<tr class=\"{class}\"><td><a href=\"{href}{slash}\">{text}{slash}</a></td><td>{size}</td>\
         <td>{day}<span class=\"clock\"> {clock}</span></td></tr>\n"
    )
}

/// The path as a heading, with links to the directories above.
fn way(path: &Path) -> String {
    let names: Vec<&OsStr> = path.iter().collect();
    let Some((last, above)) = names.split_last() else { return "/".into() };
    let mut way = format!("<a href=\"{}\">/</a>", "../".repeat(names.len()));
    for (at, name) in above.iter().enumerate() {
        let (href, text) = ("../".repeat(above.len() - at), escape(&name.to_string_lossy()));
        way += &format!(" <a href=\"{href}\">{text}</a> /");
    }
    way + &format!(" {} /", escape(&last.to_string_lossy()))
}

fn count(number: usize, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

/// `832 B`, `1.4 KiB`.
fn human(size: u64) -> String {
    let mut size = size as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        match unit {
            "B" if size < 1024.0 => return format!("{size} B"),
            _ if size < 1023.95 => return format!("{size:.1} {unit}"),
            _ => size /= 1024.0,
        }
    }
    format!("{size:.1} TiB")
}

/// Text as HTML writes it.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            c => escaped.push(c),
        }
    }
    escaped
}
