//! How a group ends: stopped, dropped, drained, or because one of its loops has ended.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

#[cfg(debug_assertions)]
use dispatch_loop::faults::{Call, Fault, inject};
use dispatch_loop::{Channel, ChannelMap, Dispatcher, DrainOptions, ListenOptions};

use crate::support::groups::{assert_echoes, echoing, joined, keep_busy, start, wait_for_loads};
use crate::support::peers::{connect, pattern, read_all, read_to_end};
use crate::support::process::{alone, open_descriptors};
use crate::support::threads;
use crate::support::waiting::wait_until;

/// EDGE_CASES 443: no thread, no descriptor, no count is left.
#[test]
fn a_group_that_is_dropped_ends() {
    alone(None, || {
        let before = open_descriptors();
        for _ in 0..5 {
            let (group, address) = echoing(3, &ListenOptions::default());
            let loops = group.loops();
            let clients: Vec<TcpStream> = (0..7).map(|_| connect(&address)).collect();
            clients.iter().for_each(assert_echoes);
            drop(group);
            assert_eq!(loops.loads(), [0; 3]);
            assert!((0..3).all(|index| loops.remote(index).is_stopped()));
            drop(clients);
            assert_eq!(open_descriptors(), before);
            assert!(loops.broadcast(|_, _| ()).is_err());
        }
    });
}

/// EDGE_CASES 444: the error names the loop; the others finish what they have begun.
#[cfg(debug_assertions)]
#[test]
fn a_loop_whose_poller_fails_ends_the_group_in_order_and_is_named() {
    for fails in 0..3 {
        let (group, address) = echoing(3, &ListenOptions::default());
        let clients: Vec<TcpStream> = (0..3).map(|_| connect(&address)).collect();
        clients.iter().for_each(assert_echoes);
        let fail = |_: &mut ChannelMap| inject(Call::Wait, 0, 1, Fault::Errno(libc::EBADF));
        group.loops().remote(fails).call(fail).map_err(|error| error.to_string()).unwrap();
        let error = joined(group).unwrap_err().to_string();
        assert!(error.starts_with(&format!("loop {fails}: ")), "{error}");
        let ends: Vec<bool> = clients.into_iter().map(|mut client| read_all(&mut client).1.is_ok()).collect();
        assert!(ends.iter().filter(|end| **end).count() >= 2, "{ends:?}");
    }
}

/// EDGE_CASES 445: by `stop`, or by a drain of its own: the others finish what they have begun.
#[test]
fn a_loop_that_a_hook_ends_ends_the_group() {
    for drains in [false, true] {
        for ends in 0..2 {
            let (group, address) = echoing(2, &ListenOptions::default());
            let mut clients = [connect(&address), connect(&address)];
            clients.iter().for_each(assert_echoes);
            let end = move |map: &mut ChannelMap| match drains {
                true => map.drain(&DrainOptions::default()),
                false => map.stop(),
            };
            group.loops().remote(ends).call(end).map_err(|error| error.to_string()).unwrap();
            joined(group).unwrap();
            clients.iter_mut().for_each(|client| drop(read_all(client)));
        }
    }
}

/// EDGE_CASES 446: what panics in a hook or in a call is that channel's or that call's matter.
#[test]
fn a_panic_in_a_hook_does_not_end_the_group() {
    struct Panics;
    impl Dispatcher for Panics {
        fn handle_read(&mut self, _: &mut Channel<'_>) -> std::io::Result<()> {
            panic!("on purpose");
        }
    }
    let group = start(2);
    let accepted = AtomicUsize::new(0);
    let serve = move |map: &mut ChannelMap, socket, _| match accepted.fetch_add(1, Ordering::Relaxed) {
        0..2 => panic!("on purpose"),
        2..4 => map.add(socket, Panics).map(drop),
        _ => map.add(socket, crate::support::echo::Echo).map(drop),
    };
    let address = group.listen("127.0.0.1:0", &ListenOptions::default(), serve).unwrap()[0].ip().unwrap();
    for round in 0..4 {
        let mut client = connect(&address);
        let _ = client.write_all(b"x");
        let _ = read_all(&mut client);
        group.broadcast(|_, _| panic!("on purpose")).unwrap();
        wait_until(&format!("the end of {round}"), || group.loads() == [0, 0]);
    }
    let clients: Vec<TcpStream> = (0..4).map(|_| connect(&address)).collect();
    clients.iter().for_each(assert_echoes);
    wait_for_loads(&group, &[2, 2]);
    group.stop();
    joined(group).unwrap();
}

/// EDGE_CASES 447: whoever waits in the backlog, or on the way to a loop that is busy, is served.
#[test]
fn a_drain_loses_nobody_who_waits() {
    for reuse_port in [false, true] {
        let (group, address) = echoing(3, &ListenOptions::default().with_reuse_port(reuse_port));
        let busy: Vec<_> = (0..3).map(|index| keep_busy(group.loops().remote(index))).collect();
        let clients: Vec<TcpStream> = (0..200)
            .map(|n: u32| {
                let mut client = connect(&address);
                client.write_all(&n.to_ne_bytes()).unwrap();
                client
            })
            .collect();
        group.drain(&DrainOptions::default());
        drop(busy);
        for (n, mut client) in clients.into_iter().enumerate() {
            assert_eq!(read_to_end(&mut client), (n as u32).to_ne_bytes(), "of {n}");
        }
        joined(group).unwrap();
    }
}

/// EDGE_CASES 447: more than a turn carries out, to a loop that has nothing else to do.
#[test]
fn a_drain_does_not_end_before_what_was_accepted_has_run() {
    let (group, ran) = (start(2), Arc::<AtomicUsize>::default());
    let busy = keep_busy(group.loops().remote(1));
    group.drain(&DrainOptions::default());
    for _ in 0..700 {
        let ran = ran.clone();
        let run = move |_: &mut ChannelMap| {
            ran.fetch_add(1, Ordering::SeqCst);
        };
        group.loops().remote(1).call(run).map_err(|error| error.to_string()).unwrap();
    }
    drop(busy);
    joined(group).unwrap();
    assert_eq!(ran.load(Ordering::SeqCst), 700);
}

/// The length of a request and of its answer.
const REQUEST: usize = 50_000;

/// Gives back each request, and says while one is under way.
#[derive(Default)]
struct Answers {
    got: usize,
}

impl Dispatcher for Answers {
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> std::io::Result<()> {
        ch.read_with(|ch, data| {
            self.got += data.len();
            let is_whole = self.got % REQUEST == 0;
            ch.set_busy(!is_whole);
            ch.push(data)?;
            if is_whole && ch.map().is_draining() {
                ch.close(); // or who keeps asking would be served up to the deadline
            }
            Ok(())
        })
    }
}

/// EDGE_CASES 447: nor any that has not come yet, unless none of it was answered. (Who connects at the very
/// moment when the listener closes is reset by the system.)
#[test]
fn a_drain_under_load_cuts_off_no_request_that_was_begun() {
    for reuse_port in [false, true] {
        let group = start(2);
        let options = ListenOptions::default().with_reuse_port(reuse_port);
        let serve = |map: &mut ChannelMap, socket, _| map.add(socket, Answers::default()).map(drop);
        let address = group.listen("127.0.0.1:0", &options, serve).unwrap()[0].ip().unwrap();
        let request = Arc::new(pattern(REQUEST));
        let ask = move |mut client: TcpStream| {
            for rounds in 0.. {
                let sent = client.write_all(&request);
                let (mut back, mut got) = (vec![0; REQUEST], 0);
                while got < REQUEST {
                    match client.read(&mut back[got..]) {
                        Ok(n @ 1..) => got += n,
                        _ => break,
                    }
                }
                if got == 0 {
                    return rounds; // it was closed before this one came
                }
                assert!(back == *request && sent.is_ok(), "cut off at {got} in round {rounds}");
            }
            0
        };
        let clients: Vec<_> = (0..30)
            .map(|_| {
                let (ask, client) = (ask.clone(), connect(&address));
                std::thread::spawn(move || ask(client))
            })
            .collect();
        wait_until("traffic", || {
            let bytes: u64 = group.numbers().iter().map(|numbers| numbers.bytes_in).sum();
            bytes > 100 * REQUEST as u64
        });
        group.drain(&DrainOptions::default());
        joined(group).unwrap();
        let rounds: usize = clients.into_iter().map(threads::joined).sum();
        assert!(rounds >= 100, "{rounds} rounds");
    }
}

/// EDGE_CASES 448: a loop that is busy when a drain begins has no more time for it than the others.
#[test]
fn all_loops_have_one_deadline() {
    struct Works;
    impl Dispatcher for Works {
        fn handle_open(&mut self, ch: &mut Channel<'_>) -> std::io::Result<()> {
            ch.set_busy(true);
            Ok(())
        }
    }
    let group = start(2);
    let address =
        group.listen("127.0.0.1:0", &ListenOptions::default(), |map: &mut ChannelMap, socket, _| {
            map.add(socket, Works).map(drop)
        });
    let address = address.unwrap()[0].ip().unwrap();
    let mut clients = [connect(&address), connect(&address)];
    wait_for_loads(&group, &[1, 1]);
    let busy = keep_busy(group.loops().remote(1));
    let begun = Instant::now();
    let deadline = Duration::from_millis(600);
    group.drain(&DrainOptions::default().with_deadline(deadline));
    // Busy until the deadline is past for the one, and much later for the other.
    assert_eq!(clients[0].read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    let first = begun.elapsed();
    drop(busy);
    assert_eq!(clients[1].read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(first >= deadline && begun.elapsed() < first + deadline, "{first:?}, {:?}", begun.elapsed());
    joined(group).unwrap();
}

/// EDGE_CASES 449: the first drains all, the second ends all.
#[cfg(feature = "signals")]
#[test]
fn a_signal_drains_the_group_and_a_second_one_ends_that() {
    use signal_hook::consts::{SIGINT, SIGTERM};
    use signal_hook::low_level::raise;

    use crate::support::waiting::DEADLINE;

    alone(None, || {
        for (busy, signals) in [(false, 1), (true, 1), (true, 2)] {
            let (group, address) = echoing(3, &ListenOptions::default());
            let loops = group.loops();
            group.drain_on_signals(&DrainOptions::default().with_deadline(DEADLINE)).unwrap();
            // One is on loop 0; the others have nothing to do, and end at once.
            let mut client = connect(&address);
            assert_echoes(&client);
            if busy {
                on_loop_0(&group, |ch| ch.set_busy(true));
            }
            // It comes to the signal last, and to what the others have told it before.
            let held = keep_busy(loops.remote(0));
            raise(SIGTERM).unwrap();
            wait_until("the others end", || loops.remote(1).is_stopped() && loops.remote(2).is_stopped());
            drop(held);
            if signals == 2 {
                wait_until("it drains", || {
                    crate::support::groups::on(loops.remote(0), |map| map.is_draining())
                });
            }
            if signals == 2 {
                raise(SIGINT).unwrap();
                assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
                joined(group).unwrap();
                assert_eq!(loops.signal(), Some(SIGINT));
                continue;
            }
            if busy {
                assert!(!loops.remote(0).is_stopped());
                assert_echoes(&client);
                on_loop_0(&group, |ch| ch.set_busy(false));
            }
            assert_eq!(read_to_end(&mut client), b"");
            joined(group).unwrap();
            assert_eq!(loops.signal(), None);
        }
    });

    fn on_loop_0(group: &dispatch_loop::LoopGroup, f: fn(&mut Channel<'_>)) {
        crate::support::groups::on(group.loops().remote(0), move |map| {
            let tokens: Vec<_> = map.tokens().collect();
            for token in tokens {
                let mut ch = map.channel(token).unwrap();
                if !ch.is_listening() {
                    f(&mut ch);
                }
            }
        });
    }
}
