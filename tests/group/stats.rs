//! The numbers of a group over HTTP.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use dispatch_loop::stats::Stats;
use dispatch_loop::{DrainOptions, ListenOptions, LoopGroup};

use crate::support::groups::{assert_echoes, echoing, joined, keep_busy, on, wait_for_loads};
use crate::support::peers::{connect, limit_time};

/// Stats of all loops, on the first of them.
fn offer(group: &LoopGroup) -> SocketAddr {
    let loops = group.loops();
    on(group.loops().remote(0), move |map| {
        let stats = Stats::new().with_loops(&loops).listen(map, "127.0.0.1:0").unwrap();
        map.channel(stats).unwrap().local_addr().unwrap().ip().unwrap()
    })
}

fn get(address: SocketAddr, target: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    limit_time(&stream);
    write!(stream, "GET {target} HTTP/1.1\r\nHost: stats\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[track_caller]
fn sample(answer: &str, name: &str) -> u64 {
    let value = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{name} in {answer}")).parse().unwrap()
}

/// EDGE_CASES 541: sums of all loops, and how many connections each has; every channel is in the table.
#[test]
fn the_numbers_of_all_loops_are_summed() {
    let (group, address) = echoing(3, &ListenOptions::default());
    let stats = offer(&group);
    let clients: Vec<TcpStream> = (0..6).map(|_| connect(&address)).collect();
    wait_for_loads(&group, &[2, 2, 2]);
    clients.iter().for_each(assert_echoes);
    let answer = get(stats, "/metrics");
    assert!(sample(&answer, "dispatch_loop_received_bytes_total") >= 6 * 14, "{answer}");
    // The listener and that of the numbers are on loop 0; the question is a connection, too.
    assert_eq!(sample(&answer, "dispatch_loop_channels{state=\"listening\"}"), 2);
    assert_eq!(sample(&answer, "dispatch_loop_channels{state=\"open\"}"), 7);
    for index in 0..3 {
        assert_eq!(sample(&answer, &format!("dispatch_loop_connections{{loop=\"{index}\"}}")), 2);
    }
    let table = get(stats, "/channels");
    for client in &clients {
        let peer = format!("\t{}\t", client.local_addr().unwrap());
        assert_eq!(table.matches(&peer).count(), 1, "{table}");
    }
    for index in 0..3 {
        assert_eq!(table.matches(&format!("\n{index}/")).count(), if index == 0 { 5 } else { 2 }, "{table}");
    }
    assert!(get(stats, "/healthz").starts_with("HTTP/1.1 200 "));
    drop(clients);
    group.drain(&DrainOptions::default());
    joined(group).unwrap();
}

/// EDGE_CASES 542: the numbers of earlier count for it, and it is said that not all is well.
#[test]
fn a_loop_that_stands_still_keeps_no_answer_back() {
    let (group, address) = echoing(2, &ListenOptions::default());
    let stats = offer(&group);
    let clients: Vec<TcpStream> = (0..4).map(|_| connect(&address)).collect();
    clients.iter().for_each(assert_echoes);
    let before = sample(&get(stats, "/metrics"), "dispatch_loop_received_bytes_total");
    group.numbers();
    let busy = keep_busy(group.loops().remote(1));
    assert!(get(stats, "/healthz").starts_with("HTTP/1.1 503 "));
    assert!(sample(&get(stats, "/metrics"), "dispatch_loop_received_bytes_total") >= before);
    drop(busy);
    assert!(get(stats, "/healthz").starts_with("HTTP/1.1 200 "));
    drop(clients);
    group.stop();
    joined(group).unwrap();
}
