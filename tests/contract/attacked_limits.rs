//! What `handle_accept_error` may do: EDGE_CASES 489 and 490.

use std::cell::RefCell;
use std::io;
use std::mem;
use std::net::TcpStream;
use std::rc::Rc;

use dispatch_loop::{
    AcceptLimits, Address, AtLimit, Channel, ChannelMap, Dispatcher, ListenOptions, OnError, Reason, Socket,
};

use crate::support::logging::capture_log;
use crate::support::opened::address_of;
use crate::support::peers::connect;
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{assert_calm, turn_idle, turn_until, turns_at_once};

type Deed = Rc<RefCell<dyn FnMut(&mut Channel<'_>)>>;

/// Keeps what it accepts outside of the map, and does something once when it is told of a limit.
struct Server {
    log: Log,
    kept: Rc<RefCell<Vec<Socket>>>,
    deed: Option<Deed>,
}

impl Dispatcher for Server {
    fn handle_accept(&mut self, _: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
        self.kept.borrow_mut().push(socket);
        self.log.add("accept");
        Ok(())
    }
    fn handle_accept_error(&mut self, ch: &mut Channel<'_>, _: &io::Error) {
        if let Some(deed) = self.deed.take() {
            self.log.add("told");
            deed.borrow_mut()(ch);
        }
    }
    fn handle_error(&mut self, _: &mut Channel<'_>, error: &io::Error) -> OnError {
        self.log.add(format!("error {error}"));
        OnError::End
    }
    fn handle_close(&mut self, _: &mut Channel<'_>, reason: &Reason) {
        self.log.add(format!("close: {reason}"));
    }
}

struct Scene {
    map: ChannelMap,
    log: Log,
    kept: Rc<RefCell<Vec<Socket>>>,
    limits: AcceptLimits,
    _clients: Vec<TcpStream>,
}

/// One connection is in, and another one comes, of which the hook is told.
fn told(at_limit: AtLimit, word: bool, deed: impl FnMut(&mut Channel<'_>) + 'static) -> Scene {
    told_with(Rc::default(), at_limit, word, deed)
}

/// The same with a shelf of one's own for what is accepted.
fn told_with(
    kept: Rc<RefCell<Vec<Socket>>>,
    at_limit: AtLimit,
    word: bool,
    deed: impl FnMut(&mut Channel<'_>) + 'static,
) -> Scene {
    let log = Log::new();
    let limits = AcceptLimits::default().with_total(1).with_at_limit(at_limit);
    let limits = if word { limits.with_last_word("full") } else { limits };
    let mut map = ChannelMap::new().unwrap();
    let server = Server { log: log.clone(), kept: kept.clone(), deed: Some(Rc::new(RefCell::new(deed))) };
    let options = ListenOptions::default().with_limits(limits.clone());
    let server = map.listen_with("127.0.0.1:0", &options, server).unwrap();
    let address = address_of(&mut map, server);
    let clients = vec![connect(&address), connect(&address)];
    turn_until(&mut map, &log, |_| log.has("told"));
    Scene { map, log, kept, limits, _clients: clients }
}

/// All ways in which a connection may be kept out.
const WAYS: [(AtLimit, bool); 3] =
    [(AtLimit::Wait, false), (AtLimit::Refuse, false), (AtLimit::Refuse, true)];

/// EDGE_CASES 489.
#[test]
fn handle_accept_error_may_do_anything_with_its_listener() {
    capture_log();
    for (at_limit, word) in WAYS {
        for deed in ["close", "abort", "pause", "replace", "swap", "drop", "panic", "detach"] {
            let other = Rc::new(RefCell::new(Some(ChannelMap::new().unwrap())));
            let (left, log) = (other.clone(), Log::new());
            let in_deed = log.clone();
            let mut scene = told(at_limit, word, move |ch| match deed {
                "close" => ch.close(),
                "abort" => ch.abort(),
                "pause" => ch.pause_reading(),
                "replace" => drop(ch.replace_dispatcher(Recorder::new("new", &in_deed)).unwrap()),
                "swap" => mem::swap(ch.map_mut(), left.borrow_mut().as_mut().unwrap()),
                "drop" => drop(mem::replace(ch.map_mut(), left.borrow_mut().take().unwrap())),
                "detach" => drop(ch.detach().unwrap()),
                _ => panic!("in the hook"),
            });
            turn_idle(&mut scene.map);
            assert_calm(&mut scene.map);
            let closed = scene.log.events().iter().filter(|event| event.starts_with("close: ")).count();
            let ends = matches!(deed, "close" | "abort" | "swap" | "drop" | "detach");
            assert_eq!(closed, usize::from(ends), "{at_limit:?} {deed}: {:?}", scene.log.events());
            assert_eq!(scene.limits.connections(), 1, "{at_limit:?} {deed}");
            let lives = matches!(deed, "pause" | "replace" | "panic");
            // One that has its last word may linger.
            assert!(scene.map.len() == usize::from(lives), "{at_limit:?} {deed}: {}", scene.map.len());
            drop(other);
            drop(scene.map);
            scene.kept.borrow_mut().clear();
            assert_eq!(scene.limits.connections(), 0, "{at_limit:?} {deed}");
        }
    }
}

/// EDGE_CASES 490. It rests already when it is told.
#[test]
fn handle_accept_error_may_make_room() {
    for by_limits in [false, true] {
        let shelf: Rc<RefCell<Vec<Socket>>> = Rc::default();
        let in_deed = shelf.clone();
        let mut scene = told_with(shelf, AtLimit::Wait, false, move |ch| match by_limits {
            true => {
                let limits = ch.accept_limits().unwrap();
                ch.set_accept_limits(limits.with_total(2)).unwrap();
            }
            false => in_deed.borrow_mut().clear(),
        });
        let log = scene.log.clone();
        // With the wait of `polling` a place that is given back outside is found by a timer.
        let is_woken = cfg!(all(target_os = "linux", not(dispatch_loop_polling_wait)));
        match by_limits || is_woken {
            true => {
                assert!(turns_at_once(&mut scene.map, 4, |_| log.count("accept") == 2), "without a pause")
            }
            false => turn_until(&mut scene.map, &log, |_| log.count("accept") == 2),
        }
    }
}
