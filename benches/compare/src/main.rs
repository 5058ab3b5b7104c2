//! Measures echo servers on this machine, and prints the instructions per message.

use std::process::ExitCode;

use compare::measure;
use compare::plan::Plan;
use compare::process::SERVE;
use compare::servers;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [word, name] = &words[..] {
        if word == SERVE {
            let result = servers::serve(name);
            eprintln!("{name}: {result:?}");
            return ExitCode::FAILURE;
        }
    }
    let results = measure::everything(&Plan::quick(), None);
    for row in results.instructions.iter().chain(&results.variants) {
        println!("{}: {:?}", row.server.name, row.figures);
    }
    if results.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
