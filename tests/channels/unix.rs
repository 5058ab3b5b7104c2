//! Unix-domain stream sockets: their files, names, permissions and peers, and backlogs that are full.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

#[cfg(debug_assertions)]
use dispatch_loop::faults::{Call, count};
use dispatch_loop::{Address, Channel, ChannelMap, Dispatcher, ListenOptions, Socket, ToAddress};

use crate::support::dirs::Dir;
use crate::support::opened::view;
use crate::support::peers::unix_pair;
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{assert_calm, run_out, turn_idle, turn_until};

struct EchoServer;

impl Dispatcher for EchoServer {
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
        ch.map_mut().add(socket, Echo)?;
        Ok(())
    }
}

struct Echo;

impl Dispatcher for Echo {
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, data| ch.push(data))
    }
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
}

/// What is said to the server at `to` comes back, through a client of the same map.
fn assert_serves(map: &mut ChannelMap, to: impl ToAddress) {
    let log = Log::new();
    let client = Recorder::new("client", &log).on("open", |ch| ch.push(b"ping"));
    let client = map.connect(to, client).unwrap();
    turn_until(map, &log, |_| log.input("client") == b"ping");
    assert_eq!(log.of("client")[..2], ["connect", "open"]);
    map.channel(client).unwrap().close();
    turn_until(map, &log, |map| !map.contains(client));
}

/// As text, as a path, by `std`'s own client; the file is there while the listener lives.
#[test]
fn a_server_on_a_path_serves_and_its_file_lives_as_long() {
    let dir = Dir::new();
    let path = dir.join("server.sock");
    let mut map = ChannelMap::new().unwrap();
    let server = map.listen(&path, EchoServer).unwrap();
    assert!(is_socket(&path));
    let address = map.channel(server).unwrap().local_addr().unwrap();
    assert_eq!(address, Address::Unix(path.as_path().into()));
    assert_eq!(address.to_string(), format!("unix:{}", path.display()));
    assert_serves(&mut map, &path);
    assert_serves(&mut map, address.to_string());
    map.close_all();
    run_out(&mut map, &Log::new());
    assert!(!path.exists(), "the file is removed with the listener");
}

/// The old file is gone by then, and the new one stays.
#[test]
fn a_path_may_be_listened_on_again_in_handle_close() {
    let dir = Dir::new();
    let path = dir.join("server.sock");
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let again = path.clone();
    let first =
        Recorder::new("first", &log).on("close", move |ch| ch.map_mut().listen(&again, EchoServer).map(drop));
    let first = map.listen(&path, first).unwrap();
    map.channel(first).unwrap().close();
    turn_until(&mut map, &log, |map| !map.contains(first));
    assert_eq!(map.len(), 1);
    assert_serves(&mut map, &path);
}

/// A file that a dead server left is replaced; a living server's, full backlog and all, and a file
/// that is no socket, are not touched.
#[test]
fn only_a_stale_file_is_replaced() {
    let dir = Dir::new();
    let path = dir.join("server.sock");
    let mut map = ChannelMap::new().unwrap();
    let refused = |map: &mut ChannelMap| {
        let error = map.listen(&path, EchoServer).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    };

    drop(UnixListener::bind(&path).unwrap());
    assert!(is_socket(&path), "as a killed server leaves it");
    let server = map.listen(&path, EchoServer).unwrap();
    assert_serves(&mut map, &path);
    refused(&mut map);
    assert_serves(&mut map, &path);
    map.channel(server).unwrap().close();
    run_out(&mut map, &Log::new());

    let full = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    full.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    full.listen(0).unwrap();
    let _waiting = UnixStream::connect(&path).unwrap();
    refused(&mut map);
    drop(full);
    fs::remove_file(&path).unwrap();

    fs::write(&path, "not a socket").unwrap();
    refused(&mut map);
    assert_eq!(fs::read(&path).unwrap(), b"not a socket");
}

/// Somebody else has put another file in the place: it is not ours to remove.
#[test]
fn the_file_of_another_server_stays() {
    let dir = Dir::new();
    let path = dir.join("server.sock");
    let mut map = ChannelMap::new().unwrap();
    let server = map.listen(&path, EchoServer).unwrap();
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    map.channel(server).unwrap().close();
    run_out(&mut map, &Log::new());
    assert!(is_socket(&path));
}

#[test]
fn the_file_has_the_permissions_that_were_asked_for() {
    let dir = Dir::new();
    let mut map = ChannelMap::new().unwrap();
    for mode in [0o600, 0o660, 0o777] {
        let path = dir.join(&format!("{mode:o}.sock"));
        let options = ListenOptions::default().with_mode(mode);
        map.listen_with(&path, &options, EchoServer).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_name_without_a_file_is_listened_on_and_connected_to() {
    let name = format!("unix:@dispatch-loop-test-{}", std::process::id());
    let mut map = ChannelMap::new().unwrap();
    let server = map.listen(&*name, EchoServer).unwrap();
    assert_eq!(map.channel(server).unwrap().local_addr().unwrap().to_string(), name);
    assert_eq!(map.listen(&*name, EchoServer).unwrap_err().kind(), ErrorKind::AddrInUse);
    assert_serves(&mut map, &*name);
}

#[cfg(target_os = "linux")]
#[test]
fn the_system_vouches_for_the_peers_process_and_user() {
    let (near, _far) = unix_pair();
    let mut map = ChannelMap::new().unwrap();
    let token = map.add(near, Echo).unwrap().token();
    let peer = view(&mut map, token).peer_credentials().unwrap();
    assert_eq!(peer.pid, std::process::id());
    // SAFETY: these calls have no conditions.
    #[allow(unsafe_code)]
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    assert_eq!((peer.uid, peer.gid), (uid, gid));
}

/// No hook runs for these, and each says what was wrong.
#[test]
fn unusable_paths_are_refused_and_say_what_is_wrong() {
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let long = format!("unix:/tmp/{}", "x".repeat(200));
    for (path, about) in [("unix:", "unusable address"), ("unix:@", "unix:@NAME"), (&*long, "107 bytes")] {
        for error in [
            map.listen(path, Recorder::new("a", &log)).unwrap_err(),
            map.connect(path, Recorder::new("a", &log)).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            assert!(error.to_string().contains(about), "{error}");
        }
    }
    assert!(map.is_empty() && log.events().is_empty());
    let error = map.listen("unix:/no/such/directory/x.sock", Recorder::new("a", &log)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("/no/such/directory/x.sock"), "{error}");
}

/// As EDGE_CASES 1: nobody is there, or nobody any more.
#[test]
fn a_connect_to_nobody_is_refused_or_not_found() {
    let dir = Dir::new();
    let stale = dir.join("stale.sock");
    drop(UnixListener::bind(&stale).unwrap());
    for (path, kind) in [(stale, ErrorKind::ConnectionRefused), (dir.join("none.sock"), ErrorKind::NotFound)]
    {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        map.connect(&path, Recorder::new("a", &log)).unwrap();
        assert!(log.events().is_empty());
        run_out(&mut map, &log);
        let error = io::Error::from(kind);
        assert_eq!(log.of("a").len(), 2, "{:?}", log.events());
        assert!(log.of("a")[0].starts_with("error: "), "{:?} for {error}", log.events());
        assert!(log.of("a")[1].starts_with("close: "), "{:?}", log.events());
    }
}

/// The backlog is full, which a Unix-domain listener says with would-block: tried again by timer until
/// there is room, with what was pushed kept; never polled.
#[cfg(debug_assertions)]
#[test]
fn a_full_backlog_is_waited_for() {
    let dir = Dir::new();
    let path = dir.join("full.sock");
    let listener = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    listener.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    listener.listen(0).unwrap();
    let waiting = UnixStream::connect(&path).unwrap();
    let log = Log::new();
    let mut map = ChannelMap::new().unwrap();
    let client = map.connect(&path, Recorder::new("client", &log)).unwrap();
    view(&mut map, client.token()).push(b"patience").unwrap();
    let (polled, tried) = (count(Call::Control), count(Call::Connect));
    for _ in 0..10 {
        map.turn(Some(Duration::from_millis(20))).unwrap();
    }
    assert!(view(&mut map, client.token()).is_connecting());
    assert_eq!(count(Call::Control), polled, "it is in no poller");
    let tries = count(Call::Connect) - tried;
    assert!((1..=10).contains(&tries), "{tries} tries");
    assert!(log.events().is_empty());
    let listener = UnixListener::from(listener);
    let first = listener.accept().unwrap().0;
    turn_until(&mut map, &log, |_| log.has("client open"));
    let mut second = listener.accept().unwrap().0;
    turn_idle(&mut map);
    let mut got = [0; 8];
    second.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"patience");
    drop((waiting, first));
}

/// The time limit of a connect holds for one that waits for room in a backlog, too.
#[test]
fn waiting_for_room_in_a_backlog_times_out() {
    let dir = Dir::new();
    let path = dir.join("full.sock");
    let listener = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    listener.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    listener.listen(0).unwrap();
    let _waiting = UnixStream::connect(&path).unwrap();
    for end in ["timeout", "close", "abort"] {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let client = map.connect(&path, Recorder::new("client", &log)).unwrap().token();
        match end {
            "timeout" => view(&mut map, client).set_timeout(Some(Duration::from_millis(20))),
            "close" => view(&mut map, client).close(),
            _ => view(&mut map, client).abort(),
        }
        run_out(&mut map, &log);
        assert!(log.closed("client") && !log.has("client connect"), "{:?}", log.events());
        assert!(map.wait_limit().is_none(), "no timer is left");
    }
}

/// EDGE_CASES 33: HUP that cannot be masked; the data comes first, also after a pause.
#[test]
fn a_peer_that_writes_and_closes_is_read_before_the_end() {
    for paused in [false, true] {
        let dir = Dir::new();
        let path = dir.join("server.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let client = Recorder::new("client", &log).on("open", move |ch| {
            if paused {
                ch.pause_reading();
            }
            Ok(())
        });
        let client = map.connect(&path, client).unwrap().token();
        turn_until(&mut map, &log, |_| log.has("client open"));
        listener.accept().unwrap().0.write_all(b"last words").unwrap();
        if paused {
            turn_idle(&mut map);
            assert_calm(&mut map);
            assert!(!log.has("client read"));
            view(&mut map, client).resume_reading();
        }
        run_out(&mut map, &log);
        assert_eq!(log.input("client"), b"last words");
        assert_eq!(log.of("client").last().unwrap(), "close: end of stream");
    }
}
