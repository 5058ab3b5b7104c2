#![no_main]

//! What `http_server` answers: to any bytes, and to a request for any target and range.

#[allow(dead_code)]
#[path = "../../examples/http_server/answer.rs"]
mod answer;
#[path = "../../examples/http_server/conditions.rs"]
mod conditions;
#[path = "../../examples/http_server/connection.rs"]
mod connection;
#[path = "../../examples/http_server/listing.rs"]
mod listing;
#[path = "../../examples/http_server/listings.rs"]
mod listings;
#[path = "../../examples/http_server/log.rs"]
mod log;
#[path = "../../examples/http_server/request.rs"]
mod request;
#[path = "../../examples/http_server/site.rs"]
mod site;

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::symlink;
use std::rc::Rc;
use std::time::Duration;

use connection::Connection;
use dispatch_loop_fuzz::{pieces, wire};
use libfuzzer_sys::fuzz_target;
use listings::Listings;
use site::Site;

/// What lies outside of the root, and must not come out.
const SECRET: &[u8] = b"nobody may read this";

// Two bytes say how the rest is cut; that is a stream of requests, and at the same time a target and a
// range, in two lines.
fuzz_target!(|input: &[u8]| {
    let [size, gulp, bytes @ ..] = input else { return };
    let (sizes, gulp) = ([*size, size / 2, size / 3, 1], usize::from(*gulp).max(16));
    let whole = undated(&serve(&pieces(bytes, &[255]), 1 << 20));
    assert_eq!(whole, undated(&serve(&pieces(bytes, &sizes), gulp)), "the pieces make a difference");
    assert!(whole.is_empty() || whole.starts_with(b"HTTP/1.1 "));

    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines = text.lines();
    let (target, range) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    if [target, range].iter().any(|text| text.chars().any(char::is_control)) {
        return;
    }
    let is_head = size % 8 == 0;
    let method = if is_head { "HEAD" } else { "GET" };
    let request = |target: &str| {
        format!("{method} {target} HTTP/1.1\r\nHost: x\r\nRange: {range}\r\nConnection: close\r\n\r\n")
    };
    checked(&serve(&[request(target).as_bytes()], gulp), is_head);
    checked(&serve(&[request(&format!("/{target}")).as_bytes()], gulp), is_head);
    let (status, fields, body) = checked(&serve(&[request("/data").as_bytes()], gulp), is_head);
    let data = data();
    match status {
        200 => assert!(is_head || body == data),
        206 => {
            let bounds = fields.iter().find_map(|(name, value)| (name == "content-range").then_some(value));
            let bounds = bounds.unwrap().strip_prefix("bytes ").unwrap().strip_suffix("/1000").unwrap();
            let (first, last) = bounds.split_once('-').unwrap();
            let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
            assert!(body == data[first..=last]);
        }
        416 => {}
        // The range was more than a field may be.
        400 | 431 => {}
        other => panic!("{other}"),
    }
});

fn serve(pieces: &[&[u8]], gulp: usize) -> Vec<u8> {
    thread_local!(static SERVICE: Rc<Service> = Rc::new(make()));
    let answer = wire::serve(pieces, gulp, Connection::new(SERVICE.with(Rc::clone)));
    assert!(!answer.windows(SECRET.len()).any(|window| window == SECRET), "it is out");
    answer
}

/// What all connections share.
pub struct Service {
    site: Site,
    listings: RefCell<Listings>,
    idle: Duration,
}

fn make() -> Service {
    let folder = std::env::temp_dir().join(format!("http_requests-{}", std::process::id()));
    let root = folder.join("root");
    fs::create_dir_all(root.join("sub")).unwrap();
    fs::write(folder.join("secret"), SECRET).unwrap();
    fs::write(root.join("data"), data()).unwrap();
    fs::write(root.join("sub/index.html"), "<p>hello").unwrap();
    let _ = symlink("../secret", root.join("out"));
    let _ = symlink("..", root.join("up"));
    let _ = symlink("../data", root.join("sub/in"));
    Service { site: Site::new(&root).unwrap(), listings: RefCell::default(), idle: connection::IDLE }
}

fn data() -> Vec<u8> {
    (0..1000_u32).map(|at| (at * 7 % 251) as u8).collect()
}

/// Dates differ from second to second.
fn undated(answer: &[u8]) -> Vec<u8> {
    let lines = answer.split_inclusive(|&byte| byte == b'\n');
    lines.filter(|line| !line.starts_with(b"Date: ")).flatten().copied().collect()
}

/// A single answer, well formed: its status, its fields and its body.
fn checked(answer: &[u8], is_head: bool) -> (u16, Vec<(String, String)>, Vec<u8>) {
    let mut fields = [httparse::EMPTY_HEADER; 20];
    let mut response = httparse::Response::new(&mut fields);
    let head = response.parse(answer).unwrap().unwrap();
    let status = response.code.unwrap();
    let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
    let fields: Vec<(String, String)> =
        response.headers.iter().map(|field| (field.name.to_ascii_lowercase(), text(field.value))).collect();
    let length = fields.iter().find_map(|(name, value)| (name == "content-length").then_some(value));
    let length: Option<usize> = length.map(|length| length.parse().unwrap());
    let body = &answer[head..];
    // To something that is no request the answer has a body, whatever its method seems to be.
    assert!(length.unwrap_or(0) == body.len() || (is_head && body.is_empty()));
    (status, fields, body.to_vec())
}
