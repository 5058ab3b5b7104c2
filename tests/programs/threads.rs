//! `--threads` of the servers: several loops serve as one does.

use std::io::Write;
#[cfg(feature = "layers")]
use std::io::{BufRead, BufReader};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};

use crate::support::dirs::Dir;
use crate::support::peers::{connect, read_exactly, read_to_end};
use crate::support::programs::Program;
use crate::support::waiting::DEADLINE;

/// All that a client sends comes back.
#[track_caller]
fn assert_echoes(address: &SocketAddr) {
    let mut clients: Vec<TcpStream> = (0..7).map(|_| connect(address)).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.write_all(&[b'0' + n as u8]).unwrap();
    }
    for (n, client) in clients.iter_mut().enumerate() {
        assert_eq!(read_exactly(client, 1), [b'0' + n as u8]);
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(client), b"");
    }
}

/// EDGE_CASES 467: on every address of every loop, and each ends them in order. 0 is one for each core.
#[test]
fn echo_server_serves_on_several_loops() {
    for threads in ["0", "1", "2", "5"] {
        let server = Program::start("echo_server", ["--threads", threads, "127.0.0.1:0", "127.0.0.1:0"]);
        for _ in 0..2 {
            assert_echoes(&server.listening());
        }
        server.finish("TERM");
    }
}

/// EDGE_CASES 467.
#[test]
fn a_number_of_threads_that_is_none_is_wrong_usage() {
    for number in ["-1", "many", "1.5", ""] {
        let ended = Program::start("echo_server", [&format!("--threads={number}"), "127.0.0.1:0"]).end();
        ended.assert_wrong_usage("echo_server");
        assert!(ended.stderr.contains("--threads"), "{ended:?}");
    }
}

/// EDGE_CASES 468: names are unique over all loops, in one order of arrival, and what one says all others read,
/// once and in order.
#[cfg(feature = "layers")]
#[test]
fn a_chat_room_spans_all_loops() {
    let (server, address) = Program::serve("chat_server", ["--threads", "3", "127.0.0.1:0"]);
    let mut clients: Vec<BufReader<TcpStream>> = Vec::new();
    for n in 1..=6 {
        let mut client = BufReader::new(connect(&address));
        client.get_mut().write_all(b"/who\n").unwrap();
        let names: Vec<String> = (1..=n).map(|n| format!("guest{n}")).collect();
        assert_eq!(line(&mut client), format!("* here: {}", names.join(", ")));
        for other in &mut clients {
            assert_eq!(line(other), format!("* guest{n} joined"));
        }
        clients.push(client);
    }
    // Whoever is first: the others are refused, and hear of it, in whatever order.
    for client in &mut clients {
        client.get_mut().write_all(b"/name same\n/who\n").unwrap();
    }
    let mut refused = 0;
    for client in &mut clients {
        loop {
            match line(client).as_str() {
                "* bad name" => refused += 1,
                here if here.starts_with("* here: ") => break,
                renamed => assert!(renamed.ends_with(" is now same"), "{renamed}"),
            }
        }
    }
    assert_eq!(refused, 5);
    drop(clients);
    // A long talk of two, on different loops, is heard by all others.
    let mut clients: Vec<BufReader<TcpStream>> = (0..6).map(|_| BufReader::new(connect(&address))).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.get_mut().write_all(format!("/name talker{n}\n/who\n").as_bytes()).unwrap();
        while !line(client).starts_with("* here: ") {}
    }
    const LINES: usize = 3000;
    for talker in &clients[..2] {
        let mut writer = talker.get_ref().try_clone().unwrap();
        std::thread::spawn(move || {
            for n in 0..LINES {
                writer.write_all(format!("{n}\n").as_bytes()).unwrap();
            }
        });
    }
    for (n, client) in clients.iter_mut().enumerate() {
        let mut next = [0; 2];
        let wanted = [0, 1].map(|talker| if talker == n { 0 } else { LINES });
        while next != wanted {
            let heard = line(client);
            let Some((name, number)) = heard.split_once(": ") else { continue };
            let talker: usize = name.strip_prefix("talker").unwrap().parse().unwrap();
            assert_eq!(number.parse::<usize>().unwrap(), next[talker], "of {talker}, at {n}");
            next[talker] += 1;
        }
    }
    assert_eq!(server.end_by("TERM").code, Some(0));
}

#[cfg(feature = "layers")]
#[track_caller]
fn line(client: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    client.read_line(&mut line).unwrap();
    line.strip_suffix("\r\n").expect(&line).to_owned()
}

/// EDGE_CASES 468: what is typed reaches the clients of all loops, in order, and what they send is printed.
#[test]
fn what_is_typed_reaches_the_clients_of_all_loops() {
    let mut server = Program::start_typed("agent_server", ["--threads", "3", "127.0.0.1:0"]);
    let address = server.listening();
    let mut clients: Vec<TcpStream> = Vec::new();
    for _ in 0..6 {
        clients.push(connect(&address));
        let connected = clients[clients.len() - 1].local_addr().unwrap();
        assert_eq!(server.line(), format!("connected: {connected}"));
    }
    let typed: String = (0..20_000).map(|n| format!("{n}\n")).collect();
    server.type_in(typed.as_bytes());
    for client in &mut clients {
        assert!(read_exactly(client, typed.len()) == typed.as_bytes());
        client.write_all(b"yes\n").unwrap();
        assert_eq!(server.line(), "recv: yes");
    }
    server.finish("TERM");
}

/// EDGE_CASES 541: over all loops.
#[cfg(feature = "layers")]
#[test]
fn the_numbers_are_those_of_all_loops() {
    let server = Program::start("echo_server", ["--threads", "3", "--stats", "127.0.0.1:0", "127.0.0.1:0"]);
    let address = server.listening();
    let line = server.line();
    let stats: SocketAddr = line.strip_prefix("stats on ").expect(&line).parse().unwrap();
    let mut clients: Vec<TcpStream> = (0..6).map(|_| connect(&address)).collect();
    for client in &mut clients {
        client.write_all(&[b'x'; 1000]).unwrap();
        read_exactly(client, 1000);
    }
    let mut asker = connect(&stats);
    asker.write_all(b"GET /metrics HTTP/1.1\r\nHost: stats\r\n\r\n").unwrap();
    let answer = String::from_utf8(read_to_end(&mut asker)).unwrap();
    let count = |name: &str| -> u64 {
        let line = answer.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name} in {answer}")).trim().parse().unwrap()
    };
    assert!(count("dispatch_loop_received_bytes_total ") >= 6000);
    assert_eq!(count("dispatch_loop_accepts_total "), 7);
    for index in 0..3 {
        assert_eq!(count(&format!("dispatch_loop_connections{{loop=\"{index}\"}} ")), 2);
    }
    drop((clients, asker));
    server.finish("TERM");
}

/// EDGE_CASES 467: the others, one conversation on each loop and more.
#[test]
fn the_other_servers_serve_on_several_loops() {
    let threads = ["--threads", "3"];
    let dir = Dir::new();
    std::fs::write(dir.path().join("page.txt"), "a page\n").unwrap();
    let root = format!("--root={}", dir.path().display());
    let (server, address) = Program::serve("http_server", [threads[0], threads[1], &root, "127.0.0.1:0"]);
    let mut clients: Vec<TcpStream> = (0..7).map(|_| connect(&address)).collect();
    for client in &mut clients {
        client.write_all(b"GET /page.txt HTTP/1.0\r\n\r\n").unwrap();
        assert!(read_to_end(client).ends_with(b"\r\n\r\na page\n"));
    }
    server.finish("TERM");

    let (echo, echoes) = Program::serve("echo_server", ["127.0.0.1:0"]);
    let args = [threads[0], threads[1], "127.0.0.1:0", &echoes.to_string()];
    let (proxy, address) = Program::serve("tcp_proxy", args);
    assert_echoes(&address);
    proxy.finish("TERM");
    echo.finish("TERM");

    let args = [threads[0], threads[1], "--port=0", "--port=0", "--delay=0"];
    let poets = Program::start("poetry_server", args);
    for address in [poets.listening(), poets.listening()] {
        let poems: Vec<Vec<u8>> = (0..4).map(|_| read_to_end(&mut connect(&address))).collect();
        assert!(poems[0].len() > 100 && poems.iter().all(|poem| *poem == poems[0]));
    }
    poets.finish("TERM");
}

/// EDGE_CASES 467.
#[cfg(feature = "layers")]
#[test]
fn app_server_serves_on_several_loops() {
    let (server, address) = Program::serve("app_server", ["--threads", "2", "127.0.0.1:0"]);
    for _ in 0..4 {
        let ended = Program::start("app_client", [&address.to_string(), "search", "morpheus"]).end();
        assert_eq!(ended.stdout, "Follow the white rabbit. \u{1f430}\n", "{ended:?}");
    }
    server.finish("TERM");
}

/// EDGE_CASES 467: a socket a loop, where the system spreads datagrams.
#[test]
fn udp_echo_serves_on_several_loops() {
    let (server, address) = Program::serve("udp_echo", ["--threads", "3", "127.0.0.1:0"]);
    for n in 0..20u8 {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.send_to(&[n; 9], address).unwrap();
        let mut buffer = [0; 20];
        assert_eq!(socket.recv_from(&mut buffer).unwrap(), (9, address));
        assert_eq!(buffer[..9], [n; 9]);
    }
    assert_eq!(server.end_by("INT").code, Some(0));
}

/// EDGE_CASES 468: what was begun on any of the loops is finished; the second signal ends all at once.
#[test]
fn a_signal_drains_all_loops_and_a_second_one_ends_them() {
    for twice in [false, true] {
        let (server, address) = Program::serve("echo_server", ["--threads", "3", "127.0.0.1:0"]);
        let mut clients: Vec<TcpStream> = (0..6).map(|_| connect(&address)).collect();
        // More than a socket takes: there is something left to send.
        for client in &mut clients {
            crate::support::programs::flood(client, 64 * 1024 * 1024, |_| b'x').1.unwrap();
        }
        server.signal("TERM");
        if twice {
            crate::support::waiting::wait_until("it accepts no more", || {
                TcpStream::connect(address).is_err()
            });
            assert_eq!(server.end_by("INT").code, Some(128 + 2));
            continue;
        }
        for client in &mut clients {
            assert!(read_to_end(client).len() > 64 * 1024);
        }
        drop(clients);
        assert_eq!(server.end().code, Some(0));
    }
}
