//! Questions to the system about a process, and the limit of descriptors.

use std::fs;
use std::io;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a process holds.
#[derive(Clone, Copy)]
pub struct Holds {
    pub descriptors: usize,
    /// Resident memory, in bytes.
    pub memory: u64,
}

impl Holds {
    pub fn of(process: u32) -> io::Result<Holds> {
        let descriptors = fs::read_dir(format!("/proc/{process}/fd"))?.count();
        Ok(Holds { descriptors, memory: memory(process, "VmRSS:")? })
    }
}

/// The most resident memory that a process ever had, in bytes.
pub fn peak_memory(process: u32) -> io::Result<u64> {
    memory(process, "VmHWM:")
}

fn memory(process: u32, field: &str) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kibibytes.ok_or_else(|| io::Error::other(format!("no {field} of the server")))? * 1024)
}

/// The processor time that a process has used, in user and kernel space.
pub fn cpu_time(process: u32) -> io::Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{process}/schedstat"))?;
    let nanoseconds = text.split(' ').next().and_then(|first| first.parse().ok());
    Ok(Duration::from_nanos(nanoseconds.ok_or_else(|| io::Error::other("no schedstat of the server"))?))
}

/// Allow this process as many descriptors as it may have, and return the number.
pub fn raise_descriptor_limit() -> u64 {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Allow this process no more descriptors than these.
pub fn limit_descriptors(most: u64) -> io::Result<()> {
    Ok(setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: Some(most) })?)
}

/// The machine, as a line.
pub fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let field = |name: &str| {
        let line = processors.lines().find(|line| line.split(':').next().unwrap_or("").trim() == name)?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let model = field("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let cores = processors.lines().filter(|line| line.starts_with("processor")).count();
    let is_virtual = field("flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor"));
    let place = if is_virtual { ", in a virtual machine" } else { "" };
    let memory = read("/proc/meminfo");
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let memory = memory.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{model}, {cores} cores{place}; {:.0} GiB; Linux {}", memory / (1024.0 * 1024.0), kernel.trim())
}

/// The load average of the last minute.
pub fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().to_owned()
}

/// The commit of this project, if it is known.
pub fn commit() -> Option<String> {
    first_line("git", &["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty"])
}

/// The first line that another program prints, if it is installed and succeeds.
pub fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    output.status.success().then(|| text.lines().next().unwrap_or("").trim().to_owned())
}
