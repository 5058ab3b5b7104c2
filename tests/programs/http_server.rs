//! The example http_server as its clients meet it: what it answers to what it should and should not be
//! asked, and what that costs it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use crate::support::dirs::Dir;
use crate::support::peers::{connect, pattern, read_to_end, reset};
use crate::support::programs::{Program, command, listener};

// The command line.

#[test]
fn wrong_usage_is_answered_with_the_usage() {
    let ended = Program::start("http_server", ["--help"]).end();
    ended.assert_quiet_success();
    assert!(ended.stdout.starts_with("usage: http_server [--root DIR] "), "{ended:?}");
    let wrong: [&[&str]; 6] = [
        &["--bogus"],
        &["--root"],
        &["127.0.0.1"],
        &[":80"],
        &["--log", "loud"],
        &["127.0.0.1:1", "127.0.0.1:2"],
    ];
    for args in wrong {
        Program::start("http_server", args).end().assert_wrong_usage("http_server");
    }
}

#[test]
fn what_it_cannot_serve_is_a_failure_that_names_it() {
    let dir = Dir::new();
    let file = dir.file("file", b"");
    for root in [dir.join("missing"), file] {
        let root = root.to_str().unwrap();
        Program::start("http_server", ["--root", root, "127.0.0.1:0"]).end().assert_failure(root);
    }
    let (_taken, address) = listener();
    Program::start("http_server", [&address]).end().assert_failure(&address);
}

#[test]
fn a_signal_lets_answers_come_to_their_end() {
    let dir = Dir::new();
    let content = pattern(12 * 1024 * 1024);
    // More than the sockets hold, and little enough for the 3 s that the server gives it.
    dir.file("big", &content);
    let (server, address) = serve(&dir);
    let mut idle = connect(&address);
    let mut client = Client::new(&address);
    client.send("GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = client.head();
    server.signal("TERM");
    assert_eq!(read_to_end(&mut idle), b"");
    assert!(client.body(&answer) == content);
    server.end().assert_quiet_success();
}

#[test]
fn the_log_has_a_line_for_each_answer() {
    let dir = Dir::new();
    dir.file("a b.txt", b"hello");
    let (server, address) = serve_with(&dir, &["--log", "info"]);
    let mut client = Client::new(&address);
    client.get_with("/a%20b.txt?x", "User-Agent: a \"b\" \u{e9}\r\nReferer: http://r/\r\n");
    client.get("/\u{202e}");
    client.send("nonsense\r\n\r\n");
    client.head();
    let ended = server.end_by("INT");
    let lines = [
        r#"] "GET /a%20b.txt?x HTTP/1.1" 200 5 "http://r/" "a \"b\" \xc3\xa9""#,
        r#"] "GET /\xe2\x80\xae HTTP/1.1" 404 14 "-" "-""#,
        r#"] "-" 400 16 "-" "-""#,
    ];
    for line in lines {
        assert!(ended.stderr.contains(&format!("{line}\n")), "{line} in {ended:?}");
    }
    for line in ended.stderr.lines() {
        let (_, line) = line.split_once("[INFO] access: ").unwrap();
        let date = line.strip_prefix("127.0.0.1 - - [").and_then(|rest| rest.split(']').next()).unwrap();
        let (day, time) = date.split_once(':').unwrap();
        let [_, month, _] = day.split('/').collect::<Vec<_>>()[..] else { panic!("{line}") };
        assert!(month.len() == 3 && time.ends_with(" +0000") && date.len() == 26, "{line}");
    }
}

// Files.

#[test]
fn files_of_all_sizes_come_whole() {
    let dir = Dir::new();
    let (server, address) = serve(&dir);
    let mut client = Client::new(&address);
    for len in [0, 1, 65_535, 65_536, 65_537, 1_000_000] {
        let content = pattern(len);
        dir.file("file", &content);
        for _ in 0..2 {
            let answer = client.get("/file");
            assert_eq!(answer.status, 200);
            assert_eq!(answer.field("content-length"), Some(len.to_string().as_str()));
            assert!(answer.body == content, "{len}");
        }
    }
    finish(server);
}

#[test]
fn head_is_get_without_the_body() {
    let dir = Dir::new();
    dir.file("file.html", b"<p>hello");
    dir.file("large", &pattern(100_000));
    dir.dir("sub");
    let (server, address) = serve(&dir);
    let mut client = Client::new(&address);
    for target in ["/file.html", "/large", "/", "/sub", "/sub/", "/none", "/%"] {
        let get = client.get(target);
        client.send(&format!("HEAD {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(client.head().without_date(), get.without_date());
    }
    finish(server);
}

#[test]
fn each_ending_has_its_content_type() {
    let dir = Dir::new();
    let (server, address) = serve(&dir);
    let mut client = Client::new(&address);
    for (name, wanted) in [
        ("a.html", "text/html; charset=utf-8"),
        ("a.HTM", "text/html; charset=utf-8"),
        ("a.b.css", "text/css; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.txt", "text/plain; charset=utf-8"),
        ("a.json", "application/json"),
        ("a.svg", "image/svg+xml"),
        ("a.jpeg", "image/jpeg"),
        ("a.wasm", "application/wasm"),
        ("a.tar.gz", "application/gzip"),
        ("a.unheard-of", "application/octet-stream"),
        ("html", "application/octet-stream"),
        (".html", "application/octet-stream"),
    ] {
        dir.file(name, b"x");
        assert_eq!(client.get(&format!("/{name}")).field("content-type"), Some(wanted), "{name}");
    }
    finish(server);
}

#[test]
fn a_file_not_modified_since_is_not_sent() {
    let dir = Dir::new();
    let file = dir.file("file", b"content");
    let (server, address) = serve(&dir);
    let mut client = Client::new(&address);
    // The fraction of a second is not lost on us, but on HTTP.
    let time = UNIX_EPOCH + Duration::from_millis(784_111_777_900);
    File::options().write(true).open(file).unwrap().set_modified(time).unwrap();
    let answer = client.get("/file");
    assert_eq!(answer.field("last-modified"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    for (since, status) in [
        ("Sun, 06 Nov 1994 08:49:37 GMT", 304),
        ("Sun, 06 Nov 1994 08:49:36 GMT", 200),
        ("Sunday, 06-Nov-94 08:49:38 GMT", 304),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 304),
        ("yesterday", 200),
        ("", 200),
    ] {
        let answer = client.get_with("/file", &format!("If-Modified-Since: {since}\r\n"));
        assert_eq!(answer.status, status, "{since}");
        assert_eq!(answer.body, if status == 200 { b"content".as_slice() } else { b"" });
    }
    finish(server);
}

/// Dates that HTTP cannot write.
#[test]
fn files_of_times_that_http_cannot_write_are_served() {
    let dir = Dir::new();
    let year = Duration::from_secs(365 * 24 * 3600);
    let (server, address) = serve(&dir);
    let mut client = Client::new(&address);
    for (name, time) in [("old", UNIX_EPOCH - 10 * year), ("young", UNIX_EPOCH + 9000 * year)] {
        let file = File::create(dir.file(name, b"")).unwrap();
        // Not every file system has them.
        if file.set_modified(time).is_ok() {
            assert_eq!(client.get(&format!("/{name}")).status, 200);
        }
    }
    assert_eq!(client.get("/").status, 200);
    finish(server);
}

#[test]
fn a_range_is_answered_with_that_part() {
    let dir = Dir::new();
    let content = pattern(1000);
    dir.file("file", &content);
    let large = pattern(200_000);
    dir.file("large", &large);
    dir.file("empty", b"");
    let (server, address) = serve(&dir);
    let mut client = Client::new(&address);
    let whole = Some(0..1000);
    for (range, wanted) in [
        ("bytes=0-0", Some(0..1)),
        ("bytes=0-", Some(0..1000)),
        ("bytes=0-999", Some(0..1000)),
        ("bytes=0-1000", Some(0..1000)),
        ("bytes=999-999", Some(999..1000)),
        ("bytes=999-", Some(999..1000)),
        ("bytes=500-99999999999999999999", Some(500..1000)),
        ("bytes=-1", Some(999..1000)),
        ("bytes=-1000", Some(0..1000)),
        ("bytes=-1001", Some(0..1000)),
        ("bytes=-99999999999999999999", Some(0..1000)),
        ("BYTES=10-19", Some(10..20)),
        ("bytes=1000-", None),
        ("bytes=1000-1000", None),
        ("bytes=-0", None),
        ("bytes=99999999999999999999-", None),
    ] {
        let answer = client.get_with("/file", &format!("Range: {range}\r\n"));
        match wanted {
            Some(wanted) => {
                assert_eq!(answer.status, 206, "{range}");
                let field = format!("bytes {}-{}/1000", wanted.start, wanted.end - 1);
                assert_eq!(answer.field("content-range"), Some(field.as_str()), "{range}");
                assert!(answer.body == content[wanted], "{range}");
            }
            None => {
                assert_eq!(answer.status, 416, "{range}");
                assert_eq!(answer.field("content-range"), Some("bytes */1000"), "{range}");
            }
        }
    }
    for ignored in [
        "bytes=0-0,2-2",
        "bytes=0-0,",
        "bytes=-",
        "bytes=",
        "bytes",
        "",
        "bytes=5-4",
        "bytes=a-b",
        "bytes=0x1-2",
        "bytes=+1-2",
        "bytes=--1",
        "bytes=1-2-3",
        "bytes=1 - 2",
        "bytes 1-2",
        "lines=1-2",
        "\u{fffd}",
    ] {
        let answer = client.get_with("/file", &format!("Range: {ignored}\r\n"));
        assert_eq!((answer.status, answer.field("content-range")), (200, None), "{ignored}");
        assert!(Some(0..answer.body.len()) == whole && answer.body == content, "{ignored}");
    }
    let part = client.get_with("/large", "Range: bytes=1-199998\r\n");
    assert!(part.status == 206 && part.body == large[1..199_999]);
    // Of nothing there is no part; better all of it than an error.
    assert_eq!(client.get_with("/empty", "Range: bytes=0-\r\n").status, 200);
    client.send("HEAD /file HTTP/1.1\r\nHost: x\r\nRange: bytes=0-0\r\n\r\n");
    assert_eq!(client.head().status, 200, "ranges are for GET alone");

    let modified = client.get("/file").field("last-modified").unwrap().to_owned();
    for (if_range, status) in
        [(modified.as_str(), 206), ("Sun, 06 Nov 1994 08:49:37 GMT", 200), ("\"etag\"", 200)]
    {
        let fields = format!("Range: bytes=0-0\r\nIf-Range: {if_range}\r\n");
        assert_eq!(client.get_with("/file", &fields).status, status, "{if_range}");
    }
    finish(server);
}

#[test]
fn a_file_that_shrinks_while_it_is_sent_ends_the_connection() {
    let dir = Dir::new();
    let file = dir.sparse("file", 64 * 1024 * 1024);
    let (server, address) = serve(&dir);
    let mut client = Client::new(&address);
    client.send("GET /file HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = client.head();
    assert_eq!(answer.field("content-length"), Some("67108864"));
    file.set_len(1024 * 1024).unwrap();
    let mut rest = Vec::new();
    // A reset or an end, but too early.
    let _ = client.stream.read_to_end(&mut rest);
    assert!(rest.len() < 64 * 1024 * 1024);
    assert_eq!(Client::new(&address).get("/").status, 200);
    let ended = server.end_by("INT");
    assert!(ended.code == Some(0) && ended.stderr.contains("a file shrank"), "{ended:?}");
}

#[test]
fn a_file_that_grows_while_it_is_sent_is_sent_as_long_as_it_was() {
    let dir = Dir::new();
    let file = dir.sparse("file", 32 * 1024 * 1024);
    let (server, address) = serve(&dir);
    let mut client = Client::new(&address);
    client.send("GET /file HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = client.head();
    file.set_len(33 * 1024 * 1024).unwrap();
    assert_eq!(client.body(&answer).len(), 32 * 1024 * 1024);
    assert_eq!(client.get("/none").status, 404, "what follows is the next answer");
    finish(server);
}

// Connections.

#[test]
fn the_connection_is_kept_as_the_client_asks() {
    let dir = Dir::new();
    let (server, address) = serve(&dir);
    for (head, goes_on, says) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n", true, None),
        ("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n", false, Some("close")),
        ("GET / HTTP/1.1\r\nHost: x\r\nConnection: Keep-Alive, Close\r\n", false, Some("close")),
        ("GET / HTTP/1.1\r\nHost: x\r\nConnection: x\r\nConnection: close\r\n", false, Some("close")),
        ("GET / HTTP/1.1\r\nHost: x\r\nConnection: closed\r\n", true, None),
        ("GET / HTTP/1.0\r\n", false, Some("close")),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n", true, Some("keep-alive")),
        ("GET /none HTTP/1.1\r\nHost: x\r\n", true, None),
        ("DELETE / HTTP/1.1\r\nHost: x\r\n", true, None),
        ("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n", true, None),
    ] {
        let mut client = Client::new(&address);
        client.send(&format!("{head}\r\n"));
        let answer = client.head();
        assert_eq!(answer.field("connection"), says, "{head}");
        client.body(&answer);
        match goes_on {
            true => assert_eq!(client.get("/").status, 200, "{head}"),
            false => assert_eq!(read_to_end(&mut client.stream), b"", "{head}"),
        }
    }
    finish(server);
}

#[test]
fn a_head_may_come_in_pieces() {
    let dir = Dir::new();
    dir.file("file", b"content");
    let (server, address) = serve(&dir);
    let mut client = Client::new(&address);
    client.stream.get_ref().set_nodelay(true).unwrap();
    for byte in "\r\nGET /file HTTP/1.1\r\nHost: x\r\n\r\nGET /none HTTP/1.1\r\nHost: x\r\n\r\n".chars() {
        client.send(&byte.to_string());
    }
    assert_eq!(client.answer().body, b"content");
    assert_eq!(client.answer().status, 404);
    client.send("GET /file HTTP/1.1\r\nHo");
    client.stream.get_ref().shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut client.stream), b"", "half a request is none");
    finish(server);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let dir = Dir::new();
    for number in 0..10 {
        dir.file(&number.to_string(), &pattern([10, 100_000][number % 2] + number));
    }
    let (server, address) = serve(&dir);
    let mut client = Client::new(&address);
    let order = || (0..500).map(|at| at * 7 % 10);
    let requests: String = order().map(|name| format!("GET /{name} HTTP/1.1\r\nHost: x\r\n\r\n")).collect();
    // Nothing is lost by the end of the requests.
    client.send(&requests);
    client.stream.get_ref().shutdown(Shutdown::Write).unwrap();
    for number in order() {
        assert_eq!(client.answer().body.len(), [10, 100_000][number % 2] + number);
    }
    assert_eq!(read_to_end(&mut client.stream), b"");
    finish(server);
}

/// Answers of 120 MB in all wait to be read, but not with the server.
#[test]
fn pipelining_without_reading_takes_bounded_memory() {
    const COUNT: usize = 2000;
    let dir = Dir::new();
    let content = pattern(60 * 1024);
    dir.file("file", &content);
    let (server, address) = serve(&dir);
    let mut client = Client::new(&address);
    let requests =
        (0..COUNT).map(|at| format!("GET /file HTTP/1.1\r\nHost: x\r\nRange: bytes={at}-\r\n\r\n"));
    client.send(&requests.collect::<String>());
    let mut other = Client::new(&address);
    for _ in 0..10 {
        assert_eq!(other.get("/file").status, 200);
    }
    for at in 0..COUNT {
        assert!(client.answer().body == content[at..], "{at}");
    }
    assert_memory(&server, 24);
    finish(server);
}

// What is refused.

#[test]
fn malformed_heads_are_refused() {
    let dir = Dir::new();
    dir.file("a", b"");
    let (server, address) = serve(&dir);
    let get = |fields: &str| [b"GET /a HTTP/1.1\r\n", fields.as_bytes(), b"\r\n"].concat();
    let target = |target: &[u8]| [b"GET ".as_slice(), target, b" HTTP/1.1\r\nHost: x\r\n\r\n"].concat();
    let line = |line: &str| format!("{line}\r\nHost: x\r\n\r\n").into_bytes();
    assert_eq!(refusal(&address, &get("Host: x\r\n")), 200, "the table is about what differs from this");
    let malformed = [
        (400, b"\0\0\0\0\r\n\r\n".to_vec()),
        (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
        (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        (400, vec![b'A'; 100]),
        (400, line("GET")),
        (400, line("GET ")),
        (400, line("GET /a")),
        (400, line("GET /a ")),
        (400, line("GET /a HTTP")),
        (400, line("GET /a HTTP/")),
        (400, line("GET /a HTTP/1")),
        (400, line("GET /a HTTP/1.")),
        (400, line("GET /a HTTP/1.2")),
        (400, line("GET /a HTTP/1.10")),
        (505, line("GET /a HTTP/2.0")),
        (505, line("GET /a HTTP/0.9")),
        (400, line("GET /a HTTP/2")),
        (400, target(b"https:///a")),
        (417, get("Host: x\r\nExpect: a miracle\r\n")),
        (413, get("Host: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n")),
        (200, get("Host: x\r\nExpect: 100-continue\r\n")),
        (400, line("GET /a http/1.1")),
        (400, line("GET /a HTTP/1.1 ")),
        (400, line("GET /a HTTP/1.1 b")),
        (400, line("GET  /a HTTP/1.1")),
        (400, line("GET\t/a\tHTTP/1.1")),
        (400, line(" GET /a HTTP/1.1")),
        (400, line("G(T /a HTTP/1.1")),
        (400, line("G\u{e4}T /a HTTP/1.1")),
        (400, line("GET /a b HTTP/1.1")),
        (400, b"GET /a HTTP/1.1\rHost: x\r\r".to_vec()),
        (400, target(b"a")),
        (400, target(b"*")),
        (400, target(b"x:80")),
        (400, target(b"ftp://x/a")),
        (400, target(b"/a\0")),
        (400, target(b"/a\x7f")),
        (400, target(b"/\xff")),
        (400, target(b"/%")),
        (400, target(b"/%4")),
        (400, target(b"/%zz")),
        (400, target(b"/%+1")),
        (400, get("")),
        (400, get("Host: x\r\nHost: x\r\n")),
        (400, b"GET /a HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n".to_vec()),
        (400, get("Host : x\r\n")),
        (400, get("Host\r\n")),
        (400, get(": x\r\n")),
        (400, get(" Host: x\r\n")),
        (400, get("Host: x\r\n folded\r\n")),
        (400, get("Host: x\r\nA b: c\r\n")),
        (400, get("Host: x\r\nA: b\0\r\n")),
        (400, get("Host: x\r\nA: b\rc\r\n")),
        (400, get("Host: x\r\nA\0: b\r\n")),
        (400, get("Host: x\r\nContent-Length: -1\r\n")),
        (400, get("Host: x\r\nContent-Length: +1\r\n")),
        (400, get("Host: x\r\nContent-Length: one\r\n")),
        (400, get("Host: x\r\nContent-Length:\r\n")),
        (400, get("Host: x\r\nContent-Length: 1, 1\r\n")),
        (400, get("Host: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n")),
        (413, get("Host: x\r\nContent-Length: 1\r\n")),
        (413, get("Host: x\r\nContent-Length: 99999999999999999999\r\n")),
        (413, get("Host: x\r\nTransfer-Encoding: chunked\r\n")),
        (405, line("POST /a HTTP/1.1")),
        (405, line("get /a HTTP/1.1")),
        (405, line("OPTIONS * HTTP/1.1")),
        (405, line("CONNECT x:80 HTTP/1.1")),
        (405, line("BREW /none HTTP/1.1")),
    ];
    for (status, head) in malformed {
        assert_eq!(refusal(&address, &head), status, "{}", head.escape_ascii());
    }
    finish(server);
}

#[test]
fn other_methods_than_get_and_head_are_refused() {
    let dir = Dir::new();
    let (server, address) = serve(&dir);
    let mut client = Client::new(&address);
    client.send("PUT / HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status, answer.field("allow")), (405, Some("GET, HEAD")));
    finish(server);
}

/// The body, or what comes after nonsense, may look like a request.
#[test]
fn what_follows_a_refused_head_is_no_request() {
    let dir = Dir::new();
    let (server, address) = serve(&dir);
    for (head, status) in [
        ("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 27\r\n", 413),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n", 405),
        ("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 0\r\n", 400),
        ("GET / HTTP/1.1\r\nHost\r\n", 400),
    ] {
        let sent = format!("{head}\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(refusal(&address, sent.as_bytes()), status, "{head}");
    }
    finish(server);
}

#[test]
fn a_head_over_the_limits_is_refused() {
    let dir = Dir::new();
    let (server, address) = serve(&dir);
    let target = |len: usize| format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(len - 1));
    let head = |len: usize| {
        let most = "GET / HTTP/1.1\r\nHost: x\r\nA: ";
        format!("{most}{}\r\n\r\n", "x".repeat(len - most.len() - 4))
    };
    let fields = |count: usize| format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(count - 1));
    for (status, head) in [
        (404, target(8192)),
        (414, target(8193)),
        (414, target(16_000)),
        (200, head(16_384)),
        (431, head(16_385)),
        (200, fields(100)),
        (431, fields(101)),
        (414, target(100_000)),
        (431, head(100_000)),
        // Not whole, but too much already.
        (414, format!("GET /{}", "x".repeat(8300))),
        (431, format!("GET / HTTP/1.1\r\nA: {}", "x".repeat(16_384))),
        (400, "\r\n".repeat(100)),
    ] {
        assert_eq!(refusal(&address, head.as_bytes()), status, "{} bytes: {:.40}", head.len(), head);
    }
    // In two pieces, so that the limit is met with a head that is not whole. The first is read by the
    // time that somebody who came after it has an answer.
    let mut client = Client::new(&address);
    client.send(&target(8192)[..8194]);
    assert_eq!(Client::new(&address).get("/").status, 200);
    client.send(&target(8192)[8194..]);
    assert_eq!(client.answer().status, 404);
    finish(server);
}

/// The answer arrives although the client goes on sending.
#[test]
fn an_endless_head_is_answered_all_the_same() {
    let dir = Dir::new();
    let (server, address) = serve(&dir);
    let mut client = Client::new(&address);
    let mut writer = client.stream.get_ref().try_clone().unwrap();
    let sending = thread::spawn(move || {
        let _ = writer.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nA: ");
        while writer.write_all(&[b'x'; 1000]).is_ok() {}
    });
    assert_eq!(client.answer().status, 431);
    let _ = client.stream.get_ref().shutdown(Shutdown::Both);
    sending.join().unwrap();
    assert_memory(&server, 24);
    finish(server);
}

// The way out of the root.

#[test]
fn nothing_outside_the_root_is_served() {
    let dir = Dir::new();
    dir.file("secret", b"SECRET");
    dir.dir("root-beside");
    dir.file("root-beside/secret", b"SECRET");
    dir.dir("root/sub");
    dir.file("root/sub/file", b"within");
    let secret = dir.join("secret");
    for (link, target) in [
        ("link", secret.as_path()),
        ("relative", Path::new("../secret")),
        ("chain", Path::new("relative")),
        ("beside", Path::new("../root-beside/secret")),
        ("up", Path::new("..")),
        ("sub/up", Path::new("../..")),
        ("loop", Path::new("loop")),
        ("nowhere", Path::new("nothing")),
        ("etc", Path::new("/etc")),
    ] {
        symlink(target, dir.join("root").join(link)).unwrap();
    }
    symlink("sub/file", dir.join("root/inside")).unwrap();
    symlink(dir.join("root/sub"), dir.join("root/absolute")).unwrap();
    symlink("../root/sub", dir.join("root/around")).unwrap();

    let (server, address) = serve_path(&dir.join("root"), &[]);
    let mut client = Client::new(&address);
    let absolute = secret.to_str().unwrap();
    for target in [
        "/..",
        "/../",
        "/../secret",
        "/../../../../../../../../etc/passwd",
        "/sub/../../secret",
        "/sub/../sub/file",
        "/%2e%2e/secret",
        "/.%2E/secret",
        "/%2e./secret",
        "/sub/%2e%2e/%2e%2e/secret",
        "/..%2fsecret",
        "/%2e%2e%2fsecret",
        "/sub%2ffile",
        "/%2f",
        "/%2fetc/passwd",
        "/..\\secret",
        "/..%5csecret",
        "/\\..\\secret",
        "/%00",
        "/sub/file%00",
        "/sub/file%00.html",
        "/..%00/secret",
        "/%252e%252e/secret",
        "/..;/secret",
        "/.../secret",
        "/~root",
        "//etc/passwd",
        &format!("/{absolute}"),
        &format!("/{}", absolute.replace('/', "%2f")),
        "http://x/../secret",
        "http://x/%2e%2e/secret",
        "/?/../secret/..",
        "/link",
        "/relative",
        "/chain",
        "/beside",
        "/up",
        "/up/",
        "/up/secret",
        "/sub/up/secret",
        "/loop",
        "/loop/",
        "/nowhere",
        "/etc/passwd",
        "/etc/",
    ] {
        let answer = client.get(target);
        let status = if target.starts_with("/?") { 200 } else { 404 };
        assert_eq!(answer.status, status, "{target}");
        assert!(!answer.text().contains("SECRET"), "{target}");
    }
    for target in ["/sub/file", "//sub//file", "/./sub/./file", "/%73ub/f%69le", "/inside", "/absolute/file"]
    {
        assert_eq!(client.get(target).body, b"within", "{target}");
    }
    for target in ["/around/file", "/up/root/sub/file"] {
        assert_eq!(client.get(target).body, b"within", "by way of outside, but within: {target}");
    }
    assert_eq!(client.get("http://x/sub/file?q").body, b"within");
    assert_eq!(client.get("HTTP://x").status, 200);
    assert_eq!(links(&client.get("/").text()), ["absolute/", "around/", "sub/", "inside"]);
    finish(server);
}

#[test]
fn only_files_and_directories_are_served() {
    let dir = Dir::new();
    dir.file("file", b"");
    assert!(Command::new("mkfifo").arg(dir.join("pipe")).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(dir.join("socket")).unwrap();
    let (server, address) = serve(&dir);
    let mut client = Client::new(&address);
    for target in ["/pipe", "/pipe/", "/socket", "/file/", "/file/x", "/pipe/x"] {
        assert_eq!(client.get(target).status, 404, "{target}");
    }
    assert_eq!(links(&client.get("/").text()), ["file"]);
    finish(server);
}

#[test]
fn a_file_that_may_not_be_read_is_forbidden() {
    let dir = Dir::new();
    let file = dir.file("file", b"SECRET");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    // A superuser may read it all the same.
    let status = if File::open(&file).is_ok() { 200 } else { 403 };
    let (server, address) = serve(&dir);
    assert_eq!(Client::new(&address).get("/file").status, status);
    finish(server);
}

// Directories.

#[test]
fn a_directory_is_redirected_to_its_slash() {
    let dir = Dir::new();
    dir.dir("a b/example.org");
    dir.file("a b/page", b"page");
    let (server, address) = serve(&dir);
    let mut client = Client::new(&address);
    for (target, location) in [
        ("/a%20b", "/a%20b/"),
        ("/a%20b?q", "/a%20b/"),
        ("/a%20b/example.org", "/a%20b/example.org/"),
        // Never a host's name.
        ("//a%20b//example.org", "/a%20b/example.org/"),
    ] {
        let answer = client.get(target);
        assert_eq!((answer.status, answer.field("location")), (301, Some(location)), "{target}");
    }
    assert_eq!(client.get("/a%20b/").status, 200);
    assert_eq!(client.get("/a%20b/.").status, 200);
    dir.file("a b/index.html", b"index");
    assert_eq!(client.get("/a%20b/").body, b"index");
    finish(server);
}

#[test]
fn a_listing_escapes_and_links_every_name() {
    let dir = Dir::new();
    let mut names: Vec<&[u8]> = vec![
        // There is no slash in a name, so the script does not end.
        b"<script>alert('&\"')",
        b"Beta",
        b"alpha.txt",
        b"gamma #1?%41:x",
        "\u{fc}ml\u{e4}ut".as_bytes(),
        b"new\nline",
        b".hidden",
        b"back\\slash",
    ];
    // Other systems take no such names.
    if cfg!(target_os = "linux") {
        names.push(b"not \xff utf-8");
    }
    dir.dir("in");
    for name in &names {
        fs::write(dir.join("in").join(std::ffi::OsStr::from_bytes(name)), name).unwrap();
    }
    dir.dir("in/zoo");
    dir.dir("in/<i>");
    let large = dir.sparse("in/large", 1536 * 1024);
    large.set_modified(UNIX_EPOCH + Duration::from_secs(784_111_777)).unwrap();
    let (server, address) = serve(&dir);
    let mut client = Client::new(&address);

    let answer = client.get("/in/");
    assert_eq!(answer.field("content-type"), Some("text/html; charset=utf-8"));
    let page = answer.text();
    let links = links(&page);
    assert_eq!(links[..4], ["../", "../", "%3Ci%3E/", "zoo/"], "what is above, then directories");
    let order = [".hidden", "%3Cscript%3Ealert%28%27%26%22%27%29", "alpha.txt", "back%5Cslash", "Beta"];
    assert_eq!(links[4..9], order);
    assert_eq!(links.len(), 4 + 1 + names.len());
    // Each leads to what it says.
    for link in links[4..].iter().filter(|link| **link != "large") {
        let file = client.get(&format!("/in/{link}"));
        assert!(file.status == 200 && names.contains(&file.body.as_slice()), "{link}");
    }
    assert!(!page.contains("<script") && !page.contains("<i>"), "{page}");
    assert!(page.contains("&lt;script&gt;alert(&#39;&amp;&quot;&#39;)</a>"), "{page}");
    let row = "<td>1.5 MiB</td><td>06 Nov 1994<span class=\"clock\"> 08:49</span></td>";
    assert!(page.contains(row) && page.contains("<td>7 B</td>"), "{page}");
    assert!(page.contains(&format!("2 directories, {} files", names.len() + 1)), "{page}");
    finish(server);
}

#[test]
fn a_listing_ends_after_ten_thousand_names() {
    let dir = Dir::new();
    for number in 0..10_001 {
        dir.file(&number.to_string(), b"");
    }
    let (server, address) = serve(&dir);
    let mut client = Client::new(&address);
    let page = client.get("/").text();
    assert_eq!(links(&page).len(), 10_000);
    assert!(page.contains("and more that are not shown"));
    fs::remove_file(dir.join("7")).unwrap();
    let page = client.get("/").text();
    assert_eq!(links(&page).len(), 10_000);
    assert!(!page.contains("and more that are not shown"));
    finish(server);
}

// What it costs.

#[test]
fn a_gigabyte_takes_bounded_memory() {
    const GIB: u64 = 1024 * 1024 * 1024;
    let dir = Dir::new();
    dir.sparse("file", GIB);
    let (server, address) = serve(&dir);
    let mut client = Client::new(&address);
    client.send("GET /file HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.head().field("content-length"), Some(GIB.to_string().as_str()));
    assert_eq!(std::io::copy(&mut client.stream.by_ref().take(GIB), &mut std::io::sink()).unwrap(), GIB);
    assert_eq!(client.get_with("/file", "Range: bytes=-1\r\n").body, b"\0");
    assert_memory(&server, 24);
    finish(server);
}

#[test]
fn clients_that_never_read_cost_bounded_memory() {
    let dir = Dir::new();
    dir.sparse("file", 32 * 1024 * 1024);
    let (server, address) = serve(&dir);
    let deaf: Vec<TcpStream> = (0..50)
        .map(|_| {
            let mut client = connect(&address);
            client.write_all(&b"GET /file HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100)).unwrap();
            client
        })
        .collect();
    for client in &deaf {
        assert_eq!(client.peek(&mut [0]).unwrap(), 1);
    }
    // Whatever it still wanted to do for them, it has done.
    let mut other = Client::new(&address);
    for _ in 0..3 {
        assert_eq!(other.get("/file").body.len(), 32 * 1024 * 1024);
    }
    assert_memory(&server, 76);
    drop(deaf);
    assert_eq!(server.end_by("INT").code, Some(0));
}

/// With room for few descriptors, what leaks one of them is soon noticed.
#[test]
fn descriptors_are_given_back() {
    let dir = Dir::new();
    dir.sparse("file", 32 * 1024 * 1024);
    dir.dir("sub");
    let (server, address) = serve_limited(&dir, 32);
    for round in 0..100 {
        let mut client = Client::new(&address);
        for target in ["/", "/sub", "/sub/", "/none", "/sub/none", "/file/x"] {
            client.get(target);
        }
        assert_eq!(client.get_with("/file", "Range: bytes=0-99999\r\n").body.len(), 100_000);
        client.send("GET /file HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.head().status, 200);
        match round % 3 {
            0 => drop(client),
            1 => reset(client.stream.into_inner()),
            _ => client.stream.get_ref().shutdown(Shutdown::Both).unwrap(),
        }
    }
    assert_eq!(Client::new(&address).get_with("/file", "Range: bytes=-5\r\n").body.len(), 5);
    assert_eq!(server.end_by("INT").code, Some(0));
}

/// However many a client asks for.
#[test]
fn one_file_at_a_time_is_open_for_a_client() {
    let dir = Dir::new();
    dir.sparse("file", 32 * 1024 * 1024);
    let (server, address) = serve_limited(&dir, 24);
    let mut greedy = connect(&address);
    greedy.write_all(&b"GET /file HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100)).unwrap();
    assert_eq!(greedy.peek(&mut [0]).unwrap(), 1);
    let mut other = Client::new(&address);
    for _ in 0..3 {
        assert_eq!(other.get("/file").status, 200);
    }
    drop(greedy);
    assert_eq!(server.end_by("INT").code, Some(0));
}

/// 111: a crowd waits in the backlog; those that are in are served, and then those that have waited.
#[test]
fn a_crowd_waits_and_who_is_in_is_served() {
    let dir = Dir::new();
    dir.file("file", b"content");
    let (server, address) = serve_limited(&dir, 24);
    let mut client = Client::new(&address);
    assert_eq!(client.get("/file").status, 200);
    let mut crowd: Vec<Client> = (0..40).map(|_| Client::new(&address)).collect();
    for _ in 0..100 {
        assert_eq!(client.get("/file").status, 200);
        assert_eq!(client.get("/").status, 200);
    }
    for waiting in &mut crowd {
        waiting.send("GET /file HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    }
    for mut waiting in crowd {
        assert_eq!(waiting.answer().body, b"content");
    }
    assert_eq!(client.get("/file").status, 200);
    assert_eq!(server.end_by("INT").code, Some(0));
}

// What the tests are made of.

#[track_caller]
fn serve(dir: &Dir) -> (Program, SocketAddr) {
    serve_with(dir, &[])
}

#[track_caller]
fn serve_with(dir: &Dir, options: &[&str]) -> (Program, SocketAddr) {
    serve_path(dir.path(), options)
}

#[track_caller]
fn serve_path(path: &Path, options: &[&str]) -> (Program, SocketAddr) {
    let args = ["--root", path.to_str().unwrap(), "127.0.0.1:0"];
    Program::serve("http_server", args.iter().chain(options))
}

/// With this many descriptors.
#[track_caller]
fn serve_limited(dir: &Dir, descriptors: usize) -> (Program, SocketAddr) {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!(r#"ulimit -n {descriptors}; exec "$0" "$@""#)]);
    shell.arg(command("http_server").get_program());
    shell.args(["--log", "error", "--root"]).arg(dir.path()).arg("127.0.0.1:0");
    shell.stdin(Stdio::null()).stdout(Stdio::piped());
    let server = Program::spawn(shell);
    let address = server.listening();
    (server, address)
}

#[track_caller]
fn finish(server: Program) {
    server.finish("INT");
}

/// That it never had more memory than so many MiB.
#[track_caller]
fn assert_memory(server: &Program, most: usize) {
    if cfg!(target_os = "linux") {
        let peak = server.peak_memory();
        assert!(peak < most * 1024, "{peak} KiB");
    }
}

/// Send this and nothing more: the status of the one answer, after which the connection ends in order.
#[track_caller]
fn refusal(address: &SocketAddr, sent: &[u8]) -> u16 {
    let mut client = Client::new(address);
    client.stream.get_mut().write_all(sent).unwrap();
    client.stream.get_ref().shutdown(Shutdown::Write).unwrap();
    let answer = client.answer();
    assert_eq!(read_to_end(&mut client.stream), b"", "{}", sent.escape_ascii());
    answer.status
}

/// What a page links to, in its body.
fn links(page: &str) -> Vec<&str> {
    let (_, body) = page.split_once("<body>").unwrap();
    body.split("<a href=\"").skip(1).map(|rest| rest.split_once('"').unwrap().0).collect()
}

struct Client {
    stream: BufReader<TcpStream>,
}

struct Answer {
    status: u16,
    /// Without the status line.
    fields: String,
    body: Vec<u8>,
}

impl Client {
    #[track_caller]
    fn new(address: &SocketAddr) -> Client {
        Client { stream: BufReader::new(connect(address)) }
    }

    #[track_caller]
    fn send(&mut self, text: &str) {
        self.stream.get_mut().write_all(text.as_bytes()).unwrap();
    }

    #[track_caller]
    fn get(&mut self, target: &str) -> Answer {
        self.get_with(target, "")
    }

    #[track_caller]
    fn get_with(&mut self, target: &str, fields: &str) -> Answer {
        self.send(&format!("GET {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n"));
        self.answer()
    }

    /// The next answer to something else than HEAD.
    #[track_caller]
    fn answer(&mut self) -> Answer {
        let mut answer = self.head();
        answer.body = self.body(&answer);
        answer
    }

    #[track_caller]
    fn head(&mut self) -> Answer {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let before = head.len();
            self.stream.read_until(b'\n', &mut head).unwrap();
            assert!(head.len() > before, "the connection ended after {:?}", head.escape_ascii().to_string());
        }
        let head = String::from_utf8(head).unwrap();
        let (line, fields) = head.split_once("\r\n").unwrap();
        let status = line.strip_prefix("HTTP/1.1 ").and_then(|line| line.get(..3)?.parse().ok()).expect(line);
        Answer { status, fields: fields.to_owned(), body: Vec::new() }
    }

    #[track_caller]
    fn body(&mut self, answer: &Answer) -> Vec<u8> {
        let Some(len) = answer.field("content-length") else {
            assert_eq!(answer.status, 304);
            return Vec::new();
        };
        let mut body = vec![0; len.parse().unwrap()];
        self.stream.read_exact(&mut body).unwrap();
        body
    }
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn without_date(&self) -> (u16, Vec<&str>) {
        (self.status, self.fields.lines().filter(|line| !line.starts_with("Date: ")).collect())
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}
