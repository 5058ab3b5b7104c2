//! A test for many seeds.

use std::any::Any;
use std::env;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

const VARIABLE: &str = "DISPATCH_LOOP_SEED";

/// Run a test for each of these seeds, which it passes to [`map_with_seed`](crate::testing::map_with_seed). If it
/// panics or returns an error, the panic of this function names the seed.
///
/// With the environment variable `DISPATCH_LOOP_SEED` set to a number, only that seed is run, whatever the range.
///
/// ```
/// use dispatch_loop::{Channel, Dispatcher, testing};
/// use std::io;
///
/// struct Echo;
///
/// impl Dispatcher for Echo {
///     fn handle_read(&mut self, ch: &mut Channel<'_>) -> io::Result<()> {
///         ch.read_with(|ch, data| ch.push(data))
///     }
/// }
///
/// testing::seeds(0..100, |seed| {
///     let mut map = testing::map_with_seed(seed)?;
///     let (_, peer) = testing::add(&mut map, Echo)?;
///     peer.send("one").send("two").fin();
///     dispatch_loop::run(&mut map)?;
///     assert_eq!(peer.sent(), b"onetwo");
///     Ok(())
/// });
/// ```
///
/// # Panics
/// If the test fails for one of them; the others after it are not run. If `DISPATCH_LOOP_SEED` is not a number.
#[track_caller]
pub fn seeds(seeds: impl IntoIterator<Item = u64>, mut test: impl FnMut(u64) -> io::Result<()>) {
    let only = env::var(VARIABLE).ok().map(|text| match text.parse() {
        Ok(seed) => seed,
        Err(error) => panic!("{VARIABLE}={text}: {error}"),
    });
    match only {
        Some(seed) => run(seed, &mut test),
        None => seeds.into_iter().for_each(|seed| run(seed, &mut test)),
    }
}

#[track_caller]
fn run(seed: u64, test: &mut impl FnMut(u64) -> io::Result<()>) {
    let why = match catch_unwind(AssertUnwindSafe(|| test(seed))) {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(payload) => text_of(&*payload).to_owned(),
    };
    panic!("with seed {seed} the test fails ({VARIABLE}={seed} runs this one alone): {why}");
}

fn text_of(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a panic without a text")
}
