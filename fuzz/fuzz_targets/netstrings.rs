#![no_main]

use dispatch_loop::framing::Netstrings;
use dispatch_loop_fuzz::check;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8], &[u8])| {
    let (limit, sizes, bytes) = input;
    let limit = usize::from(limit);
    check(|| Netstrings::new().with_limit(limit), limit, bytes, sizes);
});
