//! `udp_echo` as its users meet it.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use crate::support::peers::{loopbacks, pattern};
use crate::support::programs::{Program, assert_help, command, unread};
use crate::support::waiting::DEADLINE;

/// The largest that UDP has: 65,535, less its own header, and for IPv4 that of IP as well.
fn largest(on: SocketAddr) -> usize {
    65_535 - 8 - if on.is_ipv4() { 20 } else { 0 }
}

fn start(on: SocketAddr) -> (Program, SocketAddr) {
    let (program, address) = Program::serve("udp_echo", [on.to_string()]);
    assert_ne!(address.port(), 0);
    (program, address)
}

fn socket(on: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(on).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}

#[track_caller]
fn expect(from: SocketAddr, socket: &UdpSocket, wanted: &[u8]) {
    let mut buffer = vec![0; 70_000];
    let (got, sender) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!((got, sender), (wanted.len(), from));
    assert!(&buffer[..got] == wanted, "{got} bytes, but not those");
}

#[track_caller]
fn end(program: Program, signal: &str) {
    program.finish(signal);
}

#[test]
fn datagrams_of_every_size_come_back() {
    for on in loopbacks() {
        let (program, address) = start(on);
        let socket = socket(on);
        let steps = (0..16).map(|bits| 1 << bits).flat_map(|size| [size - 1, size, size + 1]);
        for len in steps.chain([1472, 1473, 9000, 65_487, 65_507, largest(on), 0]) {
            let bytes = pattern(len);
            socket.send_to(&bytes, address).unwrap();
            expect(address, &socket, &bytes);
        }
        end(program, "TERM");
    }
}

#[test]
fn datagrams_come_back_in_order() {
    for on in loopbacks() {
        let (program, address) = start(on);
        let socket = socket(on);
        // As many at a time as have room in the socket's buffer.
        for batch in 0..50_u32 {
            let numbers = batch * 40..(batch + 1) * 40;
            for number in numbers.clone() {
                socket.send_to(&number.to_be_bytes(), address).unwrap();
            }
            for number in numbers {
                expect(address, &socket, &number.to_be_bytes());
            }
        }
        end(program, "INT");
    }
}

#[test]
fn each_sender_has_its_own_back() {
    for on in loopbacks() {
        let (program, address) = start(on);
        let sockets: Vec<UdpSocket> = (0..100).map(|_| socket(on)).collect();
        for round in 0..5 {
            for (number, socket) in sockets.iter().enumerate() {
                socket.send_to(format!("{round} of {number}").as_bytes(), address).unwrap();
            }
            for (number, socket) in sockets.iter().enumerate() {
                expect(address, socket, format!("{round} of {number}").as_bytes());
            }
        }
        end(program, "TERM");
    }
}

/// Their answers come back as port unreachable, which is nobody else's concern.
#[test]
fn senders_that_are_gone_do_no_harm_to_others() {
    for on in loopbacks() {
        let (program, address) = start(on);
        let here = socket(on);
        for round in 0..50_u32 {
            socket(on).send_to(&[7; 1000], address).unwrap();
            here.send_to(&round.to_be_bytes(), address).unwrap();
            expect(address, &here, &round.to_be_bytes());
        }
        end(program, "TERM");
    }
}

/// Whoever sends without reading loses what does not fit; nobody else does.
#[test]
fn a_sender_that_does_not_read_does_no_harm_to_others() {
    for on in loopbacks() {
        let (program, address) = start(on);
        let (deaf, here) = (socket(on), socket(on));
        for round in 0..200_u32 {
            for _ in 0..4 {
                deaf.send_to(&[7; 9000], address).unwrap();
            }
            here.send_to(&round.to_be_bytes(), address).unwrap();
            expect(address, &here, &round.to_be_bytes());
        }
        end(program, "TERM");
    }
}

#[test]
fn a_name_is_listened_on() {
    let (program, address) = Program::serve("udp_echo", ["localhost:0"]);
    let any: IpAddr = if address.is_ipv4() { [127, 0, 0, 1].into() } else { "::1".parse().unwrap() };
    let socket = socket((any, 0).into());
    socket.send_to(b"hello", address).unwrap();
    expect(address, &socket, b"hello");
    end(program, "TERM");
}

#[test]
fn help_says_how_it_is_used() {
    assert_help("udp_echo");
}

#[test]
fn wrong_usage_is_answered_with_the_usage() {
    let wrong: [&[&str]; 12] = [
        &["--bogus"],
        &["-x"],
        &["--log"],
        &["--log", "loud", "127.0.0.1:0"],
        &["127.0.0.1"],
        &["127.0.0.1:"],
        &["127.0.0.1:65536"],
        &["127.0.0.1:http"],
        &[":80"],
        &["::1:80"],
        &["unix:x.sock"],
        &["127.0.0.1:0", "127.0.0.1:0"],
    ];
    for args in wrong {
        Program::start("udp_echo", args).end().assert_wrong_usage("udp_echo");
    }
}

#[test]
fn an_address_in_use_is_a_failure_that_names_it() {
    for on in loopbacks() {
        let taken = UdpSocket::bind(on).unwrap();
        let address = taken.local_addr().unwrap();
        let ended = Program::start("udp_echo", [address.to_string()]).end();
        ended.assert_failure(&address.to_string());
        assert_eq!((ended.stderr.lines().count(), ended.stdout.as_str()), (1, ""), "{ended:?}");
    }
}

/// An address of a network for examples, which is nobody's.
#[test]
fn an_address_that_is_not_ours_is_a_failure() {
    Program::start("udp_echo", ["192.0.2.1:0"]).end().assert_failure("192.0.2.1:0");
}

#[test]
fn a_closed_stdout_is_no_failure() {
    let mut command = command("udp_echo");
    command.arg("127.0.0.1:0").stdout(unread());
    Program::spawn(command).end().assert_quiet_success();
}

#[test]
fn it_logs_what_it_is_asked_to() {
    let (program, address) = Program::serve("udp_echo", ["--log", "debug", "127.0.0.1:0"]);
    let socket = socket(loopbacks()[0]);
    socket.send_to(b"hello", address).unwrap();
    expect(address, &socket, b"hello");
    let ended = program.end_by("TERM");
    let line = format!("{}: 5 bytes", socket.local_addr().unwrap());
    assert!(ended.code == Some(0) && ended.stderr.contains(&line), "{ended:?}");
}

/// 116: somebody gives the server's own address as the sender's. (Only a superuser can: others see that
/// nothing happens.)
#[cfg(target_os = "linux")]
#[test]
fn it_does_not_answer_itself() {
    use socket2::{Domain, Protocol, Socket, Type};
    let Ok(raw) = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP)) else { return };
    for on in ["127.0.0.1:0", "0.0.0.0:0"] {
        let program = Program::start("udp_echo", ["--log", "debug", on]);
        let port = program.listening().port();
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        raw.bind(&loopback.into()).unwrap();
        let [high, low] = port.to_be_bytes();
        // Ports, length, no checksum, data.
        let forged = [high, low, high, low, 0, 13, 0, 0, b'h', b'e', b'l', b'l', b'o'];
        raw.send_to(&forged, &loopback.into()).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let socket = socket(loopback);
        for _ in 0..100 {
            socket.send_to(b"ping", address).unwrap();
            expect(address, &socket, b"ping");
        }
        let ended = program.end_by("TERM");
        let from_itself = ended.stderr.matches(&format!(" {address}: 5 bytes\n")).count();
        assert_eq!((ended.code, from_itself), (Some(0), 1), "{ended:?}");
    }
}
