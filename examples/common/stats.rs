//! `--stats`: the numbers of a server, over HTTP on the same loop.

use dispatch_loop::{ChannelMap, Socket, Token};

use super::Exit;

/// Listen there, or on the listener of a predecessor, and say where that is.
#[cfg(feature = "layers")]
pub fn offer(map: &mut ChannelMap, address: &str, taken: Option<Socket>) -> Result<Token, Exit> {
    use std::time::Duration;

    use dispatch_loop::ToAddress;
    use dispatch_loop::stats::Stats;

    let stats = match (taken, address.to_address()) {
        (Some(socket), _) => Stats::new().adopt(map, socket)?,
        (None, Ok(address)) => Stats::new().listen(map, address)?,
        (None, Err(_)) => Stats::new().listen(map, super::resolve(address.into())?)?,
    };
    map.watch_slow_hooks(Some(Duration::from_millis(100)))?;
    if let Some(address) = map.channel(stats).ok().and_then(|ch| ch.local_addr().ok()) {
        super::say(format_args!("stats on {address}"));
    }
    Ok(stats.token())
}

#[cfg(not(feature = "layers"))]
pub fn offer(_: &mut ChannelMap, _: &str, _: Option<Socket>) -> Result<Token, Exit> {
    Err(Exit::Usage("--stats needs the feature `layers`".to_owned()))
}
