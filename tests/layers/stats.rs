//! The numbers of a map over HTTP, as Prometheus reads them.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use dispatch_loop::stats::{self, Stats};
use dispatch_loop::{Channel, ChannelMap, Dispatcher, run};

use crate::support::opened::address_of;
use crate::support::peers::{limit_time, unix_pair};
use crate::support::recorder::Log;
use crate::support::turning::{turn_idle, turn_until};

struct Echo;

impl Dispatcher for Echo {
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, data| ch.push(data))
    }
}

fn served(stats: Stats) -> (ChannelMap, SocketAddr) {
    let mut map = ChannelMap::new().unwrap();
    let listener = stats.listen(&mut map, "127.0.0.1:0").unwrap();
    let address = address_of(&mut map, listener);
    (map, address)
}

/// What is answered to `request`, which is sent in pieces of `piece` bytes.
fn ask(map: &mut ChannelMap, address: SocketAddr, request: &str, piece: usize) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    limit_time(&stream);
    let request = request.to_owned();
    let asker = thread::spawn(move || {
        for piece in request.as_bytes().chunks(piece) {
            // The answer may come before the whole of a request that is too long.
            if stream.write_all(piece).is_err() {
                break;
            }
        }
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    });
    turn_until(map, &Log::new(), |_| asker.is_finished());
    asker.join().unwrap()
}

fn get(map: &mut ChannelMap, address: SocketAddr, target: &str) -> String {
    ask(map, address, &format!("GET {target} HTTP/1.1\r\nHost: stats\r\n\r\n"), usize::MAX)
}

fn body(answer: &str) -> &str {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{answer}");
    body
}

/// The samples of an exposition, which is checked: each family has HELP and TYPE, once, before its samples.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let (mut family, mut kind) = (String::new(), String::new());
    let mut families = Vec::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split(' ').next().unwrap().to_owned();
            assert!(!families.contains(&family), "{family} twice");
            families.push(family.clone());
            kind.clear();
        } else if let Some(of) = line.strip_prefix("# TYPE ") {
            let (name, what) = of.split_once(' ').unwrap();
            assert_eq!(name, family);
            kind = what.to_owned();
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let bare = name.split('{').next().unwrap();
            let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.iter().any(|suffix| bare == format!("{family}{suffix}")), "{line} in {family}");
            assert!(family.starts_with("dispatch_loop_"), "{family}");
            assert_eq!(kind == "counter", family.ends_with("_total"), "{family} is a {kind}");
            let value = value.parse().unwrap();
            assert_eq!(samples.insert(name.to_owned(), value), None, "{name} twice");
        }
    }
    assert!(text.ends_with('\n') && samples.len() > 20, "{text}");
    samples
}

/// EDGE_CASES 309.
#[test]
fn the_numbers_are_in_the_text() {
    let (mut map, address) = served(Stats::new());
    let (near, mut far) = unix_pair();
    map.add(near, Echo).unwrap();
    far.write_all(b"hello").unwrap();
    turn_until(&mut map, &Log::new(), |map| map.numbers().bytes_out == 5);
    map.call_later(Duration::ZERO, |_| ());
    turn_idle(&mut map);
    let answer = get(&mut map, address, "/metrics");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{answer}");
    assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    let samples = samples(body(&answer));
    let is = |name: &str| samples[&format!("dispatch_loop_{name}")];
    // The request is there, its answer is not.
    let request = "GET /metrics HTTP/1.1\r\nHost: stats\r\n\r\n".len() as f64;
    assert_eq!((is("received_bytes_total"), is("sent_bytes_total")), (5.0 + request, 5.0));
    assert_eq!((is("accepts_total"), is("channels{state=\"listening\"}")), (1.0, 1.0));
    assert_eq!((is("channels{state=\"open\"}"), is("channels{state=\"closing\"}")), (2.0, 0.0));
    assert_eq!(is("closes_total{reason=\"end of stream\"}"), 0.0);
    assert!(is("turn_seconds_count") > 0.0 && is("turn_seconds_sum") > 0.0);
    assert!(is("timer_lag_seconds_count") >= 1.0);
    if cfg!(target_os = "linux") {
        assert!(is("process_resident_memory_bytes") > 100_000.0);
    }

    far.read_exact(&mut [0; 5]).unwrap();
    drop(far);
    turn_until(&mut map, &Log::new(), |map| map.len() == 1);
    let again = self::samples(body(&get(&mut map, address, "/metrics")));
    assert_eq!(again["dispatch_loop_closes_total{reason=\"end of stream\"}"], 1.0);
    assert_eq!(again["dispatch_loop_closes_total{reason=\"closed\"}"], 1.0, "the connection of the first");
}

/// EDGE_CASES 309: the buckets of a histogram hold all that is below their bound.
#[test]
fn histograms_add_up() {
    let mut map = ChannelMap::new().unwrap();
    for late in [0, 1, 5, 5] {
        map.call_later(Duration::from_micros(late), |_| ());
    }
    run(&mut map).unwrap();
    let text = stats::text(&map.numbers()).to_string();
    samples(&text);
    let buckets = text.lines().filter(|line| line.starts_with("dispatch_loop_timer_lag_seconds_bucket{le="));
    let buckets: Vec<(f64, u64)> = buckets
        .map(|line| {
            let (bound, count) = line.split_once("\"} ").unwrap();
            let (_, bound) = bound.split_once('"').unwrap();
            (bound.parse().unwrap(), count.parse().unwrap())
        })
        .collect();
    assert!(buckets.is_sorted_by(|one, next| one.0 < next.0 && one.1 <= next.1), "{buckets:?}");
    assert_eq!(buckets.last(), Some(&(f64::INFINITY, 4)));
    assert!(text.contains("dispatch_loop_timer_lag_seconds_count 4\n"), "{text}");
    assert_eq!(buckets[0].0, 1024e-9);
}

/// EDGE_CASES 310.
#[test]
fn health_is_what_the_program_says() {
    let well = Rc::new(Cell::new(true));
    let answer = well.clone();
    let (mut map, address) = served(Stats::with_health(move |map| answer.get() && !map.is_empty()));
    let healthy = get(&mut map, address, "/healthz");
    assert!(healthy.starts_with("HTTP/1.1 200 OK\r\n"), "{healthy}");
    assert_eq!(body(&healthy), "ok\n");
    well.set(false);
    let ill = get(&mut map, address, "/healthz");
    assert!(ill.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{ill}");
    body(&ill);
}

/// EDGE_CASES 310.
#[test]
fn what_is_no_request_for_the_two_is_refused() {
    let (mut map, address) = served(Stats::new());
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(9000));
    let endless = "x".repeat(20_000);
    let cases = [
        ("GET / HTTP/1.1\r\n\r\n", "404 Not Found"),
        ("GET /metrics/ HTTP/1.1\r\n\r\n", "404 Not Found"),
        ("GET /metrics?x=1 HTTP/1.0\r\n\r\n", "200 OK"),
        ("GET /metrics HTTP/1.1\n\n", "200 OK"),
        ("POST /metrics HTTP/1.1\r\nContent-Length: 1\r\n\r\nx", "405 Method Not Allowed"),
        ("GET /metrics\r\n\r\n", "400 Bad Request"),
        ("GET /metrics HTTP/2.0\r\n\r\n", "400 Bad Request"),
        ("\r\n\r\n", "400 Bad Request"),
        ("GET \u{e9} HTTP/1.1\r\n\r\n", "404 Not Found"),
        (&long, "431 Request Header Fields Too Large"),
        (&endless, "431 Request Header Fields Too Large"),
    ];
    for (request, status) in cases {
        let answer = ask(&mut map, address, request, usize::MAX);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request:.40?}: {answer}");
        body(&answer);
        assert_eq!(answer.contains("\r\nAllow: GET, HEAD\r\n"), status.starts_with("405"), "{answer}");
    }
    turn_until(&mut map, &Log::new(), |map| map.len() == 1);
}

/// EDGE_CASES 310.
#[test]
fn no_body_follows_a_head_and_a_request_may_come_byte_by_byte() {
    let (mut map, address) = served(Stats::new());
    let answer = ask(&mut map, address, "HEAD /healthz HTTP/1.1\r\nHost: stats\r\n\r\n", 1);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("\r\nContent-Length: 3\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    let missing = ask(&mut map, address, "HEAD /nothing HTTP/1.1\r\n\r\n", 3);
    assert!(missing.starts_with("HTTP/1.1 404") && missing.ends_with("\r\n\r\n"), "{missing}");
}

/// EDGE_CASES 311.
#[test]
fn it_keeps_nothing_going() {
    let (mut map, address) = served(Stats::new());
    run(&mut map).unwrap();
    assert_eq!(map.len(), 1, "the listener is still there");
    let _silent = TcpStream::connect(address).unwrap();
    turn_until(&mut map, &Log::new(), |map| map.len() == 2);
    run(&mut map).unwrap();
    assert_eq!(map.len(), 2);
}

/// EDGE_CASES 311.
#[test]
fn sixteen_are_served_at_once_and_the_others_in_their_turn() {
    let (mut map, address) = served(Stats::new());
    let silent: Vec<_> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    turn_until(&mut map, &Log::new(), |map| map.len() == 17);
    turn_idle(&mut map);
    assert_eq!(map.len(), 17, "the listener and 16 connections");
    drop(silent);
    let answer = get(&mut map, address, "/healthz");
    assert_eq!(body(&answer), "ok\n");
    turn_until(&mut map, &Log::new(), |map| map.len() == 1);
}

/// EDGE_CASES 311.
#[test]
#[ignore = "takes 10 s"]
fn who_says_nothing_is_cut_off() {
    let (mut map, address) = served(Stats::new());
    let mut silent = TcpStream::connect(address).unwrap();
    limit_time(&silent);
    let reader = thread::spawn(move || silent.read(&mut [0]).unwrap_err().kind());
    turn_until(&mut map, &Log::new(), |_| reader.is_finished());
    assert_eq!(reader.join().unwrap(), io::ErrorKind::ConnectionReset);
}

/// 313: a table of channels.
#[test]
fn the_channels_are_listed_with_what_they_carry() {
    let (mut map, address) = served(Stats::new());
    let (near, mut far) = unix_pair();
    let echo = map.add(near, Echo).unwrap();
    far.write_all(b"hello").unwrap();
    turn_until(&mut map, &Log::new(), |map| map.numbers().bytes_out == 5);
    let answer = ask(&mut map, address, "GET /channels HTTP/1.1\r\n\r\n", 1000);
    let (head, table) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let rows: Vec<Vec<&str>> = table.lines().map(|row| row.split('\t').collect()).collect();
    assert_eq!(rows[0], ["channel", "state", "peer", "age", "idle", "in", "out", "queued"]);
    let states: Vec<&str> = rows.iter().map(|row| row[1]).collect();
    assert_eq!(states, ["state", "listening", "open", "open"], "{table}");
    let of_echo = rows.iter().find(|row| row[0] == echo.token().to_string()).unwrap();
    assert_eq!(of_echo[5..], ["5", "5", "0"]);
}
