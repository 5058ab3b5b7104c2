//! Closing a channel with a source of its own: EDGE_CASES 60.

use std::time::Duration;

use dispatch_loop::ChannelMap;

use crate::support::ends::record_kinds;
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::run_out;

/// EDGE_CASES 60: the handshake never ends.
#[test]
fn close_during_a_handshake_that_never_ends_gives_up_at_the_deadline() {
    for kind in record_kinds() {
        for pushed in [true, false] {
            let log = Log::new();
            let mut map = ChannelMap::new().unwrap();
            let (near, _silent) = kind.sockets();
            let token = kind.add(&mut map, near, kind.client, Recorder::new("a", &log)).token();
            let mut ch = map.channel(token).unwrap();
            if pushed {
                ch.push(b"never sent").unwrap();
            }
            ch.set_close_timeout(Duration::from_millis(20));
            ch.close();
            run_out(&mut map, &log);
            assert_eq!(log.of("a"), [if pushed { "close: timed out" } else { "close: closed" }], "{kind:?}");
        }
    }
}
