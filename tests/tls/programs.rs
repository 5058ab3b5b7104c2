//! The programs over TLS, beside the commands that everybody has: `openssl`, `curl`, `python3`.

use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};

use crate::support::authority::{AUTHORITY, LOCALHOST, Pair};
use crate::support::dirs::Dir;
use crate::support::peers::pattern;
use crate::support::programs::{Program, command};
use crate::support::waiting::wait_until;

/// A server over TLS.
fn serve(name: &str, more: &[&str]) -> (Program, SocketAddr) {
    let [certificate, key] = files(&LOCALHOST);
    let tls = ["--tls-cert", &certificate, "--tls-key", &key];
    Program::serve(name, [&tls[..], more].concat())
}

fn files(pair: &Pair) -> [String; 2] {
    [&pair.certificate_file, &pair.key_file].map(|file| file.display().to_string())
}

fn root() -> String {
    AUTHORITY.root_file().display().to_string()
}

#[track_caller]
fn run(name: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(name);
    command.args(arguments).stdin(Stdio::null());
    command.output().unwrap_or_else(|error| panic!("{name} is needed for this test: {error}"))
}

fn s_client(address: SocketAddr, more: &[&str]) -> Program {
    let mut command = Command::new("openssl");
    let (address, root) = (address.to_string(), root());
    command.args(["s_client", "-quiet", "-connect", &address, "-CAfile", &root, "-verify_return_error"]);
    command.args(["-servername", "localhost", "-verify_hostname", "localhost"]).args(more);
    Program::spawn({
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command
    })
}

#[test]
fn openssl_speaks_both_versions_with_the_echo_server() {
    let (server, address) = serve("echo_server", &["127.0.0.1:0"]);
    for version in ["-tls1_2", "-tls1_3"] {
        let mut client = s_client(address, &[version]);
        client.type_in(b"hello over TLS\n");
        assert_eq!(client.line(), "hello over TLS", "{version}");
    }
    // What is too old is refused.
    let ended = s_client(address, &["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"]).end();
    assert!(ended.code != Some(0) && ended.stderr.contains(" alert "), "{ended:?}");
    server.end_by("TERM");
}

#[test]
fn openssl_resumes_a_session() {
    let (server, address) = serve("echo_server", &["127.0.0.1:0"]);
    let address = address.to_string();
    let dir = Dir::new();
    let saved = dir.join("session").display().to_string();
    for (version, name) in [("-tls1_2", "Reused, TLSv1.2"), ("-tls1_3", "Reused, TLSv1.3")] {
        // Until the ticket has come, which in TLS 1.3 is after the handshake.
        let mut client = s_client(address.parse().unwrap(), &[version, "-sess_out", &saved]);
        client.type_in(b"ticket\n");
        assert_eq!(client.line(), "ticket");
        drop(client.take_input());
        wait_until("the session is saved", || std::fs::metadata(&saved).is_ok_and(|file| file.len() > 100));
        let to = ["s_client", "-connect", &address, "-servername", "localhost"];
        let again = run("openssl", &[&to[..], &[version, "-sess_in", &saved]].concat());
        let said = String::from_utf8_lossy(&again.stdout).into_owned();
        assert!(said.contains(name), "{said}");
        std::fs::remove_file(&saved).unwrap();
    }
    server.end_by("TERM");
}

#[test]
fn curl_fetches_over_https_and_plain_http_is_told_apart() {
    let dir = Dir::new();
    dir.file("big", &pattern(8 << 20));
    let root_of_site = dir.path().display().to_string();
    let (server, address) = serve("http_server", &["--root", &root_of_site, "127.0.0.1:0"]);
    let (url, ca) = (format!("https://localhost:{}/big", address.port()), root());
    let got = run("curl", &["-sS", "--cacert", &ca, &url, &url]);
    assert!(got.status.success(), "{}", String::from_utf8_lossy(&got.stderr));
    assert!(got.stdout == [pattern(8 << 20), pattern(8 << 20)].concat(), "{} bytes", got.stdout.len());
    let got = run("curl", &["-sS", &url]);
    assert_eq!(got.status.code(), Some(60), "nobody knows the authority: {got:?}");
    let got = run("curl", &["-sS", "-i", &format!("http://{address}/big")]);
    let said = String::from_utf8_lossy(&got.stdout).into_owned();
    assert!(said.starts_with("HTTP/1.1 400 ") && said.contains("https://"), "{got:?}");
    server.end_by("TERM");
}

/// It says and hears the end of each direction.
const PYTHON: &str = r#"
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[2])
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 20) as plain:
    with context.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False) as tls:
        assert tls.version() == "TLSv1.3", tls.version()
        data = bytes(range(256)) * 400
        tls.sendall(data)
        got = b""
        while len(got) < len(data):
            got += tls.recv(65536)
        assert got == data
        tls.unwrap()
print("all is well")
"#;

#[test]
fn python_has_its_bytes_back_and_an_end_with_close_notify() {
    let (server, address) = serve("echo_server", &["127.0.0.1:0"]);
    let got = run("python3", &["-c", PYTHON, &address.port().to_string(), &root()]);
    assert_eq!(
        String::from_utf8_lossy(&got.stdout),
        "all is well\n",
        "{}",
        String::from_utf8_lossy(&got.stderr)
    );
    server.end_by("TERM");
}

#[test]
fn our_clients_verify_the_server() {
    let (server, address) = serve("echo_server", &["127.0.0.1:0"]);
    let (on_name, on_address) = (format!("localhost:{}", address.port()), address.to_string());
    let ca = root();
    for address in [&on_name, &on_address] {
        let ended =
            Program::start("echo_client", ["--tls", "--ca", &ca, "--connections", "3", address]).end();
        ended.assert_quiet_success();
        assert_eq!(ended.stdout.lines().count(), 3, "{}", ended.stdout);
    }
    let args = ["--tls", "--ca", &ca, "--server-name", "other.test", &on_name];
    Program::start("echo_client", args).end().assert_failure("not valid for name");
    Program::start("echo_client", ["--tls", &on_name]).end().assert_failure("UnknownIssuer");
    Program::start("echo_client", ["--tls", "--ca", "/nonexistent.pem", &on_name])
        .end()
        .assert_failure("/nonexistent.pem");
    let mut lines = Program::start_typed("stream_client", ["--tls", "--ca", &ca, &on_name]);
    lines.type_in(b"one\ntwo\n");
    assert_eq!([lines.line(), lines.line()], ["one", "two"]);
    drop(lines.take_input());
    lines.end().assert_quiet_success();
    server.end_by("TERM");
}

#[test]
fn http_client_fetches_from_openssl_and_from_http_server() {
    let [certificate, key] = files(&LOCALHOST);
    let mut other = Command::new("openssl");
    other.args(["s_server", "-www", "-accept", "0", "-cert", &certificate, "-key", &key]);
    other.stdin(Stdio::null()).stdout(Stdio::piped());
    let other = Program::spawn(other);
    let port = loop {
        let line = other.line();
        if let Some(address) = line.strip_prefix("ACCEPT ") {
            break address.rsplit(':').next().unwrap().to_owned();
        }
    };
    let ca = root();
    let args = ["--ca", &ca, &format!("https://localhost:{port}"), "/"];
    let ended = Program::start("http_client", args).end();
    assert!(ended.code == Some(0) && ended.stdout.contains("Ciphers supported in s_server"), "{ended:?}");
    let dir = Dir::new();
    dir.file("page", b"served");
    let (server, address) =
        serve("http_server", &["--root", &dir.path().display().to_string(), "127.0.0.1:0"]);
    let args = ["--ca", &ca, &format!("https://{address}"), "/page"];
    let ended = Program::start("http_client", args).end();
    ended.assert_quiet_success();
    assert_eq!(ended.stdout.trim(), "served");
    Program::start("http_client", [&format!("https://{address}"), "/page"])
        .end()
        .assert_failure("UnknownIssuer");
    server.end_by("TERM");
}

#[test]
fn tcp_proxy_takes_tls_off_and_poetry_client_puts_it_on() {
    let (poet, upstream) = Program::serve("poetry_server", ["--port", "0", "--delay", "0"]);
    let (proxy, address) = serve("tcp_proxy", &["127.0.0.1:0", &upstream.to_string()]);
    let ca = root();
    let ended = Program::start("poetry_client", ["--tls", "--ca", &ca, &address.to_string()]).end();
    ended.assert_quiet_success();
    assert!(ended.stdout.contains("Task 1 finished") && ended.stdout.contains("Got 1 poems"), "{ended:?}");
    proxy.end_by("TERM");
    poet.end_by("TERM");
}

#[test]
fn two_chat_over_tls() {
    ["1", "3"].into_iter().for_each(two_chat);
}

fn two_chat(threads: &str) {
    let (server, address) = serve("chat_server", &["--threads", threads, "127.0.0.1:0"]);
    let mut first = s_client(address, &[]);
    first.type_in(b"/who\r\n");
    assert_eq!(first.line(), "* here: guest1");
    let mut second = s_client(address, &[]);
    assert_eq!(first.line(), "* guest2 joined");
    second.type_in(b"hello\r\n");
    assert_eq!(first.line(), "guest2: hello");
    second.type_in(b"/quit\r\n");
    assert_eq!(first.line(), "* guest2 left");
    server.end_by("TERM");
}

/// EDGE_CASES 389.
#[test]
fn sighup_reads_the_certificate_anew_and_what_is_there_stays() {
    // Each connection of those that ask is on another loop.
    ["1", "3"].into_iter().for_each(a_certificate_is_read_anew);
}

fn a_certificate_is_read_anew(threads: &str) {
    let dir = Dir::new();
    let [certificate, key] = ["cert.pem", "key.pem"].map(|name| dir.join(name).display().to_string());
    let put = |pair: &Pair| {
        std::fs::write(&certificate, &pair.certificate).unwrap();
        std::fs::write(&key, &pair.key).unwrap();
    };
    put(&LOCALHOST);
    let mut server = command("echo_server");
    server.args(["--threads", threads, "--tls-cert", &certificate, "--tls-key", &key, "127.0.0.1:0"]);
    let server = Program::spawn(server);
    let address = server.listening();
    let mut old = s_client(address, &[]);
    old.type_in(b"before\n");
    assert_eq!(old.line(), "before");
    let shown = || {
        let got = run("openssl", &["s_client", "-connect", &address.to_string()]);
        let text = String::from_utf8_lossy(&got.stdout).into_owned();
        text.split("-----").nth(2).map(str::to_owned)
    };
    let before = shown();
    // What does not fit changes nothing.
    std::fs::write(&key, "no key").unwrap();
    server.signal("HUP");
    assert!(before.is_some() && shown() == before);
    put(&AUTHORITY.issue("renewed-by-hup", "DNS:localhost"));
    server.signal("HUP");
    wait_until("the new certificate is shown", || shown().is_some_and(|now| Some(now) != before));
    assert!((0..3).all(|_| shown() != before));
    old.type_in(b"after\n");
    assert_eq!(old.line(), "after");
    let ended = server.end_by("TERM");
    assert!(ended.stderr.contains("the old certificate stays"), "{ended:?}");
}

#[test]
fn half_of_the_options_is_wrong_usage() {
    let [certificate, key] = files(&LOCALHOST);
    for args in [["--tls-cert", &certificate], ["--tls-key", &key]] {
        Program::start("echo_server", args).end().assert_wrong_usage("echo_server");
    }
    for args in [["--ca", "x", "127.0.0.1:1"], ["--server-name", "x", "127.0.0.1:1"]] {
        Program::start("echo_client", args).end().assert_wrong_usage("echo_client");
    }
    let args = ["--tls-cert", &key, "--tls-key", &key, "127.0.0.1:0"];
    Program::start("echo_server", args).end().assert_failure(&key);
    Program::start("agent_server", ["--tls-cert", &certificate]).end().assert_wrong_usage("agent_server");
}
