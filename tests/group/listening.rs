//! Who listens, and which loop gets a connection.

use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dispatch_loop::{
    AcceptLimits, Address, Channel, ChannelMap, Dispatcher, ListenOptions, LoopGroup, Numbers, Reason, Socket,
};

use crate::support::echo::Echo;
use crate::support::groups::{assert_echoes, echoing, joined, keep_busy, on, start, wait_for_loads};
use crate::support::limits::raise_descriptor_limit;
use crate::support::peers::{connect, limit_time, read_exactly, read_to_end, reset};
use crate::support::waiting::wait_until;

fn end(group: LoopGroup) {
    group.stop();
    joined(group).unwrap();
}

/// EDGE_CASES 450: with port 0, of a name, of all addresses, on a path; each loop has its share.
#[test]
fn a_group_listens_wherever_a_map_does() {
    let path = std::env::temp_dir().join(format!("dispatch-loop-group-{}", std::process::id()));
    let serve = |map: &mut ChannelMap, socket, _| map.add(socket, Echo).map(drop);
    let options = ListenOptions::default();
    let group = start(2);
    for address in ["127.0.0.1:0", "localhost:0", "*:0"] {
        for listening in group.listen(address, &options, serve).unwrap() {
            let port = listening.port().unwrap();
            assert_ne!(port, 0);
            let to = listening.ip().filter(|ip| !ip.ip().is_unspecified());
            let to = to.unwrap_or(SocketAddr::from(([127, 0, 0, 1], port)));
            let clients = [connect(&to), connect(&to)];
            clients.iter().for_each(assert_echoes);
            wait_for_loads(&group, &[1, 1]);
            drop(clients);
            wait_for_loads(&group, &[0, 0]);
        }
    }
    let listening = group.listen(&format!("unix:{}", path.display()), &options, serve).unwrap();
    assert_eq!(listening[0].to_string(), format!("unix:{}", path.display()));
    let mut clients = [(); 2].map(|()| UnixStream::connect(&path).unwrap());
    for client in &mut clients {
        limit_time(client);
        client.write_all(b"here").unwrap();
        assert_eq!(read_exactly(client, 4), b"here");
    }
    wait_for_loads(&group, &[1, 1]);
    end(group);
    assert!(!path.exists());
}

/// EDGE_CASES 451: a listener a loop, all on the same port.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
#[test]
fn with_reuse_port_each_loop_has_a_listener() {
    let (group, address) = echoing(3, &ListenOptions::default().with_reuse_port(true));
    for numbers in group.numbers() {
        assert_eq!(numbers.listening, 1);
    }
    let clients: Vec<TcpStream> = (0..60).map(|_| connect(&address)).collect();
    clients.iter().for_each(assert_echoes);
    let loads = group.loads();
    assert_eq!(loads.iter().sum::<usize>(), 60);
    assert!(loads.iter().all(|load| *load > 0), "{loads:?}");
    for (numbers, load) in group.numbers().iter().zip(loads) {
        assert_eq!((numbers.accepts, numbers.open), (load as u64, load));
    }
    end(group);
}

/// EDGE_CASES 543: of a service manager or a predecessor; its connections are spread, and limited, as those of others.
#[test]
fn a_group_listens_on_a_socket_that_was_opened_elsewhere() {
    struct Server;
    impl Dispatcher for Server {
        fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
            ch.map_mut().add(socket, Echo).map(drop)
        }
    }
    let group = start(3);
    let limits = AcceptLimits::default().with_total(6);
    let options = ListenOptions::default().with_limits(limits.clone());
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let adopted = group.adopt_each(Socket::from_fd(socket.into()).unwrap(), &options, |_, _| Ok(Server));
    assert_eq!(adopted.unwrap().ip(), Some(address));
    let mut clients: Vec<TcpStream> = (0..6).map(|_| connect(&address)).collect();
    clients.iter().for_each(assert_echoes);
    assert_eq!(group.loads(), [2, 2, 2]);
    let seventh = connect(&address);
    assert_eq!(limits.connections(), 6);
    drop(clients.pop());
    assert_echoes(&seventh);
    // What is no listener is refused, and nothing of it stays.
    let before = on(group.loops().remote(0), |map| map.len());
    let (near, _far) = UnixStream::pair().unwrap();
    let refused = group.adopt_each(Socket::from_fd(near.into()).unwrap(), &options, |_, _| Ok(Server));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
    wait_until("nothing is left", || on(group.loops().remote(0), |map| map.len()) == before);
    end(group);
}

/// EDGE_CASES 544: whichever loop gives a place back, who waits is let in; never are there more than may be.
#[test]
fn a_limit_holds_for_all_loops_together() {
    const MOST: usize = 4;
    let spreads = cfg!(any(target_os = "linux", target_os = "android", target_os = "freebsd"));
    for reuse_port in [false, spreads] {
        let limits = AcceptLimits::default().with_total(MOST);
        let options = ListenOptions::default().with_reuse_port(reuse_port).with_limits(limits.clone());
        let (group, address) = echoing(3, &options);
        // Of those that have had an answer and have not closed yet.
        let (served, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let client = connect(&address);
                        assert_echoes(&client);
                        most.fetch_max(served.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        assert_echoes(&client);
                        served.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!((2..=MOST).contains(&most.load(Ordering::SeqCst)), "{most:?}");
        wait_until("all places are free", || limits.connections() == 0);
        wait_for_loads(&group, &[0, 0, 0]);
        end(group);
    }
}

/// EDGE_CASES 451, 452: what cannot be is refused, and nothing listens then.
#[test]
fn a_listen_that_fails_leaves_nothing() {
    let group = start(3);
    let path = std::env::temp_dir().join(format!("dispatch-loop-none-{}", std::process::id()));
    let reuse = ListenOptions::default().with_reuse_port(true);
    let refused = |address: &str, options: &ListenOptions| {
        group.listen(address, options, |_, _, _| Ok(())).unwrap_err().kind()
    };
    let kind = refused(&format!("unix:{}", path.display()), &reuse);
    let spreads = cfg!(any(target_os = "linux", target_os = "android", target_os = "freebsd"));
    assert_eq!(kind, if spreads { ErrorKind::InvalidInput } else { ErrorKind::Unsupported });
    assert!(!path.exists());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    assert_eq!(refused(&taken, &ListenOptions::default()), ErrorKind::AddrInUse);
    assert_eq!(refused(&taken, &reuse), ErrorKind::AddrInUse);
    // One loop's part fails, the others' parts are taken back.
    struct Quiet(#[allow(dead_code)] Arc<()>);
    impl Dispatcher for Quiet {}
    let alive = Arc::new(());
    let making = alive.clone();
    let failed = group.listen_each("127.0.0.1:0", &ListenOptions::default(), move |index, _| match index {
        2 => Err(ErrorKind::Other.into()),
        _ => Ok(Quiet(making.clone())),
    });
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Other);
    wait_until("nothing is left", || Arc::strong_count(&alive) == 1);
    assert!(group.numbers().iter().all(|numbers| numbers.channels == 0));
    end(group);
}

/// EDGE_CASES 453: one after the other, and after half of them have left: 1,000 that stay are spread evenly.
#[test]
fn each_connection_goes_to_the_loop_that_has_the_fewest() {
    raise_descriptor_limit(2500);
    for loops in [2, 3] {
        let (group, address) = echoing(loops, &ListenOptions::default());
        let mut clients: Vec<TcpStream> = (0..1000).map(|_| connect(&address)).collect();
        wait_until("all are accepted", || group.loads().iter().sum::<usize>() == 1000);
        assert_even(&group.loads());
        // Of those that come first, which are on all loops, and then all of one loop.
        clients.drain(..500);
        wait_until("half of them have left", || group.loads().iter().sum::<usize>() == 500);
        clients.extend((0..500).map(|_| connect(&address)));
        wait_until("others come", || group.loads().iter().sum::<usize>() == 1000);
        assert_even(&group.loads());
        // Those of one loop leave: every one that comes goes there.
        on(group.loops().remote(1), |map| map.close_all());
        wait_until("loop 1 has none", || group.loads()[1] == 0);
        clients.extend((0..200).map(|_| connect(&address)));
        wait_until("loop 1 has some", || group.loads()[1] == 200);
        clients[1000..].iter().for_each(assert_echoes);
        end(group);
    }

    #[track_caller]
    fn assert_even(loads: &[usize]) {
        let mean = 1000 / loads.len();
        assert!(loads.iter().all(|load| load.abs_diff(mean) <= mean / 10), "{loads:?}");
    }
}

/// EDGE_CASES 454: whatever ends it, it no longer counts.
#[test]
fn a_connection_counts_until_it_ends_in_whatever_way() {
    let group = start(2);
    struct Ends(u8);
    impl Dispatcher for Ends {
        fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
            match self.0 {
                b'a' => ch.abort(),
                b'c' => ch.close(),
                b'd' => drop(ch.detach()?),
                b'e' => return Err(ErrorKind::Other.into()),
                b'p' => panic!("on purpose"),
                b'r' => drop(ch.replace_dispatcher(Ends(b'c'))?),
                _ => {}
            }
            Ok(())
        }
        fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
            ch.read_with(|_, _| Ok(()))?;
            ch.close();
            Ok(())
        }
    }
    for way in *b"acdeprxXDRSO" {
        let serve = move |map: &mut ChannelMap, socket: Socket, _| match way {
            b'D' => {
                drop(socket);
                Ok(())
            }
            b'R' => Err(ErrorKind::Other.into()),
            b'S' => panic!("on purpose"),
            b'O' => {
                drop(std::os::fd::OwnedFd::from(socket));
                Ok(())
            }
            _ => map.add(socket, Ends(way)).map(drop),
        };
        let address = group.listen("127.0.0.1:0", &ListenOptions::default(), serve).unwrap()[0].ip().unwrap();
        let mut clients: Vec<TcpStream> = (0..10).map(|_| connect(&address)).collect();
        wait_until("all are accepted", || {
            let accepts: u64 = group.numbers().iter().map(|numbers| numbers.accepts).sum();
            accepts % 10 == 0 && accepts > 0
        });
        match way {
            b'x' => drop(clients),
            b'X' => clients.into_iter().for_each(reset),
            _ => clients.iter_mut().for_each(|client| {
                let _ = client.write_all(b"go on");
            }),
        }
        wait_until(&format!("none is left after {:?}", char::from(way)), || group.loads() == [0, 0]);
    }
    end(group);
}

/// EDGE_CASES 454: in a map that is no loop of the group, it does not.
#[test]
fn a_connection_that_is_added_elsewhere_does_not_count() {
    let group = start(1);
    let (give, given) = std::sync::mpsc::channel();
    let serve = move |_: &mut ChannelMap, socket, _| {
        give.send(socket).unwrap();
        Ok(())
    };
    let address = group.listen("127.0.0.1:0", &ListenOptions::default(), serve).unwrap()[0].ip().unwrap();
    let _client = connect(&address);
    let socket: Socket = given.recv_timeout(crate::support::waiting::DEADLINE).unwrap();
    assert_eq!(group.loads(), [1], "on its way it counts");
    let mut map = ChannelMap::new().unwrap();
    map.add(socket, Echo).unwrap();
    assert_eq!(group.loads(), [0]);
    drop(map);
    assert_eq!(group.loads(), [0]);
    end(group);
}

/// EDGE_CASES 455: a loop whose queue is full is passed over; one that has room, or is slow, gets its share.
#[test]
fn a_full_queue_means_the_next_loop_and_nobody_is_lost() {
    raise_descriptor_limit(1500);
    let group = LoopGroup::start(3, |_, map| {
        map.set_remote_capacity(4);
        Ok(())
    })
    .unwrap();
    let serve = |map: &mut ChannelMap, socket, _| map.add(socket, Echo).map(drop);
    let address = group.listen("127.0.0.1:0", &ListenOptions::default(), serve).unwrap()[0].ip().unwrap();
    let busy = keep_busy(group.loops().remote(1));
    let clients: Vec<TcpStream> = (0..300).map(|_| connect(&address)).collect();
    wait_until("all are accepted", || group.loads().iter().sum::<usize>() == 300);
    let loads = group.loads();
    assert!(loads[1] <= 4, "{loads:?}");
    drop(busy);
    clients.iter().for_each(assert_echoes);
    // From now on those that were passed over have the fewest, and get all.
    let before = group.loads();
    let mut more = Vec::new();
    for _ in 0..50 {
        more.push(connect(&address));
        assert_echoes(&more[more.len() - 1]);
    }
    assert_eq!(group.loads()[0], before[0], "{before:?}");
    assert!(group.loads()[1] >= before[1] + 20, "{before:?}, {:?}", group.loads());
    end(group);
}

/// EDGE_CASES 456: none of those that connect while all loops are busy.
#[test]
fn a_storm_of_connects_while_loops_are_busy_loses_none() {
    raise_descriptor_limit(3000);
    for reuse_port in [false, true] {
        let (group, address) = echoing(3, &ListenOptions::default().with_reuse_port(reuse_port));
        let over = Arc::new(AtomicBool::new(false));
        let work: Vec<_> = (0..3)
            .map(|index| {
                let (remote, over) = (group.loops().remote(index).clone(), over.clone());
                std::thread::spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        on(&remote, |_| {
                            let begun = std::time::Instant::now();
                            while begun.elapsed() < std::time::Duration::from_millis(2) {}
                        });
                    }
                })
            })
            .collect();
        let storm: Vec<_> = (0..8)
            .map(|_| {
                std::thread::spawn(move || {
                    let clients: Vec<TcpStream> = (0..100).map(|_| connect(&address)).collect();
                    clients.iter().for_each(assert_echoes);
                    clients
                })
            })
            .collect();
        let clients: Vec<_> = storm.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        over.store(true, Ordering::Relaxed);
        work.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(group.loads().iter().sum::<usize>(), 800);
        drop(clients);
        wait_for_loads(&group, &[0; 3]);
        end(group);
    }
}

/// EDGE_CASES 457: made there, dropped there, told of its end there, and none of its channels.
#[test]
fn each_loop_may_have_a_dispatcher_of_its_own_for_a_listener() {
    use std::rc::Rc;
    struct Server {
        index: usize,
        _not_send: Rc<()>,
        ended: Arc<std::sync::atomic::AtomicUsize>,
    }
    impl Dispatcher for Server {
        fn handle_open(&mut self, _: &mut Channel<'_>) -> io::Result<()> {
            panic!("a listener is not opened");
        }
        fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, peer: Address) -> io::Result<()> {
            assert_eq!(socket.peer_addr()?, peer);
            let mut greeted = ch.map_mut().add(socket, Echo)?;
            greeted = ch.map_mut().channel(greeted)?.token().typed();
            ch.map_mut().channel(greeted)?.push(&[self.index as u8])
        }
        fn handle_close(&mut self, _: &mut Channel<'_>, _: &Reason) {
            self.ended.fetch_add(1, Ordering::SeqCst);
        }
    }
    let group = start(3);
    let ended = Arc::<std::sync::atomic::AtomicUsize>::default();
    let ending = ended.clone();
    let make =
        move |index, _: &mut ChannelMap| Ok(Server { index, _not_send: Rc::new(()), ended: ending.clone() });
    let address = group.listen_each("127.0.0.1:0", &ListenOptions::default(), make).unwrap();
    let address = address[0].ip().unwrap();
    let mut clients: Vec<TcpStream> = (0..6).map(|_| connect(&address)).collect();
    let mut greetings: Vec<u8> = clients.iter_mut().map(|client| read_exactly(client, 1)[0]).collect();
    greetings.sort_unstable();
    assert_eq!(greetings, [0, 0, 1, 1, 2, 2]);
    let mut sum = Numbers::clone(&group.numbers()[0]);
    assert_eq!((sum.channels, sum.listening), (3, 1));
    group.numbers()[1..].iter().for_each(|numbers| sum.add(numbers));
    assert_eq!((sum.channels, sum.listening, sum.open, sum.accepts), (7, 1, 6, 6));
    // It is none of the map's channels, so this does not end it.
    on(group.loops().remote(1), |map| map.close_all());
    clients.iter_mut().for_each(|client| drop(client.shutdown(std::net::Shutdown::Write)));
    wait_for_loads(&group, &[0, 0, 0]);
    clients = [(); 2].map(|()| connect(&address)).into();
    assert_eq!(clients.iter_mut().map(|client| read_exactly(client, 1)[0]).sum::<u8>(), 1);
    clients.push(connect(&address));
    assert_eq!(read_exactly(clients.last_mut().unwrap(), 1), [2]);
    group.drain(&Default::default());
    joined(group).unwrap();
    assert_eq!(ended.load(Ordering::SeqCst), 3);
    clients.iter_mut().for_each(|client| drop(read_to_end(client)));
}
