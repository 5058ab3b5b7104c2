//! What the larger programs share: how one is called, how it ends, and what a terminal may be shown.

use std::io::{self, Write};
use std::process::ExitCode;

/// Why a program ends without having done its work.
#[derive(Debug)]
pub enum Exit {
    /// `--help`: status 0.
    Help,
    /// Wrong usage: status 2, and how it should be called.
    Usage(String),
    /// Anything else: status 1, and one line that says what, where and why.
    Failure(String),
}

impl From<lexopt::Error> for Exit {
    fn from(error: lexopt::Error) -> Exit {
        Exit::Usage(error.to_string())
    }
}

impl From<io::Error> for Exit {
    fn from(error: io::Error) -> Exit {
        Exit::Failure(error.to_string())
    }
}

/// Run a program. The first line of `help` is how it is called.
pub fn main(help: &str, program: impl FnOnce(lexopt::Parser) -> Result<(), Exit>) -> ExitCode {
    match program(lexopt::Parser::from_env()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Exit::Help) => {
            // Somebody who reads no further (`| head`) has seen enough.
            let _ = writeln!(io::stdout(), "{help}");
            ExitCode::SUCCESS
        }
        Err(Exit::Usage(why)) => {
            eprintln!("error: {why}\n{}", help.lines().next().unwrap_or_default());
            ExitCode::from(2)
        }
        Err(Exit::Failure(why)) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The text with what could steer a terminal, or turn its lines around, escaped; tabs stay.
pub fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => shown.push(c),
            c if c.is_control() || turns_around(c) => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown
}

/// Unicode's marks for writing from right to left.
fn turns_around(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
