//! The examples app_server and app_client, as their users meet them: each against plain sockets and frames
//! made by hand, then both together, and the server with a client in Python.

use std::ffi::OsString;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::ffi::OsStringExt;
use std::process::Command;

use crate::support::peers::{accept, connect, read_exactly, read_to_end, reset};
use crate::support::programs::{Ended, Program, assert_help, command, listener, refuser};

const LIMIT: usize = 1024 * 1024;

// app_server

#[test]
fn answers_are_what_python_would_write() {
    let (server, address) = serve();
    for (request, answer) in [
        (r#"{"action": "search", "value": "morpheus"}"#, r#"{"result": "Follow the white rabbit. 🐰"}"#),
        (
            r#"{"action": "search", "value": "ring"}"#,
            r#"{"result": "In the caves beneath the Misty Mountains. 💍"}"#,
        ),
        (r#"{"action": "search", "value": "🐶"}"#, r#"{"result": "🐾 Playing ball! 🏐"}"#),
        (r#"{"action":"search","value":"\ud83d\udc36"}"#, r#"{"result": "🐾 Playing ball! 🏐"}"#),
        (r#"{"action": "search", "value": "Ring"}"#, r#"{"result": "No match for 'Ring'."}"#),
        (r#"{"action": "search", "value": ""}"#, r#"{"result": "No match for ''."}"#),
        (r#"{"value": "\"\\\n\u0001\u007fé"}"#, r#"{"result": "Error: invalid action 'None'."}"#),
        (
            r#"{"action": "search", "value": "\"\\\n\u0001\u007fé"}"#,
            "{\"result\": \"No match for '\\\"\\\\\\n\\u0001\u{7f}é'.\"}",
        ),
        (r#"{"action": "dance", "value": "ring"}"#, r#"{"result": "Error: invalid action 'dance'."}"#),
        // What a program in Python would make of these.
        (r#"{}"#, r#"{"result": "Error: invalid action 'None'."}"#),
        (r#"{"action": null}"#, r#"{"result": "Error: invalid action 'None'."}"#),
        (r#"{"action": false}"#, r#"{"result": "Error: invalid action 'False'."}"#),
        (r#"{"action": "search"}"#, r#"{"result": "No match for 'None'."}"#),
        (r#"{"action": "search", "value": true}"#, r#"{"result": "No match for 'True'."}"#),
        (r#"{"action": "search", "value": -1.5}"#, r#"{"result": "No match for '-1.5'."}"#),
        (r#"{"action": "search", "value": ["ring"]}"#, r#"{"result": "No match for '[\"ring\"]'."}"#),
        (r#"{"action": {"search": 1}}"#, r#"{"result": "Error: invalid action '{\"search\":1}'."}"#),
        (r#"{"action": "dance", "action": "search", "value": 7}"#, r#"{"result": "No match for '7'."}"#),
    ] {
        for encoding in ["utf-8", "UTF-8", "utf8"] {
            let got = ask(&address, &frame("text/json", encoding, request.as_bytes()));
            assert_eq!(got, text(&frame("text/json", "utf-8", answer.as_bytes())), "{request}");
        }
    }
    finish(server);
}

#[test]
fn bytes_are_answered_with_their_first_ten() {
    let (server, address) = serve();
    for (content, first) in [
        (&b"actionvalue"[..], &b"actionvalu"[..]),
        (b"0123456789", b"0123456789"),
        (b"few", b"few"),
        (b"", b""),
        (b"\xff\0\r\n", b"\xff\0\r\n"),
    ] {
        let answer = [b"First 10 bytes of request: ", first].concat();
        let answer = frame("binary/custom-server-binary-type", "binary", &answer);
        for content_type in ["binary/custom-client-binary-type", "text/plain", "TEXT/JSON", ""] {
            let got = ask_bytes(&address, &frame(content_type, "whatever", content));
            assert!(got == answer, "{content:?}");
        }
    }
    finish(server);
}

#[test]
fn requests_are_answered_in_whatever_pieces_they_come() {
    let (server, address) = serve();
    let request = frame("text/json", "utf-8", "{\"action\": \"search\", \"value\": \"🐶\"}".as_bytes());
    let answer = frame("text/json", "utf-8", r#"{"result": "🐾 Playing ball! 🏐"}"#.as_bytes());
    let mut random = 1_u32;
    for most in [1, 2, 3, 50, 100] {
        let mut peer = connect(&address);
        peer.set_nodelay(true).unwrap();
        let mut left = &request[..];
        while !left.is_empty() {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (piece, rest) = left.split_at((1 + (random >> 16) as usize % most).min(left.len()));
            peer.write_all(piece).unwrap();
            left = rest;
        }
        assert_eq!(text(&read_to_end(&mut peer)), text(&answer), "in pieces of at most {most}");
    }
    finish(server);
}

/// One request a connection: it ends with the answer, and what comes after the request is nobody's.
#[test]
fn what_follows_the_request_is_ignored() {
    let (server, address) = serve();
    let request = frame("text/plain", "binary", b"request");
    let answer = frame("binary/custom-server-binary-type", "binary", b"First 10 bytes of request: request");
    for more in [request.clone(), b"\0\0".to_vec(), vec![b'x'; 200_000]] {
        assert!(ask_bytes(&address, &[&request[..], &more].concat()) == answer);
    }
    let mut peer = connect(&address);
    peer.write_all(&request).unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    assert!(read_to_end(&mut peer) == answer, "after its FIN");
    finish(server);
}

#[test]
fn the_largest_request_is_answered() {
    let (server, address) = serve();
    let answer =
        frame("binary/custom-server-binary-type", "binary", b"First 10 bytes of request: xxxxxxxxxx");
    assert!(ask_bytes(&address, &frame("text/plain", "binary", &vec![b'x'; LIMIT])) == answer);
    // The header, as long as its length can say.
    let mut header = head("text/plain", "binary", 10).into_bytes();
    header.resize(usize::from(u16::MAX), b' ');
    assert!(ask_bytes(&address, &raw(&header, b"xxxxxxxxxx")) == answer);
    // Its value comes back.
    let request = format!(r#"{{"action": "search", "value": "{}"}}"#, "v".repeat(LIMIT - 33));
    assert_eq!(request.len(), LIMIT);
    let got = ask(&address, &frame("text/json", "utf-8", request.as_bytes()));
    assert!(got.ends_with(&format!("No match for '{}'.\"}}", "v".repeat(LIMIT - 33))));
    finish(server);
}

/// Each ends its connection without an answer, and the log says why; another connection has its answer.
#[test]
fn malformed_requests_end_without_an_answer_and_are_logged() {
    let of_length = |length: &str| {
        let header = head("text/plain", "binary", 10).replace(": 10}", &format!(": {length}}}"));
        raw(header.as_bytes(), b"0123456789")
    };
    let without = |field: &str| {
        let header = head("text/plain", "binary", 10).replace(field, "other");
        raw(header.as_bytes(), b"0123456789")
    };
    let json = |content: &[u8]| frame("text/json", "utf-8", content);
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    let mut not_utf8 = head("text/plain", "binary", 10).into_bytes();
    not_utf8[40] = 0xff;
    for (request, why) in [
        (raw(b"", b""), "header of 0 bytes"),
        (raw(b"{", b""), "header is not JSON"),
        (raw(b"no JSON", b""), "header is not JSON"),
        (raw(&not_utf8, b"0123456789"), "header is not JSON"),
        (raw(&deep[50_000..][..60_000], b""), "header is not JSON"),
        (raw(b"[]", b""), "header has no"),
        (raw(b"null", b""), "header has no"),
        (without("byteorder"), "byteorder"),
        (without("content-type"), "content-type"),
        (without("content-encoding"), "content-encoding"),
        (without("content-length"), "content-length"),
        (
            raw(head("text/plain", "binary", 10).replace("\"text/plain\"", "5").as_bytes(), b""),
            "content-type",
        ),
        (raw(head("text/plain", "binary", 10).replace("\"binary\"", "null").as_bytes(), b""), "encoding"),
        (of_length("-1"), "content-length of -1"),
        (of_length("10.0"), "content-length of 10.0"),
        (of_length("1e1"), "content-length of 10"),
        (of_length("\"10\""), "content-length of \"10\""),
        (of_length("null"), "content-length of null"),
        (of_length("true"), "content-length of true"),
        (of_length("1e400"), "header is not JSON"),
        (of_length(&(LIMIT + 1).to_string()), "over the limit"),
        (of_length("18446744073709551615"), "over the limit"),
        (of_length("18446744073709551616"), "content-length of"),
        (json(b""), "content is not JSON"),
        (json(b"{\"action\": \"search\""), "content is not JSON"),
        (json(b"{\"action\": \"\xff\"}"), "content is not JSON"),
        (json(br#"{"action": "search", "value": "\ud800"}"#), "content is not JSON"),
        (json(b"{} {}"), "content is not JSON"),
        (json(&deep), "content is not JSON"),
        (json(b"[\"search\"]"), "no JSON object"),
        (json(b"\"search\""), "no JSON object"),
        (frame("text/json", "latin-1", b"{}"), "latin-1"),
        (frame("text/json", "", b"{}"), "wanted"),
    ] {
        let (server, address) = serve();
        let mut peer = connect(&address);
        peer.write_all(&request).unwrap();
        assert_eq!(until_end(&mut peer), b"", "{why}");
        ask(&address, &frame("text/plain", "binary", b"another"));
        assert_logged(server, why);
    }
}

#[test]
fn requests_cut_short_are_logged() {
    let request = frame("text/plain", "binary", b"content");
    for (length, why) in
        [(1, "in the header"), (2, "in the header"), (50, "header"), (request.len() - 1, "content")]
    {
        let (server, address) = serve();
        let mut peer = connect(&address);
        peer.write_all(&request[..length]).unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        assert_eq!(until_end(&mut peer), b"");
        assert_logged(server, why);
    }
    // Somebody who only looks whether there is a server is no reason to log.
    let (server, address) = serve();
    let mut peer = connect(&address);
    peer.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut peer), b"");
    finish(server);
}

// app_client

#[test]
fn requests_are_what_python_would_write() {
    let not_utf8 = OsString::from_vec(b"\xff\"".into());
    let binary = "binary/custom-client-binary-type";
    for (action, value, content_type, encoding, content) in [
        (
            "search",
            "morpheus".into(),
            "text/json",
            "utf-8",
            br#"{"action": "search", "value": "morpheus"}"#.to_vec(),
        ),
        (
            "search",
            "🐶\"\n".into(),
            "text/json",
            "utf-8",
            r#"{"action": "search", "value": "🐶\"\n"}"#.into(),
        ),
        ("search", "".into(), "text/json", "utf-8", br#"{"action": "search", "value": ""}"#.to_vec()),
        ("double", "value".into(), binary, "binary", b"doublevalue".to_vec()),
        ("Search", "🐶".into(), binary, "binary", "Search🐶".into()),
        ("", "".into(), binary, "binary", b"".to_vec()),
        ("a", not_utf8, binary, "binary", b"a\xff\"".to_vec()),
    ] {
        let (client, mut server) = client_of([action.into(), value]);
        let request = frame(content_type, encoding, &content);
        assert_eq!(text(&read_exactly(&mut server, request.len())), text(&request));
        server.write_all(&frame("text/json", "utf-8", br#"{"result": "thanks"}"#)).unwrap();
        assert_eq!(read_to_end(&mut server), b"", "and nothing more");
        drop(server);
        let ended = client.end();
        ended.assert_quiet_success();
        assert_eq!(ended.stdout, "thanks\n");
    }
    // As the tutorial shows it.
    let order = if cfg!(target_endian = "little") { "little" } else { "big" };
    let header = format!(
        "{{\"byteorder\": \"{order}\", \"content-type\": \"text/json\", \
         \"content-encoding\": \"utf-8\", \"content-length\": 41}}"
    );
    assert_eq!(head("text/json", "utf-8", 41), header);
}

#[test]
fn answers_are_printed() {
    let long = "x".repeat(500_000);
    for (answer, printed) in [
        (frame("text/json", "utf-8", r#"{"result": "🐾 \"\u0041\""}"#.as_bytes()), "🐾 \"A\"\n".to_owned()),
        (frame("text/json", "UTF8", br#"{"more": [1], "result": ""}"#), "\n".to_owned()),
        (frame("text/json", "utf-8", format!(r#"{{"result":"{long}"}}"#).as_bytes()), format!("{long}\n")),
        (frame("binary/whatever", "binary", b"two\nlines"), "two\nlines\n".to_owned()),
        (frame("binary/whatever", "binary", b""), "\n".to_owned()),
        (raw(format!("{}   ", head("text/plain", "", 2)).as_bytes(), b"ab and more"), "ab\n".to_owned()),
    ] {
        for piece in [1000, answer.len()] {
            let (client, mut server) = client_of(SEARCH.map(Into::into));
            answer.chunks(piece).for_each(|piece| server.write_all(piece).unwrap());
            server.shutdown(Shutdown::Write).unwrap();
            let ended = client.end();
            ended.assert_quiet_success();
            assert_eq!(ended.stdout, printed);
        }
    }
    // Byte by byte, and bytes that are no text.
    let (mut command, (listener, address)) = (command("app_client"), listener());
    command.arg(address).args(SEARCH);
    let (client, mut output) = Program::spawn_raw(command);
    let mut server = accept(&listener);
    server.set_nodelay(true).unwrap();
    for byte in frame("binary/whatever", "binary", b"\xff\0") {
        server.write_all(&[byte]).unwrap();
    }
    assert_eq!(read_to_end(&mut output), b"\xff\0\n");
    client.end().assert_quiet_success();
}

#[test]
fn answers_that_are_none_are_failures_that_say_why() {
    let good = frame("text/json", "utf-8", br#"{"result": "good"}"#);
    let header = head("text/plain", "binary", 1);
    for (answer, why) in [
        (b"".to_vec(), "ended before"),
        (good[..1].to_vec(), "ended in the header"),
        (good[..20].to_vec(), "ended in the header"),
        (good[..good.len() - 1].to_vec(), "ended in the content"),
        (raw(b"", b""), "header of 0 bytes"),
        (b"HTTP/1.0 400 Bad Request\r\n\r\n".to_vec(), "ended in the header"),
        (raw(b"{}", b""), "byteorder"),
        (raw(header.replace(": 1}", ": -1}").as_bytes(), b""), "content-length of -1"),
        (raw(header.replace(": 1}", ": 99999999}").as_bytes(), b""), "over the limit"),
        (frame("text/json", "utf-8", b"{"), "content is not JSON"),
        (frame("text/json", "utf-16", b"{}"), "utf-16"),
        (frame("text/json", "utf-8", b"{}"), "result"),
        (frame("text/json", "utf-8", b"[]"), "result"),
        (frame("text/json", "utf-8", br#"{"result": 5}"#), "result"),
    ] {
        let (client, mut server) = client_of(SEARCH.map(Into::into));
        let address = server.local_addr().unwrap().to_string();
        let asked = r#"{"action": "search", "value": "x"}"#;
        read_exactly(&mut server, frame("text/json", "utf-8", asked.as_bytes()).len());
        server.write_all(&answer).unwrap();
        let _ = server.shutdown(Shutdown::Write); // the client may have reset it
        let ended = client.end();
        ended.assert_failure(&address);
        assert!(ended.stderr.contains(why) && ended.stdout.is_empty(), "{why}: {ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    }
}

#[test]
fn a_client_that_fails_says_why() {
    let (_held, address) = refuser();
    let ended = Program::start("app_client", [&address, "search", "x"]).end();
    ended.assert_failure(&address);
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");

    let (client, server) = client_of(SEARCH.map(Into::into));
    reset(server);
    let ended = client.end();
    ended.assert_failure("reset");
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");

    for signal in ["INT", "TERM"] {
        let (client, mut server) = client_of(SEARCH.map(Into::into));
        read_exactly(&mut server, 2);
        client.signal(signal);
        client.end().assert_failure("interrupted");
    }
}

// Both, and Python.

#[test]
fn server_and_client_understand_each_other() {
    let (server, address) = serve();
    let address = address.to_string();
    for (action, value, printed) in [
        ("search", "morpheus", "Follow the white rabbit. 🐰"),
        ("search", "ring", "In the caves beneath the Misty Mountains. 💍"),
        ("search", "🐶", "🐾 Playing ball! 🏐"),
        ("search", "\u{1}\"\\\t🦀", "No match for '\u{1}\"\\\t🦀'."),
        ("binary", "data", "First 10 bytes of request: binarydata"),
        ("", "", "First 10 bytes of request: "),
    ] {
        let ended = Program::start("app_client", [&address, action, value]).end();
        ended.assert_quiet_success();
        assert_eq!(ended.stdout, format!("{printed}\n"));
    }
    finish(server);
}

/// As Python's own `json` and `struct` make and take the messages, where there is a Python.
#[test]
fn a_client_in_python_understands_the_server() {
    const CLIENT: &str = r#"
import json, socket, struct, sys

def header(kind, encoding, content):
    fields = {"byteorder": sys.byteorder, "content-type": kind, "content-encoding": encoding,
              "content-length": len(content)}
    return json.dumps(fields, ensure_ascii=False).encode("utf-8")

def frame(kind, encoding, content):
    head = header(kind, encoding, content)
    return struct.pack(">H", len(head)) + head + content

host, port, value = sys.argv[1], int(sys.argv[2]), sys.argv[3]
content = json.dumps({"action": "search", "value": value}, ensure_ascii=False).encode("utf-8")
with socket.create_connection((host, port), timeout=20) as peer:
    peer.sendall(frame("text/json", "utf-8", content))
    answer = b""
    while piece := peer.recv(4096):
        answer += piece
length, = struct.unpack_from(">H", answer)
fields = json.loads(answer[2:2 + length].decode("utf-8"))
body = answer[2 + length:]
result = json.loads(body.decode("utf-8"))
assert body == json.dumps(result, ensure_ascii=False).encode("utf-8"), body
assert answer == frame("text/json", "utf-8", body), answer
assert fields["content-length"] == len(body), fields
sys.stdout.buffer.write(result["result"].encode("utf-8"))
"#;
    let version =
        Command::new("python3").args(["-c", "import sys; sys.exit(sys.version_info < (3, 8))"]).output();
    if !version.is_ok_and(|output| output.status.success()) {
        return;
    }
    let (server, address) = serve();
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    for (value, result) in [
        ("morpheus", "Follow the white rabbit. 🐰"),
        ("🐶", "🐾 Playing ball! 🏐"),
        (
            "\"\\\u{1}\u{8}\u{c}\n\r\t/\u{7f}é\u{2028}",
            "No match for '\"\\\u{1}\u{8}\u{c}\n\r\t/\u{7f}é\u{2028}'.",
        ),
    ] {
        let mut python = Command::new("python3");
        let output = python.args(["-c", CLIENT, &host, &port, value]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), result);
    }
    finish(server);
}

// Programs.

#[test]
fn wrong_usage_is_answered_with_the_usage() {
    for name in ["app_server", "app_client"] {
        assert_help(name);
    }
    for wrong in [&["--bogus"][..], &["127.0.0.1"], &["127.0.0.1:1", "127.0.0.1:2"], &["--log", "loud"]] {
        Program::start("app_server", wrong).end().assert_wrong_usage("app_server");
    }
    for wrong in [
        &[][..],
        &["127.0.0.1:1"],
        &["127.0.0.1:1", "search"],
        &["127.0.0.1:1", "search", "x", "y"],
        &["127.0.0.1", "search", "x"],
        &["--bogus", "127.0.0.1:1", "search", "x"],
    ] {
        Program::start("app_client", wrong).end().assert_wrong_usage("app_client");
    }
    let args = ["127.0.0.1:1".into(), "search".into(), OsString::from_vec(b"\xff".into())];
    Program::start("app_client", args).end().assert_wrong_usage("app_client");
    let (server, address) = serve();
    let taken = address.to_string();
    Program::start("app_server", [&taken]).end().assert_failure(&taken);
    finish(server);
}

// What the tests are made of.

const SEARCH: [&str; 2] = ["search", "x"];

fn serve() -> (Program, SocketAddr) {
    Program::serve("app_server", ["127.0.0.1:0"])
}

#[track_caller]
fn finish(server: Program) {
    assert_eq!(server.finish("TERM"), "");
}

/// It has said why, and lives on until it is told to end.
#[track_caller]
fn assert_logged(server: Program, why: &str) {
    let Ended { code, stderr, .. } = server.end_by("TERM");
    assert!(code == Some(0) && stderr.lines().count() == 1 && stderr.contains(why), "wanted {why}: {stderr}");
}

/// The client, and the server's end of its connection.
#[track_caller]
fn client_of(words: [OsString; 2]) -> (Program, TcpStream) {
    let (listener, address) = listener();
    let client = Program::start("app_client", [&[address.into()][..], &words].concat());
    (client, accept(&listener))
}

/// What comes for a request, until the server closes.
#[track_caller]
fn ask_bytes(address: &SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut peer = connect(address);
    peer.write_all(request).unwrap();
    read_to_end(&mut peer)
}

#[track_caller]
fn ask(address: &SocketAddr, request: &[u8]) -> String {
    text(&ask_bytes(address, request))
}

/// What comes before a FIN or a reset.
#[track_caller]
fn until_end(peer: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    match peer.read_to_end(&mut all) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
        _ => all,
    }
}

/// A frame can be read, but for its first two bytes.
#[track_caller]
fn text(frame: &[u8]) -> String {
    let [high, low, ref rest @ ..] = *frame else { panic!("no frame: {frame:?}") };
    format!("{high} {low} {}", String::from_utf8_lossy(rest))
}

fn frame(content_type: &str, encoding: &str, content: &[u8]) -> Vec<u8> {
    raw(head(content_type, encoding, content.len()).as_bytes(), content)
}

fn raw(header: &[u8], content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(header.len()).unwrap().to_be_bytes();
    [&length, header, content].concat()
}

fn head(content_type: &str, encoding: &str, length: usize) -> String {
    let fields = [
        ("byteorder", if cfg!(target_endian = "little") { "\"little\"" } else { "\"big\"" }.to_owned()),
        ("content-type", format!("\"{content_type}\"")),
        ("content-encoding", format!("\"{encoding}\"")),
        ("content-length", length.to_string()),
    ];
    format!("{{{}}}", fields.map(|(name, value)| format!("\"{name}\": {value}")).join(", "))
}
