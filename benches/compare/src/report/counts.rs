//! The sections with counts: instructions, growth, system calls and memory.

use super::NONE;
use super::table::{Table, number};
use crate::measure::{Figures, Results};
use crate::plan::COUNTED;
use crate::servers::{BASE, Server, VARIANTS};

pub(super) fn instructions(results: &Results) -> String {
    if results.instructions.is_empty() {
        return String::new();
    }
    let mut head = vec!["server".to_owned()];
    for scenario in COUNTED {
        head.extend([scenario.name.to_owned(), format!("× {BASE}")]);
    }
    let mut table = Table::new(&head);
    let base = results.instructions.iter().find(|figures| figures.server.name == BASE);
    for Figures { server, figures } in &results.instructions {
        let mut row = vec![server.name.to_owned()];
        for (at, figure) in figures.iter().enumerate() {
            let base = base.and_then(|base| base.figures[at]);
            row.push(figure.map_or(NONE.to_owned(), number));
            row.push(
                figure.zip(base).map_or(NONE.to_owned(), |(figure, base)| format!("{:.1}", figure / base)),
            );
        }
        table.row(row);
    }
    format!(
        "## Instructions in user space

Per message, or (`accept`) per connection that is accepted, echoes one byte and is closed. Callgrind counts
the server's own code and its libraries, not the kernel. With 64 connections each wait returns a full batch.

{table}"
    )
}

pub(super) fn variants(results: &Results) -> String {
    if results.variants.is_empty() {
        return String::new();
    }
    let plain = results.instructions.iter().find(|figures| figures.server.name == "ours-hooks");
    let what = |server: &Server| VARIANTS.iter().find(|variant| variant.name == server.name);
    let mut table = Table::new(&["hooks with", COUNTED[0].name, "difference", COUNTED[1].name, "difference"]);
    for Figures { server, figures } in plain.into_iter().chain(&results.variants) {
        let mut row = vec![what(server).map_or("nothing else", |variant| variant.what).to_owned()];
        for (at, figure) in figures[..2].iter().enumerate() {
            let plain = plain.and_then(|plain| plain.figures[at]);
            row.push(figure.map_or(NONE.to_owned(), number));
            row.push(match figure.zip(plain) {
                Some((figure, plain)) if what(server).is_some() => format!("{:+.0}", figure - plain),
                _ => String::new(),
            });
        }
        table.row(row);
    }
    format!("### What features add to our hooks\n\nInstructions per message.\n\n{table}")
}

pub(super) fn growth(results: &Results) -> String {
    if results.growth.is_empty() {
        return String::new();
    }
    let mut table =
        Table::new(&["other channels", "1 busy", "without", "with", "64 busy", "without", "with"]);
    for growth in &results.growth {
        let mut row = vec![growth.what.clone()];
        for [without, with] in [growth.one, growth.many] {
            let change = (with / without - 1.0) * 100.0;
            row.extend([format!("{change:+.1} %"), number(without), number(with)]);
        }
        table.row(row);
    }
    format!(
        "### Growth

How much more a message costs when the map also holds channels that do nothing, compared with the same
process before they are added: instructions per message, with one busy connection and with 64.

{table}"
    )
}

pub(super) fn calls(results: &Results) -> String {
    if results.calls.is_empty() {
        return String::new();
    }
    let mut totals = Table::new(&[&["server"], &COUNTED.map(|scenario| scenario.name)[..]].concat());
    let accept = COUNTED.len() - 1;
    let mut names = Table::new(&["server", COUNTED[0].name, COUNTED[accept].name]);
    for Figures { server, figures } in &results.calls {
        let mut row = vec![server.name.to_owned()];
        row.extend(figures.iter().map(|calls| {
            calls.as_ref().map_or(NONE.to_owned(), |calls| format!("{:.2}", calls.values().sum::<f64>()))
        }));
        totals.row(row);
        let list = |at: usize| {
            let Some(calls) = &figures[at] else { return NONE.to_owned() };
            let mut calls: Vec<_> = calls.iter().filter(|(_, count)| **count >= 0.01).collect();
            calls.sort_by(|one, other| other.1.total_cmp(one.1));
            let calls = calls.into_iter().map(|(name, count)| format!("{name} {count:.2}"));
            calls.collect::<Vec<_>>().join(", ")
        };
        names.row([server.name.to_owned(), list(0), list(accept)]);
    }
    names.left_aligned();
    format!(
        "## System calls

Per message or connection, counted by `strace -c -f`, which is attached once the connections are open.

{totals}

Which:

{names}"
    )
}

pub(super) fn memory(results: &Results) -> String {
    let Some((_, first)) = results.memory.first() else { return String::new() };
    let mut table = Table::new(&["server", "bytes per connection"]);
    for (server, memory) in &results.memory {
        table.row([server.name.to_owned(), number(memory.growth)]);
    }
    format!(
        "## Memory of an idle connection

Growth of the resident memory (VmRSS) over {} connections, each of which has had one message echoed. The
kernel's memory for a socket is not included; it is the same for all.

{table}",
        number(first.connections as f64)
    )
}
