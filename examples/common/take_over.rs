//! `--take-over PATH`: the listeners of a predecessor, and the successor that gets them.

use std::sync::atomic::{AtomicBool, Ordering};

/// A successor has taken over, so the service goes on.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// Whether a successor goes on with the service.
pub fn has_successor() -> bool {
    IS_TAKEN.load(Ordering::Relaxed)
}

pub use here::{Inheritance, offer, request};

#[cfg(feature = "layers")]
mod here {
    use std::sync::atomic::Ordering;

    use dispatch_loop::hand_over::{self, Taken};
    use dispatch_loop::{ChannelMap, DrainOptions, Loops, Socket, Token};

    use super::super::{Exit, ServerOptions};

    /// What the listeners are called, and the one for numbers.
    const NAME: &str = "server";
    const STATS: &str = "stats";

    /// What the predecessor has given; nothing, if there is none.
    #[derive(Default)]
    pub struct Inheritance(Taken);

    impl Inheritance {
        pub fn sockets(&mut self) -> Vec<Socket> {
            self.0.take(NAME)
        }

        pub fn stats(&mut self) -> Option<Socket> {
            self.0.take(STATS).pop()
        }
    }

    pub fn request(options: &ServerOptions) -> Result<Inheritance, Exit> {
        let taken = options.take_over().map_or_else(|| Ok(Taken::default()), hand_over::request)?;
        Ok(Inheritance(taken))
    }

    /// This server is ready: the predecessor can end, and a successor can ask. Then all `loops` of this one drain.
    pub fn offer(
        map: &mut ChannelMap,
        inheritance: Inheritance,
        listeners: Vec<Token>,
        stats: Option<Token>,
        options: &ServerOptions,
        loops: Option<Loops>,
    ) -> Result<(), Exit> {
        let Some(path) = options.take_over() else { return Ok(()) };
        let drain = DrainOptions::default().with_deadline(options.drain());
        let stats = stats.map(|stats| (STATS, stats));
        let listeners = listeners.into_iter().map(|listener| (NAME, listener)).chain(stats);
        hand_over::offer(map, path, inheritance.0, listeners, move |map| {
            log::info!("a successor has taken over");
            super::IS_TAKEN.store(true, Ordering::Relaxed);
            match &loops {
                Some(loops) => loops.drain(&drain),
                None => map.drain(&drain),
            }
        })?;
        Ok(())
    }
}

/// Without the layers there is no such option.
#[cfg(not(feature = "layers"))]
mod here {
    use dispatch_loop::{ChannelMap, Loops, Socket, Token};

    use super::super::{Exit, ServerOptions};

    #[derive(Default)]
    pub struct Inheritance;

    impl Inheritance {
        pub fn sockets(&mut self) -> Vec<Socket> {
            Vec::new()
        }

        pub fn stats(&mut self) -> Option<Socket> {
            None
        }
    }

    pub fn request(_: &ServerOptions) -> Result<Inheritance, Exit> {
        Ok(Inheritance)
    }

    pub fn offer(
        _: &mut ChannelMap,
        _: Inheritance,
        _: Vec<Token>,
        _: Option<Token>,
        _: &ServerOptions,
        _: Option<Loops>,
    ) -> Result<(), Exit> {
        Ok(())
    }
}
