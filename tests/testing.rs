//! The test kit.

mod testing {
    mod done_when;
}
