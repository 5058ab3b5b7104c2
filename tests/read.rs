//! Reading: EDGE_CASES 13 to 22.

mod util;

use std::io::Write;

use dispatch_loop::ChannelMap;
use util::*;

/// EDGE_CASES 18.
#[test]
fn data_and_fin_in_one_segment() {
    for on in loopbacks() {
        let log = Log::new();
        let (near, mut far) = pair(on);
        far.write_all(b"all of it").unwrap();
        drop(far);
        let mut map = ChannelMap::new().unwrap();
        map.add(near, Recorder::new("a", &log)).unwrap();
        dispatch_loop::run(&mut map).unwrap();
        assert_eq!(log.input("a"), b"all of it");
        assert_eq!(log.of("a").last().unwrap(), "close: end of stream");
        assert_eq!(log.count("a eof"), 1);
    }
}
