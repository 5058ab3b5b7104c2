//! The table at the end.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::good::Seen;
use crate::hostile::{ATTACKS, Made};
use crate::plan::Plan;
use crate::ports::PORTS;
use crate::system::{self, Holds};

/// All that was found out.
pub struct Results {
    /// The load average before and after.
    pub load: (String, String),
    pub seen: Seen,
    pub made: Made,
    /// What the server has counted.
    pub tally: BTreeMap<String, u64>,
    pub start: Holds,
    pub before: Holds,
    pub after: Holds,
    pub most_descriptors: usize,
    pub peak_memory: u64,
    pub idle_turns: u64,
    pub idle_cpu: Duration,
}

/// A good client is to be answered within that.
const SOON: Duration = Duration::from_secs(1);

pub fn print(results: &Results, plan: &Plan, faults: u64) {
    let seen = &results.seen;
    let answers = seen.waits.count + seen.newcomers.iter().map(|waits| waits.count).sum::<u64>();
    let mut rows = vec![
        ("date".to_owned(), system::first_line("date", &["-u", "+%Y-%m-%d"]).unwrap_or_default()),
        ("machine".to_owned(), system::machine()),
        ("load average before, and after".to_owned(), format!("{}, {}", results.load.0, results.load.1)),
        ("commit of this project".to_owned(), system::commit().unwrap_or_default()),
        ("load".to_owned(), format!("{:?}, after a first wave of {:?}", plan.time, plan.first_wave())),
        ("clients that behave, and that do not".to_owned(), format!("{}, {}", plan.good, plan.hostile)),
        ("descriptors that the server may have".to_owned(), plan.descriptors.to_string()),
        (
            "limits of the listeners".to_owned(),
            if plan.is_limited { "`AcceptLimits::public()`" } else { "none" }.to_owned(),
        ),
        ("**good clients**".to_owned(), String::new()),
        ("bytes received and checked".to_owned(), number(seen.bytes)),
        ("connections".to_owned(), number(seen.connections)),
        ("answers".to_owned(), number(answers)),
        ("wait for an answer: half, 99 %, worst".to_owned(), waits(&seen.waits)),
        ("of this the clients' own thread, at worst".to_owned(), time(seen.own_delay)),
        ("answers that took longer than 1 s".to_owned(), number(seen.waits.later_than(SOON))),
        ("faults".to_owned(), faults.to_string()),
    ];
    rows.push(("**newcomers**, from connect to first answer: half, 99 %, worst".to_owned(), String::new()));
    for (port, newcomers) in PORTS.iter().zip(&seen.newcomers) {
        rows.push((format!("{port:?}"), waits(newcomers)));
    }
    rows.push(("**hostile clients: connections**".to_owned(), String::new()));
    for ((name, _), made) in ATTACKS.iter().zip(&results.made.0) {
        rows.push(((*name).to_owned(), number(made.load(Ordering::Relaxed))));
    }
    let tally = &results.tally;
    let count = |name: &str| tally.get(name).copied().unwrap_or(0);
    let spread = |name: &str| {
        let part = |part: &str| time(Duration::from_micros(count(&format!("{name}-{part}"))));
        format!("{}, {}, {}", part("half"), part("99"), part("worst"))
    };
    rows.push(("**server**, both waves".to_owned(), String::new()));
    rows.extend([
        (
            "a good newcomer, from the backlog's head to its answer: half, 99 %, worst".to_owned(),
            spread("head"),
        ),
        ("of them longer than 2 s".to_owned(), number(count("head-late"))),
        ("turns of the loop, to a factor of 2: half, 99 %, longest".to_owned(), spread("turn")),
        ("connections let in".to_owned(), number(count("accepts"))),
        ("the most of one hostile address at a time".to_owned(), number(count("most-of-one"))),
        ("calls of accept that failed".to_owned(), number(count("accept-errors"))),
    ]);
    for (kind, what) in [
        ("refused:", "refused, by limit"),
        ("rest:", "rests of a listener, for"),
        ("close:", "ended"),
        ("deadline:", "deadline that has passed"),
    ] {
        let of_kind = tally
            .iter()
            .filter_map(|(name, count)| Some((name.strip_prefix(kind)?, count)))
            .filter(|(_, count)| **count > 0);
        rows.extend(
            of_kind.map(|(name, count)| (format!("{what}: {}", name.replace('-', " ")), number(*count))),
        );
    }
    rows.extend([
        ("channels suspended because they would have spun".to_owned(), number(count("suspensions"))),
        ("lines logged".to_owned(), number(count("lines"))),
        ("drain at the end: idle ones closed, busy ones that finished, aborted".to_owned(), {
            let counts = ["closed-idle", "finished", "aborted"].map(|name| count(name).to_string());
            counts.join(", ")
        }),
        ("the drain took".to_owned(), time(Duration::from_micros(count("took")))),
    ]);
    let holds = |f: &dyn Fn(&Holds) -> String| {
        format!("{}, {}, {}", f(&results.start), f(&results.before), f(&results.after))
    };
    rows.extend([
        (
            "descriptors at the start, after the first wave, at the end".to_owned(),
            holds(&|holds| holds.descriptors.to_string()),
        ),
        ("the most".to_owned(), results.most_descriptors.to_string()),
        (
            "resident memory at the start, after the first wave, at the end".to_owned(),
            holds(&|holds| memory(holds.memory)),
        ),
        ("the most".to_owned(), memory(results.peak_memory)),
        ("turns of the loop in an idle second afterwards".to_owned(), results.idle_turns.to_string()),
        ("processor time in an idle second afterwards".to_owned(), time(results.idle_cpu)),
    ]);
    println!("| | |\n|---|---:|");
    for (name, value) in rows {
        println!("| {name} | {value} |");
    }
}

fn waits(waits: &crate::waits::Waits) -> String {
    format!("{}, {}, {}", time(waits.percentile(50)), time(waits.percentile(99)), time(waits.worst))
}

fn time(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds >= 1.0 => format!("{seconds:.1} s"),
        seconds => format!("{:.1} ms", seconds * 1000.0),
    }
}

fn memory(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0))
}

/// With commas.
fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
