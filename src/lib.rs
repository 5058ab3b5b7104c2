//! asyncore for Rust.

#![deny(missing_docs, missing_debug_implementations, unreachable_pub)]

#[cfg(not(unix))]
compile_error!("dispatch-loop is for Unix systems: Linux, macOS and the BSDs");

mod accept;
mod address;
mod channel;
mod dispatcher;
mod error;
mod event_loop;
#[cfg(feature = "faults")]
#[doc(hidden)]
pub mod faults;
#[cfg(not(feature = "faults"))]
mod faults;
mod hooks;
mod map;
mod outbox;
mod poll;
mod report;
mod settle;
mod socket;
mod source;
mod state;
mod sys;
mod timers;
mod token;
mod traffic;

pub use address::{Address, ToAddress};
pub use channel::{Channel, OnLimit};
pub use dispatcher::{Dispatcher, Eof, OnError};
pub use error::{ChannelError, LookupError, Reason};
pub use event_loop::{LoopOptions, run, run_with};
pub use map::ChannelMap;
pub use outbox::{More, Producer};
pub use socket::Socket;
pub use source::{Interest, Source};
pub use timers::TimerId;
pub use token::{Handle, Token};
