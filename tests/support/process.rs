//! Tests that need a process of their own, and the descriptors of a process.

use std::fmt::Display;
use std::process::Command;

/// Run a test in a process of its own, because it counts or uses up what a process has one of;
/// there with `descriptors` at most, if given. `test` is a closure of the test itself: that tells
/// its name.
#[track_caller]
pub fn alone<F: FnOnce()>(descriptors: Option<u32>, test: F) {
    const ALONE: &str = "DISPATCH_LOOP_TEST_ALONE";
    let path = std::any::type_name::<F>().trim_end_matches("::{{closure}}");
    let (_, name) = path.split_once("::").expect("a test in a module");
    if std::env::var(ALONE).is_ok_and(|alone| alone == name) {
        return test();
    }
    let limit = descriptors.map_or(String::new(), |most| format!("ulimit -n {most} && "));
    let script = format!("{limit}exec \"$0\" \"$1\" --exact --nocapture --test-threads=1");
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).arg(std::env::current_exe().unwrap()).arg(name).env(ALONE, name);
    let output = shell.output().unwrap();
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    assert!(output.status.success() && said[0].contains("1 passed"), "{}\n{}", said[0], said[1]);
}

/// Descriptors that this process has open (Linux).
pub fn open_descriptors() -> usize {
    open_descriptors_of("self")
}

/// The same of any process, by its number.
pub fn open_descriptors_of(process: impl Display) -> usize {
    std::fs::read_dir(format!("/proc/{process}/fd")).map_or(0, |entries| entries.count())
}
