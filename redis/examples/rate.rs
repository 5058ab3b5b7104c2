//! How many commands a second: `INCR`, so many without an answer at a time.
//!
//! ```sh
//! cargo run --release -p dispatch-loop-redis --example rate -- redis://localhost 1000000 1000
//! ```

use std::cell::Cell;
use std::error::Error;
use std::rc::Rc;
use std::time::Instant;

use dispatch_loop::ChannelMap;
use dispatch_loop_redis::{Handler, Options, Redis, Server};

/// What is left to call, and to be answered.
struct Load {
    left: Cell<u64>,
    unanswered: Cell<u64>,
    begun: Cell<Instant>,
    total: u64,
}

impl Load {
    /// Call once more, and again when that is answered.
    fn go_on(self: &Rc<Load>, map: &mut ChannelMap, redis: &Redis) {
        if self.left.get() == 0 {
            return;
        }
        self.left.set(self.left.get() - 1);
        let (load, client) = (self.clone(), redis.clone());
        let called = redis.call(map, ["INCR", "rate"], move |map, answer| {
            if let Err(error) = answer {
                println!("error: {error}");
                return client.close(map);
            }
            load.unanswered.set(load.unanswered.get() - 1);
            load.go_on(map, &client);
            if load.unanswered.get() == 0 {
                let seconds = load.begun.get().elapsed().as_secs_f64();
                println!("{:.0} commands a second", load.total as f64 / seconds);
                client.close(map);
            }
        });
        if let Err(refused) = called {
            println!("error: {refused}");
            redis.close(map);
        }
    }
}

struct Begin(Rc<Load>, u64);

impl Handler for Begin {
    fn connected(&mut self, map: &mut ChannelMap, redis: &Redis, _: &Server) {
        self.0.begun.set(Instant::now());
        (0..self.1).for_each(|_| self.0.go_on(map, redis));
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let url = args.next().unwrap_or("redis://localhost".to_owned());
    let total = args.next().map_or(Ok(1_000_000), |total| total.parse())?;
    let at_once = args.next().map_or(Ok(1000), |at_once| at_once.parse())?;
    let mut map = ChannelMap::new()?;
    let load = Load {
        left: Cell::new(total),
        unanswered: Cell::new(total),
        begun: Cell::new(Instant::now()),
        total,
    };
    Redis::connect(&mut map, &url, &Options::default(), Begin(Rc::new(load), at_once))?;
    dispatch_loop::run(&mut map)?;
    Ok(())
}
