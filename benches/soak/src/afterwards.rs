//! Once all is over: whether each port is still served, and whether the server ends in order for those who
//! are connected then.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::ports::{Exchange, PORTS, Port, request};
use crate::random::Random;
use crate::shared::Addresses;

/// How long each may wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much of an answer is still to come when the server is told to end.
const MUCH: u32 = 16 << 20;
const SEED: u64 = 11;

/// Clients that stay.
pub struct Staying {
    idle: Vec<(Port, TcpStream)>,
    busy: TcpStream,
}

/// One exchange with each port, and one that is not over.
///
/// # Errors
/// Which port is not served, and why.
pub fn ask_each(addresses: &Addresses) -> Result<Staying, String> {
    let why = |port| move |error: io::Error| format!("{port:?} is not served any more: {error}");
    let mut idle = Vec::new();
    for port in PORTS {
        idle.push((port, ask(addresses.of(port), port).map_err(why(port))?));
    }
    let busy = begin(addresses.of(Port::Pour)).map_err(why(Port::Pour))?;
    Ok(Staying { idle, busy })
}

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn ask(to: SocketAddr, port: Port) -> io::Result<TcpStream> {
    let mut stream = connect(to)?;
    let exchange = Exchange::new(port, &mut Random::new(1), true);
    stream.write_all(&exchange.send)?;
    let mut answer = vec![0; exchange.expect().len()];
    stream.read_exact(&mut answer)?;
    if answer == exchange.expect() { Ok(stream) } else { Err(io::Error::other("the answer is wrong")) }
}

fn begin(to: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = connect(to)?;
    stream.write_all(&request(SEED, MUCH))?;
    // It has begun.
    stream.peek(&mut [0])?;
    Ok(stream)
}

impl Staying {
    /// While the server ends: the answer comes whole, and nobody is cut off with a reset.
    ///
    /// # Errors
    /// Who is, or what was wrong.
    pub fn watch_end(mut self) -> Result<(), String> {
        let mut answer = Vec::new();
        let read = self.busy.read_to_end(&mut answer);
        read.map_err(|error| format!("an answer was cut off by the drain: {error}"))?;
        if answer != Random::new(SEED).bytes(MUCH as usize) {
            return Err(format!("an answer was wrong in the drain: {} of {MUCH} bytes", answer.len()));
        }
        for (port, stream) in &mut self.idle {
            match stream.read(&mut [0]) {
                Ok(0) => {}
                Ok(_) => return Err(format!("{port:?} said something in the drain")),
                Err(error) => return Err(format!("an idle client of {port:?} was cut off: {error}")),
            }
        }
        Ok(())
    }
}
