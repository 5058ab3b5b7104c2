//! `--stats`: the numbers of a server, over HTTP on the same loop.

use dispatch_loop::ChannelMap;

use super::Exit;

/// Listen there, and say where that is.
#[cfg(feature = "layers")]
pub fn offer(map: &mut ChannelMap, address: &str) -> Result<(), Exit> {
    use std::time::Duration;

    use dispatch_loop::ToAddress;
    use dispatch_loop::stats::Stats;

    let address = match address.to_address() {
        Ok(address) => address,
        Err(_) => super::resolve(address.into())?.into(),
    };
    let stats = Stats::new().listen(map, address)?;
    map.watch_slow_hooks(Some(Duration::from_millis(100)))?;
    if let Some(address) = map.channel(stats).ok().and_then(|ch| ch.local_addr().ok()) {
        super::say(format_args!("stats on {address}"));
    }
    Ok(())
}

#[cfg(not(feature = "layers"))]
pub fn offer(_: &mut ChannelMap, _: &str) -> Result<(), Exit> {
    Err(Exit::Usage("--stats needs the feature `layers`".to_owned()))
}
