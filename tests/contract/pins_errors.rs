//! Failures that are told in more than one place, or to nobody but the log.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;

use dispatch_loop::ChannelMap;

use crate::support::dirs::Dir;
use crate::support::logging::{capture_log, logged};
use crate::support::peers::{loopbacks, refusing, unix_pair};
use crate::support::recorder::{Log, Recorder, text};
use crate::support::turning::{run_out, turn_quiet, turn_until};

/// EDGE_CASES 45: the reason of the end is that of the connect; both are logged.
#[test]
fn a_panic_in_the_error_hook_of_a_failed_connect_is_logged() {
    for on in loopbacks() {
        capture_log();
        let log = Log::new();
        let (_refusing, to) = refusing(on);
        let mut map = ChannelMap::new().unwrap();
        map.connect(to, Recorder::new("a", &log).on("error", |_| panic!("boom"))).unwrap();
        run_out(&mut map, &log);
        let refused = text(libc::ECONNREFUSED);
        assert_eq!(log.of("a"), [format!("error: {refused}"), format!("close: {refused}")]);
        assert_eq!(logged("panicked: boom").len(), 1);
        assert_eq!(logged("handle_error").len(), 1);
        assert_eq!(logged(&refused).len(), 1);
    }
}

/// EDGE_CASES 10: also of a client without an address.
#[test]
fn an_accept_hook_that_fails_for_a_client_without_a_name_is_logged() {
    capture_log();
    let log = Log::new();
    let dir = Dir::new();
    let mut map = ChannelMap::new().unwrap();
    let server = Recorder::new("server", &log).on_accept(|_, _, _| Err(io::Error::other("not today")));
    let server = map.listen(dir.join("server"), server).unwrap();
    let _client = UnixStream::connect(dir.join("server")).unwrap();
    turn_until(&mut map, &log, |_| log.has("server accept"));
    turn_quiet(&mut map);
    assert_eq!(logged("not today").len(), 1);
    assert_eq!(log.of("server"), ["accept"]);
    assert!(map.contains(server));
}

/// EDGE_CASES 45: the error that it was told of, and its own.
#[test]
fn a_panic_in_the_error_hook_is_logged_beside_the_error() {
    capture_log();
    let log = Log::new();
    let (near, mut far) = unix_pair();
    let recorder = Recorder::new("a", &log)
        .on("read", |_| Err(io::Error::other("as the test wants it")))
        .on("error", |_| panic!("boom"));
    let mut map = ChannelMap::new().unwrap();
    map.add(near, recorder).unwrap();
    far.write_all(b"x").unwrap();
    run_out(&mut map, &log);
    assert_eq!(log.of("a").last().unwrap(), "close: as the test wants it");
    assert_eq!(logged("as the test wants it").len(), 1);
    assert_eq!(logged("panicked: boom").len(), 1);
}
