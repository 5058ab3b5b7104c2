//! Closing a channel with a source of its own: EDGE_CASES 60.

use std::time::Duration;

use dispatch_loop::ChannelMap;

use crate::support::ends::record_kinds;
use crate::support::peers::pattern;
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{run_out, turn_quiet};

/// EDGE_CASES 60: the far end begins its handshake only after the close.
#[test]
fn close_during_a_handshake_sends_what_was_pushed_before() {
    for kind in record_kinds() {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let (near, far) = kind.sockets();
        let token = kind.add(&mut map, near, kind.client, Recorder::new("a", &log)).token();
        let all = pattern(5_000_000);
        map.channel(token).unwrap().push(&all).unwrap();
        map.channel(token).unwrap().close();
        turn_quiet(&mut map);
        assert!(!log.closed("a"), "{kind:?}: something is queued");
        let far = kind.far(far, |far| {
            let got = far.read_to_end().unwrap();
            let _ = far.finish();
            got
        });
        run_out(&mut map, &log);
        let got = far.join().unwrap();
        assert!(got == all, "{kind:?}: {} bytes of {}", got.len(), all.len());
        assert_eq!(log.of("a"), ["close: closed"], "rule 10: after close it is never open");
    }
}

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
