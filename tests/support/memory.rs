//! How much memory a process has had.

use std::fmt::Display;

/// The most that it has had, in KiB (Linux; elsewhere 0). `process` is a number, or `self`.
pub fn peak_memory(process: impl Display) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|peak| peak.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0)
}
