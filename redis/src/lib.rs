#![doc = include_str!("../README.md")]
#![deny(missing_docs, missing_debug_implementations, unreachable_pub)]

mod client;
mod command;
mod connection;
mod decode;
mod error;
mod handler;
mod options;
mod url;
mod value;

pub use client::Redis;
pub use command::{Argument, Command};
pub use error::{Cause, Error, Refused, Why};
pub use handler::{Handler, Push, Server};
pub use options::{Options, Protocol};
pub use url::Url;
pub use value::{ServerError, Value};
