//! Every system call fails once: each scenario is played without a fault, which counts its calls, and then
//! again for each of them and each way in which it can fail, be short, be interrupted or would block.

// Faults are made through a door that a release build does not have; what each call may fail with is Linux's.
#![cfg(all(debug_assertions, target_os = "linux"))]

#[allow(dead_code)]
#[path = "support"]
mod support {
    pub mod dirs;
    pub mod peers;
    pub mod process;
    pub mod records;
    pub mod waiting;
}

/// The sources of these tests are records.
const WITH: support::records::With = None;

mod once {
    mod actors;
    mod far;
    mod faults;
    mod outcome;
    mod scenarios;
    mod stage;
}
