//! What a map counts.

use dispatch_loop::ChannelMap;

use crate::support::peers::{accept, limit_time};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{run_out, turn_until};

/// The attempts of a connect by name are no channels of the user's.
#[test]
fn a_connect_by_name_is_one_channel() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let token = map.connect(("localhost", port), Recorder::new("a", &log)).unwrap().token();
    turn_until(&mut map, &log, |map| {
        assert_eq!((map.len(), map.tokens().collect::<Vec<_>>()), (1, vec![token]));
        log.has("a open")
    });
    let far = accept(&listener);
    limit_time(&far);
    assert_eq!(map.len(), 1);
    drop(far);
    run_out(&mut map, &log);
    assert_eq!((map.len(), map.tokens().count()), (0, 0));
}
