//! Servers behind a balancer, and started by a service manager.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use dispatch_loop::{Address, ProxyHeader, ProxyVersion};

use crate::support::dirs::Dir;
use crate::support::peers::{accept, connect, limit_time, read_exactly};
use crate::support::programs::{Program, command, listener};
use crate::support::waiting::DEADLINE;

fn header(version: ProxyVersion) -> Vec<u8> {
    let (client, ours): (Address, Address) =
        ("192.0.2.1:4000".parse().unwrap(), "198.51.100.7:80".parse().unwrap());
    ProxyHeader::new(client, ours).to_bytes(version).unwrap()
}

/// Exactly the header that a server sends ahead.
fn read_header(peer: &mut TcpStream) -> ProxyHeader {
    let mut bytes = Vec::new();
    loop {
        if let Some((header, len)) = ProxyHeader::parse(&bytes).unwrap() {
            assert_eq!(len, bytes.len());
            return header;
        }
        bytes.extend(read_exactly(peer, 1));
    }
}

/// EDGE_CASES 422
#[test]
fn a_server_knows_its_clients_by_what_the_balancer_tells() {
    for (version, threads) in [(ProxyVersion::V1, "1"), (ProxyVersion::V2, "1"), (ProxyVersion::V2, "3")] {
        let args = ["--threads", threads, "--proxy-protocol", "127.0.0.1:0"];
        let (server, address) = Program::serve("agent_server", args);
        let mut client = connect(&address);
        client.write_all(&[&header(version)[..], b"hello\n"].concat()).unwrap();
        assert_eq!(server.line(), "connected: 192.0.2.1:4000");
        assert_eq!(server.line(), "recv: hello");
        // One that says nothing is no client yet.
        drop(connect(&address));
        drop(client);
        assert_eq!(server.line(), "disconnected: 192.0.2.1:4000");
        assert_eq!(server.finish("TERM"), "");
    }
    // Nobody is trusted: a header is refused, and there need not be one.
    let from = ["--proxy-protocol", "--proxy-from", "10.0.0.0/8", "--proxy-from", "::1", "127.0.0.1:0"];
    let (server, address) = Program::serve("echo_server", from);
    let mut client = connect(&address);
    client.write_all(&header(ProxyVersion::V1)).unwrap();
    let _ = client.read_to_end(&mut Vec::new());
    let mut client = connect(&address);
    client.write_all(b"hello").unwrap();
    assert_eq!(read_exactly(&mut client, 5), b"hello");
    drop(client);
    server.finish("TERM");
    let wrong = Program::start("echo_server", ["--proxy-from", "10.0.0.0/33"]).end();
    wrong.assert_wrong_usage("echo_server");
}

/// EDGE_CASES 423: through two of them, from the first of which on the client is known.
#[test]
fn a_proxy_tells_upstream_whose_connection_it_is() {
    for (first, second) in [("v1", "v2"), ("v2", "v1")] {
        let (upstream, address) = listener();
        let inner = ["--proxy-protocol", "--send-proxy", second, "127.0.0.1:0", &address];
        let (inner, inner_address) = Program::serve("tcp_proxy", inner);
        let outer = ["--send-proxy", first, "127.0.0.1:0", &inner_address.to_string()];
        let (outer, address) = Program::serve("tcp_proxy", outer);
        let mut client = connect(&address);
        client.write_all(b"ping").unwrap();
        let mut far = accept(&upstream);
        let header = read_header(&mut far);
        assert_eq!(header.source(), Some(&Address::Ip(client.local_addr().unwrap())));
        assert_eq!(header.destination(), Some(&Address::Ip(address)));
        assert_eq!(read_exactly(&mut far, 4), b"ping");
        far.write_all(b"pong").unwrap();
        assert_eq!(read_exactly(&mut client, 4), b"pong");
        drop((client, far));
        outer.finish("TERM");
        inner.finish("TERM");
    }
    Program::start("tcp_proxy", ["--send-proxy", "v3", "a:1", "b:2"]).end().assert_wrong_usage("tcp_proxy");
}

/// A program as systemd starts it: with this socket as the descriptor 3, and where to tell how it is.
fn activated(name: &str, args: &[&str], socket: impl Into<OwnedFd>, dir: &Dir) -> (Program, UnixDatagram) {
    let path = dir.join("notify");
    let notify = UnixDatagram::bind(&path).unwrap();
    notify.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"exec 3<&0 </dev/null; LISTEN_PID=$$ WATCHDOG_PID=$$ exec "$0" "$@""#]);
    shell.arg(command(name).get_program()).args(args);
    shell.stdin(Stdio::from(socket.into())).stdout(Stdio::piped());
    shell.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "web").env("NOTIFY_SOCKET", &path);
    shell.env("WATCHDOG_USEC", "200000");
    (Program::spawn(shell), notify)
}

fn told(notify: &UnixDatagram) -> String {
    let mut buffer = [0; 256];
    let read = notify.recv(&mut buffer).unwrap();
    String::from_utf8(buffer[..read].to_owned()).unwrap()
}

/// EDGE_CASES 425: every server that has no address; ready once it listens, alive twice an interval, then stopping.
#[test]
fn a_server_serves_on_the_socket_that_it_was_given_and_tells_how_it_is() {
    let servers = ["echo_server", "agent_server", "poetry_server", "http_server"];
    let layers: &[&str] = if cfg!(feature = "layers") { &["chat_server", "app_server"] } else { &[] };
    let one = servers.iter().chain(layers).map(|name| (name, &[][..]));
    for (name, args) in one.chain([(&"echo_server", &["--threads", "3"][..])]) {
        let dir = Dir::new();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        // It waits in the backlog until there is a server.
        let client = connect(&address);
        let (server, notify) = activated(name, args, socket, &dir);
        assert_eq!(server.listening(), address);
        assert_eq!(told(&notify), format!("READY=1\nMAINPID={}", server.number()));
        for _ in 0..3 {
            assert_eq!(told(&notify), "WATCHDOG=1");
        }
        drop(client);
        server.signal("TERM");
        while told(&notify) != "STOPPING=1" {}
        let ended = server.end();
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
}

/// EDGE_CASES 425: and so does the one for datagrams.
#[test]
fn datagrams_are_echoed_on_the_socket_that_was_given() {
    let dir = Dir::new();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    limit_time(&client);
    client.send_to(b"early", address).unwrap();
    let (server, notify) = activated("udp_echo", &[], socket, &dir);
    assert_eq!(server.listening(), address);
    assert!(told(&notify).starts_with("READY=1\n"));
    let mut buffer = [0; 16];
    assert_eq!(client.recv(&mut buffer).unwrap(), 5);
    server.finish("TERM");
}

/// EDGE_CASES 426
#[test]
fn a_socket_that_was_meant_for_another_is_left_alone() {
    let dir = Dir::new();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let given = socket.local_addr().unwrap();
    // It has an address of its own.
    let (server, notify) = activated("echo_server", &["127.0.0.1:0"], socket, &dir);
    assert_ne!(server.listening(), given);
    assert!(told(&notify).starts_with("READY=1\n"));
    server.finish("TERM");
    // Its parent was meant.
    let mut other = command("echo_server");
    other.args(["--log", "warn"]).env("LISTEN_FDS", "1").env("LISTEN_PID", std::process::id().to_string());
    other.env("NOTIFY_SOCKET", dir.join("nobody"));
    let other = Program::spawn(other);
    // The usual address may be in use, by another test: then that is what it says.
    let ended = other.end_by("TERM");
    assert!(!ended.stderr.contains("LISTEN_FDS"), "{ended:?}");
    // What cannot be.
    for (count, says) in [("2", "LISTEN_FDS is 2"), ("many", "LISTEN_FDS is no number")] {
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"exec 3<&0 </dev/null; LISTEN_PID=$$ exec "$0" "$@""#]);
        shell.arg(command("echo_server").get_program());
        shell.stdin(Stdio::from(OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap())));
        shell.stdout(Stdio::piped()).env("LISTEN_FDS", count);
        Program::spawn(shell).end().assert_failure(says);
    }
}
