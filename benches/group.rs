//! CPU time of a message, and of a broadcast, with two loops beside one: what a second loop costs, in a process
//! of its own. Throughput says little here, where the load shares the cores with the server.
//!
//! `cargo bench --bench group` takes some minutes; `-- --quick` half of one. What to look at is the median of
//! the ratios, of runs that took turns. On one core, and in batches, each loop finds all that was sent to it: that
//! is what the loops themselves cost. On all cores a loop that has little to do sleeps and wakes more often, which
//! the last columns show.

fn main() {
    #[cfg(target_os = "linux")]
    linux::main();
    #[cfg(not(target_os = "linux"))]
    println!("the CPU time is read from /proc: only on Linux");
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io::{self, BufRead, BufReader, Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use dispatch_loop::{Address, Channel, ChannelMap, Dispatcher, ListenOptions, LoopGroup, Socket, Topics};
    use rustix::event::{PollFd, PollFlags, poll};

    const MESSAGE: [u8; 64] = [b'x'; 64];

    pub(super) fn main() {
        let arguments: Vec<String> = std::env::args().collect();
        if let Some(loops) = arguments.iter().position(|argument| argument == "--serve") {
            if arguments.iter().any(|argument| argument == "--in-batches") {
                work_in_batches();
            }
            return serve(arguments[loops + 1].parse().unwrap()).unwrap();
        }
        let has = |option: &str| arguments.iter().any(|argument| argument == option);
        let (pairs, time) = match () {
            () if has("--test") || !has("--bench") => (1, 20),
            () if has("--quick") => (3, 300),
            () => (9, 1000),
        };
        let time = Duration::from_millis(time);
        let descriptors = raise_descriptor_limit();
        println!(
            "{:<19} {:>9} {:>9}  {:<20}  switches of threads, each",
            "us of CPU time each", "one loop", "two loops", "ratio: median (range)"
        );
        for (name, connections, measure, cores) in [
            ("echo, 64", 64, echo as Measure, Cores::All),
            ("echo, 1,000", 1000, echo, Cores::All),
            ("broadcast to 2,000", 2000, broadcast, Cores::All),
            ("echo, 64, 1 core", 64, echo, Cores::One),
            ("echo, 1,000, 1 core", 1000, echo, Cores::One),
        ] {
            if let Cores::One = cores {
                use_one_core();
            }
            if (connections + 50) as u64 > descriptors {
                println!("{name:<22} skipped: needs more descriptors than {descriptors}");
                continue;
            }
            let mut runs: [Vec<Used>; 2] = Default::default();
            for pair in 0..pairs {
                for second in [pair % 2, 1 - pair % 2] {
                    let server = Server::start(second + 1, cores);
                    runs[second].push(measure(&server, connections, time).unwrap());
                }
            }
            let spread = |mut values: Vec<f64>| {
                values.sort_by(f64::total_cmp);
                (values[values.len() / 2], values[0], values[values.len() - 1])
            };
            let ratios = runs[0].iter().zip(&runs[1]).map(|(one, two)| two.cpu / one.cpu).collect();
            let (ratio, min, max) = spread(ratios);
            let median = |runs: &[Used], of: fn(&Used) -> f64| spread(runs.iter().map(of).collect()).0;
            let [one, two] = runs.each_ref().map(|runs| median(runs, |used| used.cpu));
            let switches = runs.each_ref().map(|runs| median(runs, |used| used.switches));
            let [before, after] = switches;
            println!(
                "{name:<19} {one:>9.2} {two:>9.2}  {ratio:.3} ({min:.3}-{max:.3})   {before:>6.3} {after:>6.3}"
            );
        }
    }

    /// What the server's threads have used.
    #[derive(Clone, Copy)]
    struct Used {
        /// Of the CPU, in microseconds.
        cpu: f64,
        /// How often one of them was put to sleep, or made way.
        switches: f64,
    }

    impl Used {
        fn each(self, before: Used, count: u64) -> Used {
            let count = count.max(1) as f64;
            Used { cpu: (self.cpu - before.cpu) / count, switches: (self.switches - before.switches) / count }
        }
    }

    /// Where the server and its clients run. What was given up is not given back: one core comes last.
    #[derive(Clone, Copy)]
    enum Cores {
        All,
        One,
    }

    /// From now on this process, and those that it starts, have one core together.
    #[allow(unsafe_code)]
    fn use_one_core() {
        // SAFETY: a set of zeros is an empty one; both calls are given one that lives for as long as they run.
        unsafe {
            let mut cores: libc::cpu_set_t = std::mem::zeroed();
            let size = size_of_val(&cores);
            assert_eq!(libc::sched_getaffinity(0, size, &mut cores), 0);
            let first = (0..libc::CPU_SETSIZE as usize).find(|core| libc::CPU_ISSET(*core, &cores)).unwrap();
            libc::CPU_ZERO(&mut cores);
            libc::CPU_SET(first, &mut cores);
            assert_eq!(libc::sched_setaffinity(0, size, &cores), 0);
        }
    }

    /// From now on whoever wakes this process is not interrupted by it.
    #[allow(unsafe_code)]
    fn work_in_batches() {
        // SAFETY: of zeros the struct is valid, and it lives for as long as the call.
        unsafe {
            let parameters: libc::sched_param = std::mem::zeroed();
            assert_eq!(libc::sched_setscheduler(0, libc::SCHED_BATCH, &parameters), 0);
        }
    }

    /// What is used for each message, or for each line that each member gets.
    type Measure = fn(&Server, usize, Duration) -> io::Result<Used>;

    fn echo(server: &Server, connections: usize, time: Duration) -> io::Result<Used> {
        let mut clients = server.clients(connections)?;
        let mut turn = |time: Duration| {
            let (end, mut messages) = (Instant::now() + time, 0u64);
            while Instant::now() < end {
                messages += answer(&mut clients)?;
            }
            io::Result::Ok(messages)
        };
        turn(time / 5)?;
        let before = server.used();
        let messages = turn(time)?;
        Ok(server.used().each(before, messages))
    }

    /// Wait until some have their message back, and let them send the next.
    fn answer(clients: &mut [TcpStream]) -> io::Result<u64> {
        let ready: Vec<bool> = {
            let mut fds: Vec<PollFd<'_>> =
                clients.iter().map(|client| PollFd::new(client, PollFlags::IN)).collect();
            poll(&mut fds, None)?;
            fds.iter().map(|fd| fd.revents().contains(PollFlags::IN)).collect()
        };
        let mut messages = 0;
        for (client, _) in clients.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            client.read_exact(&mut [0; MESSAGE.len()])?;
            client.write_all(&MESSAGE)?;
            messages += 1;
        }
        Ok(messages)
    }

    /// One says something, all others read it, and then the next is said.
    fn broadcast(server: &Server, members: usize, time: Duration) -> io::Result<Used> {
        let mut clients = server.clients(members)?;
        // A first message makes a member of each.
        for client in &mut clients {
            client.read_exact(&mut [0; MESSAGE.len()])?;
        }
        let mut speaker = server.connect()?;
        speaker.write_all(b"speaker")?;
        speaker.read_exact(&mut [0; 7])?;
        let mut say = |lines: usize| {
            for _ in 0..lines {
                speaker.write_all(&MESSAGE)?;
                for client in &mut clients {
                    client.read_exact(&mut [0; MESSAGE.len()])?;
                }
            }
            io::Result::Ok(())
        };
        say(5)?;
        let lines = (time.as_millis() as usize / 10).max(1);
        let before = server.used();
        say(lines)?;
        Ok(server.used().each(before, (lines * members) as u64))
    }

    // The server, in a process of its own.

    struct Server {
        process: Child,
        address: SocketAddr,
    }

    impl Server {
        fn start(loops: usize, cores: Cores) -> Server {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--serve", &loops.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
            if let Cores::One = cores {
                command.arg("--in-batches");
            }
            let mut process = command.spawn().unwrap();
            let mut line = String::new();
            BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
            Server { process, address: line.trim().parse().unwrap() }
        }

        fn connect(&self) -> io::Result<TcpStream> {
            let stream = TcpStream::connect(self.address)?;
            stream.set_nodelay(true)?;
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
            Ok(stream)
        }

        /// Each has sent its first message.
        fn clients(&self, connections: usize) -> io::Result<Vec<TcpStream>> {
            let mut clients = Vec::new();
            for _ in 0..connections {
                let mut client = self.connect()?;
                client.write_all(&MESSAGE)?;
                clients.push(client);
            }
            Ok(clients)
        }

        fn used(&self) -> Used {
            let mut used = Used { cpu: 0.0, switches: 0.0 };
            for thread in std::fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap() {
                let read =
                    |file| std::fs::read_to_string(thread.as_ref().unwrap().path().join(file)).unwrap();
                let number = |text: &str| text.trim().parse::<f64>().unwrap();
                used.cpu += number(read("schedstat").split(' ').next().unwrap()) / 1000.0;
                let switches = read("status");
                let switches =
                    switches.lines().filter_map(|line| line.split_once("voluntary_ctxt_switches:"));
                used.switches += switches.map(|(_, switches)| number(switches)).sum::<f64>();
            }
            used
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }

    /// Until stdin ends.
    fn serve(loops: usize) -> io::Result<()> {
        let announce = |address: &Address| println!("{address}");
        if loops == 1 {
            let mut map = ChannelMap::new()?;
            let listener = map.listen("127.0.0.1:0", Listener)?;
            announce(&map.channel(listener)?.local_addr()?);
            return dispatch_loop::run(&mut map);
        }
        let group = LoopGroup::start(loops, |_, _| Ok(()))?;
        let topics = Topics::new(&group.loops());
        let serve = move |map: &mut ChannelMap, socket, _| add(map, socket, Some(&topics));
        announce(&group.listen("127.0.0.1:0", &ListenOptions::default(), serve)?[0]);
        group.join()
    }

    fn add(map: &mut ChannelMap, socket: Socket, topics: Option<&Topics>) -> io::Result<()> {
        let channel = map.add(socket, Echo { topics: topics.cloned(), speaks: false })?;
        if let Some(topics) = topics {
            topics.subscribe(&mut map.channel(channel)?, "all");
        }
        Ok(())
    }

    struct Listener;

    impl Dispatcher for Listener {
        fn handle_accept(&mut self, ch: &mut Channel<'_>, socket: Socket, _: Address) -> io::Result<()> {
            add(ch.map_mut(), socket, None)
        }
    }

    /// Echoes, but for the speaker, whose messages go to all others.
    struct Echo {
        topics: Option<Topics>,
        speaks: bool,
    }

    impl Dispatcher for Echo {
        fn handle_open(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
            ch.set_auto_pause(true);
            Ok(())
        }
        fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
            let own = ch.token();
            ch.read_with(|ch, data| {
                if !self.speaks {
                    self.speaks = data == b"speaker";
                    return ch.push(data);
                }
                match &self.topics {
                    Some(topics) => topics.publish_from(ch.map_mut(), own, "all", data),
                    None => {
                        let others: Vec<_> = ch.map().tokens().filter(|token| *token != own).collect();
                        ch.map_mut().broadcast(others, data);
                        Ok(())
                    }
                }
            })
        }
    }

    /// As many as this process may have. (The type of a limit is the system's.)
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
