//! What is known of each server that is watched.

use std::cell::RefCell;
use std::rc::Rc;

use dispatch_loop::ChannelMap;

use crate::fetch::fetch;
use crate::metrics::Sample;

/// A line of the table of channels, as the server tells it: state, peer, age, idle, in, out, queued.
pub type Row = Vec<String>;

pub struct Server {
    pub address: String,
    pub before: Option<Sample>,
    pub now: Option<Sample>,
    /// Why the last answer did not come.
    pub failure: Option<String>,
    pub channels: Vec<Row>,
}

impl Server {
    fn new(address: String) -> Server {
        Server { address, before: None, now: None, failure: None, channels: Vec::new() }
    }

    fn metrics(&mut self, answer: Result<String, String>) {
        match answer.and_then(|text| Sample::read(&text)) {
            Ok(sample) => {
                self.before = self.now.replace(sample);
                self.failure = None;
            }
            Err(why) => self.failure = Some(why),
        }
    }

    /// The first line has the names of the columns.
    fn rows(&mut self, answer: Result<String, String>) {
        let rows = answer.unwrap_or_default();
        self.channels =
            rows.lines().skip(1).map(|line| line.split('\t').map(str::to_owned).collect()).collect();
    }
}

pub struct Servers {
    pub all: Vec<Server>,
    /// Whose channels are shown.
    pub selected: usize,
    /// Answers that are awaited.
    pub awaited: usize,
}

pub type Shared = Rc<RefCell<Servers>>;

pub fn new(addresses: Vec<String>) -> Shared {
    let all = addresses.into_iter().map(Server::new).collect();
    Rc::new(RefCell::new(Servers { all, selected: 0, awaited: 0 }))
}

/// Ask them all; `then` is called after each answer.
pub fn ask(map: &mut ChannelMap, servers: &Shared, then: fn(&mut ChannelMap, &Shared)) {
    let addresses: Vec<String> = servers.borrow().all.iter().map(|server| server.address.clone()).collect();
    for (at, address) in addresses.into_iter().enumerate() {
        for path in ["/metrics", "/channels"] {
            let shared = servers.clone();
            servers.borrow_mut().awaited += 1;
            fetch(map, &address, path, move |map, answer| {
                {
                    let mut servers = shared.borrow_mut();
                    servers.awaited -= 1;
                    let server = &mut servers.all[at];
                    if path == "/metrics" { server.metrics(answer) } else { server.rows(answer) }
                }
                then(map, &shared);
            });
        }
    }
}
