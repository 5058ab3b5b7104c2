//! Certificates: whom a side believes, what it shows, and what both agree on.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::LazyLock;

use dispatch_loop::tls::{TlsClient, TlsServer, TlsVersion};
use dispatch_loop::{Channel, ChannelMap};

use crate::support::authority::{AUTHORITY, Authority, LOCALHOST, Pair};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{run_out, turn_until};

static OTHER: LazyLock<Pair> = LazyLock::new(|| AUTHORITY.issue("other", "DNS:other.test,DNS:*.wild.test"));

/// What a channel's session says of itself when it opens, and whether that is all of the matter.
#[derive(Default)]
struct Facts {
    version: Option<TlsVersion>,
    cipher: Option<&'static str>,
    alpn: Option<Vec<u8>>,
    name: Option<String>,
    certificates: Vec<Vec<u8>>,
    resumed: bool,
}

fn facts(ch: &Channel<'_>) -> Facts {
    let tls = ch.tls().unwrap();
    Facts {
        version: tls.version(),
        cipher: tls.cipher_suite(),
        alpn: tls.alpn().map(<[u8]>::to_vec),
        name: tls.server_name().map(str::to_owned),
        certificates: tls.peer_certificates().map(<[u8]>::to_vec).collect(),
        resumed: tls.is_resumed(),
    }
}

/// One connection: what each side agreed on, as far as it came, and what happened to it. The server greets; the
/// client closes when it has read that.
fn meet(server: &TlsServer, client: &TlsClient, name: &str) -> (Option<Facts>, Option<Facts>, Log) {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, far) = UnixStream::pair().unwrap();
    let seen: [Rc<RefCell<Option<Facts>>>; 2] = Default::default();
    let [here, there] = seen.clone();
    let greets = Recorder::new("server", &log).on("open", move |ch| {
        *here.borrow_mut() = Some(facts(ch));
        ch.push(b"welcome")
    });
    map.add_tls(far, server, greets).unwrap();
    let client_recorder = Recorder::new("client", &log).on("open", move |ch| {
        *there.borrow_mut() = Some(facts(ch));
        Ok(())
    });
    let reads = client_recorder.on("read", |ch| {
        ch.read_with(|ch, _| {
            ch.close();
            Ok(())
        })
    });
    let handle = map.add(near, reads).unwrap();
    map.channel(handle).unwrap().start_tls_client(client, name).unwrap();
    run_out(&mut map, &log);
    let [server, client] = seen.map(|seen| seen.take());
    (server, client, log)
}

#[track_caller]
fn refused(log: &Log, client: &str, server: &str) {
    for (name, why) in [("client", client), ("server", server)] {
        let events = log.of(name);
        let told = events.iter().any(|event| event.starts_with("close: TLS: ") && event.contains(why));
        assert!(told, "{name} should say {why:?}: {events:?}");
    }
}

/// EDGE_CASES 370.
#[test]
fn a_certificate_that_is_wrong_is_refused_and_the_error_says_why() {
    let expired = AUTHORITY.issue_expired("expired", "DNS:localhost").server();
    refused(&meet(&expired, &AUTHORITY.client(), "localhost").2, "Expired", "CertificateExpired");
    let (_, opened, log) = meet(&OTHER.server(), &AUTHORITY.client(), "localhost");
    refused(&log, "not valid for name", "BadCertificate");
    assert!(opened.is_none());
    let nobody = Authority::new().issue("localhost", "DNS:localhost").server();
    refused(&meet(&nobody, &AUTHORITY.client(), "localhost").2, "UnknownIssuer", "UnknownCA");
    let errors = meet(&nobody, &AUTHORITY.client(), "localhost").2.count("client error");
    assert_eq!(errors, 1, "as of a failed connect");
}

#[test]
fn what_was_agreed_on_can_be_asked_for() {
    let (server, client, log) = meet(&LOCALHOST.server(), &AUTHORITY.client(), "localhost");
    let (server, client) = (server.unwrap(), client.unwrap());
    for facts in [&server, &client] {
        assert_eq!(facts.version, Some(TlsVersion::V1_3));
        assert!(facts.cipher.unwrap().starts_with("TLS13_"), "{:?}", facts.cipher);
        assert_eq!(facts.alpn, None);
    }
    assert_eq!((server.name.as_deref(), client.name), (Some("localhost"), None));
    assert_eq!((server.certificates.len(), client.certificates.len()), (0, 1));
    assert_eq!(log.of("client"), ["open", "read", "close: closed"]);
    assert_eq!(log.of("server").last().unwrap(), "close: end of stream");
}

/// EDGE_CASES 371.
#[test]
fn a_server_asks_clients_for_a_certificate_and_may_insist() {
    let shows = AUTHORITY.issue("client", "DNS:client.test");
    let stranger = Authority::new().issue("stranger", "DNS:client.test");
    let with = |pair: &Pair| AUTHORITY.client().with_certificate_pem(&pair.certificate, &pair.key).unwrap();
    for required in [true, false] {
        let server = LOCALHOST.server().with_client_roots(&AUTHORITY.root(), required).unwrap();
        let (opened, _, _) = meet(&server, &with(&shows), "localhost");
        assert_eq!(opened.unwrap().certificates.len(), 1);
        let (opened, _, log) = meet(&server, &AUTHORITY.client(), "localhost");
        match required {
            true => refused(&log, "CertificateRequired", "peer sent no certificates"),
            false => assert_eq!(opened.unwrap().certificates.len(), 0),
        }
        let (opened, _, log) = meet(&server, &with(&stranger), "localhost");
        assert!(opened.is_none());
        refused(&log, "UnknownCA", "UnknownIssuer");
    }
}

/// EDGE_CASES 512.
#[test]
fn clients_certificates_are_revoked_by_a_reload_and_no_ticket_gets_round_it() {
    let (authority, next) = (Authority::new(), Authority::new());
    let [good, lost] = ["good", "lost"].map(|name| authority.issue(name, "DNS:client.test"));
    let with = |pair: &Pair| AUTHORITY.client().with_certificate_pem(&pair.certificate, &pair.key).unwrap();
    let (good, other, lost_client) = (with(&good), with(&next.issue("next", "DNS:a.test")), with(&lost));
    let server = LOCALHOST.server().with_alpn(["http/1.1"]);
    let server = server.with_client_roots(&authority.root(), true).unwrap();
    let resumed = |client: &TlsClient| meet(&server, client, "localhost").0.map(|facts| facts.resumed);
    for client in [&good, &lost_client] {
        assert_eq!([resumed(client), resumed(client)], [Some(false), Some(true)]);
    }
    // One certificate is taken back: by a list beside the roots, and through a clone.
    let with_list = [authority.root(), authority.revoke(&lost)].concat();
    server.clone().reload_client_roots(&with_list).unwrap();
    let (opened, _, log) = meet(&server, &lost_client, "localhost");
    assert!(opened.is_none());
    refused(&log, "CertificateRevoked", "Revoked");
    assert_eq!([resumed(&good), resumed(&good)], [Some(false), Some(true)], "asked anew, once");
    // What is no list, or no certificate, changes nothing.
    let no_list = b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
    for (roots, why) in
        [([&authority.root()[..], no_list].concat(), "the roots for clients"), (vec![], "no certificate")]
    {
        let error = server.reload_client_roots(&roots).unwrap_err();
        assert!(error.kind() == ErrorKind::InvalidData && error.to_string().contains(why), "{error}");
    }
    assert_eq!(resumed(&good), Some(true));
    // The authority itself: nobody of it is let in again, and those of the next are.
    server.reload_client_roots(&next.root()).unwrap();
    for client in [&good, &lost_client] {
        let (opened, _, log) = meet(&server, client, "localhost");
        assert!(opened.is_none());
        refused(&log, "UnknownCA", "UnknownIssuer");
    }
    assert_eq!(resumed(&other), Some(false));
    let error = LOCALHOST.server().reload_client_roots(&next.root()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

/// EDGE_CASES 372.
#[test]
fn a_client_is_shown_the_certificate_for_the_name_that_it_asks_for() {
    let server = LOCALHOST.server();
    server.add_pem(&OTHER.certificate, &OTHER.key).unwrap();
    let shown = |name: &str| meet(&server, &AUTHORITY.client(), name).1.map(|facts| facts.certificates);
    let (localhost, other) = (shown("localhost").unwrap(), shown("other.test").unwrap());
    assert_ne!(localhost, other);
    assert_eq!(shown("a.wild.test").unwrap(), other);
    assert_eq!(shown("127.0.0.1").unwrap(), localhost, "no name is asked for: the first");
    assert!(shown("unknown.test").is_none());
}

/// EDGE_CASES 373.
#[test]
fn certificates_are_replaced_without_an_end_of_connections() {
    let dir = crate::support::dirs::Dir::new();
    let (certificate, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    let write = |pair: &Pair| {
        std::fs::write(&certificate, &pair.certificate).unwrap();
        std::fs::write(&key, &pair.key).unwrap();
    };
    write(&LOCALHOST);
    let server = TlsServer::from_files(&certificate, &key).unwrap();
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, far) = UnixStream::pair().unwrap();
    let echo = Recorder::new("server", &log).on("read", |ch| ch.read_with(|ch, data| ch.push(data)));
    map.add_tls(far, &server, echo).unwrap();
    let old = map.add(near, Recorder::new("old", &log)).unwrap();
    map.channel(old).unwrap().start_tls_client(&AUTHORITY.client(), "localhost").unwrap();
    turn_until(&mut map, &log, |_| log.has("old open"));
    // Renewal under load: each handshake is with the one or the other, and none fails.
    let renewed = AUTHORITY.issue("renewed", "DNS:localhost");
    let mut seen = Vec::new();
    for round in 0..20 {
        if round == 10 {
            write(&renewed);
            server.reload_files(&certificate, &key).unwrap();
        }
        let (_, client, _) = meet(&server.clone(), &AUTHORITY.client(), "localhost");
        seen.push(client.unwrap().certificates);
    }
    assert!(seen[..10].iter().all(|shown| *shown == seen[0]));
    assert!(seen[10..].iter().all(|shown| *shown == seen[10] && *shown != seen[0]));
    // What cannot be read, or is of another key, changes nothing.
    std::fs::write(&certificate, &LOCALHOST.certificate).unwrap();
    let error = server.reload_files(&certificate, &key).unwrap_err();
    assert!(error.to_string().contains("cert.pem"), "{error}");
    std::fs::write(&key, "no key").unwrap();
    let error = server.reload_files(&certificate, &key).unwrap_err();
    assert!(error.to_string().contains("key.pem"), "{error}");
    std::fs::remove_file(&key).unwrap();
    let error = server.reload_files(&certificate, &key).unwrap_err();
    assert!(error.kind() == ErrorKind::NotFound && error.to_string().contains("key.pem"), "{error}");
    let (_, client, _) = meet(&server, &AUTHORITY.client(), "localhost");
    assert_eq!(client.unwrap().certificates, seen[10]);
    // And the connection of before is still there.
    map.channel(old).unwrap().push(b"still here").unwrap();
    turn_until(&mut map, &log, |_| log.input("old") == b"still here");
}

/// EDGE_CASES 374.
#[test]
fn a_protocol_is_agreed_on_or_the_handshake_fails() {
    let server = LOCALHOST.server().with_alpn(["h2", "http/1.1"]);
    let client = |names: &'static [&'static str]| AUTHORITY.client().with_alpn(names.iter().copied());
    let (here, there, _) = meet(&server, &client(&["http/1.1", "h2"]), "localhost");
    let agreed = [here, there].map(|facts| facts.unwrap().alpn.unwrap());
    assert_eq!(agreed, [b"h2", b"h2"], "the server's preference");
    let (here, _, _) = meet(&server, &client(&[]), "localhost");
    assert_eq!(here.unwrap().alpn, None);
    let (here, there, log) = meet(&server, &client(&["imap"]), "localhost");
    assert!(here.is_none() && there.is_none());
    refused(&log, "NoApplicationProtocol", "any known protocol");
}

/// EDGE_CASES 375.
#[test]
fn a_second_connection_is_resumed_where_both_remember() {
    let (server, client) = (LOCALHOST.server(), AUTHORITY.client());
    let resumed = |server: &TlsServer, client: &TlsClient| {
        let (here, there, _) = meet(server, client, "localhost");
        let both = [here, there].map(|facts| facts.unwrap().resumed);
        assert_eq!(both[0], both[1]);
        both[0]
    };
    assert!(!resumed(&server, &client));
    assert_eq!((0..10).filter(|_| resumed(&server, &client.clone())).count(), 10);
    assert!(!resumed(&server, &AUTHORITY.client()), "another client remembers nothing");
    assert!(!resumed(&LOCALHOST.server(), &client), "another server cannot read the ticket");
    // One that asks for certificates does not take the word of one that did not.
    let asks = server.with_client_roots(&AUTHORITY.root(), false).unwrap();
    assert!(!resumed(&asks, &client));
}

#[test]
fn what_is_no_certificate_key_or_name_is_refused_at_once() {
    let Pair { certificate, key, .. } = &*LOCALHOST;
    for (certificate, key, why) in [
        (&b"nothing"[..], &key[..], "no certificate"),
        (certificate, b"nothing", "private key"),
        (certificate, &OTHER.key, "the certificate and the key"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", key, "certificate"),
    ] {
        let error = TlsServer::from_pem(certificate, key).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        let client = AUTHORITY.client().with_certificate_pem(certificate, key);
        assert_eq!(client.unwrap_err().kind(), ErrorKind::InvalidData);
    }
    assert!(TlsClient::with_roots_pem(b"nothing").is_err());
    assert!(LOCALHOST.server().with_client_roots(b"nothing", true).is_err());
    let error = TlsClient::with_roots_file("/nonexistent/ca.pem").unwrap_err();
    assert!(error.to_string().contains("/nonexistent/ca.pem"), "{error}");
    let mut map = ChannelMap::new().unwrap();
    let log = Log::new();
    let handle = map.add(UnixStream::pair().unwrap().0, Recorder::new("a", &log)).unwrap();
    let error = map.channel(handle).unwrap().start_tls_client(&AUTHORITY.client(), "not a name").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}
