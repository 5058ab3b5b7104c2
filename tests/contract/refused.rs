//! Dispatchers that could not be added, and whose drops panic: EDGE_CASES 133.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use dispatch_loop::{Channel, ChannelMap, ConnectOptions, Dispatcher, ListenOptions, Reason};

use crate::support::peers::{loopbacks, unix_pair};
use crate::support::process::alone;

#[derive(Clone)]
struct Armed(Arc<AtomicUsize>);

impl Dispatcher for Armed {}

impl Drop for Armed {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
        panic!("bomb");
    }
}

/// Tries to be many things in a map that takes nothing any more.
struct Late(Arc<AtomicUsize>);

impl Dispatcher for Late {
    fn handle_close(&mut self, ch: &mut Channel<'_>, _: &Reason) {
        let armed = || Armed(self.0.clone());
        let refused = ch.map_mut().listen_all("many:0", &ListenOptions::default(), |_| armed()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::BrokenPipe);
    }
}

/// Each was dropped in the caller's frame: that was the caller's panic, and of several the process's end.
#[test]
fn dispatchers_that_cannot_be_added_are_dropped_one_by_one() {
    alone(None, || {
        let dropped = Arc::new(AtomicUsize::new(0));
        let armed = || Armed(dropped.clone());
        let mut map = ChannelMap::new().unwrap();
        let listening = std::net::TcpListener::bind(loopbacks()[0]).unwrap();
        let taken = listening.local_addr().unwrap();
        map.listen(taken, armed()).unwrap_err();
        map.listen("not an address", armed()).unwrap_err();
        map.bind("not an address", armed()).unwrap_err();
        map.add_file(std::fs::File::open("/").unwrap(), armed()).unwrap_err();
        map.connect("not an address", armed()).unwrap_err();
        let beyond: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let options = ConnectOptions::default().with_local("[::1]:0".parse::<SocketAddr>().unwrap());
        let refused = map.connect_with(beyond, &options, armed());
        assert_eq!((refused.is_err(), dropped.load(SeqCst)), (true, 6));
        map.set_resolver(|_, port| {
            let hosts = [[127, 0, 0, 1], [127, 0, 0, 2], [127, 0, 0, 3]];
            Ok(hosts.map(|host| SocketAddr::from((host, port))).into())
        });
        let (near, _far) = unix_pair();
        map.add(near, Late(dropped.clone())).unwrap();
        drop(map);
        assert_eq!(dropped.load(SeqCst), 9);
    });
}
