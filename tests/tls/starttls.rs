//! STARTTLS: TLS on a channel that has spoken in the clear.

use std::io::Write;
use std::os::unix::net::UnixStream;

use dispatch_loop::{Channel, ChannelMap};

use crate::support::authority::{AUTHORITY, LOCALHOST};
use crate::support::peers::unix_pair;
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::run_out;

/// A server that turns to TLS on demand, and answers each line with itself.
fn server(log: &Log) -> Recorder {
    let seen = log.clone();
    let reads = move |ch: &mut Channel<'_>| {
        ch.read_with(|ch, data| {
            let secure = ch.tls().is_some();
            seen.add(format!("server {} {}", if secure { "secret" } else { "clear" }, data.escape_ascii()));
            match data.strip_prefix(b"STARTTLS\r\n") {
                Some(rest) => {
                    ch.push(b"220 go\r\n")?;
                    ch.unread(rest);
                    ch.start_tls(&LOCALHOST.server())
                }
                None => ch.push(data),
            }
        })
    };
    Recorder::new("server", log).quiet().on("read", reads).on("wrapped", |ch| {
        assert!(ch.tls().is_some_and(|tls| tls.version().is_some()));
        Ok(())
    })
}

/// EDGE_CASES 385.
#[test]
fn both_ends_turn_to_tls_in_mid_stream() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, far) = UnixStream::pair().unwrap();
    map.add(far, server(&log)).unwrap();
    let seen = log.clone();
    let client = Recorder::new("client", &log).quiet().on("open", |ch| {
        assert!(ch.tls().is_none());
        ch.push(b"STARTTLS\r\n")
    });
    let client = client.on("read", move |ch| {
        ch.read_with(|ch, data| {
            seen.add(format!("client got {}", data.escape_ascii()));
            match data {
                b"220 go\r\n" => {
                    ch.start_tls_client(&AUTHORITY.client(), "localhost")?;
                    // Pushed before the handshake, sent after it.
                    ch.push(b"password;")
                }
                b"password;" => {
                    ch.close();
                    Ok(())
                }
                other => panic!("{}", other.escape_ascii()),
            }
        })
    });
    map.add(near, client).unwrap();
    run_out(&mut map, &log);
    let clear = r"clear STARTTLS\r\n";
    assert_eq!(
        log.of("server"),
        ["open", clear, "wrapped", "secret password;", "eof", "close: end of stream"]
    );
    assert_eq!(log.of("client"), ["open", r"got 220 go\r\n", "wrapped", "got password;", "close: closed"]);
}

/// EDGE_CASES 386: as in CVE-2011-0411.
#[test]
fn a_command_behind_the_one_for_tls_is_not_taken_for_encrypted() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let (near, mut far) = unix_pair();
    map.add(near, server(&log)).unwrap();
    far.write_all(b"STARTTLS\r\nMAIL FROM:<evil@example>\r\n").unwrap();
    run_out(&mut map, &log);
    let events = log.of("server");
    assert_eq!(events[1], r"clear STARTTLS\r\nMAIL FROM:<evil@example>\r\n");
    assert!(events[2].starts_with("error: TLS: ") && events[3].starts_with("close: TLS: "), "{events:?}");
    assert_eq!(events.len(), 4, "{events:?}");
}
