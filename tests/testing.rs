//! The test kit: its clock, its peers, its server, its seeds; and tests of the layers that need no sockets.

#[allow(dead_code)]
#[path = "support"]
mod support {
    pub mod opened;
    pub mod peers;
    pub mod recorder;
    pub mod turning;
    pub mod waiting;
}

// The layers' own recorder.
#[allow(dead_code)]
#[path = "layers/talk.rs"]
mod talk;

mod testing {
    mod clock;
    mod done_when;
    mod layers;
    mod peers;
    mod reconnect;
    mod seeds;
    mod server;
    mod wakers;
}
