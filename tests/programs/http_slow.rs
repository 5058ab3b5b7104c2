//! Clients of http_server that take their time.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::support::dirs::Dir;
use crate::support::peers::{connect, text_now};
use crate::support::programs::Program;

/// EDGE_CASES 249: slowloris. Bytes keep coming, so the connection is never idle; one whose heads are complete, if
/// slow, is served throughout. It takes half a minute: `cargo test --test programs -- --ignored`.
#[ignore = "takes half a minute"]
#[test]
fn a_head_that_is_never_complete_is_answered_with_408() {
    let dir = Dir::new();
    let (server, address) =
        Program::serve("http_server", ["--root", dir.path().to_str().unwrap(), "127.0.0.1:0"]);
    let (mut slow, mut good) = (connect(&address), connect(&address));
    let begun = Instant::now();
    slow.write_all(b"GET / HTTP/1.1\r\nx: ").unwrap();
    let answer = loop {
        good.write_all(b"HEAD /none HTTP/1.1\r\nHost: x\r\n").unwrap();
        std::thread::sleep(Duration::from_millis(100));
        good.write_all(b"\r\n").unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            good.read_exact(&mut byte).unwrap();
            answer.extend(byte);
        }
        assert!(answer.starts_with(b"HTTP/1.1 404 "), "{}", answer.escape_ascii());
        let answer = text_now(&mut slow);
        if !answer.is_empty() {
            break answer;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it waits for ever");
        slow.write_all(b"x").unwrap();
    };
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(begun.elapsed() >= Duration::from_secs(30), "too early");
    server.finish("INT");
}
