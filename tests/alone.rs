//! A server that runs out of descriptors. It is alone in its test binary, because the limit is the
//! process's; its clients are a second process, this same binary once more.

// What a group leaves of a helper file is used by others. `warn`: this one uses all of it, so here it
// shows what nobody needs.
#[allow(dead_code)]
#[path = "support"]
mod support {
    #[warn(dead_code)]
    pub mod limits;
    pub mod opened;
    pub mod peers;
    pub mod process;
    pub mod recorder;
    pub mod turning;
    pub mod waiting;
}

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use dispatch_loop::{Address, Channel, ChannelMap, Dispatcher, Handle, Socket};

use support::limits::{lower_descriptor_limit, raise_descriptor_limit};
use support::opened::address_of;
use support::process::open_descriptors;
use support::recorder::Log;
use support::turning::{turn_idle, turn_until, waits_in};
use support::waiting::DEADLINE;

const CLIENTS: usize = 300;
const MESSAGE: usize = 8;

struct Echo {
    /// Bytes echoed on all channels.
    echoed: Rc<Cell<usize>>,
}

impl Dispatcher for Echo {
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|ch, data| {
            self.echoed.set(self.echoed.get() + data.len());
            ch.push(data)
        })
    }
}

struct Server {
    echoed: Rc<Cell<usize>>,
}

impl Dispatcher for Server {
    fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
        ch.map_mut().add(socket, Echo { echoed: self.echoed.clone() }).map(|_| ())
    }
}

const ROLE: &str = "DISPATCH_LOOP_TEST_CLIENTS_OF";

/// EDGE_CASES 12.
#[test]
fn a_server_short_of_descriptors_serves_whom_it_can_and_later_the_others() {
    match std::env::var(ROLE) {
        Ok(address) => clients(address.parse().unwrap()),
        Err(_) => server(),
    }
}

fn server() {
    lower_descriptor_limit(64);
    let log = Log::new();
    let descriptors = open_descriptors();
    let mut map = ChannelMap::new().unwrap();
    let echoed = Rc::new(Cell::new(0));
    let listener: Handle<Server> = map.listen("127.0.0.1:0", Server { echoed: echoed.clone() }).unwrap();
    let address = address_of(&mut map, listener);
    let mut clients = Command::new(std::env::current_exe().unwrap())
        .args([
            "a_server_short_of_descriptors_serves_whom_it_can_and_later_the_others",
            "--exact",
            "--nocapture",
        ])
        .env(ROLE, address.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut orders = clients.stdin.take().unwrap();

    // As many as there are descriptors for are served; the others wait in the backlog.
    turn_until(&mut map, &log, |map| {
        File::open("/dev/null").is_err() && echoed.get() == (map.len() - 1) * MESSAGE
    });
    let served = map.len() - 1;
    assert!((30..64).contains(&served), "{served} clients are served");

    // Nothing is to be done now but to try again from time to time.
    turn_idle(&mut map);
    let waits = waits_in(&mut map, Duration::from_millis(600));
    assert!(waits <= 20, "{waits} waits in 600 ms");

    // Those who have a connection are served meanwhile.
    orders.write_all(b"once more\n").unwrap();
    turn_until(&mut map, &log, |_| echoed.get() >= 2 * served * MESSAGE);
    assert_eq!(map.len() - 1, served);

    // When they leave, the others have their turn.
    orders.write_all(b"leave\n").unwrap();
    let mut status = None;
    turn_until(&mut map, &log, |_| {
        status = clients.try_wait().unwrap();
        status.is_some()
    });
    assert!(status.unwrap().success(), "see what the clients wrote above");
    turn_until(&mut map, &log, |map| map.len() == 1);
    assert_eq!(echoed.get(), 2 * CLIENTS * MESSAGE);
    drop(map);
    drop(orders);
    assert_eq!(open_descriptors(), descriptors, "descriptors");
}

/// The second process: every client sends a message and has it back, does so once more when it is
/// told to, and leaves when it is told to.
fn clients(server: SocketAddr) {
    let descriptors = raise_descriptor_limit(CLIENTS as u64 + 100);
    assert!(descriptors > CLIENTS as u64 + 50);
    let orders = Arc::new((Mutex::new(0), Condvar::new()));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|at| {
            let orders = orders.clone();
            thread::Builder::new().stack_size(128 * 1024).spawn(move || client(server, at, &orders)).unwrap()
        })
        .collect();
    for line in io::stdin().lock().lines().take(2) {
        line.unwrap();
        *orders.0.lock().unwrap() += 1;
        orders.1.notify_all();
    }
    let ends = clients.into_iter().map(|client| client.join().unwrap());
    let errors: Vec<io::Error> = ends.filter_map(Result::err).collect();
    assert!(errors.is_empty(), "{} clients have failed, the first with: {}", errors.len(), errors[0]);
}

fn client(server: SocketAddr, at: usize, orders: &(Mutex<u32>, Condvar)) -> io::Result<()> {
    let wait_for = |order| {
        let given = orders.0.lock().unwrap();
        drop(orders.1.wait_timeout_while(given, DEADLINE, |given| *given < order).unwrap());
    };
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    for order in [1, 2] {
        let message = [at, order as usize].map(|n| (n as u32).to_ne_bytes()).concat();
        assert_eq!(message.len(), MESSAGE);
        stream.write_all(&message)?;
        let mut echo = [0; MESSAGE];
        stream.read_exact(&mut echo)?;
        assert_eq!(echo[..], message);
        wait_for(order);
    }
    Ok(())
}
