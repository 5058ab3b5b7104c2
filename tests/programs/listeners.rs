//! What becomes of a server whose listener dies.

#![cfg(target_os = "linux")]

use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use socket2::SockRef;

use crate::support::peers::{connect, read_to_end};
use crate::support::programs::Program;

/// 106: it serves those that are there, and then it fails: a supervisor would not start again what has
/// ended well.
#[test]
fn a_server_whose_last_listener_died_fails() {
    for name in ["echo_server", "agent_server", "http_server", "tcp_proxy"] {
        dies(name, "1");
        dies(name, "2");
    }

    /// EDGE_CASES 469, with several loops.
    fn dies(name: &str, threads: &str) {
        let more: &[&str] = if name == "tcp_proxy" { &["127.0.0.1:1"] } else { &[] };
        let server =
            Program::start(name, ["--log", "off", "--threads", threads, "127.0.0.1:0"].iter().chain(more));
        let address = server.listening();
        for socket in sockets_of(&server) {
            // A listener that is shut down cannot accept any more.
            let listens = SockRef::from(&socket).is_listener().unwrap_or(false);
            if listens {
                SockRef::from(&socket).shutdown(std::net::Shutdown::Read).unwrap();
            }
        }
        server.end().assert_failure(&address.to_string());
    }
}

/// 106.
#[test]
fn a_server_with_another_listener_serves_on() {
    let server = Program::start("echo_server", ["--log", "off", "127.0.0.1:0", "127.0.0.1:0"]);
    let addresses = [server.listening(), server.listening()];
    for socket in sockets_of(&server) {
        let local = SockRef::from(&socket).local_addr().ok().and_then(|address| address.as_socket());
        if local == Some(addresses[0]) {
            SockRef::from(&socket).shutdown(std::net::Shutdown::Read).unwrap();
        }
    }
    let mut client = connect(&addresses[1]);
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut client), b"");
    server.finish("TERM");
}

/// The same open sockets as those of a program that this process has started.
fn sockets_of(program: &Program) -> Vec<OwnedFd> {
    let number = program.number();
    let process = pidfd_open(Pid::from_raw(number as i32).unwrap(), PidfdFlags::empty()).unwrap();
    let take = |fd| pidfd_getfd(&process, fd, PidfdGetfdFlags::empty()).ok();
    (3..64).filter_map(take).filter(|fd| SockRef::from(fd).r#type().is_ok()).collect()
}
