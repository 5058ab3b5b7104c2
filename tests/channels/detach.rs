//! Sockets on their way into a map and out of it: adopting descriptors, detaching channels with what is
//! unread and unsent.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};

use dispatch_loop::{ChannelMap, More, Reason, Socket};

use crate::support::dirs::Dir;
use crate::support::opened::{fill, finish, opened, view};
use crate::support::peers::{black_hole, loopbacks, reads_to_end, unix_pair};
use crate::support::recorder::{Log, Recorder};
use crate::support::turning::{run_out, turn_until};

/// All that was promised goes along: what was put back, what is still in the system, what is queued.
#[test]
fn a_channel_moves_to_another_map_with_all_that_was_promised() {
    for on in loopbacks() {
        let log = Log::new();
        let first = Recorder::new("first", &log).on("read", |ch| {
            ch.read_with(|ch, data| {
                ch.unread(&data[3..]);
                ch.pause_reading();
                Ok(())
            })
        });
        let (mut one, token, mut far) = opened(on, first);
        let pushed = fill(&mut one, &log, token);
        far.write_all(b"123456").unwrap();
        turn_until(&mut one, &log, |_| log.has("first read"));
        far.write_all(b"789").unwrap();
        let queued = view(&mut one, token).queued();
        let detached = view(&mut one, token).detach().unwrap();
        assert_eq!((detached.unread.as_slice(), detached.unsent.len()), (&b"456"[..], queued));
        let (local, peer) = (detached.socket.local_addr().unwrap(), detached.socket.peer_addr().unwrap());
        assert_eq!(peer.ip(), Some(far.local_addr().unwrap()));
        assert_eq!(local.ip(), Some(far.peer_addr().unwrap()));
        run_out(&mut one, &log);
        assert_eq!(log.of("first").last().unwrap(), &format!("close: {}", Reason::Detached));

        let mut other = ChannelMap::new().unwrap();
        let second = other.add(detached.socket, Recorder::new("second", &log)).unwrap().token();
        let mut ch = view(&mut other, second);
        ch.unread(&detached.unread);
        ch.push_vec(detached.unsent).unwrap();
        ch.push(b"the end").unwrap();
        turn_until(&mut other, &log, |_| log.input("second") == b"456789");
        let all = finish(&mut other, &log, second, far);
        assert!(all.ends_with(b"the end"));
        assert_eq!(all.len(), pushed + 7);
    }
}

/// The peer of a detached channel notices nothing, and the map it left no more of it.
#[test]
fn a_detached_socket_is_used_by_hand() {
    for on in loopbacks() {
        let log = Log::new();
        let (mut map, token, mut far) = opened(on, Recorder::new("a", &log));
        let detached = view(&mut map, token).detach().unwrap();
        assert!(view(&mut map, token).detach().is_err());
        assert_eq!(view(&mut map, token).push(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        let mut near = TcpStream::from(OwnedFd::from(detached.socket));
        near.set_nonblocking(false).unwrap();
        far.write_all(b"to nobody's channel").unwrap();
        run_out(&mut map, &log);
        assert_eq!(log.of("a"), ["open", &format!("close: {}", Reason::Detached)]);
        let mut got = [0; 19];
        near.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"to nobody's channel");
        near.write_all(b"and back").unwrap();
        drop(near);
        assert_eq!(reads_to_end(far).join().unwrap(), b"and back");
    }
}

/// From inside a hook, with the rest of its chunk put back.
#[test]
fn detaching_inside_a_hook_takes_what_was_put_back_along() {
    let log = Log::new();
    let (near, mut far) = unix_pair();
    let mut map = ChannelMap::new().unwrap();
    let taken = std::rc::Rc::new(std::cell::RefCell::new(None));
    let slot = taken.clone();
    let dispatcher = Recorder::new("a", &log).on("read", move |ch| {
        ch.read_with(|ch, data| {
            ch.unread(&data[1..]);
            *slot.borrow_mut() = Some(ch.detach()?);
            assert_eq!(ch.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
            Ok(())
        })
    });
    map.add(near, dispatcher).unwrap();
    far.write_all(b"abc").unwrap();
    run_out(&mut map, &log);
    assert_eq!(log.of("a"), ["open", "read", &format!("close: {}", Reason::Detached)]);
    let detached = taken.take().unwrap();
    assert_eq!(detached.unread, b"bc");
}

/// What cannot go along is refused, and the channel is as it was.
#[test]
fn what_cannot_be_detached_is_refused_and_stays_as_it_was() {
    for on in loopbacks() {
        let log = Log::new();
        let (mut map, token, far) = opened(on, Recorder::new("a", &log));
        view(&mut map, token).push_producer(|_: &mut Vec<u8>| Ok(More::Later)).unwrap();
        assert_eq!(view(&mut map, token).detach().unwrap_err().kind(), ErrorKind::Unsupported);
        view(&mut map, token).discard_queued();
        view(&mut map, token).push(b"still here").unwrap();
        assert_eq!(finish(&mut map, &log, token, far), b"still here");
        let (_full, _clients, black_hole) = black_hole(on);
        let connecting = map.connect(black_hole, Recorder::new("b", &log)).unwrap().token();
        assert_eq!(view(&mut map, connecting).detach().unwrap_err().kind(), ErrorKind::NotConnected);
        view(&mut map, connecting).abort();
        run_out(&mut map, &log);
    }
}

/// A listener: to another map, with its backlog and, where it has one, its file.
#[test]
fn a_listener_moves_to_another_map_with_its_backlog_and_file() {
    let dir = Dir::new();
    let path = dir.join("moving.sock");
    let log = Log::new();
    let mut one = ChannelMap::new().unwrap();
    let listener = one.listen(&path, Recorder::new("one", &log)).unwrap().token();
    let _client = UnixStream::connect(&path).unwrap();
    let detached = view(&mut one, listener).detach().unwrap();
    run_out(&mut one, &log);
    assert!(path.exists() && !log.has("one accept"));
    let mut other = ChannelMap::new().unwrap();
    let listener = other.add(detached.socket, Recorder::new("other", &log)).unwrap().token();
    turn_until(&mut other, &log, |_| log.has("other accept"));
    view(&mut other, listener).close();
    run_out(&mut other, &log);
    assert!(!path.exists());
}

/// Any descriptor, and what it turns out to be.
#[test]
fn an_adopted_descriptor_becomes_what_it_is() -> io::Result<()> {
    for on in loopbacks() {
        let log = Log::new();
        let mut map = ChannelMap::new()?;
        let listener = TcpListener::bind(on)?;
        let to = listener.local_addr()?;
        let handle = map.add(Socket::from_fd(listener.into())?, Recorder::new("listener", &log))?;
        assert!(map.channel(handle)?.is_listening());
        let stream = TcpStream::connect(to)?;
        let handle = map.add(Socket::from_fd(stream.into())?, Recorder::new("stream", &log))?;
        turn_until(&mut map, &log, |_| log.has("listener accept") && log.has("stream open"));
        assert_eq!(map.channel(handle)?.peer_addr()?.ip(), Some(to));
        let socket = UdpSocket::bind(on)?;
        let to = socket.local_addr()?;
        map.add(Socket::from_fd(socket.into())?, Recorder::new("datagrams", &log))?;
        UdpSocket::bind(on)?.send_to(b"x", to)?;
        turn_until(&mut map, &log, |_| log.has("datagrams datagram"));
    }
    let file = Socket::from_fd(std::fs::File::open("/dev/null")?.into()).unwrap_err();
    assert_eq!(file.kind(), ErrorKind::InvalidInput);
    assert!(file.to_string().contains("add_file"), "{file}");
    let dir = Dir::new();
    let log = Log::new();
    let mut map = ChannelMap::new()?;
    let handle = map.add(UnixListener::bind(dir.join("x"))?, Recorder::new("unix", &log))?;
    let _client = UnixStream::connect(dir.join("x"))?;
    turn_until(&mut map, &log, |_| log.has("unix accept"));
    map.channel(handle)?.close();
    run_out(&mut map, &log);
    assert!(dir.join("x").exists(), "not ours: it was somebody else who made it");
    Ok(())
}
