//! The sections with times: throughput, processor time and timers.

use super::NONE;
use super::table::{Table, number};
use crate::measure::{Results, Rounds, Spread};
use crate::plan::Plan;
use crate::servers::BASE;
use crate::timers::STEPS;

pub(super) fn throughput(results: &Results, plan: &Plan) -> String {
    let Some(base) = results.place(BASE) else { return String::new() };
    let names: Vec<&str> = results.rounds.iter().map(|rounds| rounds.scenario.name).collect();
    let head = [&["server"], &names[..]].concat();
    let table_of = |cell: &dyn Fn(&Rounds, usize) -> Option<String>| {
        let mut table = Table::new(&head);
        for (at, server) in results.servers.iter().enumerate() {
            let cells = results.rounds.iter().map(|rounds| cell(rounds, at).unwrap_or(NONE.to_owned()));
            table.row([server.name.to_owned()].into_iter().chain(cells));
        }
        table
    };
    let spread = |spread: Spread| match plan.rounds {
        1 => format!("{:.2}", spread.median),
        _ => format!("{:.2} ({:.2}–{:.2})", spread.median, spread.min, spread.max),
    };
    let ratios = table_of(&|rounds, at| rounds.ratio(at, base, |run| run.rate).map(spread));
    let cpu_ratios = table_of(&|rounds, at| rounds.ratio(at, base, |run| run.cpu).map(spread));
    let cpu = table_of(&|rounds, at| {
        rounds.figure(at, |run| run.cpu * 1e6).map(|spread| format!("{:.2}", spread.median))
    });
    let rates = table_of(&|rounds, at| rounds.figure(at, |run| run.rate).map(|spread| number(spread.median)));
    let busy = table_of(&|rounds, at| {
        let server = rounds.figure(at, |run| run.server_share * 100.0)?;
        let load = rounds.figure(at, |run| run.load_share * 100.0)?;
        Some(format!("{:.0} / {:.0}", server.median, load.median))
    });
    let mut scenarios = Table::new(&["scenario", "what"]);
    for rounds in &results.rounds {
        let unit = rounds.scenario.unit();
        let what = format!("{}; counted: {unit}s", rounds.scenario.what);
        scenarios.row([rounds.scenario.name.to_owned(), what]);
    }
    scenarios.left_aligned();
    let (count, time) = (plan.rounds, plan.measured.as_millis());
    let rounds = match count {
        1 => "One round".to_owned(),
        _ => format!("{count} rounds: medians, with the lowest and highest in parentheses"),
    };
    format!(
        "## Throughput and processor time

{rounds}. In each round
every server runs for {time} ms as a fresh process, after {} ms of warm-up. Every byte that comes back is
checked.

{scenarios}

### Throughput relative to {BASE}

In the same round; more is better.

{ratios}

### Processor time of the server per message relative to {BASE}

User and kernel time, in the same round; less is better. Over loopback the sender also does the receiver's TCP
work, so a large part is common to all.

{cpu_ratios}

### Messages or connections per second

{rates}

### Processor seconds of the server per million

{cpu}

### How busy the two processors were

Server / load generator, in per cent. Where the load generator is near 100 and the server is not, the server
was not the limit: compare processor time there.

{busy}",
        plan.warm_up.as_millis(),
    )
}

pub(super) fn timers(results: &Results) -> String {
    let Some(outcome) = &results.timers else { return String::new() };
    let mut table = Table::new(&["timers", "ours, ns each", "heap, ns each", "ratio"]);
    for (at, step) in STEPS.iter().chain(&["all"]).enumerate() {
        let Spread { median, min, max } = outcome.ratios[at];
        table.row([
            step.to_string(),
            number(outcome.ours[at].median),
            number(outcome.heap[at].median),
            match outcome.rounds {
                1 => format!("{median:.2}"),
                _ => format!("{median:.2} ({min:.2}–{max:.2})"),
            },
        ]);
    }
    format!(
        "## Timers

{} timers are set (`map.call_later`), all of them are pushed forward (cancelled and set again),
every second one is cancelled, and the rest fire. Compared with closures and a plain `BinaryHeap`, in which a
cancelled timer stays until it is due. Wall time; {}.

{table}",
        number(outcome.timers as f64),
        match outcome.rounds {
            1 => "one round".to_owned(),
            rounds => format!("medians of {rounds} rounds, in alternation"),
        },
    )
}
