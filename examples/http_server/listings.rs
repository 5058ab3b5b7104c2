//! The listings of all clients: each is made once for all that wait for it, a piece a turn, and is shared
//! by all that read it.

use std::collections::VecDeque;
use std::fs::File;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use dispatch_loop::{ChannelMap, Handle};

use crate::Service;
use crate::answer::{Status, UNAVAILABLE};
use crate::connection::Connection;
use crate::listing::Listing;

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
    /// The first is being made.
    wanted: VecDeque<Wanted>,
    made: Vec<Made>,
}

struct Wanted {
    path: PathBuf,
    modified: SystemTime,
    listing: Listing,
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
    let listing = Listing::new(dir, path.clone());
    wanted.push_back(Wanted { path, modified, listing, by: vec![by] });
    if wanted.len() == 1 {
        let service = service.clone();
        map.call_soon(|map| go_on(service, map));
    }
}

/// Do a piece of the work, and come again in the next turn if there is more.
fn go_on(service: Rc<Service>, map: &mut ChannelMap) {
    let mut listings = service.listings.borrow_mut();
    listings.tidy();
    let is_full = listings.made.iter().map(|made| made.page.len()).sum::<usize>() >= MOST;
    let Some(mut first) = listings.wanted.pop_front() else { return };
    first.by.retain(|by| map.contains(*by));
    match first.listing.go_on(&service.site) {
        _ if first.by.is_empty() => {}
        _ if is_full => hand_out(map, &first, Err(UNAVAILABLE)),
        Ok(None) => listings.wanted.push_front(first),
        Ok(Some(page)) => {
            let page = listings.keep(first.path.clone(), first.modified, page);
            hand_out(map, &first, Ok(page));
        }
        Err(error) => hand_out(map, &first, Err(error.into())),
    }
    if !listings.wanted.is_empty() {
        let service = service.clone();
        map.call_soon(|map| go_on(service, map));
    }
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
