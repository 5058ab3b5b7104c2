//! The picture: for each server a row, with bars for the instructions of a message and marks for the
//! throughput. It has its own background and follows the reader's light or dark scheme, so it can be read
//! on any page.

use std::fmt::Write;

use super::{is_ours, number};
use crate::measure::{Results, Spread};
use crate::plan::{COUNTED, MANY, ONE, PIPELINED, Scenario};
use crate::servers::{BASE, Server};

const WIDTH: f64 = 1000.0;
/// Where the rows begin, and how high one is.
const TOP: f64 = 104.0;
const ROW: f64 = 44.0;
/// Room for the axis under the rows.
const BOTTOM: f64 = 40.0;

/// Where the names end.
const NAMES: f64 = 128.0;
/// The left and right ends of the bars and of the marks.
const BARS: [f64; 2] = [140.0, 480.0];
const MARKS: [f64; 2] = [580.0, 972.0];

/// The throughputs shown, each with its own mark and its offset within the row.
const SHOWN: [(&Scenario, Shape, f64); 3] =
    [(&ONE, Shape::Circle, -12.0), (&MANY, Shape::Square, 0.0), (&PIPELINED, Shape::Diamond, 12.0)];

const STYLE: &str = "
    .page { fill: #ffffff; stroke: #d0d7de }
    .text { fill: #1f2328 }
    .quiet { fill: #57606a }
    .grid { stroke: #d8dee4 }
    .base { stroke: #57606a }
    .band { fill: #f6f8fa }
    .other { fill: #4f7cac; stroke: #4f7cac }
    .ours { fill: #c8511b; stroke: #c8511b }
    .key { fill: #57606a; stroke: #57606a }
    .light { fill-opacity: 0.4 }
    @media (prefers-color-scheme: dark) {
      .page { fill: #161b22; stroke: #3d444d }
      .text { fill: #e6edf3 }
      .quiet { fill: #9da7b3 }
      .grid { stroke: #30363d }
      .base { stroke: #9da7b3 }
      .band { fill: #1d242d }
      .other { fill: #7aa7d9; stroke: #7aa7d9 }
      .ours { fill: #f28b55; stroke: #f28b55 }
      .key { fill: #9da7b3; stroke: #9da7b3 }
    }
  ";

pub(super) fn draw(results: &Results) -> String {
    let height = TOP + ROW * results.servers.len() as f64 + BOTTOM;
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="Helvetica, Arial, sans-serif" font-size="13">
  <title>Instructions per message and throughput of echo servers</title>
  <style>{STYLE}</style>
  <rect class="page" x="0.5" y="0.5" width="{}" height="{}" rx="8"/>
"##,
        WIDTH - 1.0,
        height - 1.0,
    );
    for (at, server) in results.servers.iter().enumerate() {
        let top = TOP + ROW * at as f64;
        if at % 2 == 0 {
            let width = MARKS[1] - 4.0;
            shape(
                &mut svg,
                &format!(r#"<rect class="band" x="16" y="{top}" width="{width}" height="{ROW}"/>"#),
            );
        }
        let weight = if is_ours(server) { r#" font-weight="bold""# } else { "" };
        text(&mut svg, "text", "end", [NAMES, top + ROW / 2.0 + 4.5], weight, server.name);
    }
    let floor = height - BOTTOM;
    draw_instructions(&mut svg, results);
    draw_throughput(&mut svg, results, floor);
    svg + "</svg>\n"
}

fn draw_instructions(svg: &mut String, results: &Results) {
    title(svg, BARS[0], "Instructions per message", "in user space; less is better");
    let key = TOP - 18.0;
    let keys = [("64 connections", ""), ("1 connection", " light")];
    for (at, (name, class)) in keys.into_iter().enumerate() {
        let x = BARS[0] + 140.0 * at as f64;
        let y = key - 9.0;
        shape(svg, &format!(r#"<rect class="key{class}" x="{x}" y="{y}" width="18" height="10"/>"#));
        text(svg, "quiet", "start", [x + 24.0, key], "", name);
    }
    let place = |scenario: &Scenario| COUNTED.iter().position(|counted| counted.name == scenario.name);
    let (Some(one), Some(many)) = (place(&ONE), place(&MANY)) else { return };
    let all = results.instructions.iter().flat_map(|row| [row.figures[one], row.figures[many]]).flatten();
    let most = all.fold(0.0, f64::max);
    for row in &results.instructions {
        let Some(at) = results.place(row.server.name) else { continue };
        let middle = TOP + ROW * at as f64 + ROW / 2.0;
        for (figure, class, y) in
            [(row.figures[many], "", middle - 16.0), (row.figures[one], " light", middle + 1.0)]
        {
            let Some(figure) = figure else { continue };
            let width = (BARS[1] - BARS[0]) * figure / most;
            let [class, x] = [format!("{}{class}", kind(row.server)), format!("{}", BARS[0])];
            shape(svg, &format!(r#"<rect class="{class}" x="{x}" y="{y}" width="{width:.1}" height="14"/>"#));
            text(
                svg,
                "text",
                "start",
                [BARS[0] + width + 6.0, y + 11.5],
                r#" font-size="12""#,
                &number(figure),
            );
        }
    }
    if results.instructions.is_empty() {
        text(svg, "quiet", "start", [BARS[0], TOP + 27.0], "", "not counted in this run");
    }
}

fn draw_throughput(svg: &mut String, results: &Results, floor: f64) {
    title(svg, MARKS[0], "Throughput", &format!("relative to {BASE} in the same round; more is better"));
    let Some(base) = results.place(BASE) else { return };
    let key = TOP - 18.0;
    let mut x = MARKS[0];
    for (scenario, mark, _) in SHOWN {
        mark.draw(svg, "key", [x + 5.0, key - 4.5]);
        text(svg, "quiet", "start", [x + 16.0, key], "", scenario.name);
        x += 40.0 + 7.0 * scenario.name.chars().count() as f64;
    }

    let mut marks: Vec<(usize, Shape, f64, Spread)> = Vec::new();
    for (scenario, mark, offset) in SHOWN {
        let Some(rounds) = results.rounds.iter().find(|rounds| rounds.scenario.name == scenario.name) else {
            continue;
        };
        for at in 0..results.servers.len() {
            if let Some(spread) = rounds.ratio(at, base, |run| run.rate) {
                marks.push((at, mark, offset, spread));
            }
        }
    }
    let axis = Axis::over(marks.iter().flat_map(|(.., spread)| [spread.min, spread.max]));
    for (value, name) in axis.ticks() {
        let x = axis.place(value);
        let class = if (value - 1.0).abs() < 1e-9 { "base" } else { "grid" };
        shape(svg, &format!(r#"<path class="{class}" d="M{x:.1} {TOP} V{floor}"/>"#));
        text(svg, "quiet", "middle", [x, floor + 18.0], r#" font-size="12""#, &name);
    }
    for (at, mark, offset, spread) in marks {
        let y = TOP + ROW * at as f64 + ROW / 2.0 + offset;
        let class = kind(results.servers[at]);
        let [min, median, max] = [spread.min, spread.median, spread.max].map(|value| axis.place(value));
        if max > min {
            let line = format!("M{min:.1} {y} H{max:.1}");
            shape(svg, &format!(r#"<path class="{class}" stroke-width="1.5" d="{line}"/>"#));
        }
        mark.draw(svg, class, [median, y]);
    }
}

fn title(svg: &mut String, x: f64, name: &str, what: &str) {
    text(svg, "text", "start", [x, 34.0], r#" font-size="17" font-weight="bold""#, name);
    text(svg, "quiet", "start", [x, 55.0], "", what);
}

/// The style of a server's bars and marks.
fn kind(server: &Server) -> &'static str {
    if is_ours(server) { "ours" } else { "other" }
}

#[derive(Clone, Copy)]
enum Shape {
    Circle,
    Square,
    Diamond,
}

impl Shape {
    fn draw(self, svg: &mut String, class: &str, [x, y]: [f64; 2]) {
        let outline = match self {
            Shape::Circle => format!(r#"<circle class="{class}" cx="{x:.1}" cy="{y}" r="4.5"/>"#),
            Shape::Square => {
                let [left, top] = [x - 4.0, y - 4.0];
                format!(r#"<rect class="{class}" x="{left:.1}" y="{top}" width="8" height="8"/>"#)
            }
            Shape::Diamond => {
                let top = y - 5.5;
                format!(r#"<path class="{class}" d="M{x:.1} {top} l5.5 5.5 l-5.5 5.5 l-5.5 -5.5 z"/>"#)
            }
        };
        shape(svg, &outline);
    }
}

/// The scale of the ratios.
struct Axis {
    least: f64,
    most: f64,
    step: f64,
}

impl Axis {
    /// Covers all values, and 1.
    fn over(values: impl Iterator<Item = f64>) -> Axis {
        let (least, most) =
            values.fold((0.9, 1.1), |(least, most): (f64, f64), value| (least.min(value), most.max(value)));
        // At most eight steps, each a round number.
        let steps = [0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];
        let step = steps.into_iter().find(|step| most - least <= step * 8.0).unwrap_or(10.0);
        Axis { least: (least / step).floor() * step, most: (most / step).ceil() * step, step }
    }

    fn place(&self, value: f64) -> f64 {
        MARKS[0] + (value - self.least) / (self.most - self.least) * (MARKS[1] - MARKS[0])
    }

    fn ticks(&self) -> impl Iterator<Item = (f64, String)> + use<> {
        let (least, step) = (self.least, self.step);
        let count = ((self.most - least) / step).round() as usize;
        (0..=count).map(move |tick| {
            let value = least + step * tick as f64;
            (value, if step < 0.1 { format!("{value:.2}") } else { format!("{value:.1}") })
        })
    }
}

fn shape(svg: &mut String, outline: &str) {
    writeln!(svg, "  {outline}").expect("writing to a string never fails");
}

fn text(svg: &mut String, class: &str, anchor: &str, [x, y]: [f64; 2], more: &str, words: &str) {
    let words =
        format!(r#"<text class="{class}" text-anchor="{anchor}" x="{x:.1}" y="{y:.1}"{more}>{words}</text>"#);
    shape(svg, &words);
}

#[cfg(test)]
mod tests {
    use super::Axis;

    #[test]
    fn an_axis_covers_all_values_and_one() {
        let axis = Axis::over([0.43, 0.98].into_iter());
        let ticks: Vec<String> = axis.ticks().map(|(_, name)| name).collect();
        assert_eq!(ticks, ["0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "1.0", "1.1"]);
        assert!(axis.place(0.43) > axis.place(0.4) && axis.place(0.43) < axis.place(0.5));
    }
}
