//! HAProxy between the clients and a server: what it tells is understood, and it understands what is told. Where there
//! is no HAProxy, there is nothing to be tested.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use crate::support::dirs::Dir;
use crate::support::peers::connect;
use crate::support::programs::Program;

/// HAProxy with these words on its two sides, and where it listens; `None` if there is none.
fn haproxy(dir: &Dir, bind: &str, server: &str, to: SocketAddr) -> Option<(Program, SocketAddr)> {
    if Command::new("haproxy").arg("-v").stdout(Stdio::null()).status().is_err() {
        eprintln!("there is no haproxy: nothing was tested");
        return None;
    }
    let config = format!(
        "global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout connect 10s\n  timeout client 10s\n  \
         timeout server 10s\nfrontend in\n  bind fd@3 {bind}\n  default_backend out\nbackend out\n  \
         server app {to} {server}\n"
    );
    let config = dir.file("haproxy.cfg", config.as_bytes());
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"exec 3<&0 </dev/null; exec haproxy -db -f "$0""#]).arg(config);
    shell.stdin(Stdio::from(OwnedFd::from(socket))).stdout(Stdio::piped());
    Some((Program::spawn(shell), address))
}

/// EDGE_CASES 428: with its own checks, which are connections of its own.
#[test]
fn a_server_behind_haproxy_knows_its_clients() {
    for says in [
        "send-proxy",
        "send-proxy-v2",
        "send-proxy-v2 proxy-v2-options crc32c,unique-id",
        "send-proxy check check-send-proxy inter 20ms",
        "send-proxy-v2 check check-send-proxy inter 20ms",
    ] {
        let dir = Dir::new();
        let (server, address) = Program::serve("agent_server", ["--proxy-protocol", "127.0.0.1:0"]);
        let Some((haproxy, front)) = haproxy(&dir, "", says, address) else { return };
        let mut client = connect(&front);
        // Its checks come from other ports of the same address, and say nothing.
        let ours = client.local_addr().unwrap();
        client.write_all(b"hello\n").unwrap();
        let mut seen = Vec::new();
        while seen.last().is_none_or(|line| line != "recv: hello") {
            seen.push(server.line());
        }
        assert!(seen.contains(&format!("connected: {ours}")), "{says}: {seen:?}");
        drop(client);
        let gone = format!("disconnected: {ours}");
        while server.line() != gone {}
        haproxy.signal("TERM");
        haproxy.end();
        server.end_by("TERM").assert_quiet_success();
    }
}

/// EDGE_CASES 428: from `tcp_proxy` through HAProxy to a server.
#[test]
fn haproxy_understands_what_a_proxy_tells() {
    for version in ["v1", "v2"] {
        let dir = Dir::new();
        let (server, address) = Program::serve("agent_server", ["--proxy-protocol", "127.0.0.1:0"]);
        let Some((haproxy, middle)) = haproxy(&dir, "accept-proxy", "send-proxy-v2", address) else { return };
        let args = ["--send-proxy", version, "127.0.0.1:0", &middle.to_string()];
        let (proxy, front) = Program::serve("tcp_proxy", args);
        let mut client = connect(&front);
        let ours = client.local_addr().unwrap();
        client.write_all(b"hello\n").unwrap();
        assert_eq!(server.line(), format!("connected: {ours}"));
        assert_eq!(server.line(), "recv: hello");
        drop(client);
        assert_eq!(server.line(), format!("disconnected: {ours}"));
        proxy.finish("TERM");
        haproxy.signal("TERM");
        haproxy.end();
        server.finish("TERM");
    }
}
