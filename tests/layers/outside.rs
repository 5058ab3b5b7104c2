//! The layers use the public API alone: here they are compiled from outside, where there is no other.

#[allow(dead_code, unreachable_pub, unused_imports)]
#[path = "../../src/layers/mod.rs"]
mod layers;

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use dispatch_loop::{ChannelMap, run};

use layers::protocol::{Protocol, ProtocolDispatcher, Transport};

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> io::Result<()> {
        transport.write(data)
    }
}

#[test]
fn a_layer_of_somebody_elses_works() -> io::Result<()> {
    let (near, mut far) = UnixStream::pair()?;
    let mut map = ChannelMap::new()?;
    map.add(near, ProtocolDispatcher::new(Echo))?;
    far.write_all(b"from outside")?;
    far.shutdown(std::net::Shutdown::Write)?;
    run(&mut map)?;
    let mut echo = String::new();
    far.read_to_string(&mut echo)?;
    assert_eq!(echo, "from outside");
    Ok(())
}
