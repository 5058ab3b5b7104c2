//! Options of servers under attack: EDGE_CASES 497 and 498.

use std::io::{Read, Write};
use std::net::TcpListener;

use crate::support::peers::{connect, limit_time, read_to_end};
use crate::support::programs::Program;

/// EDGE_CASES 497.
#[test]
fn statistics_are_on_one_address() {
    for name in ["echo_server", "udp_echo"] {
        Program::start(name, ["--stats", "*:0", "127.0.0.1:0"]).end().assert_wrong_usage(name);
    }
}

/// EDGE_CASES 498. Nothing passes, and the upstream is at work.
#[test]
fn a_proxy_that_drains_waits_for_an_answer_that_is_owed() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = upstream.local_addr().unwrap().to_string();
    let (proxy, address) = Program::serve("tcp_proxy", ["--drain", "30", "127.0.0.1:0", &to]);
    let ask = || {
        let mut client = connect(&address);
        let (mut far, _) = upstream.accept().unwrap();
        limit_time(&far);
        client.write_all(b"?").unwrap();
        far.read_exact(&mut [0]).unwrap();
        (client, far)
    };
    let (mut idle, mut answers) = ask();
    answers.write_all(b"!").unwrap();
    idle.read_exact(&mut [0]).unwrap();
    let (mut client, mut far) = ask();
    proxy.signal("TERM");
    assert_eq!(read_to_end(&mut idle), b"", "it has its answer");
    far.write_all(b"!").unwrap();
    drop(far);
    assert_eq!(read_to_end(&mut client), b"!");
    proxy.end().assert_quiet_success();
}
