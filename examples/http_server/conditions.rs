//! What a client makes an answer depend on (RFC 9110, section 13): it has a copy already, or a part of one.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use crate::answer::{NOT_MODIFIED, PRECONDITION_FAILED, Status, http_date};
use crate::request::{Request, tokens};

/// By what a file, as it is now, is told from what it was.
pub struct Version {
    pub tag: String,
    pub modified: String,
    time: SystemTime,
}

impl Version {
    pub fn of(about: &Metadata) -> io::Result<Version> {
        let time = about.modified()?;
        let (seconds, nanoseconds) = (about.mtime(), about.mtime_nsec());
        let tag = format!("\"{seconds:x}.{nanoseconds:x}-{:x}-{:x}\"", about.len(), about.ino());
        Ok(Version { tag, modified: http_date(time), time })
    }

    /// The conditions in the order of section 13.2.2. An `Err` is the answer instead of the file.
    pub fn check(&self, request: &Request<'_>) -> Result<(), Status> {
        if !request.if_match.is_empty() {
            if !self.is_among(&request.if_match, false) {
                return Err(PRECONDITION_FAILED);
            }
        } else if self.is_newer_than(request.if_unmodified_since) == Some(true) {
            return Err(PRECONDITION_FAILED);
        }
        if !request.if_none_match.is_empty() {
            if self.is_among(&request.if_none_match, true) {
                return Err(NOT_MODIFIED);
            }
        } else if self.is_newer_than(request.if_modified_since) == Some(false) {
            return Err(NOT_MODIFIED);
        }
        Ok(())
    }

    /// Whether a part of the file fits to what the client has of it.
    pub fn allows_range(&self, request: &Request<'_>) -> bool {
        request.if_range.is_none_or(|has| has == self.tag || has == self.modified)
    }

    /// `weakly`: a tag that allows for small differences will do.
    fn is_among(&self, lists: &[&[u8]], weakly: bool) -> bool {
        let is_it = |tag: &[u8]| match tag.strip_prefix(b"W/") {
            Some(tag) => weakly && tag == self.tag.as_bytes(),
            None => tag == b"*" || tag == self.tag.as_bytes(),
        };
        lists.iter().any(|list| tokens(list).any(is_it))
    }

    /// `None` if there is no date, or none that we understand.
    fn is_newer_than(&self, date: Option<&str>) -> Option<bool> {
        let date = httpdate::parse_http_date(date?).ok()?;
        // Their date is in whole seconds.
        Some(self.time >= date + Duration::from_secs(1))
    }
}
