//! An echo server of this library against one written by hand on epoll, turn about in one run:
//! throughput and CPU time of the server's thread. (System calls are counted by `tests/cost.rs`.)
//!
//! `cargo bench` takes under a minute; `cargo bench -- --quick` some seconds; a word among the
//! arguments picks the lines that contain it (`cargo bench -- 16KiB`). `cargo test --benches`, or
//! `--test`, only looks whether it all works.
//!
//! What to look at is the ratio: both servers have the same load, and the machine's noise.

fn main() {
    #[cfg(target_os = "linux")]
    linux::main();
    #[cfg(not(target_os = "linux"))]
    println!("the other side of this comparison is written for epoll: only on Linux");
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::mem::MaybeUninit;
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::os::fd::{AsFd, AsRawFd, OwnedFd};
    use std::os::unix::net::UnixStream;
    use std::os::unix::thread::JoinHandleExt;
    use std::thread::JoinHandle;
    use std::time::{Duration, Instant};

    use dispatch_loop::{Address, Channel, ChannelMap, Dispatcher, Socket};
    use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
    use rustix::net::{RecvFlags, SendFlags, SocketFlags};
    use socket2::SockRef;

    const BUFFER: usize = 64 * 1024;
    const BATCH: usize = 1024;

    struct Case {
        name: &'static str,
        active: usize,
        idle: usize,
        message: usize,
    }

    const CASES: [Case; 5] = [
        Case { name: "1 x 64B", active: 1, idle: 0, message: 64 },
        Case { name: "64 x 64B", active: 64, idle: 0, message: 64 },
        Case { name: "1000 x 64B", active: 1000, idle: 0, message: 64 },
        Case { name: "64 x 16KiB", active: 64, idle: 0, message: 16 * 1024 },
        Case { name: "64 x 64B + 5000 idle", active: 64, idle: 5000, message: 64 },
    ];

    struct Plan {
        rounds: usize,
        warm_up: Duration,
        measure: Duration,
        most_idle: usize,
        only: Vec<String>,
    }

    impl Plan {
        fn from_arguments() -> Plan {
            let (options, only): (Vec<_>, Vec<_>) =
                std::env::args().skip(1).partition(|argument| argument.starts_with('-'));
            let has = |option: &str| options.iter().any(|given| given == option);
            let (rounds, warm_up, measure, most_idle) = match () {
                () if has("--test") || !has("--bench") => (1, 1, 5, 100),
                () if has("--quick") => (3, 20, 60, 5000),
                () => (9, 50, 250, 5000),
            };
            let [warm_up, measure] = [warm_up, measure].map(Duration::from_millis);
            Plan { rounds, warm_up, measure, most_idle, only }
        }
    }

    pub(super) fn main() {
        let plan = Plan::from_arguments();
        let descriptors = raise_descriptor_limit();
        println!(
            "{:<21} {:>9} {:>9} {:>7}  {:<19} CPU time ratio",
            "", "ours/s", "hand/s", "MiB/s", "throughput ratio"
        );
        println!("{:<21} {:>9} {:>9} {:>7}  {:<19} median (min-max)", "", "", "", "ours", "median (min-max)");
        for case in &CASES {
            if !plan.only.is_empty() && !plan.only.iter().any(|word| case.name.contains(word)) {
                continue;
            }
            let idle = case.idle.min(plan.most_idle);
            let needed = 2 * (case.active + idle) as u64 + 64;
            if needed > descriptors {
                println!("{:<21} skipped: needs {needed} descriptors, of {descriptors}", case.name);
                continue;
            }
            compare(case, idle, &plan);
        }
    }

    fn compare(case: &Case, idle: usize, plan: &Plan) {
        let mut ours = Vec::new();
        let mut rivals = Vec::new();
        for round in 0..plan.rounds {
            let run = |serve, results: &mut Vec<Measured>| {
                results.push(measure(Server::start(serve), case, idle, plan).unwrap());
            };
            // Whoever is second in one round is first in the next.
            match round % 2 {
                0 => {
                    run(serve_with_the_library as Serve, &mut ours);
                    run(serve_by_hand, &mut rivals);
                }
                _ => {
                    run(serve_by_hand, &mut rivals);
                    run(serve_with_the_library, &mut ours);
                }
            }
        }
        let ratio = |figure: fn(&Measured) -> f64| {
            Spread::of(ours.iter().zip(&rivals).map(|(ours, rival)| figure(ours) / figure(rival)))
        };
        let median = |results: &[Measured], figure: &dyn Fn(&Measured) -> f64| {
            Spread::of(results.iter().map(figure)).median
        };
        let rate = median(&ours, &|run| run.rate);
        println!(
            "{:<21} {:>9.0} {:>9.0} {:>7.1}  {:<19} {}",
            case.name,
            rate,
            median(&rivals, &|run| run.rate),
            rate * case.message as f64 / (1024.0 * 1024.0),
            ratio(|run| run.rate).to_string(),
            ratio(|run| run.cpu),
        );
    }

    struct Spread {
        median: f64,
        min: f64,
        max: f64,
    }

    impl Spread {
        fn of(values: impl Iterator<Item = f64>) -> Spread {
            let mut values: Vec<f64> = values.collect();
            values.sort_by(f64::total_cmp);
            Spread { median: values[values.len() / 2], min: values[0], max: values[values.len() - 1] }
        }
    }

    impl std::fmt::Display for Spread {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "{:.2} ({:.2}-{:.2})", self.median, self.min, self.max)
        }
    }

    /// What one run of one server gave.
    struct Measured {
        /// Messages a second.
        rate: f64,
        /// Seconds of the server's thread a message.
        cpu: f64,
    }

    fn measure(server: Server, case: &Case, idle: usize, plan: &Plan) -> io::Result<Measured> {
        let idle = (0..idle).map(|_| server.connect()).collect::<io::Result<Vec<_>>>()?;
        let active = (0..case.active).map(|_| server.connect()).collect::<io::Result<Vec<_>>>()?;
        let mut load = Load::new(active, case.message)?;
        load.run(plan.warm_up)?;
        let cpu = server.cpu_time();
        let begun = Instant::now();
        let messages = load.run(plan.measure)?.max(1) as f64;
        let elapsed = begun.elapsed().as_secs_f64();
        let cpu = (server.cpu_time() - cpu).as_secs_f64();
        drop(load);
        drop(idle);
        server.stop();
        Ok(Measured { rate: messages / elapsed, cpu: cpu / messages })
    }

    // The load: the same for both, and as cheap as it can be.

    /// Connections with one message each under way.
    struct Load {
        epoll: OwnedFd,
        peers: Vec<Peer>,
        message: Vec<u8>,
        buffer: Vec<u8>,
    }

    struct Peer {
        stream: TcpStream,
        unsent: usize,
        unread: usize,
    }

    impl Load {
        fn new(streams: Vec<TcpStream>, message: usize) -> io::Result<Load> {
            let epoll = epoll::create(CreateFlags::CLOEXEC)?;
            let mut peers = Vec::new();
            for stream in streams {
                stream.set_nonblocking(true)?;
                epoll::add(&epoll, &stream, EventData::new_u64(peers.len() as u64), EventFlags::IN)?;
                peers.push(Peer { stream, unsent: message, unread: message });
            }
            let mut load = Load { epoll, peers, message: vec![b'x'; message], buffer: vec![0; BUFFER] };
            for peer in &mut load.peers {
                peer.send(&load.message)?;
            }
            Ok(load)
        }

        /// Keep it up for `time`; how many messages came back.
        fn run(&mut self, time: Duration) -> io::Result<u64> {
            let mut events = Vec::with_capacity(BATCH);
            let end = Instant::now() + time;
            let mut messages = 0;
            while Instant::now() < end {
                wait(&self.epoll, &mut events)?;
                for event in &events {
                    let peer = &mut self.peers[event.data.u64() as usize];
                    let (_, read) =
                        rustix::net::recv(&peer.stream, &mut self.buffer[..], RecvFlags::empty())?;
                    assert!(read > 0, "the server closed a connection");
                    peer.unread -= read;
                    if peer.unread == 0 {
                        messages += 1;
                        peer.unread = self.message.len();
                        peer.unsent = self.message.len();
                    }
                    if peer.unsent > 0 {
                        peer.send(&self.message)?;
                    }
                }
            }
            Ok(messages)
        }
    }

    impl Peer {
        /// What does not fit now goes with the next event: the echo of what did fit brings one.
        fn send(&mut self, message: &[u8]) -> io::Result<()> {
            let rest = &message[message.len() - self.unsent..];
            self.unsent -= would_block_is_zero(rustix::net::send(&self.stream, rest, SendFlags::NOSIGNAL))?;
            Ok(())
        }
    }

    // The servers.

    /// Serves the listener until the other end of the control socket is closed.
    type Serve = fn(TcpListener, UnixStream) -> io::Result<()>;

    struct Server {
        address: SocketAddr,
        control: UnixStream,
        thread: JoinHandle<io::Result<()>>,
    }

    impl Server {
        fn start(serve: Serve) -> Server {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            // The accepted sockets inherit it.
            SockRef::from(&listener).set_tcp_nodelay(true).unwrap();
            SockRef::from(&listener).listen(1024).unwrap();
            let address = listener.local_addr().unwrap();
            let (control, far) = UnixStream::pair().unwrap();
            Server { address, control, thread: std::thread::spawn(move || serve(listener, far)) }
        }

        fn connect(&self) -> io::Result<TcpStream> {
            let stream = TcpStream::connect(self.address)?;
            stream.set_nodelay(true)?;
            // Thousands of connections a second: let none of them linger.
            SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
            Ok(stream)
        }

        /// What the server's thread has used of the CPU: its `CLOCK_THREAD_CPUTIME_ID`.
        #[allow(unsafe_code, clippy::unnecessary_cast)]
        fn cpu_time(&self) -> Duration {
            let mut clock = 0;
            let mut time = MaybeUninit::<libc::timespec>::uninit();
            // SAFETY: the thread has not been joined, so its handle is valid; each call is given a
            // place to write to that lives, and `time` is read only after the call that fills it.
            let time = unsafe {
                let error =
                    libc::pthread_getcpuclockid(self.thread.as_pthread_t() as libc::pthread_t, &mut clock);
                assert_eq!(error, 0);
                assert_eq!(libc::clock_gettime(clock, time.as_mut_ptr()), 0);
                time.assume_init()
            };
            Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
        }

        fn stop(self) {
            drop(self.control);
            self.thread.join().unwrap().unwrap();
        }
    }

    // The server of this library.

    fn serve_with_the_library(listener: TcpListener, control: UnixStream) -> io::Result<()> {
        let mut map = ChannelMap::new()?;
        map.add(listener, Listener)?;
        map.add(control, Control)?;
        dispatch_loop::run(&mut map)
    }

    struct Listener;

    impl Dispatcher for Listener {
        fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
            ch.map_mut().add(socket, Echo).map(|_| ())
        }
    }

    struct Echo;

    impl Dispatcher for Echo {
        fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
            ch.set_auto_pause(true);
            Ok(())
        }
        fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
            ch.read_with(|ch, data| ch.push(data))
        }
    }

    struct Control;

    impl Dispatcher for Control {
        fn handle_close(&mut self, ch: &mut Channel<'_>, _: &dispatch_loop::Reason) {
            ch.map_mut().stop();
        }
    }

    // The server by hand: what one would write who knows epoll and wants nothing but speed.

    struct Connection {
        socket: OwnedFd,
        /// What the peer has not taken yet. While there is some, nothing is read.
        unsent: Vec<u8>,
    }

    fn serve_by_hand(listener: TcpListener, control: UnixStream) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        for fd in [listener.as_fd(), control.as_fd()] {
            epoll::add(&epoll, fd, EventData::new_u64(fd.as_raw_fd() as u64), EventFlags::IN)?;
        }
        let listener_key = listener.as_raw_fd() as usize;
        let control_key = control.as_raw_fd() as usize;
        let mut connections: Vec<Option<Connection>> = Vec::new();
        let mut buffer = vec![0; BUFFER];
        let mut events = Vec::with_capacity(BATCH);
        loop {
            wait(&epoll, &mut events)?;
            for event in &events {
                let key = event.data.u64() as usize;
                if let Some(Some(connection)) = connections.get_mut(key) {
                    if connection.serve(&epoll, event.flags, &mut buffer).is_err() {
                        connections[key] = None;
                    }
                } else if key == listener_key {
                    accept(&listener, &epoll, &mut connections)?;
                } else if key == control_key {
                    return Ok(());
                }
            }
        }
    }

    fn accept(
        listener: &TcpListener,
        epoll: &OwnedFd,
        connections: &mut Vec<Option<Connection>>,
    ) -> io::Result<()> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        for _ in 0..16 {
            let Ok(socket) = rustix::net::accept_with(listener, flags) else { return Ok(()) };
            let key = socket.as_raw_fd() as usize;
            epoll::add(epoll, &socket, EventData::new_u64(key as u64), EventFlags::IN)?;
            if connections.len() <= key {
                connections.resize_with(key + 1, || None);
            }
            connections[key] = Some(Connection { socket, unsent: Vec::new() });
        }
        Ok(())
    }

    impl Connection {
        /// An `Err` is the end of the connection.
        fn serve(&mut self, epoll: &OwnedFd, ready: EventFlags, buffer: &mut [u8]) -> io::Result<()> {
            if ready.contains(EventFlags::OUT) {
                let sent = would_block_is_zero(self.send(&self.unsent))?;
                self.unsent.drain(..sent);
                if self.unsent.is_empty() {
                    self.watch(epoll, EventFlags::IN)?;
                }
            }
            if !self.unsent.is_empty() {
                return Ok(());
            }
            let (_, read) = match rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(()),
                result => result?,
            };
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let sent = would_block_is_zero(self.send(&buffer[..read]))?;
            if sent < read {
                self.unsent.extend_from_slice(&buffer[sent..read]);
                self.watch(epoll, EventFlags::OUT)?;
            }
            Ok(())
        }

        fn send(&self, bytes: &[u8]) -> rustix::io::Result<usize> {
            rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL)
        }

        fn watch(&self, epoll: &OwnedFd, flags: EventFlags) -> io::Result<()> {
            let key = EventData::new_u64(self.socket.as_raw_fd() as u64);
            Ok(epoll::modify(epoll, &self.socket, key, flags)?)
        }
    }

    fn wait(epoll: &OwnedFd, events: &mut Vec<epoll::Event>) -> io::Result<()> {
        events.clear();
        match epoll::wait(epoll, rustix::buffer::spare_capacity(events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn would_block_is_zero(result: rustix::io::Result<usize>) -> io::Result<usize> {
        match result {
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(0),
            result => Ok(result?),
        }
    }

    /// As many descriptors as this process may have. (The type of a limit is the system's.)
    #[allow(unsafe_code, clippy::unnecessary_cast)]
    fn raise_descriptor_limit() -> u64 {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: both calls are given a struct that lives for as long as they run.
        unsafe {
            libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
            let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
            if libc::setrlimit(libc::RLIMIT_NOFILE, &raised) == 0 {
                limit = raised;
            }
        }
        limit.rlim_cur as u64
    }
}
