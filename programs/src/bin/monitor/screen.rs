//! What is shown: a table of servers, and of the chosen one its slow hooks and its channels.

use std::cmp::Reverse;
use std::fmt::Write as _;
use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Paragraph, Row as TableRow, Table};

use crate::metrics::Sample;
use crate::servers::{Row, Server, Servers};

/// The columns of the table of servers, and how wide each is.
const COLUMNS: [(&str, u16); 11] = [
    ("server", 22),
    ("open", 7),
    ("accept/s", 8),
    ("close/s", 8),
    ("in/s", 9),
    ("out/s", 9),
    ("hooks/s", 9),
    ("turns/s", 9),
    ("turn p99", 9),
    ("lag p99", 9),
    ("queued", 9),
];

/// The columns of the table of channels, as the server sends them.
const CHANNEL: [(&str, u16); 8] = [
    ("channel", 10),
    ("state", 11),
    ("peer", 26),
    ("age", 8),
    ("idle", 8),
    ("in", 10),
    ("out", 10),
    ("queued", 10),
];

/// By which the channels can be sorted: the last five.
pub const SORTS: usize = 5;

/// One server as a line of the table.
fn line(server: &Server) -> Vec<String> {
    let mut cells = vec![server.address.clone()];
    let (before, now) = match (&server.failure, &server.now) {
        (Some(why), _) => return with(cells, why.clone()),
        (None, None) => return with(cells, "...".to_owned()),
        (None, Some(now)) => (server.before.as_ref(), now),
    };
    let rate = |name: &str| before.map_or_else(|| "-".to_owned(), |before| count(now.rate(before, name)));
    let bytes_rate =
        |name: &str| before.map_or_else(|| "-".to_owned(), |before| bytes(now.rate(before, name)));
    let closes = before.map_or(0.0, |before| closes(now) - closes(before));
    let p99 = |name: &str| now.quantile(before, name, 0.99).map_or_else(|| "-".to_owned(), time);
    cells.extend([
        count(now.get("dispatch_loop_channels{state=\"open\"}")),
        rate("dispatch_loop_accepts_total"),
        count(closes.max(0.0)),
        bytes_rate("dispatch_loop_received_bytes_total"),
        bytes_rate("dispatch_loop_sent_bytes_total"),
        rate("dispatch_loop_hooks_total"),
        rate("dispatch_loop_turns_total"),
        p99("dispatch_loop_turn_seconds"),
        p99("dispatch_loop_timer_lag_seconds"),
        bytes(now.get("dispatch_loop_queued_bytes")),
    ]);
    cells
}

fn with(mut cells: Vec<String>, last: String) -> Vec<String> {
    cells.push(last);
    cells
}

fn closes(sample: &Sample) -> f64 {
    sample.by_label("dispatch_loop_closes_total", "reason").iter().map(|(_, count)| count).sum()
}

/// The channels of a server, the largest by column `sort` first.
fn channels(server: &Server, sort: usize) -> Vec<&Row> {
    let key =
        |row: &&Row| row.get(CHANNEL.len() - SORTS + sort).map_or(0.0, |cell| cell.parse().unwrap_or(0.0));
    let mut rows: Vec<&Row> = server.channels.iter().collect();
    rows.sort_by_key(|row| Reverse((key(row) * 1000.0) as i64));
    rows
}

fn shown(row: &Row) -> Vec<String> {
    let cell = |(at, text): (usize, &String)| {
        let number = text.parse::<f64>();
        match (at, number) {
            (3 | 4, Ok(seconds)) => time(Duration::try_from_secs_f64(seconds).unwrap_or_default()),
            (5.., Ok(number)) => bytes(number),
            _ => text.clone(),
        }
    };
    row.iter().enumerate().map(cell).collect()
}

/// The hooks that took too long, by their names.
fn slow_hooks(server: &Server) -> String {
    let Some(now) = &server.now else { return String::new() };
    let slow = now.by_label("dispatch_loop_slow_hooks_total", "hook");
    let slow: Vec<String> = slow.iter().map(|(hook, times)| format!("{hook} {times}")).collect();
    match slow.is_empty() {
        true => "no hook was slow".to_owned(),
        false => format!("slow hooks: {}", slow.join(", ")),
    }
}

pub fn draw(frame: &mut Frame<'_>, servers: &Servers, sort: usize) {
    let of_servers = u16::try_from(servers.all.len()).unwrap_or(u16::MAX).saturating_add(3).min(12);
    let parts =
        [Constraint::Length(of_servers), Constraint::Length(1), Constraint::Min(3), Constraint::Length(1)];
    let [top, middle, below, bottom] = Layout::vertical(parts).areas(frame.area());
    let rows = servers.all.iter().enumerate().map(|(at, server)| {
        let row = TableRow::new(line(server));
        let row = if at == servers.selected { row.reversed() } else { row };
        if server.failure.is_some() { row.red() } else { row }
    });
    table(frame, top, " servers ", &COLUMNS, None, rows.collect());
    let Some(server) = servers.all.get(servers.selected) else { return };
    frame.render_widget(Paragraph::new(format!(" {}", slow_hooks(server))).yellow(), middle);
    let rows = channels(server, sort).into_iter().map(|row| TableRow::new(shown(row)));
    let title = format!(" channels of {} ", server.address);
    table(frame, below, &title, &CHANNEL, Some(CHANNEL.len() - SORTS + sort), rows.collect());
    let keys = [("q", " end  "), ("↑↓", " server  "), ("s", " sort")];
    let keys = keys.into_iter().flat_map(|(key, what)| [Span::from(key).bold(), Span::from(what)]);
    frame.render_widget(Line::from_iter(std::iter::once(Span::from(" ")).chain(keys)), bottom);
}

fn table(
    frame: &mut Frame<'_>,
    area: Rect,
    title: &str,
    columns: &[(&str, u16)],
    sorted: Option<usize>,
    rows: Vec<TableRow<'_>>,
) {
    let head = columns.iter().enumerate().map(|(at, (name, _))| {
        let style = Style::new().add_modifier(Modifier::BOLD);
        Cell::from(*name).style(if sorted == Some(at) { style.underlined() } else { style })
    });
    let widths = columns.iter().map(|(_, width)| Constraint::Length(*width));
    let table = Table::new(rows, widths).header(TableRow::new(head)).block(Block::bordered().title(title));
    frame.render_widget(table, area);
}

/// All of it as text.
pub fn text(servers: &Servers) -> String {
    let mut text = String::new();
    text_row(&mut text, &COLUMNS, &COLUMNS.map(|(name, _)| name.to_owned()));
    for server in &servers.all {
        text_row(&mut text, &COLUMNS, &line(server));
    }
    for server in servers.all.iter().filter(|server| server.now.is_some()) {
        let _ = writeln!(text, "\n{}: {}", server.address, slow_hooks(server));
        text_row(&mut text, &CHANNEL, &CHANNEL.map(|(name, _)| name.to_owned()));
        for row in channels(server, SORTS - 1) {
            text_row(&mut text, &CHANNEL, &shown(row));
        }
    }
    text
}

fn text_row(text: &mut String, columns: &[(&str, u16)], cells: &[String]) {
    let mut row = String::new();
    for (cell, (_, width)) in cells.iter().zip(columns) {
        let _ = write!(row, "{cell:<width$} ", width = usize::from(*width));
    }
    let _ = writeln!(text, "{}", row.trim_end());
}

/// A number in as few characters as it takes.
fn count(number: f64) -> String {
    match number {
        n if n >= 10_000_000.0 => format!("{:.0}M", n / 1e6),
        n if n >= 10_000.0 => format!("{:.0}k", n / 1e3),
        n if n >= 10.0 || n.fract() == 0.0 => format!("{n:.0}"),
        n => format!("{n:.1}"),
    }
}

fn bytes(number: f64) -> String {
    let mut number = number;
    for unit in ["", " KiB", " MiB", " GiB"] {
        if number < 10_000.0 {
            return format!("{number:.0}{unit}");
        }
        number /= 1024.0;
    }
    format!("{number:.0} TiB")
}

fn time(time: Duration) -> String {
    match time.as_secs_f64() {
        s if s > 1e6 => "> 34 s".to_owned(),
        s if s >= 3600.0 => format!("{:.1} h", s / 3600.0),
        s if s >= 1.0 => format!("{s:.1} s"),
        s if s >= 0.001 => format!("{:.1} ms", s * 1e3),
        s => format!("{:.0} µs", s * 1e6),
    }
}
