//! What is logged of connections, at `--log info`.

use dispatch_loop::{Channel, Reason};

/// A line about a connection that has ended: who it was, why, the bytes each way, and how long it lasted.
pub fn disconnected(ch: &Channel<'_>, reason: &Reason) {
    if let Ok(peer) = ch.peer_addr() {
        let (bytes_in, bytes_out, seconds) = (ch.bytes_in(), ch.bytes_out(), ch.age().as_secs_f64());
        log::info!("{peer} disconnected: {reason}; {bytes_in} bytes in, {bytes_out} out, {seconds:.2} s");
    }
}
