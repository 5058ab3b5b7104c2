//! Only the timers: `cargo run --release --bin timers -- [TIMERS [ROUNDS]]`.

use std::io;

use compare::timers::{self, STEPS};

fn main() -> io::Result<()> {
    let mut numbers = std::env::args().skip(1).map(|word| word.parse().map_err(io::Error::other));
    let count = numbers.next().transpose()?.unwrap_or(1_000_000);
    let rounds = numbers.next().transpose()?.unwrap_or(5);
    let outcome = timers::compare(count, rounds)?;
    println!("{count} timers, medians of {rounds} rounds, nanoseconds per timer");
    println!("{:<16} {:>8} {:>8}  ratio", "", "ours", "heap");
    for (at, step) in STEPS.iter().chain(&["all"]).enumerate() {
        let ratio = outcome.ratios[at];
        println!(
            "{step:<16} {:>8.0} {:>8.0}  {:.2} ({:.2} to {:.2})",
            outcome.ours[at].median, outcome.heap[at].median, ratio.median, ratio.min, ratio.max
        );
    }
    Ok(())
}
