//! The example http_server and the rules of HTTP (RFC 9110) beyond plain requests; listings that cost; what
//! is not to be opened.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use crate::support::dirs::Dir;
use crate::support::peers::{connect, read_to_end};
use crate::support::programs::{Program, command};

const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";

/// 108: each row with what decides.
#[test]
fn conditions_are_evaluated_in_their_order() {
    let (_dir, server, address, tag) = dated();
    let weak = format!("W/{tag}");
    let among = format!("\"a,b\", {weak}, \"c\"");
    for (conditions, status) in [
        (vec![("If-Match", tag.as_str())], 200),
        (vec![("If-Match", "*")], 200),
        (vec![("If-Match", "\"other\"")], 412),
        (vec![("If-Match", &weak)], 412),
        (vec![("If-Match", "\"other\""), ("If-Match", &tag)], 200),
        (vec![("If-Unmodified-Since", DATE)], 200),
        (vec![("If-Unmodified-Since", BEFORE)], 412),
        (vec![("If-Unmodified-Since", "yesterday")], 200),
        (vec![("If-Match", &tag), ("If-Unmodified-Since", BEFORE)], 200),
        (vec![("If-None-Match", &tag)], 304),
        (vec![("If-None-Match", &weak)], 304),
        (vec![("If-None-Match", &among)], 304),
        (vec![("If-None-Match", "*")], 304),
        (vec![("If-None-Match", "\"other\"")], 200),
        (vec![("If-None-Match", "\"other\""), ("If-Modified-Since", DATE)], 200),
        (vec![("If-None-Match", &tag), ("If-Modified-Since", BEFORE)], 304),
        (vec![("If-Modified-Since", DATE)], 304),
        (vec![("If-Modified-Since", BEFORE)], 200),
        (vec![("If-Match", "\"other\""), ("If-None-Match", &tag)], 412),
        (vec![("If-Match", &tag), ("If-None-Match", &tag)], 304),
        (vec![("If-Unmodified-Since", BEFORE), ("If-Modified-Since", DATE)], 412),
    ] {
        for method in ["GET", "HEAD"] {
            let fields: String =
                conditions.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let answer = ask(&address, &format!("{method} /file HTTP/1.1\r\nHost: x\r\n{fields}"));
            assert_eq!(answer.status, status, "{method} {conditions:?}");
            if status == 304 {
                assert_eq!((answer.field("ETag"), answer.body.as_str()), (Some(tag.as_str()), ""));
            }
        }
    }
    assert_eq!(ask(&address, "GET /none HTTP/1.1\r\nHost: x\r\nIf-Match: \"x\"\r\n").status, 404);
    server.finish("INT");
}

/// 108.
#[test]
fn a_range_depends_on_the_version() {
    let (dir, server, address, tag) = dated();
    let part = |fields: &str| {
        let answer = ask(&address, &format!("GET /file HTTP/1.1\r\nHost: x\r\nRange: bytes=1-2\r\n{fields}"));
        (answer.status, answer.body)
    };
    let (some, all) = ((206, "on".to_owned()), (200, "content".to_owned()));
    assert_eq!(part(""), some);
    assert_eq!(part(&format!("If-Range: {tag}\r\n")), some);
    assert_eq!(part(&format!("If-Range: {DATE}\r\n")), some);
    assert_eq!(part(&format!("If-Range: W/{tag}\r\n")), all);
    assert_eq!(part("If-Range: \"other\"\r\n"), all);
    assert_eq!(part(&format!("If-Range: {BEFORE}\r\n")), all);
    assert_eq!(part(&format!("If-Range: {tag}\r\nIf-None-Match: {tag}\r\n")).0, 304);
    assert_eq!(part(&format!("If-Range: {tag}\r\nIf-Match: \"other\"\r\n")).0, 412);
    // Of the same length, and within the same second.
    fs::write(dir.join("file"), "CONTENT").unwrap();
    set_time(&dir, 500);
    assert_eq!(part(&format!("If-Range: {tag}\r\n")), (200, "CONTENT".to_owned()));
    server.finish("INT");
}

/// 109: whatever is wrong with it.
#[test]
fn no_body_follows_a_head() {
    let (_dir, server, address, _) = dated();
    for (request, status) in [
        ("HEAD /file HTTP/1.1\r\nHost: x\r\n", 200),
        ("HEAD /none HTTP/1.1\r\nHost: x\r\n", 404),
        ("HEAD /file HTTP/1.1\r\nHost: x\r\nIf-Match: \"other\"\r\n", 412),
        ("HEAD / HTTP/1.1\r\nHost: x\r\n", 200),
        ("HEAD /file HTTP/1.1\r\n", 400),
        ("\r\nHEAD /file HTTP/1.1\r\nHost\r\n", 400),
        ("HEAD /% HTTP/1.1\r\nHost: x\r\n", 400),
        ("HEAD /file HTTP/2.0\r\nHost: x\r\n", 505),
        ("HEAD /file HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n", 413),
        (&format!("HEAD /{} HTTP/1.1\r\nHost: x\r\n", "x".repeat(10_000)), 414),
        (&format!("HEAD /file HTTP/1.1\r\nHost: x\r\nA: {}\r\n", "x".repeat(20_000)), 431),
    ] {
        let answer = ask(&address, request);
        assert_eq!((answer.status, answer.body.as_str()), (status, ""), "{request}");
    }
    server.finish("INT");
}

/// 109: a space before it makes it no HEAD, nor does it stand behind too many empty lines, however it comes.
#[test]
fn what_is_no_request_is_answered_alike_whole_and_in_pieces() {
    let (_dir, server, address, _) = dated();
    let lines = "\n".repeat(100);
    for before in [" ", &lines] {
        let request = format!("{before}HEAD /file HTTP/1.1\r\nHost: x\r\n");
        let whole = ask(&address, &request);
        assert_eq!((whole.status, whole.body.as_str()), (400, "400 Bad Request\n"), "{request:?}");
        let mut client = connect(&address);
        client.write_all(before.as_bytes()).unwrap();
        let answer = String::from_utf8(read_to_end(&mut client)).unwrap();
        let as_whole = answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("\r\n\r\n400 Bad Request\n");
        assert!(as_whole, "{answer}");
    }
    server.finish("INT");
}

/// 109.
#[test]
fn a_target_may_name_a_scheme() {
    let (_dir, server, address, _) = dated();
    for target in ["http://x/file", "https://x/file", "HTTPS://x:443/file?q", "/file"] {
        assert_eq!(
            ask(&address, &format!("GET {target} HTTP/1.1\r\nHost: x\r\n")).body,
            "content",
            "{target}"
        );
    }
    server.finish("INT");
}

/// 109: a version is not judged before its line is there.
#[test]
fn a_version_may_come_in_pieces() {
    let (_dir, server, address, _) = dated();
    for (request, status) in
        [("GET /file HTTP/2.0\r\n\r\n", "HTTP/1.1 505 "), ("GET /file HTTP/2x\r\n\r\n", "HTTP/1.1 400 ")]
    {
        let mut client = connect(&address);
        client.set_nodelay(true).unwrap();
        for byte in request.bytes() {
            let _ = client.write_all(&[byte]); // refused once the answer is there
        }
        let mut answer = [0; 13];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(answer, status.as_bytes());
    }
    server.finish("INT");
}

/// 110.
#[test]
fn browsers_are_told_not_to_sniff() {
    let (_dir, server, address, _) = dated();
    for target in ["/file", "/", "/none", "/%"] {
        let answer = ask(&address, &format!("GET {target} HTTP/1.1\r\nHost: x\r\n"));
        assert_eq!(answer.field("X-Content-Type-Options"), Some("nosniff"), "{target}");
    }
    server.finish("INT");
}

/// 110: whoever opens a pipe to write waits for a reader; that is not us.
#[test]
fn a_pipe_is_not_opened() {
    let dir = Dir::new();
    assert!(Command::new("mkfifo").arg(dir.join("pipe")).status().unwrap().success());
    std::os::unix::fs::symlink("pipe", dir.join("link")).unwrap();
    let (server, address) = serve(&dir);
    // A writer that does not wait finds a reader, or fails.
    let writer = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (path, stop) = (dir.join("pipe"), done.clone());
    let watcher = std::thread::spawn(move || {
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            assert!(rustix::fs::open(&path, writer, rustix::fs::Mode::empty()).is_err(), "it was opened");
        }
    });
    for target in ["/pipe", "/link", "/pipe/", "/"].repeat(50) {
        let status = if target == "/" { 200 } else { 404 };
        assert_eq!(ask(&address, &format!("GET {target} HTTP/1.1\r\nHost: x\r\n")).status, status);
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    watcher.join().unwrap();
    server.finish("INT");
}

/// 110.
#[cfg(target_os = "linux")]
#[test]
fn a_directory_that_may_only_be_entered_serves_its_files() {
    use std::os::unix::process::CommandExt;
    let dir = Dir::new();
    dir.dir("sub/index");
    dir.file("sub/file", b"content");
    dir.file("sub/index/index.html", b"index");
    for (name, mode) in [("sub/index", 0o711), ("sub", 0o711), ("", 0o755)] {
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    // A superuser reads everything, so this has to be somebody else.
    let (mine, nobody) = (rustix::process::getuid().is_root(), 65534);
    let mut command = command("http_server");
    command.arg("--root").arg(dir.path()).arg("127.0.0.1:0");
    if mine {
        let program = dir.join("http_server");
        fs::copy(command.get_program(), &program).unwrap();
        command = Command::new(program);
        command.arg("--root").arg(dir.path()).arg("127.0.0.1:0").uid(nobody).gid(nobody);
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
    } else {
        for name in ["sub/index", "sub"] {
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o311)).unwrap();
        }
    }
    let server = Program::spawn(command);
    let address = server.listening();
    for (target, status) in [("/sub/file", 200), ("/sub/index/", 200), ("/sub", 301), ("/sub/", 403)] {
        assert_eq!(
            ask(&address, &format!("GET {target} HTTP/1.1\r\nHost: x\r\n")).status,
            status,
            "{target}"
        );
    }
    server.finish("INT");
    for name in ["sub", "sub/index"] {
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// 107.
#[test]
fn a_large_listing_holds_up_nobody() {
    let dir = crowded();
    let (server, address) = serve(&dir);
    for method in ["HEAD", "GET"] {
        let mut greedy = connect(&address);
        let requests = format!("{method} /many/ HTTP/1.1\r\nHost: x\r\n\r\n").repeat(2000);
        greedy.write_all(requests.as_bytes()).unwrap();
        assert_eq!(greedy.peek(&mut [0]).unwrap(), 1);
        // Each within the deadline of a test; one listing for each request would take minutes.
        for _ in 0..20 {
            assert_eq!(ask(&address, "GET /file HTTP/1.1\r\nHost: x\r\n").body, "content");
        }
        if method == "HEAD" {
            greedy.shutdown(Shutdown::Write).unwrap();
            let heads = String::from_utf8(read_to_end(&mut greedy)).unwrap();
            assert_eq!(heads.matches("HTTP/1.1 200 OK\r\n").count(), 2000);
        }
    }
    assert_eq!(server.end_by("TERM").code, Some(0));
}

/// 107.
#[test]
fn a_listing_is_not_made_for_head() {
    let dir = crowded();
    let (server, address) = serve(&dir);
    let head = ask(&address, "HEAD /many/ HTTP/1.1\r\nHost: x\r\n");
    assert_eq!((head.status, head.field("Content-Length")), (200, None), "nobody knows its length");
    assert_eq!(head.field("Content-Type"), Some("text/html; charset=utf-8"));
    let get = ask(&address, "GET /many/ HTTP/1.1\r\nHost: x\r\n");
    assert_eq!(get.field("Content-Length"), Some(get.body.len().to_string().as_str()));
    server.finish("INT");
}

/// 107: a page has 1.2 MB.
#[cfg(target_os = "linux")]
#[test]
fn a_listing_is_held_once_for_all_that_read_it() {
    let dir = crowded();
    let (server, address) = serve(&dir);
    let deaf: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut client = connect(&address);
            client.write_all(&b"GET /many/ HTTP/1.1\r\nHost: x\r\n\r\n".repeat(10)).unwrap();
            client
        })
        .collect();
    for client in &deaf {
        // A call with a time limit is not begun again by the system when the process was stopped meanwhile.
        let peek = || client.peek(&mut [0]);
        let peeked = std::iter::repeat_with(peek).find(|peeked| {
            peeked.as_ref().map_or_else(|error| error.kind() != ErrorKind::Interrupted, |_| true)
        });
        assert_eq!(peeked.unwrap().unwrap(), 1);
    }
    // A page of the same content is the same page, also later.
    File::create(dir.join("many/new")).unwrap();
    fs::remove_file(dir.join("many/new")).unwrap();
    assert_eq!(ask(&address, "GET /many/ HTTP/1.1\r\nHost: x\r\n").status, 200);
    let peak = server.peak_memory();
    assert!(peak < 24 * 1024, "{peak} KiB");
    drop(deaf);
    assert_eq!(server.end_by("INT").code, Some(0));
}

// What the tests are made of.

fn crowded() -> Dir {
    let dir = Dir::new();
    dir.dir("many");
    dir.file("file", b"content");
    for number in 0..8000 {
        dir.file(&format!("many/{number}"), b"");
    }
    dir
}

/// A file of a known time, and its tag.
#[track_caller]
fn dated() -> (Dir, Program, SocketAddr, String) {
    let dir = Dir::new();
    dir.file("file", b"content");
    set_time(&dir, 900);
    let (server, address) = serve(&dir);
    let tag = ask(&address, "GET /file HTTP/1.1\r\nHost: x\r\n").field("ETag").unwrap().to_owned();
    (dir, server, address, tag)
}

fn set_time(dir: &Dir, milliseconds: u64) {
    let time = UNIX_EPOCH + Duration::from_millis(784_111_777_000 + milliseconds);
    File::options().write(true).open(dir.join("file")).unwrap().set_modified(time).unwrap();
}

#[track_caller]
fn serve(dir: &Dir) -> (Program, SocketAddr) {
    Program::serve("http_server", ["--root", dir.path().to_str().unwrap(), "127.0.0.1:0"])
}

struct Answer {
    status: u16,
    head: String,
    /// All that came after the head.
    body: String,
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// A request on a connection of its own, and all that comes back.
#[track_caller]
fn ask(address: &SocketAddr, request: &str) -> Answer {
    let mut client = connect(address);
    client.write_all(format!("{request}Connection: close\r\n\r\n").as_bytes()).unwrap();
    let text = String::from_utf8(read_to_end(&mut client)).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect(&text);
    Answer { status: head[9..12].parse().unwrap(), head: head.to_owned(), body: body.to_owned() }
}
