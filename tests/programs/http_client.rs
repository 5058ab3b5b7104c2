//! The example http_client, as its users meet it: against a server of one connection, which the test is.

use std::ffi::OsString;
use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::ffi::OsStringExt;

use crate::support::peers::{accept, pattern, pattern_at, read_exactly, read_to_end, reset};
use crate::support::programs::{
    Ended, Program, assert_help, command, flood, listener, read_no_more, refuser,
};

const OK: &str = "HTTP/1.1 200 OK\r\n";

#[test]
fn the_request_is_http_1_0_and_nothing_more() {
    let (listener, address) = listener();
    let port = listener.local_addr().unwrap().port();
    for (host, path) in [
        (address, "/"),
        (format!("localhost:{port}"), "/a/b%20c?d=e&f"),
        (format!("127.0.0.1:{port}"), "/\u{e9}"),
    ] {
        let client = Program::start("http_client", [&host, path]);
        let mut server = accept(&listener);
        let request = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
        assert_eq!(read_exactly(&mut server, request.len()), request.as_bytes());
        server.write_all(b"HTTP/1.0 204 No Content\r\n\r\n").unwrap();
        assert_eq!(read_to_end(&mut server), b"", "and nothing more");
        let ended = client.end();
        ended.assert_quiet_success();
        assert_eq!(ended.stdout, "");
    }
}

#[test]
fn an_ipv6_server_is_fetched_from() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else { return };
    let host = listener.local_addr().unwrap().to_string();
    let client = Program::start("http_client", [&host, "/"]);
    let mut server = accept(&listener);
    let request = format!("GET / HTTP/1.0\r\nHost: {host}\r\n\r\n");
    assert_eq!(read_exactly(&mut server, request.len()), request.as_bytes());
    server.write_all(b"HTTP/1.0 200 OK\r\n\r\nbody").unwrap();
    drop(server);
    assert_eq!(client.end().stdout, "body\n"); // a line of the test's
}

#[test]
fn a_body_ends_where_its_length_or_the_stream_does() {
    for (answer, body) in [
        // That many bytes, and what comes after them is none of ours.
        (format!("{OK}Content-Length: 4\r\n\r\nbody"), "body"),
        (format!("{OK}content-length:4\r\nContent-Length:  4 \r\n\r\nbody and more"), "body"),
        (format!("{OK}CONTENT-length: 4\r\n\r\nbody and more"), "body"),
        (format!("{OK}Content-Length: 0\r\n\r\nmore"), ""),
        // Until the end.
        (format!("{OK}Server: of the test\r\n\r\nall\r\n\r\nof it\n"), "all\r\n\r\nof it\n"),
        (format!("{OK}\r\n"), ""),
        ("HTTP/1.0 200 OK\n\nlines end in whatever way\n".into(), "lines end in whatever way\n"),
        ("HTTP/1.0 299\r\n\r\nstatus without reason".into(), "status without reason"),
        // These have none.
        ("HTTP/1.0 204 No Content\r\nContent-Length: 4\r\n\r\n".into(), ""),
    ] {
        for piece in [1, 7, answer.len()] {
            let ended = fetch(answer.as_bytes(), piece);
            ended.assert_quiet_success();
            assert_eq!(ended.stdout, body, "{answer:?} in pieces of {piece}");
        }
    }
}

/// While it comes, byte for byte, and whatever it is.
#[test]
fn the_body_is_written_as_it_comes() {
    let (client, mut server, mut output) = raw_fetch(&[]);
    server.write_all(format!("{OK}Content-Length: 512\r\n\r\n").as_bytes()).unwrap();
    for byte in (0..=255).chain(0..=255) {
        server.write_all(&[byte]).unwrap();
        assert_eq!(read_exactly(&mut output, 1), [byte]);
    }
    // As many as were announced: the server need not end.
    assert_eq!(read_to_end(&mut output), b"");
    assert_eq!(read_to_end(&mut server), b"");
    client.end().assert_quiet_success();
}

/// Nobody takes the body, and it waits with the server; then somebody does.
#[test]
fn a_large_body_waits_with_the_server_for_a_slow_reader() {
    const PIECE: usize = 64 * 1024;
    const PIECES: usize = 1024;
    let (client, mut server, mut output) = raw_fetch(&[]);
    server.write_all(format!("{OK}Content-Length: {}\r\n\r\n", PIECE * PIECES).as_bytes()).unwrap();
    let piece = pattern(PIECE);
    // A piece is not split, because the rest of it is sent first.
    let (sent, end) = flood(&mut server, PIECE * PIECES, |at| pattern_at(at % PIECE));
    end.unwrap();
    assert!(sent < PIECE * PIECES / 2, "nothing made the server wait");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            server.write_all(&piece[sent % PIECE..]).unwrap();
            for _ in sent / PIECE + 1..PIECES {
                server.write_all(&piece).unwrap();
            }
            assert_eq!(read_to_end(&mut server), b"");
        });
        for number in 0..PIECES {
            let got = read_exactly(&mut output, PIECE);
            assert!(got == pattern(PIECE));
            if number == PIECES / 2 && cfg!(target_os = "linux") {
                let peak = client.peak_memory();
                assert!(peak < 30 * 1024, "{peak} KiB");
            }
        }
    });
    assert_eq!(read_to_end(&mut output), b"");
    client.end().assert_quiet_success();
}

#[test]
fn verbose_prints_the_head() {
    let head = "HTTP/1.1 200 Fine\r\nContent-Length: 4\r\nX-Bytes: \u{e9}\tx\r\n";
    let (client, mut server, mut output) = raw_fetch(&["-v"]);
    server.write_all(format!("{head}\r\nbody").as_bytes()).unwrap();
    assert_eq!(read_to_end(&mut output), b"body");
    let ended = client.end();
    assert_eq!(ended.code, Some(0));
    assert_eq!(ended.stderr, head.replace('\r', ""));
}

#[test]
fn other_statuses_are_failures_with_their_body_printed() {
    for (code, reason) in [(404, "Not Found"), (301, "Moved"), (500, ""), (304, "Not Modified"), (199, "Odd")]
    {
        let body = if code == 304 { "" } else { "the body\n" };
        let headers = "Location: /elsewhere\r\nContent-Length: 9\r\n";
        let ended = fetch(format!("HTTP/1.0 {code} {reason}\r\n{headers}\r\n{body}").as_bytes(), 1000);
        ended.assert_failure(&format!("status {code} {reason}"));
        assert_eq!(ended.stdout, body);
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    }
}

/// 118: any number of them.
#[test]
fn answers_in_between_are_passed_over() {
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\nContent-Length: 5\r\n\r\n";
    let answer = format!("HTTP/1.1 100 Continue\r\n\r\n{early}{early}HTTP/1.0 200 OK\r\n\r\nbody");
    for piece in [1, 1000] {
        let ended = fetch(answer.as_bytes(), piece);
        ended.assert_quiet_success();
        assert_eq!(ended.stdout, "body");
    }
    fetch("HTTP/1.1 100 Continue\r\n\r\n".as_bytes(), 1000).assert_failure("end of the head");
    fetch("HTTP/1.1 100 Continue\r\n\r\n".repeat(10_000).as_bytes(), 1000).assert_failure("longer");
}

#[test]
fn bodies_cut_short_are_failures() {
    for (answer, body) in
        [("HTTP/1.0 200 OK", "bod"), ("HTTP/1.0 200 OK", ""), ("HTTP/1.0 404 Not Found", "bod")]
    {
        let ended = fetch(format!("{answer}\r\nContent-Length: 4\r\n\r\n{body}").as_bytes(), 1000);
        ended.assert_failure("cut short");
        assert_eq!(ended.stdout, body);
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    }
    // By a reset, which is no end.
    for length in ["", "Content-Length: 10\r\n"] {
        let (client, mut server, mut output) = raw_fetch(&[]);
        server.write_all(format!("{OK}{length}\r\nbod").as_bytes()).unwrap();
        assert_eq!(read_exactly(&mut output, 3), b"bod");
        reset(server);
        assert_eq!(read_to_end(&mut output), b"");
        client.end().assert_failure("reset");
    }
}

#[test]
fn answers_that_are_none_are_failures_that_say_why() {
    let many = "X: y\r\n".repeat(300);
    let long = "x".repeat(70_000);
    for (answer, why) in [
        ("".to_owned(), "before the end of the head"),
        ("HTTP/1.0 200 OK".to_owned(), "before the end of the head"),
        (format!("{OK}X: y\r\n"), "before the end of the head"),
        ("\r\n\r\n".to_owned(), "no HTTP answer"),
        ("\0\x01\x02garbage\n\n".to_owned(), "no HTTP answer"),
        ("220 smtp.example.com\r\n\r\n".to_owned(), "no HTTP answer"),
        ("HTTP/1.0 2x0 OK\r\n\r\n".to_owned(), "no HTTP answer"),
        ("HTTP/1.0 20\r\n\r\n".to_owned(), "no HTTP answer"),
        (format!("{OK}no colon\r\n\r\n"), "no HTTP answer"),
        (format!("{OK}{many}\r\n"), "no HTTP answer"),
        (format!("{OK}X: {long}\r\n\r\n"), "longer than 65536"),
        (format!("{OK}{}\r\n", "X: y\r\n".repeat(12_000)), "longer than 65536"),
        (long, "longer than 65536"),
        (format!("{OK}Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"), "HTTP/1.0 does not know"),
        (format!("{OK}Content-Length: four\r\n\r\nbody"), "Content-Length"),
        (format!("{OK}Content-Length: +4\r\n\r\nbody"), "Content-Length"),
        (format!("{OK}Content-Length: -4\r\n\r\nbody"), "Content-Length"),
        (format!("{OK}Content-Length:\r\n\r\nbody"), "Content-Length"),
        (format!("{OK}Content-Length: 99999999999999999999\r\n\r\nbody"), "Content-Length"),
        (format!("{OK}Content-Length: 4\r\nContent-Length: 5\r\n\r\nbody"), "Content-Length"),
    ] {
        let ended = fetch(answer.as_bytes(), 5000);
        ended.assert_failure("http://");
        assert!(ended.stderr.contains(why) && ended.stdout.is_empty(), "{why}: {ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    }
    // It does not wait for the end of what never ends.
    let (client, mut server) = client_of(&[]);
    let wrote = (0..1_000_000).find(|_| server.write_all(&[b'x'; 1024]).is_err());
    assert!(wrote.is_some());
    client.end().assert_failure("longer than 65536");
}

#[test]
fn a_client_that_fails_says_why() {
    let (_held, address) = refuser();
    let ended = Program::start("http_client", [&address, "/"]).end();
    ended.assert_failure(&address);
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");

    // Too long a name for any name server to be asked.
    let name = "x".repeat(300);
    Program::start("http_client", [&name, "/"]).end().assert_wrong_usage("http_client");

    for (signal, answer) in [("INT", ""), ("TERM", OK), ("INT", "HTTP/1.0 200 OK\r\n\r\nbody")] {
        let (client, mut server, mut output) = raw_fetch(&[]);
        server.write_all(answer.as_bytes()).unwrap();
        if answer.ends_with("body") {
            assert_eq!(read_exactly(&mut output, 4), b"body");
        }
        client.signal(signal);
        client.end().assert_failure("interrupted");
    }
}

/// As with `| head`.
#[test]
fn a_closed_stdout_is_no_failure() {
    let (client, mut server, output) = raw_fetch(&[]);
    read_no_more(&output);
    server.write_all(format!("{OK}\r\nbody").as_bytes()).unwrap();
    client.end().assert_quiet_success();
}

#[test]
fn wrong_usage_is_answered_with_the_usage() {
    assert_help("http_client");
    for wrong in [
        &[][..],
        &["127.0.0.1:1"],
        &["127.0.0.1:1", "/", "/"],
        &["127.0.0.1:1", ""],
        &["127.0.0.1:1", "relative"],
        &["127.0.0.1:1", "/two words"],
        &["127.0.0.1:1", "/\r\nHost: other"],
        &["two words:1", "/"],
        &["two\nlines:1", "/"],
        &["127.0.0.1:port", "/"],
        &["127.0.0.1:65536", "/"],
        &["::1", "/"],
        &["", "/"],
        &["--bogus", "127.0.0.1:1", "/"],
    ] {
        Program::start("http_client", wrong).end().assert_wrong_usage("http_client");
    }
    let args = [OsString::from_vec(b"\xff".into()), "/".into()];
    Program::start("http_client", args).end().assert_wrong_usage("http_client");
}

// What the tests are made of.

/// What becomes of a client that is given this answer in pieces, and then the end.
#[track_caller]
fn fetch(answer: &[u8], piece: usize) -> Ended {
    let (client, mut server, mut output) = raw_fetch(&[]);
    server.set_nodelay(true).unwrap();
    for piece in answer.chunks(piece) {
        // It may know already that it does not want it.
        if server.write_all(piece).is_err() {
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Write);
    let stdout = String::from_utf8(read_to_end(&mut output)).unwrap();
    Ended { stdout, ..client.end() }
}

/// The client, and the server's end of its connection, from which the request is read.
#[track_caller]
fn client_of(options: &[&str]) -> (Program, TcpStream) {
    let (listener, address) = listener();
    let client = Program::start("http_client", options.iter().chain(&[address.as_str(), "/path"]));
    (client, asked(&listener, &address))
}

/// As `client_of`, with its output as bytes.
#[track_caller]
fn raw_fetch(options: &[&str]) -> (Program, TcpStream, std::os::unix::net::UnixStream) {
    let (listener, address) = listener();
    let mut command = command("http_client");
    command.args(options).args([address.as_str(), "/path"]);
    let (client, output) = Program::spawn_raw(command);
    (client, asked(&listener, &address), output)
}

#[track_caller]
fn asked(listener: &TcpListener, address: &str) -> TcpStream {
    let mut server = accept(listener);
    let request = format!("GET /path HTTP/1.0\r\nHost: {address}\r\n\r\n");
    assert_eq!(read_exactly(&mut server, request.len()), request.as_bytes());
    server
}
