//! What other threads and the system tell a loop: messages, outlets, lines, signals.

// A helper that is dead shows in the group that uses all of its file: there it has no `allow`.
#[path = "support"]
mod support {
    pub mod logging;
    #[allow(dead_code)]
    pub mod peers;
    pub mod process;
    #[allow(dead_code)]
    pub mod provoke;
    #[allow(dead_code)]
    pub mod recorder;
    pub mod threads;
    #[allow(dead_code)]
    pub mod turning;
    #[allow(dead_code)]
    pub mod waiting;
}

mod threads {
    mod crowds;
    mod lines;
    mod outlet;
    mod remote;
    mod signals;
}
