//! `--stats`: the numbers of a server, over HTTP on its loop, or the first of them.

use std::io;

use dispatch_loop::{Address, ChannelMap, Loops, Socket, Token};

use super::Exit;

/// Listen there, or on the listener of a predecessor. The numbers are those of all `loops`.
#[cfg(feature = "layers")]
pub fn offer(
    map: &mut ChannelMap,
    address: &str,
    taken: Option<Socket>,
    loops: Option<&Loops>,
) -> Result<(Token, Address), Exit> {
    use dispatch_loop::ToAddress;
    use dispatch_loop::stats::Stats;

    let stats = match loops {
        Some(loops) => Stats::new().with_loops(loops),
        None => Stats::new(),
    };
    let stats = match (taken, address.to_address()) {
        (Some(socket), _) => stats.adopt(map, socket)?,
        (None, Ok(address)) => stats.listen(map, address)?,
        (None, Err(_)) => stats.listen(map, super::resolve(address.into())?)?,
    };
    let address = map.channel(stats).map_err(io::Error::from)?.local_addr()?;
    Ok((stats.token(), address))
}

#[cfg(not(feature = "layers"))]
pub fn offer(
    _: &mut ChannelMap,
    _: &str,
    _: Option<Socket>,
    _: Option<&Loops>,
) -> Result<(Token, Address), Exit> {
    Err(Exit::Usage("--stats needs the feature `layers`".to_owned()))
}
