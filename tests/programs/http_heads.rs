//! Heads of requests for http_server that fuzzing has found.

use std::io::Write;
use std::net::Shutdown;

use crate::support::dirs::Dir;
use crate::support::peers::{connect, read_to_end};
use crate::support::programs::Program;

/// The answer to a head must not depend on how the network has cut it.
#[test]
fn a_method_that_is_too_long_is_refused_whether_or_not_the_target_has_begun() {
    let dir = Dir::new();
    let (server, address) =
        Program::serve("http_server", ["--root", dir.path().to_str().unwrap(), "127.0.0.1:0"]);
    let long = "M".repeat(64);
    let rests = ["", " ", " / HTTP/1.1\r\n\r\n", " / HTTP/2.0\r\n\r\n", " / something else"];
    for head in rests.map(|rest| long.clone() + rest) {
        let mut client = connect(&address);
        client.write_all(head.as_bytes()).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let answer = String::from_utf8(read_to_end(&mut client)).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{head}: {answer:?}");
    }
    // One byte less is a method that we do not know.
    let mut client = connect(&address);
    write!(client, "{} / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", &long[1..]).unwrap();
    let answer = String::from_utf8(read_to_end(&mut client)).unwrap();
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer:?}");
    server.finish("INT");
}
