//! The client against Debian's `redis-server`, and against servers that are none. Without `redis-server` the tests
//! that need it say so and pass, unless `CI` is set.

#[path = "redis/calls.rs"]
mod calls;
#[path = "redis/ends.rs"]
mod ends;
#[path = "redis/fake.rs"]
mod fake;
#[path = "redis/load.rs"]
mod load;
#[path = "redis/pushes.rs"]
mod pushes;
#[path = "redis/support.rs"]
mod support;
#[cfg(feature = "tls")]
#[path = "redis/tls.rs"]
mod tls;
