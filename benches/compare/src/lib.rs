//! Echo servers side by side: the same job done with `dispatch-loop`, with its peers and by hand, measured
//! in one run on one machine. The command is in `src/main.rs`; these are its parts.
//!
//! - `servers`: the echo servers, each written as a user of that library would write it
//! - `process`: starts a server as a process of its own, and ends it
//! - `load`: the load generator, which checks every byte that comes back
//! - `measure`: throughput, system calls, instructions, memory and growth
//! - `timers`: a million timers compared with a binary heap
//! - `tls`: the same over TLS, beside rustls driven by hand (feature `tls`, a command of its own)
//! - `report`: the page and its picture

#[cfg(not(target_os = "linux"))]
compile_error!("this comparison needs Linux: epoll, /proc and strace");

pub mod load;
pub mod measure;
pub mod plan;
pub mod process;
mod random;
pub mod report;
pub mod servers;
pub mod system;
pub mod timers;
#[cfg(feature = "tls")]
pub mod tls;
