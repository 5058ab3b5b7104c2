//! Limits, producers, broadcasts and ends where they meet.

use std::io;

use dispatch_loop::{More, OnError, OnLimit};

use crate::support::opened::{opened_on, view};
use crate::support::peers::{loopbacks, pair, reads_all};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{run_out, turn_until};

/// EDGE_CASES 171. The error was dropped, and what came after the producer was taken for the rest.
#[test]
fn a_producer_that_failed_is_told_though_a_push_offers_the_queue_before() {
    for on_error in [OnError::End, OnError::Keep] {
        for way in ["push", "broadcast", "map limit"] {
            let log = Log::new();
            let (near, far) = pair(loopbacks()[0]);
            let far = reads_all(far);
            let recorder = Recorder::new("a", &log).on_error(on_error).on("open", |ch| {
                ch.set_limit(100_000, OnLimit::Refuse);
                // So much of the budget of the turn that the piece before the failure does not fit in.
                ch.push(&[b'x'; 62 * 1024])?;
                let mut asked = 0;
                ch.push_producer(move |buffer: &mut Vec<u8>| {
                    asked += 1;
                    buffer.extend_from_slice(&[b'y'; 3 * 1024][..if asked == 1 { 3 * 1024 } else { 0 }]);
                    if asked == 1 { Ok(More::Again) } else { Err(io::Error::other("the disk")) }
                })
            });
            let (mut map, token) = opened_on(near, recorder);
            assert_eq!(view(&mut map, token).queued(), 1024);
            match way {
                "push" => view(&mut map, token).push(&[b'z'; 100_000]).unwrap(),
                "broadcast" => map.broadcast([token], &[b'z'; 100_000]),
                _ => map.set_limit(1000),
            }
            turn_until(&mut map, &log, |_| log.count("a error: the disk") == 1);
            if on_error == OnError::Keep {
                view(&mut map, token).close();
            }
            run_out(&mut map, &log);
            let (got, end) = far.join().unwrap();
            assert_eq!(end.is_ok(), on_error == OnError::Keep, "{on_error:?} {way}");
            assert!(end.is_err() || got.starts_with(&[b'x'; 62 * 1024]), "{on_error:?} {way}");
        }
    }
}
