//! Whether each port is still served, once all is over.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::ports::{Exchange, PORTS, Port};
use crate::random::Random;
use crate::shared::Addresses;

/// One exchange with each port.
///
/// # Errors
/// Which port is not, and why.
pub fn ask_each(addresses: &Addresses) -> Result<(), String> {
    for port in PORTS {
        ask(addresses.of(port), port).map_err(|error| format!("{port:?} is not served any more: {error}"))?;
    }
    Ok(())
}

fn ask(to: SocketAddr, port: Port) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(10))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let exchange = Exchange::new(port, &mut Random::new(1), true);
    stream.write_all(&exchange.send)?;
    let mut answer = vec![0; exchange.expect().len()];
    stream.read_exact(&mut answer)?;
    if answer == exchange.expect() { Ok(()) } else { Err(io::Error::other("the answer is wrong")) }
}
