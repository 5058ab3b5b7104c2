//! Only TLS: `cargo run --release --features tls --bin tls -- [--quick]`.

use std::io;
use std::time::Duration;

use compare::process::SERVE;
use compare::servers::{self, Program};
use compare::tls;

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [SERVE, name] => {
            let server = tls::SERVERS.iter().find(|server| server.name == name);
            match server.map(|server| server.program) {
                Some(Program::Rust(run)) => servers::listen_and(run),
                _ => Err(io::Error::other(format!("there is no server {name}"))),
            }
        }
        [] => tls::compare(11, Duration::from_millis(500), 2000),
        ["--quick"] => tls::compare(2, Duration::from_millis(50), 0),
        _ => Err(io::Error::other("usage: tls [--quick]")),
    }
}
