//! The listings of all clients: each is made once for all that wait for it, by a thread that may wait for the disk,
//! and is shared by all that read it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use dispatch_loop::{ChannelMap, Handle};

use crate::Service;
use crate::answer::{Status, UNAVAILABLE};
use crate::connection::Connection;
use crate::listing;

/// How long a page serves those that come after it was made, if no name in the directory changes.
const FRESH: Duration = Duration::from_secs(2);

/// The limit of all pages that somebody still reads, in bytes.
const MOST: usize = 32 * 1024 * 1024;

pub type Page = Result<Arc<[u8]>, Status>;

/// A directory as it was at a time.
pub struct Directory {
    pub path: PathBuf,
    pub modified: SystemTime,
    pub dir: File,
}

#[derive(Default)]
pub struct Listings {
    /// They are being made.
    wanted: Vec<Wanted>,
    made: Vec<Made>,
}

struct Wanted {
    path: PathBuf,
    modified: SystemTime,
    by: Vec<Handle<Connection>>,
}

struct Made {
    path: PathBuf,
    modified: SystemTime,
    at: Instant,
    page: Arc<[u8]>,
}

impl Listings {
    /// The listing, if it was made a moment ago.
    pub fn at_hand(&self, Directory { path, modified, .. }: &Directory) -> Option<Arc<[u8]>> {
        let is_it =
            |made: &&Made| made.path == *path && made.modified == *modified && made.at.elapsed() < FRESH;
        self.made.iter().find(is_it).map(|made| made.page.clone())
    }

    /// Forget what nobody reads and nobody will.
    pub fn tidy(&mut self) {
        self.made.retain(|made| Arc::strong_count(&made.page) > 1 || made.at.elapsed() < FRESH);
    }

    /// Keep a page. If it is what some read already, then that.
    fn keep(&mut self, path: PathBuf, modified: SystemTime, page: Vec<u8>) -> Arc<[u8]> {
        let same = self.made.iter().position(|made| made.path == path && *made.page == *page);
        let page = same.map_or_else(|| page.into(), |same| self.made.swap_remove(same).page);
        self.made.push(Made { path, modified, at: Instant::now(), page: page.clone() });
        page
    }
}

/// Have a listing made for a client, which waits for it.
pub fn want(service: &Rc<Service>, map: &mut ChannelMap, directory: Directory, by: Handle<Connection>) {
    let Directory { path, modified, dir } = directory;
    let wanted = &mut service.listings.borrow_mut().wanted;
    if let Some(same) = wanted.iter_mut().find(|other| other.path == path && other.modified == modified) {
        same.by.push(by);
        return;
    }
    wanted.push(Wanted { path: path.clone(), modified, by: vec![by] });
    let (site, here, again, at) = (service.site.clone(), path.clone(), service.clone(), path.clone());
    let service = service.clone();
    let begun = map.spawn_blocking(
        move || listing::page(&site, &dir, &here),
        move |map, page| made(&service, map, &path, modified, page),
    );
    if begun.is_err() {
        // Too much is to be done already: the next turn says so, as the client's hook is running.
        map.call_soon(move |map| made(&again, map, &at, modified, Err(io::ErrorKind::QuotaExceeded.into())));
    }
}

/// The page was made, or cannot be.
fn made(
    service: &Service,
    map: &mut ChannelMap,
    path: &Path,
    modified: SystemTime,
    page: io::Result<Vec<u8>>,
) {
    let mut listings = service.listings.borrow_mut();
    listings.tidy();
    let is_it = |wanted: &Wanted| wanted.path == *path && wanted.modified == modified;
    let Some(at) = listings.wanted.iter().position(is_it) else { return };
    let wanted = listings.wanted.swap_remove(at);
    let is_full = listings.made.iter().map(|made| made.page.len()).sum::<usize>() >= MOST;
    let page = match page {
        _ if is_full => Err(UNAVAILABLE),
        Ok(page) => Ok(listings.keep(wanted.path.clone(), modified, page)),
        Err(error) if error.kind() == io::ErrorKind::QuotaExceeded => Err(UNAVAILABLE),
        Err(error) => Err(error.into()),
    };
    drop(listings);
    hand_out(map, &wanted, page);
}

fn hand_out(map: &mut ChannelMap, wanted: &Wanted, page: Page) {
    for by in &wanted.by {
        // An error: it has ended meanwhile.
        let _ = map.with(*by, |connection, ch| {
            connection.take(ch, wanted.path.clone(), page.clone());
            Ok(())
        });
    }
}
