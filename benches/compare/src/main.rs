//! Runs each scenario once on each server, and checks every byte that comes back.

use std::io;

use compare::load;
use compare::plan::SCENARIOS;
use compare::process::{Process, SERVE, Under};
use compare::servers::{self, SERVERS};

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [word, name] = &words[..] {
        if word == SERVE {
            return servers::serve(name);
        }
    }
    for server in &SERVERS {
        for scenario in SCENARIOS {
            let mut process = Process::start(server, Under::Nothing, None)?;
            let mut load = load::open(scenario, process.address)?;
            load.exactly(10_000)?;
            load.finish()?;
            process.check()?;
            println!("{}, {}: every byte came back", server.name, scenario.name);
        }
    }
    Ok(())
}
