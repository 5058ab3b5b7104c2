//! Bugs that were there once, and must not come back. Each says what happened.

mod util;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use dispatch_loop::ChannelMap;
use dispatch_loop::faults::{Call, count};
use util::*;

/// A channel that had crossed its high watermark and was closed, with input unread, kept the loop
/// from sleeping while it waited for the peer's end: the news of the watermark, which nobody was
/// to be told any more, had it settled again and again.
#[test]
fn a_lingering_channel_with_untold_watermarks_does_not_spin() {
    for on in loopbacks() {
        let log = Log::new();
        let (near, mut far) = pair(on);
        far.write_all(b"never read").unwrap();
        let mut map = ChannelMap::new().unwrap();
        let recorder = Recorder::new("a", &log).readable(|_| false).on("open", |ch| {
            ch.set_watermarks(0, 0);
            ch.push(b"goes out at once")?;
            ch.push(b"is queued")?;
            ch.close();
            Ok(())
        });
        map.add(near, recorder).unwrap();
        turn_until(&mut map, &log, |_| log.has("a open"));
        let mut got = Vec::new();
        far.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"goes out at onceis queued");
        // It has sent FIN, and waits for ours.
        let (begun, before) = (Instant::now(), count(Call::Wait));
        while begun.elapsed() < Duration::from_millis(200) {
            map.turn(Some(Duration::from_millis(50))).unwrap();
        }
        assert!(!log.closed("a"), "not lingering: {:?}", log.events());
        assert!(count(Call::Wait) - before < 20, "{} waits", count(Call::Wait) - before);
        drop(far);
        turn_until(&mut map, &log, |_| log.closed("a"));
    }
}
