//! What a chat room over several nodes costs, and how large it can be. Nodes of `chat_server --bus` and a Redis are
//! measured with few clients and bounded load; a model with seven numbers is made of some points, must meet the others
//! within 20 %, and says what larger rooms would need. `docs/scaling.md` has its tables.
//!
//! ```sh
//! cargo build --release -p programs
//! cargo run --release -p programs --bin scaling -- --svg docs/scaling.svg
//! ```

use std::cell::Cell;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use dispatch_loop::{Channel, ChannelMap, Dispatcher, LoopOptions, Token};

/// The bytes of a line, without its end.
const LINE: usize = 60;
/// How often a member of the rooms of tomorrow says something, in seconds.
const SAYS_EVERY: f64 = 60.0;
/// How much of a core may be in use.
const USABLE: f64 = 0.7;
/// How often each point is measured.
const ROUNDS: u32 = 5;
/// How far the model may be off.
const TOLERANCE: f64 = 0.2;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (mut svg, mut window) = (None, Duration::from_secs(2));
    while let Some(arg) = args.next() {
        match (arg.as_str(), args.next()) {
            ("--svg", Some(path)) => svg = Some(path),
            ("--seconds", Some(text)) if text.parse::<f64>().is_ok_and(|seconds| seconds > 0.0) => {
                window = Duration::from_secs_f64(text.parse().unwrap_or(2.0));
            }
            _ => {
                eprintln!("usage: scaling [--svg FILE] [--seconds NUMBER]");
                return ExitCode::from(2);
            }
        }
    }
    match run(svg, window) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("error: the model is off by more than {:.0} %", TOLERANCE * 100.0);
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(svg: Option<String>, window: Duration) -> io::Result<bool> {
    let known = [point(1, 10, 100), point(1, 100, 100), point(2, 20, 100), point(3, 90, 100)];
    let asked =
        [point(1, 50, 100), point(2, 100, 100), point(1, 200, 80), point(3, 60, 120), point(2, 40, 120)];
    let (of_known, mut all): (usize, Vec<_>) = (known.len(), known.into_iter().chain(asked).collect());
    // Round by round, so that a machine that is slow for a while is so for all; and of each the least, because other
    // work only adds.
    let mut least: Vec<Option<Figures>> = all.iter().map(|_| None).collect();
    for _ in 0..ROUNDS {
        for (what, least) in all.iter().zip(&mut least) {
            let new = measured(what, window)?;
            *least = Some(match least.take() {
                Some(old) => old.least(&new),
                None => new,
            });
        }
    }
    let asked = all.split_off(of_known);
    let mut known: Vec<_> = least.into_iter().flatten().zip(all.into_iter().chain(asked)).collect();
    let asked = known.split_off(of_known);
    let model = Model::of(&known);
    println!("{model}");
    let well = compare(&model, &known, &asked);
    project(&model);
    if let Some(path) = svg {
        fs::write(path, plot(&model, &known, &asked))?;
    }
    Ok(well)
}

/// What is measured: lines a second in the room, members on all nodes.
struct Point {
    nodes: usize,
    members: usize,
    rate: u32,
}

fn point(nodes: usize, members: usize, rate: u32) -> Point {
    Point { nodes, members, rate }
}

/// For each line that is said.
struct Figures {
    /// Microseconds of CPU time, of all nodes together.
    nodes: f64,
    redis: f64,
    /// Bytes from Redis to the nodes, and from the nodes to their clients.
    bus: f64,
    out: f64,
}

impl Figures {
    /// Bytes are those of the last time.
    fn least(&self, new: &Figures) -> Figures {
        Figures { nodes: self.nodes.min(new.nodes), redis: self.redis.min(new.redis), ..*new }
    }
}

// The model.

/// Microseconds, and bytes.
struct Model {
    /// Of each node for each line of the room: to read it from the bus.
    hear: f64,
    /// Of the node on which it is said.
    say: f64,
    /// For each member that is told.
    tell: f64,
    redis_say: f64,
    redis_hear: f64,
    bus_say: f64,
    bus_hear: f64,
}

impl Model {
    /// Least squares, with the relative error of each point.
    fn of(known: &[(Figures, Point)]) -> Model {
        let rows = |terms: fn(&Point) -> [f64; 3], value: fn(&Figures) -> f64| {
            let rows = known.iter().map(|(figures, what)| (terms(what), value(figures)));
            least_squares(&rows.collect::<Vec<_>>())
        };
        let [say, hear, tell] = rows(|p| [1.0, p.nodes as f64, p.members as f64 - 1.0], |f| f.nodes);
        let [redis_say, redis_hear, _] = rows(|p| [1.0, p.nodes as f64, 0.0], |f| f.redis);
        let [bus_say, bus_hear, _] = rows(|p| [1.0, p.nodes as f64, 0.0], |f| f.bus);
        Model { hear, say, tell, redis_say, redis_hear, bus_say, bus_hear }
    }

    fn figures(&self, nodes: f64, members: f64) -> Figures {
        Figures {
            nodes: self.say + self.hear * nodes + self.tell * (members - 1.0),
            redis: self.redis_say + self.redis_hear * nodes,
            bus: self.bus_say + self.bus_hear * nodes,
            out: (members - 1.0) * (LINE as f64 + OVERHEAD),
        }
    }

    /// How many nodes a room of so many members needs, and what all of them and Redis then use, in cores.
    fn needs(&self, members: f64, rate: f64) -> (f64, f64, f64) {
        let mut nodes = 1.0;
        loop {
            let figures = self.figures(nodes, members);
            let used = figures.nodes * rate / 1e6;
            // More nodes help only as long as hearing everything leaves something of each.
            if used <= nodes * USABLE || self.hear * rate / 1e6 > USABLE {
                return (nodes, used, figures.redis * rate / 1e6);
            }
            nodes = (used / USABLE).ceil().max(nodes + 1.0);
        }
    }
}

/// `guest12: ` and the end of the line.
const OVERHEAD: f64 = 11.0;

impl std::fmt::Display for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "nodes, µs a line: {:.0} + {:.0} for each node + {:.1} for each member",
            self.say, self.hear, self.tell
        )?;
        writeln!(f, "Redis, µs a line: {:.0} + {:.0} for each node", self.redis_say, self.redis_hear)?;
        writeln!(f, "Redis, bytes sent a line: {:.0} + {:.0} for each node", self.bus_say, self.bus_hear)
    }
}

/// What makes the sum of squares of `terms · x / value - 1` least; terms that are always 0 get 0.
fn least_squares(rows: &[([f64; 3], f64)]) -> [f64; 3] {
    let mut a = [[0.0; 4]; 3];
    for (terms, value) in rows {
        for i in 0..3 {
            for j in 0..3 {
                a[i][j] += terms[i] * terms[j] / (value * value);
            }
            a[i][3] += terms[i] / value;
        }
    }
    for i in 0..3 {
        if a[i][i].abs() < 1e-30 {
            continue;
        }
        for k in 0..3 {
            if k != i {
                let (factor, row) = (a[k][i] / a[i][i], a[i]);
                a[k].iter_mut().zip(row).for_each(|(to, from)| *to -= factor * from);
            }
        }
    }
    [0, 1, 2].map(|i| if a[i][i].abs() < 1e-30 { 0.0 } else { a[i][3] / a[i][i] })
}

/// Whether the model meets what it was not made of.
fn compare(model: &Model, known: &[(Figures, Point)], asked: &[(Figures, Point)]) -> bool {
    println!(
        "| nodes | members | lines/s | nodes, µs a line | model | Redis, µs a line | model | Redis sends, bytes a line | model | to clients, bytes a line | model |"
    );
    println!("|---:|---:|---:|---:|---|---:|---|---:|---|---:|---|");
    let mut well = true;
    for (is_asked, (figures, what)) in known.iter().map(|p| (false, p)).chain(asked.iter().map(|p| (true, p)))
    {
        let told = model.figures(what.nodes as f64, what.members as f64);
        let mut row = format!("| {} | {} | {} ", what.nodes, what.members, what.rate);
        for (is, told) in [
            (figures.nodes, told.nodes),
            (figures.redis, told.redis),
            (figures.bus, told.bus),
            (figures.out, told.out),
        ] {
            let _ = match is_asked {
                true => write!(row, "| {is:.0} | {told:.0}, ratio {:.2} ", told / is),
                false => write!(row, "| {is:.0} | from this "),
            };
            well &= !is_asked || (told / is - 1.0).abs() <= TOLERANCE;
        }
        println!("{row}|");
    }
    println!();
    well
}

fn project(model: &Model) {
    println!(
        "| members | lines/s | told/s | nodes | cores of them | Redis, cores | Redis sends, Mbit/s | to clients, Mbit/s |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|");
    for members in [10.0, 100.0, 1000.0, 3000.0, 10_000.0, 30_000.0, 100_000.0] {
        let rate = members / SAYS_EVERY;
        let (nodes, used, redis) = model.needs(members, rate);
        let figures = model.figures(nodes, members);
        println!(
            "| {members} | {rate:.1} | {:.0} | {nodes} | {used:.3} | {redis:.4} | {:.2} | {:.1} |",
            rate * (members - 1.0),
            figures.bus * rate * 8.0 / 1e6,
            figures.out * rate * 8.0 / 1e6
        );
    }
    println!();
    println!("| nodes | lines/s at which Redis has {:.0} % of a core |", USABLE * 100.0);
    println!("|---:|---:|");
    for nodes in [1.0, 2.0, 3.0, 10.0, 30.0, 100.0] {
        println!("| {nodes} | {:.0} |", USABLE * 1e6 / model.figures(nodes, 2.0).redis);
    }
}

// The measurement.

fn measured(what: &Point, window: Duration) -> io::Result<Figures> {
    let redis = Redis::start()?;
    let nodes = (0..what.nodes).map(|_| Node::start(redis.port)).collect::<io::Result<Vec<_>>>()?;
    let mut map = ChannelMap::new()?;
    let heard = Rc::new(Cell::new(0));
    let mut tokens = Vec::new();
    for member in 0..what.members {
        let socket = TcpStream::connect(&nodes[member % what.nodes].address)?;
        tokens.push(map.add(socket, Member { heard: heard.clone() })?.token());
    }
    let (mut turn, line) = (0, format!("{}\n", "x".repeat(LINE)));
    let all: Vec<Token> = tokens;
    map.call_every(Duration::from_secs(1) / what.rate, move |map| {
        if let Ok(mut ch) = map.channel(all[turn % all.len()]) {
            let _ = ch.push(line.as_bytes());
        }
        turn += 1;
    });
    turns(&mut map, Duration::from_millis(1500))?; // all are in, and talk
    let look = |heard: &Cell<u64>| -> io::Result<_> {
        let time = nodes.iter().map(|node| cpu_time(&node.child)).sum::<io::Result<f64>>()?;
        // Each look costs Redis a little, and is left out of what it sends.
        Ok((
            time,
            cpu_time(&redis.child)?,
            redis.ask("total_net_output_bytes")?,
            redis.ask("entries")?,
            heard.get(),
        ))
    };
    let before = look(&heard)?;
    turns(&mut map, window)?;
    let after = look(&heard)?;
    let lines = after.3 - before.3;
    Ok(Figures {
        nodes: (after.0 - before.0) / lines,
        redis: (after.1 - before.1) / lines,
        bus: (after.2 - before.2 - LOOK) / lines,
        out: (after.4 - before.4) as f64 / lines,
    })
}

/// What a look makes Redis send, about.
const LOOK: f64 = 1500.0;

fn turns(map: &mut ChannelMap, time: Duration) -> io::Result<()> {
    map.call_later(time, |map| map.stop());
    dispatch_loop::run_with(map, &LoopOptions::default())
}

/// Counts what it is told.
struct Member {
    heard: Rc<Cell<u64>>,
}

impl Dispatcher for Member {
    fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
        ch.read_with(|_, data| {
            self.heard.set(self.heard.get() + data.len() as u64);
            Ok(())
        })
    }
}

/// Microseconds of all threads.
fn cpu_time(child: &Child) -> io::Result<f64> {
    let mut time = 0.0;
    for task in fs::read_dir(format!("/proc/{}/task", child.id()))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        time += text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1e3;
    }
    Ok(time)
}

struct Redis {
    child: Child,
    port: u16,
    dir: PathBuf,
}

impl Redis {
    fn start() -> io::Result<Redis> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let dir = std::env::temp_dir().join(format!("dl-scaling-{port}"));
        fs::create_dir_all(&dir)?;
        let mut process = Command::new("redis-server");
        process.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
        process.arg("--port").arg(port.to_string()).arg("--dir").arg(&dir);
        let child = process.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let redis = Redis { child, port, dir };
        for _ in 0..200 {
            if redis.ask("entries").is_ok() {
                return Ok(redis);
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err(io::Error::other("Redis does not answer"))
    }

    /// A number that it tells of itself, or how many entries were added to the stream.
    fn ask(&self, what: &str) -> io::Result<f64> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        let question = match what {
            "entries" => {
                "EVAL \"local s = redis.call('EXISTS', 'chat:stream') == 1 and \
                          redis.call('XINFO', 'STREAM', 'chat:stream')[12] or 0 return 'entries:' .. s\" 0\r\nQUIT\r\n"
            }
            _ => "INFO stats\r\nQUIT\r\n",
        };
        stream.write_all(question.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let line = answer.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
        line.and_then(|number| number.parse().ok()).ok_or_else(|| io::Error::other(answer))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

struct Node {
    child: Child,
    address: String,
}

impl Node {
    fn start(redis: u16) -> io::Result<Node> {
        let program = std::env::current_exe()?.with_file_name("chat_server");
        let mut command = Command::new(program);
        command.args(["--bus", &format!("redis://127.0.0.1:{redis}"), "127.0.0.1:0"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let mut node = Node { child, address: String::new() };
        node.address = line.trim_end().strip_prefix("listening on ").unwrap_or_default().to_owned();
        // Until it has the bus.
        let begun = Instant::now();
        let mut stream = TcpStream::connect(&node.address)?;
        stream.write_all(b"/who\n/quit\n")?;
        stream.read_to_string(&mut line)?;
        match begun.elapsed() < Duration::from_secs(3) {
            true => Ok(node),
            false => Err(io::Error::other("a node does not find the bus")),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// The plot.

fn plot(model: &Model, known: &[(Figures, Point)], asked: &[(Figures, Point)]) -> String {
    let mut svg = String::from(HEAD);
    // On the left what was measured, against what the model says.
    let most = known.iter().chain(asked).map(|(figures, _)| figures.nodes).fold(0.0, f64::max) * 1.15;
    let at = |told: f64, is: f64| (70.0 + 360.0 * told / most, 340.0 - 270.0 * is / most);
    let ((x0, y0), (x1, y1)) = (at(0.0, 0.0), at(most, most));
    let _ = writeln!(svg, r#"<path class="base" d="M{x0} {y1}V{y0}H{x1}"/>"#);
    for (class, slope) in [("band", 1.0 - TOLERANCE), ("model", 1.0), ("band", 1.0 + TOLERANCE)] {
        let end = most / f64::max(slope, 1.0);
        let (x, y) = at(end, end * slope);
        let _ = writeln!(svg, r#"<path class="{class}" d="M{x0} {y0}L{x:.1} {y:.1}"/>"#);
    }
    for (class, (figures, what)) in
        known.iter().map(|p| ("known", p)).chain(asked.iter().map(|p| ("asked", p)))
    {
        let (x, y) = at(model.figures(what.nodes as f64, what.members as f64).nodes, figures.nodes);
        let _ = writeln!(svg, r#"<circle class="{class}" cx="{x:.1}" cy="{y:.1}" r="5"/>"#);
    }
    for tick in 1..=3 {
        let value = (most / 4.0 / 100.0).round().max(1.0) * 100.0 * f64::from(tick);
        let ((x, _), (_, y)) = (at(value, 0.0), at(0.0, value));
        let _ =
            writeln!(svg, r#"<text class="quiet" text-anchor="middle" x="{x:.1}" y="358">{value}</text>"#);
        let _ = writeln!(
            svg,
            r#"<text class="quiet" text-anchor="end" x="64" y="{:.1}">{value}</text>"#,
            y + 4.0
        );
    }
    // On the right, rooms of tomorrow.
    let at = |members: f64, cores: f64| {
        (560.0 + 90.0 * (members.log10() - 1.0), 340.0 - 30.0 * (cores.max(1e-5).log10() + 5.0))
    };
    let ((x0, y0), (x1, y1)) = (at(10.0, 1e-5), at(1e5, 1e4));
    for power in -5..=4 {
        let (_, y) = at(10.0, 10f64.powi(power));
        let class = if power == 0 { "one" } else { "grid" };
        let _ = writeln!(svg, r#"<path class="{class}" d="M{x0} {y}H{x1}"/>"#);
        if power % 2 == 0 {
            let label = 10f64.powi(power);
            let _ = writeln!(
                svg,
                r#"<text class="quiet" text-anchor="end" x="554" y="{:.1}">{label}</text>"#,
                y + 4.0
            );
        }
    }
    let _ = writeln!(svg, r#"<path class="base" d="M{x0} {y1}V{y0}H{x1}"/>"#);
    for power in 1..=5 {
        let members = 10f64.powi(power);
        let (x, _) = at(members, 1.0);
        let _ =
            writeln!(svg, r#"<text class="quiet" text-anchor="middle" x="{x:.1}" y="358">{members}</text>"#);
    }
    for (class, which) in [("nodes", 0), ("redis", 1)] {
        let mut path = String::new();
        for step in 0..=40 {
            let members = 10f64.powf(1.0 + f64::from(step) / 10.0);
            let (_, nodes, redis) = model.needs(members, members / SAYS_EVERY);
            let (x, y) = at(members, if which == 0 { nodes } else { redis });
            let _ = write!(path, "{}{x:.1} {y:.1}", if step == 0 { 'M' } else { 'L' });
        }
        let _ = writeln!(svg, r#"<path class="{class}" d="{path}"/>"#);
    }
    svg + TAIL
}

const HEAD: &str = r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 400" font-family="Helvetica, Arial, sans-serif" font-size="13">
<title>CPU time of a line, measured and by the model; and cores that a room needs</title>
<style>
  .page { fill: #ffffff; stroke: #d0d7de } .text { fill: #1f2328 } .quiet { fill: #57606a }
  path { fill: none } .grid { stroke: #d8dee4 } .base { stroke: #57606a } .one { stroke: #57606a; stroke-dasharray: 4 3 }
  .model { stroke: #57606a } .band { stroke: #57606a; stroke-dasharray: 2 4 }
  .known { fill: none; stroke: #4f7cac; stroke-width: 2 } .asked { fill: #c8511b }
  .nodes { stroke: #c8511b; stroke-width: 2 } .redis { stroke: #4f7cac; stroke-width: 2 }
  .of-nodes { fill: #c8511b } .of-redis { fill: #4f7cac }
  @media (prefers-color-scheme: dark) {
    .page { fill: #161b22; stroke: #3d444d } .text { fill: #e6edf3 } .quiet { fill: #9da7b3 }
    .grid { stroke: #30363d } .base, .one, .model, .band { stroke: #9da7b3 }
    .known, .redis { stroke: #7aa7d9 } .asked { fill: #f28b55 } .nodes { stroke: #f28b55 }
    .of-nodes { fill: #f28b55 } .of-redis { fill: #7aa7d9 }
  }
</style>
<rect class="page" x="0.5" y="0.5" width="959" height="399" rx="8"/>
<text class="text" x="70" y="30" font-weight="bold">CPU time of the nodes, µs a line: measured</text>
<text class="quiet" x="70" y="48">20 % between the dotted lines; rings: what the model is made of</text>
<text class="quiet" text-anchor="middle" x="250" y="382">by the model</text>
<text class="text" x="560" y="30" font-weight="bold">Cores that one room needs</text>
<text class="quiet" x="560" y="48">each member says a line a minute; by the model</text>
<text class="of-nodes" x="760" y="175">nodes</text>
<text class="of-redis" x="760" y="272">Redis</text>
<text class="quiet" text-anchor="middle" x="740" y="382">members</text>
"##;

const TAIL: &str = "</svg>\n";
