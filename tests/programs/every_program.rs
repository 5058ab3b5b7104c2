//! What the example programs have in common: help, usage, addresses, an output that nobody reads.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use crate::support::dirs::Dir;
use crate::support::programs::{Program, assert_help, command, unread};

const PROGRAMS: [&str; 9] = [
    "echo_server",
    "echo_client",
    "poetry_server",
    "poetry_client",
    "agent_server",
    "agent_client",
    "http_server",
    "tcp_proxy",
    "udp_echo",
];

/// Those that are given addresses, of which the clients need one.
const WITH_ADDRESS: [&str; 5] = ["echo_server", "echo_client", "agent_server", "agent_client", "http_server"];
const CLIENTS: [&str; 3] = ["echo_client", "poetry_client", "agent_client"];

#[test]
fn help_says_how_each_program_is_used() {
    for name in PROGRAMS {
        assert_help(name);
    }
}

#[test]
fn wrong_usage_is_answered_with_the_usage() {
    for name in PROGRAMS {
        let wrong: [&[&str]; 4] = [&["--bogus"], &["-x"], &["--log"], &["--log", "loud", "127.0.0.1:1"]];
        for args in wrong {
            Program::start(name, args).end().assert_wrong_usage(name);
        }
    }
    for name in CLIENTS {
        Program::start(name, [] as [&str; 0]).end().assert_wrong_usage(name);
    }
    for name in WITH_ADDRESS.into_iter().chain(["poetry_client"]) {
        let wrong: [&[&str]; 5] =
            [&["127.0.0.1"], &["127.0.0.1:65536"], &["127.0.0.1:"], &[":80"], &["::1:80"]];
        for args in wrong {
            Program::start(name, args).end().assert_wrong_usage(name);
        }
        let not_utf8 = OsString::from_vec(b"\xff:80".into());
        Program::start(name, [not_utf8]).end().assert_wrong_usage(name);
    }
    for name in ["echo_client", "agent_server", "agent_client"] {
        let ended = Program::start(name, ["127.0.0.1:1", "127.0.0.1:2"]).end();
        ended.assert_wrong_usage(name);
    }
    let wrong: [&[&str]; 5] = [
        &["--interactive", "--connections", "2", "127.0.0.1:1"],
        &["--interactive", "--message", "x", "127.0.0.1:1"],
        &["--connections", "0", "127.0.0.1:1"],
        &["--connections", "many", "127.0.0.1:1"],
        &["127.0.0.1:1", "--message"],
    ];
    for args in wrong {
        Program::start("echo_client", args).end().assert_wrong_usage("echo_client");
    }
}

/// No name server could be asked about these.
#[test]
fn impossible_names_are_wrong_usage() {
    for address in ["a name:80", "..:80", "localhost\n:80", "unix:"] {
        for name in WITH_ADDRESS {
            let ended = Program::start(name, [address]).end();
            ended.assert_wrong_usage(name);
            assert!(ended.stderr.contains(&format!("{address:?}")), "{ended:?}");
        }
    }
}

/// Wherever a TCP address is taken, so is that of a Unix-domain socket.
#[test]
fn a_unix_domain_address_is_taken_wherever_a_tcp_one_is() {
    let dir = Dir::new();
    let (path, address) = dir.socket("echo.sock");
    let server = Program::start("echo_server", [&address]);
    assert_eq!(server.line(), format!("listening on {address}"));
    let client = Program::start("echo_client", ["--connections", "3", &address]).end();
    client.assert_quiet_success();
    let taken = Program::start("echo_server", [&address]).end();
    taken.assert_failure(&address);
    server.finish("TERM");
    assert!(!path.exists());
    let gone = Program::start("echo_client", [&address]).end();
    gone.assert_failure(&address);
}

/// As with `| head`, but with the reader gone from the start.
#[test]
fn a_closed_stdout_is_no_failure() {
    let (_echo, address) = Program::serve("echo_server", ["127.0.0.1:0"]);
    for (name, argument) in [
        ("echo_server", "127.0.0.1:0"),
        ("echo_server", "--help"),
        ("echo_client", address.to_string().as_str()),
        ("echo_client", "--help"),
        ("agent_server", "127.0.0.1:0"),
        ("poetry_server", "--port=0"),
        ("poetry_client", "--help"),
    ] {
        let mut command = command(name);
        command.arg(argument).stdout(unread());
        Program::spawn(command).end().assert_quiet_success();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_stdout_is_a_failure() {
    for name in PROGRAMS {
        let mut command = command(name);
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        command.arg("--help").stdout(full);
        Program::spawn(command).end().assert_failure("stdout");
    }
}

/// EDGE_CASES 390.
#[cfg(not(feature = "tls"))]
#[test]
fn options_of_tls_need_the_feature() {
    let mut all = vec![
        ("echo_server", vec!["--tls-cert", "cert.pem", "--tls-key", "key.pem"]),
        ("http_server", vec!["--tls-key", "key.pem"]),
        ("tcp_proxy", vec!["--tls-cert", "cert.pem", "127.0.0.1:0", "127.0.0.1:1"]),
        ("echo_client", vec!["--tls", "127.0.0.1:1"]),
        ("poetry_client", vec!["--ca", "ca.pem", "1"]),
    ];
    if cfg!(feature = "layers") {
        all.push(("chat_server", vec!["--tls-cert", "cert.pem"]));
        all.push(("stream_client", vec!["--server-name", "a.test", "127.0.0.1:1"]));
        all.push(("http_client", vec!["https://127.0.0.1:1", "/"]));
    }
    for (name, args) in all {
        let ended = Program::start(name, args).end();
        ended.assert_wrong_usage(name);
        assert!(ended.stderr.contains("feature `tls`"), "{ended:?}");
    }
}
