#![no_main]

use dispatch_loop::framing::{ByteOrder, LengthPrefixed, Prefix};
use dispatch_loop_fuzz::check;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8], &[u8])| {
    let (limit, sizes, bytes) = input;
    let limit = usize::from(limit);
    for prefix in [Prefix::U8, Prefix::U16, Prefix::U32, Prefix::U64] {
        for order in [ByteOrder::Big, ByteOrder::Little] {
            check(|| LengthPrefixed::new(prefix, order).with_limit(limit), limit, bytes, sizes);
        }
    }
});
