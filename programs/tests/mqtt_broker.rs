//! `mqtt_broker` as a process, with raw sockets and with mosquitto's clients.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, Command, Stdio};

use support::{Server, has};

fn start() -> Server {
    Server::start(env!("CARGO_BIN_EXE_mqtt_broker"), &[])
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

fn packet(head: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![head];
    let mut left = body.len();
    while left > 0x7f {
        packet.push(0x80 | (left & 0x7f) as u8);
        left >>= 7;
    }
    packet.push(left as u8);
    packet.extend_from_slice(body);
    packet
}

/// A client's side of a connection.
struct Client(TcpStream);

impl Client {
    fn send(&mut self, head: u8, body: &[u8]) {
        self.0.write_all(&packet(head, body)).unwrap();
    }

    fn packet(&mut self) -> (u8, Vec<u8>) {
        let (mut byte, mut length) = ([0], 0);
        self.0.read_exact(&mut byte).unwrap();
        let head = byte[0];
        for at in 0.. {
            self.0.read_exact(&mut byte).unwrap();
            length |= usize::from(byte[0] & 0x7f) << (7 * at);
            if byte[0] < 0x80 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        (head, body)
    }

    fn connect(server: &Server, id: &str, flags: u8, keep_alive: u16, rest: &[u8]) -> (Client, u8) {
        let mut client = Client(server.connect());
        let head = [&text("MQTT")[..], &[4, flags], &keep_alive.to_be_bytes(), &text(id), rest].concat();
        client.send(0x10, &head);
        let (kind, answer) = client.packet();
        assert_eq!((kind, answer.len(), answer[1]), (0x20, 2, 0));
        (client, answer[0])
    }

    fn clean(server: &Server, id: &str) -> Client {
        Client::connect(server, id, 2, 0, &[]).0
    }

    /// Subscribe to one filter; returns what is granted.
    fn subscribe(&mut self, filter: &str, qos: u8) -> u8 {
        self.send(0x82, &[&[0, 9][..], &text(filter), &[qos]].concat());
        let (kind, body) = self.packet();
        assert_eq!((kind, &body[..2]), (0x90, &[0, 9][..]));
        body[2]
    }

    fn publish(&mut self, topic: &str, payload: &str, head: u8) {
        let number: &[u8] = if head & 2 != 0 { &[0, 7] } else { &[] };
        self.send(0x30 | head, &[&text(topic)[..], number, payload.as_bytes()].concat());
        if head & 2 != 0 {
            assert_eq!(self.packet(), (0x40, vec![0, 7]));
        }
    }

    /// A message: its flags, topic, number and payload.
    fn message(&mut self) -> (u8, String, Option<u16>, String) {
        let (head, body) = self.packet();
        assert_eq!(head & 0xf0, 0x30);
        let (length, rest) = body.split_at(2);
        let (topic, rest) = rest.split_at(u16::from_be_bytes([length[0], length[1]]).into());
        let (number, payload) = rest.split_at(if head & 6 != 0 { 2 } else { 0 });
        let number = (!number.is_empty()).then(|| u16::from_be_bytes([number[0], number[1]]));
        let owned = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (head & 0x0f, owned(topic), number, owned(payload))
    }

    /// All that was sent to it was dealt with, and nothing is on its way to it.
    fn has_nothing(&mut self) {
        self.send(0xc0, &[]);
        assert_eq!(self.packet(), (0xd0, vec![]));
    }

    fn is_closed(&mut self) {
        match self.0.read(&mut [0]) {
            Ok(0) => {}
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn wildcards_match_as_the_standard_says() {
    let server = start();
    let mut publisher = Client::clean(&server, "publisher");
    for (filter, topic, is_sent) in [
        ("a/b", "a/b", true),
        ("a/b", "a/b/c", false),
        ("a/+", "a/b", true),
        ("a/+", "a/", true),
        ("a/+", "a", false),
        ("+/+", "/a", true),
        ("+", "/a", false),
        ("a/#", "a", true),
        ("a/#", "a/b/c", true),
        ("#", "a/b/c", true),
        ("#", "$SYS/x", false),
        ("+/x", "$SYS/x", false),
        ("$SYS/#", "$SYS/x", true),
        ("é/#", "$x", false),
        ("a/+/c", "a/b/c", true),
        ("a/+/c", "a/b/d", false),
    ] {
        let mut client = Client::clean(&server, "");
        assert_eq!(client.subscribe(filter, 0), 0);
        publisher.publish(topic, "hello", 2);
        if is_sent {
            assert_eq!(client.message(), (0, topic.to_owned(), None, "hello".to_owned()), "{filter}");
        }
        client.has_nothing();
    }
    server.finish();
}

#[test]
fn overlapping_subscriptions_bring_a_message_once_with_the_better_qos() {
    let server = start();
    let mut client = Client::clean(&server, "x");
    assert_eq!(
        [client.subscribe("a/#", 2), client.subscribe("a/b", 0), client.subscribe("+/b", 1)],
        [1, 0, 1]
    );
    client.publish("a/b", "1", 0);
    assert_eq!(client.message(), (0, "a/b".to_owned(), None, "1".to_owned()));
    client.send(0x32, &[&text("a/b")[..], &[0, 7], b"2"].concat());
    assert_eq!(client.message(), (2, "a/b".to_owned(), Some(1), "2".to_owned()));
    assert_eq!(client.packet(), (0x40, vec![0, 7]));
    client.send(0xa2, &[&[0, 5][..], &text("a/#"), &text("+/b")].concat());
    assert_eq!(client.packet(), (0xb0, vec![0, 5]));
    client.publish("a/c", "3", 0);
    client.has_nothing();
    server.finish();
}

#[test]
fn a_message_is_retained_replaced_and_removed() {
    let server = start();
    let mut publisher = Client::clean(&server, "p");
    publisher.publish("r/1", "old", 1);
    publisher.publish("r/1", "new", 3);
    let mut client = Client::clean(&server, "c");
    client.subscribe("r/#", 1);
    assert_eq!(client.message(), (3, "r/1".to_owned(), Some(1), "new".to_owned()));
    publisher.publish("r/1", "live", 3);
    assert_eq!(client.message(), (2, "r/1".to_owned(), Some(2), "live".to_owned()));
    publisher.publish("r/1", "", 3);
    assert_eq!(client.message().3, "");
    let mut late = Client::clean(&server, "late");
    late.subscribe("r/#", 1);
    late.has_nothing();
    server.finish();
}

#[test]
fn a_persistent_session_keeps_what_was_not_acknowledged_and_a_clean_one_nothing() {
    let server = start();
    let mut publisher = Client::clean(&server, "p");
    let (mut client, present) = Client::connect(&server, "keeps", 0, 0, &[]);
    assert_eq!(present, 0);
    client.subscribe("q", 1);
    publisher.publish("q", "1", 2);
    assert_eq!(client.message(), (2, "q".to_owned(), Some(1), "1".to_owned()));
    client.send(0x40, &[0, 1]);
    publisher.publish("q", "2", 2);
    assert_eq!(client.message().3, "2");
    client.send(0xe0, &[]);
    client.is_closed();
    publisher.publish("q", "3", 2);
    publisher.publish("q", "lost: QoS 0", 0);
    let (mut client, present) = Client::connect(&server, "keeps", 0, 0, &[]);
    assert_eq!(present, 1);
    // Both as if they had been sent before.
    assert_eq!(client.message(), (10, "q".to_owned(), Some(2), "2".to_owned()));
    assert_eq!(client.message(), (10, "q".to_owned(), Some(3), "3".to_owned()));
    client.has_nothing();
    let (mut client, present) = Client::connect(&server, "keeps", 2, 0, &[]);
    assert_eq!(present, 0);
    publisher.publish("q", "4", 2);
    client.has_nothing();
    server.finish();
}

#[test]
fn a_will_is_published_unless_there_is_a_farewell_and_a_name_is_taken_over() {
    let server = start();
    let mut watcher = Client::clean(&server, "watcher");
    watcher.subscribe("wills", 0);
    let will = |what: &str| [text("wills"), text(what)].concat();
    let (client, _) = Client::connect(&server, "a", 6, 0, &will("a is lost"));
    client.0.shutdown(Shutdown::Both).unwrap();
    assert_eq!(watcher.message().3, "a is lost");
    let (mut client, _) = Client::connect(&server, "b", 6, 0, &will("b has said goodbye"));
    client.send(0xe0, &[]);
    client.is_closed();
    let (mut first, _) = Client::connect(&server, "c", 6, 0, &will("c was replaced"));
    let mut second = Client::clean(&server, "c");
    first.is_closed();
    assert_eq!(watcher.message().3, "c was replaced");
    // Its keep-alive is one second; one and a half pass, and a quarter at most.
    let (mut silent, _) = Client::connect(&server, "d", 6, 1, &will("d was silent"));
    assert_eq!(watcher.message().3, "d was silent");
    silent.is_closed();
    second.has_nothing();
    watcher.has_nothing();
    server.finish();
}

#[test]
fn what_is_against_the_protocol_ends_the_connection_with_a_reason_in_the_log() {
    let hello = packet(0x10, &[&text("MQTT")[..], &[4, 2, 0, 0], &text("")].concat());
    let connect =
        |flags: u8, rest: &[u8]| packet(0x10, &[&text("MQTT")[..], &[4, flags, 0, 0], rest].concat());
    let cases: &[(bool, Vec<u8>, &str)] = &[
        (false, packet(0xc0, b""), "the first packet is not CONNECT"),
        (true, hello.clone(), "a second CONNECT"),
        (true, vec![0x30, 0xff, 0xff, 0xff, 0xff, 1], "a length of more than four bytes"),
        (true, vec![0x30, 0xff, 0xff, 0xff, 0x7f], "1048576"),
        (true, packet(0x34, &[0, 1, b'a', 0, 1]), "QoS 2 is not offered"),
        (true, packet(0x30, &[0, 0]), "a topic that is empty"),
        (true, packet(0x30, &[0, 1, b'#']), "or has a wildcard"),
        (true, packet(0x30, &[0, 9, b'a']), "a packet is cut short"),
        (true, packet(0x30, &[0, 1, 0xff]), "not UTF-8"),
        (true, packet(0x32, &[0, 1, b'a', 0, 0]), "the number 0"),
        (true, packet(0x82, &[0, 1]), "a packet is cut short"),
        (
            true,
            packet(0x82, &[&[0, 1][..], &text("a/#/b"), &[0]].concat()),
            "a wildcard where there can be none",
        ),
        (
            true,
            packet(0x82, &[&[0, 1][..], &text("a+"), &[0]].concat()),
            "a wildcard where there can be none",
        ),
        (true, packet(0x80, &[0, 1]), "kind 8 with flags 0x0"),
        (true, packet(0xc0, b"x"), "longer than what is in it"),
        (true, packet(0xf0, b""), "kind 15"),
        (false, connect(1, &text("")), "contradict each other"),
        (false, connect(0x42, &text("")), "contradict each other"),
    ];
    // No more than ten lines a second are logged.
    cases.chunks(9).for_each(|cases| reasons(&hello, cases));
}

fn reasons(hello: &[u8], cases: &[(bool, Vec<u8>, &str)]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mqtt_broker"));
    command.arg("127.0.0.1:0").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut broker = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(broker.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim_end().strip_prefix("listening on ").unwrap().to_owned();
    let mut log = BufReader::new(broker.stderr.take().unwrap());
    for (is_in, input, why) in cases {
        let mut client = Client(support::connect(&address));
        if *is_in {
            client.0.write_all(hello).unwrap();
            client.packet();
        }
        client.0.write_all(input).unwrap();
        client.is_closed();
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        assert!(line.contains(why), "{why}: {line}");
    }
    broker.kill().unwrap();
    broker.wait().unwrap();
}

#[test]
fn connect_is_refused_with_a_code() {
    let server = start();
    for (body, code) in [
        ([&text("MQIsdp")[..], &[3, 2, 0, 0], &text("x")].concat(), 1),
        ([&text("MQTT")[..], &[5, 2, 0, 0, 0], &text("x")].concat(), 1),
        ([&text("MQTT")[..], &[4, 0, 0, 0], &text("")].concat(), 2),
        ([&text("MQTT")[..], &[4, 2, 0, 0], &text(&"x".repeat(300))].concat(), 2),
    ] {
        let mut client = Client(server.connect());
        client.send(0x10, &body);
        assert_eq!(client.packet(), (0x20, vec![0, code]));
        client.is_closed();
    }
    server.finish();
}

#[test]
fn who_never_reads_or_acknowledges_is_bounded_and_harms_nobody() {
    let server = start();
    let (mut deaf, mut reads) = (Client::clean(&server, "deaf"), Client::clean(&server, "reads"));
    let mut publisher = Client::clean(&server, "p");
    deaf.subscribe("big/#", 0);
    reads.subscribe("big/#", 0);
    let payload = "x".repeat(500_000);
    for _ in 0..200 {
        publisher.publish("big/one", &payload, 2);
        assert_eq!(reads.message().3.len(), payload.len());
    }
    // It could only be sent so much, and was cut off.
    let read = std::io::copy(&mut deaf.0, &mut std::io::sink());
    assert!(read.map_or(true, |read| read < 50_000_000));
    // Acknowledged by nobody, with nobody there.
    let (mut away, _) = Client::connect(&server, "away", 0, 0, &[]);
    away.subscribe("big/#", 1);
    away.send(0xe0, &[]);
    away.is_closed();
    for _ in 0..200 {
        publisher.publish("big/two", &payload, 2);
        reads.message();
    }
    let (mut away, present) = Client::connect(&server, "away", 0, 0, &[]);
    assert_eq!(present, 1);
    for _ in 0..8 * 1024 * 1024 / 500_200 {
        assert_eq!(away.message().3.len(), payload.len());
    }
    away.has_nothing();
    // A thousand levels, and as many wildcards.
    let deep = "a/".repeat(250);
    assert_eq!(away.subscribe(&"+/".repeat(250), 0), 0);
    publisher.publish(&deep, "deep", 0);
    assert_eq!(away.message().3, "deep");
    assert_eq!(away.subscribe(&"+/".repeat(2000), 0), 0x80);
    // As many subscriptions as there may be, and the same one again and again.
    let mut greedy = Client::clean(&server, "greedy");
    let filters: Vec<u8> =
        (0..1024).flat_map(|number| [text(&format!("{number}/+")), vec![1]].concat()).collect();
    greedy.send(0x82, &[&[0, 9][..], &filters].concat());
    let (_, granted) = greedy.packet();
    assert_eq!([granted[2], granted[2 + 63], granted[2 + 64], granted[2 + 1023]], [1, 1, 0x80, 0x80]);
    publisher.publish("kept", &payload, 3);
    let again: Vec<u8> = (0..1024).flat_map(|_| [text("kept"), vec![0]].concat()).collect();
    greedy.send(0x82, &[&[0, 9][..], &again].concat());
    assert_eq!(greedy.packet().1.len(), 2 + 1024);
    assert_eq!(greedy.message().3.len(), payload.len());
    greedy.has_nothing();
    assert!(server.memory() < 200_000, "{} KiB", server.memory());
    server.finish();
}

fn mosquitto(program: &str, server: &Server, args: &[&str]) -> Child {
    let mut command = Command::new(program);
    command.args(["-p", &server.port(), "-V", "mqttv311"]).args(args).stdout(Stdio::piped()).spawn().unwrap()
}

#[test]
fn mosquittos_clients_speak_with_it() {
    if !has("mosquitto_sub") || !has("mosquitto_pub") {
        return;
    }
    let server = start();
    let publish =
        |args: &[&str]| assert!(mosquitto("mosquitto_pub", &server, args).wait().unwrap().success());
    publish(&["-t", "house/kitchen", "-m", "21.5", "-r", "-q", "1"]);
    let mut subscriber =
        mosquitto("mosquitto_sub", &server, &["-t", "house/#", "-q", "1", "-v", "-C", "102"]);
    let mut lines = BufReader::new(subscriber.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "house/kitchen 21.5");
    let mut many = Command::new("mosquitto_pub");
    many.args(["-p", &server.port(), "-t", "house/hall", "-q", "1", "-l"]).stdin(Stdio::piped());
    let mut many = many.spawn().unwrap();
    let mut stdin = many.stdin.take().unwrap();
    (0..100).for_each(|number| writeln!(stdin, "{number}").unwrap());
    drop(stdin);
    assert!(many.wait().unwrap().success());
    for number in 0..100 {
        assert_eq!(lines.next().unwrap().unwrap(), format!("house/hall {number}"));
    }
    publish(&["-t", "house", "-m", "done", "--will-topic", "house/will", "--will-payload", "never"]);
    assert_eq!(lines.next().unwrap().unwrap(), "house done");
    assert!(subscriber.wait().unwrap().success());
    server.finish();
}

#[test]
fn wrong_usage_is_told() {
    support::wrong_usage(env!("CARGO_BIN_EXE_mqtt_broker"), &[&["nowhere"], &["--what"], &["a:1", "b:2"]]);
}
