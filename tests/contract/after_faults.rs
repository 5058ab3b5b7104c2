//! What `tests/once.rs` has found, and the shortages that pass, pinned for every kind of channel.

use std::fs::File;
use std::io::{Read, Write};
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};

use dispatch_loop::faults::{Call, Fault, clear, inject};
use dispatch_loop::{Address, ChannelMap, ConnectOptions, DatagramOptions, ListenOptions, Token};

use crate::support::dirs::Dir;
use crate::support::opened::view;
use crate::support::peers::{limit_time, loopbacks, pair, pattern, pipe, unix_pair};
use crate::support::process::{alone, open_descriptors};
use crate::support::recorder::{Log, Recorder, text};
use crate::support::turning::{turn_idle, turn_until};

/// EDGE_CASES 331: it stayed, and the next start found the address in use.
#[test]
fn a_socket_whose_file_cannot_be_looked_at_leaves_no_file() {
    let dir = Dir::new();
    let (path, there) = (dir.join("socket"), dir.join("there"));
    let _listener = UnixListener::bind(&there).unwrap();
    let here = Address::Unix(path.clone().into());
    for at in 0..3 {
        for kind in ["listen", "bind", "connect"] {
            let log = Log::new();
            let mut map = ChannelMap::new().unwrap();
            inject(Call::File, at, 1, Fault::Errno(libc::EACCES));
            let recorder = Recorder::new("a", &log);
            let made = match kind {
                "listen" => {
                    let options = ListenOptions::default().with_mode(0o600);
                    map.listen_with(path.clone(), &options, recorder).map(drop)
                }
                "bind" => {
                    let options = DatagramOptions::default().with_mode(0o600);
                    map.bind_with(path.clone(), &options, recorder).map(drop)
                }
                _ => {
                    let options = ConnectOptions::default().with_local(here.clone());
                    map.connect_with(there.clone(), &options, recorder).map(drop)
                }
            };
            clear();
            // A connecting socket has no mode to be set.
            assert_eq!(made.is_ok(), kind == "connect" && at == 2, "{kind} {at}: {made:?}");
            assert_eq!(path.exists(), made.is_ok(), "{kind} {at}");
            drop(map);
            assert!(!path.exists(), "{kind} {at}");
        }
    }
}

/// EDGE_CASES 332: the datagram was lost, and nobody was told.
#[test]
fn a_datagram_that_cannot_be_sent_is_told_also_while_the_channel_closes() {
    let log = Log::new();
    let (near, _far) = UnixDatagram::pair().unwrap();
    let mut map = ChannelMap::new().unwrap();
    let token = map.add(near, Telling(log.clone())).unwrap().token();
    turn_idle(&mut map);
    inject(Call::Send, 0, 1, Fault::Errno(libc::EMSGSIZE));
    view(&mut map, token).push(b"too long").unwrap();
    view(&mut map, token).close();
    turn_until(&mut map, &log, |map| map.is_empty());
    clear();
    assert_eq!(log.events(), [format!("told: {}", text(libc::EMSGSIZE)), "close".to_owned()]);
}

struct Telling(Log);

impl dispatch_loop::Dispatcher for Telling {
    fn handle_network_error(
        &mut self,
        _: &mut dispatch_loop::Channel<'_>,
        error: &std::io::Error,
    ) -> std::io::Result<()> {
        self.0.add(format!("told: {error}"));
        Ok(())
    }

    fn handle_close(&mut self, _: &mut dispatch_loop::Channel<'_>, _: &dispatch_loop::Reason) {
        self.0.add("close");
    }
}

/// EDGE_CASES 333: the handler stayed, and with it a descriptor.
#[test]
fn a_signal_watch_that_cannot_be_set_up_leaves_no_descriptor() {
    alone(None, || {
        let mut map = ChannelMap::new().unwrap();
        // What the first watch of a process opens stays.
        drop(map.on_signal(libc::SIGUSR1, |_| ()).map(|token| map.channel(token).unwrap().close()));
        turn_idle(&mut map);
        let descriptors = open_descriptors();
        for (call, errno) in [(Call::Pair, libc::EMFILE), (Call::Option, libc::EINVAL)] {
            inject(call, 0, 1, Fault::Errno(errno));
            let error = map.on_signal(libc::SIGUSR1, |_| ()).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(errno));
            assert_eq!(open_descriptors(), descriptors, "{call:?}");
        }
    });
}

/// A channel of each kind that sends, and the blocking end that gets what it sends.
fn each_kind(map: &mut ChannelMap, log: &Log) -> Vec<(&'static str, Token, OwnedFd)> {
    let recorder = || Recorder::new("a", log);
    let mut kinds = Vec::new();
    let (near, far) = pair(loopbacks()[0]);
    kinds.push(("TCP", map.add(near, recorder()).unwrap().token(), far.into()));
    let (near, far) = unix_pair();
    kinds.push(("Unix", map.add(near, recorder()).unwrap().token(), far.into()));
    let far = UdpSocket::bind("127.0.0.1:0").unwrap();
    let options = DatagramOptions::default().with_peer(far.local_addr().unwrap());
    limit_time(&far);
    let udp = map.bind_with("127.0.0.1:0", &options, recorder()).unwrap().token();
    kinds.push(("UDP", udp, far.into()));
    let (near, far) = UnixDatagram::pair().unwrap();
    limit_time(&far);
    kinds.push(("Unix datagrams", map.add(near, recorder()).unwrap().token(), far.into()));
    let (reader, writer) = pipe();
    kinds.push(("a pipe", map.add_file(writer, recorder()).unwrap().token(), reader.into()));
    kinds
}

/// EDGE_CASES 334. Of a send or a write, on every kind of channel: it is made again, nothing is lost.
#[test]
fn a_shortage_while_sending_passes_on_every_kind_of_channel() {
    for errno in [libc::ENOBUFS, libc::ENOMEM] {
        let log = Log::new();
        let mut map = ChannelMap::new().unwrap();
        let kinds = each_kind(&mut map, &log);
        turn_until(&mut map, &log, |_| log.count("a open") == kinds.len());
        for (kind, token, far) in &kinds {
            inject(Call::Send, 0, 2, Fault::Errno(errno));
            view(&mut map, *token).push(&pattern(1000)).unwrap();
            turn_until(&mut map, &log, |map| view(map, *token).queued() == 0);
            clear();
            let mut got = [0; 1001];
            let read = File::from(far.try_clone().unwrap()).read(&mut got).unwrap();
            assert!(got[..read] == pattern(1000), "{kind}: {read} bytes after {}", text(errno));
            assert!(map.contains(*token), "{kind}: {}", text(errno));
        }
        assert_eq!(log.count("a close") + log.count("a error"), 0);
    }
}

/// EDGE_CASES 334. Of the poller, when the channel is added, and when it changes what it waits for.
#[test]
fn a_shortage_of_the_poller_passes_on_every_kind_of_channel() {
    for errno in [libc::ENOMEM, libc::ENOSPC] {
        for later in [false, true] {
            let log = Log::new();
            let mut map = ChannelMap::new().unwrap();
            let kinds = each_kind(&mut map, &log);
            if later {
                turn_until(&mut map, &log, |_| log.count("a open") == kinds.len());
                // A pipe that is only written is watched for nothing, and so are all that are paused.
                for (_, token, _) in &kinds {
                    view(&mut map, *token).pause_reading();
                }
            }
            inject(Call::Control, 0, kinds.len() as u64, Fault::Errno(errno));
            turn_idle(&mut map);
            for (kind, token, far) in &kinds {
                let (token, mut far) = (*token, File::from(far.try_clone().unwrap()));
                view(&mut map, token).resume_reading();
                view(&mut map, token).push(b"out").unwrap();
                turn_until(&mut map, &log, |map| view(map, token).queued() == 0);
                let mut got = [0; 4];
                assert_eq!(far.read(&mut got).unwrap(), 3, "{kind}");
                if !matches!(*kind, "UDP" | "a pipe") {
                    let before = log.count("a read") + log.count("a datagram");
                    far.write_all(b"in").unwrap();
                    turn_until(&mut map, &log, |_| log.count("a read") + log.count("a datagram") > before);
                }
                assert!(map.contains(token), "{kind}: {}", text(errno));
            }
            clear();
            assert_eq!(log.count("a close") + log.count("a error"), 0);
        }
    }
}
