//! The machine, and the versions of what ran on it.

use std::fs;

use super::number;
use crate::measure::Results;
use crate::plan::Plan;
use crate::servers::{BASE, Program, Server};
use crate::system;

const LOCK: &str = include_str!("../../Cargo.lock");

/// Looked up before anything runs.
pub struct Machine {
    date: String,
    commit: Option<String>,
    model: String,
    is_virtual: bool,
    cores: usize,
    memory: Option<f64>,
    kernel: String,
    compiler: Option<String>,
    load: String,
}

impl Machine {
    pub fn look() -> Machine {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let processors = read("/proc/cpuinfo");
        let field = |name: &str| {
            let line = processors.lines().find(|line| line.split(':').next().unwrap().trim() == name)?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = read("/proc/meminfo");
        let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let memory = memory.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        let git = ["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty"];
        Machine {
            date: system::first_line("date", &["-u", "+%Y-%m-%d"]).unwrap_or_default(),
            commit: system::first_line("git", &git),
            model: field("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            is_virtual: field("flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            cores: processors.lines().filter(|line| line.starts_with("processor")).count(),
            memory: memory.map(|kibibytes| kibibytes / (1024.0 * 1024.0)),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            compiler: system::first_line("rustc", &["--version"]),
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }

    pub(super) fn describe(&self, results: &Results, plan: &Plan) -> String {
        let mut lines = vec![("date", self.date.clone())];
        if let Some(commit) = &self.commit {
            lines.push(("commit of this project", commit.clone()));
        }
        let place = if self.is_virtual { ", in a virtual machine" } else { "" };
        lines.push(("processor", format!("{}, {} cores{place}", self.model, self.cores)));
        if let Some(memory) = self.memory {
            lines.push(("memory", format!("{} GiB", number(memory))));
        }
        lines.push(("kernel", format!("Linux {}", self.kernel)));
        if let Some(compiler) = &self.compiler {
            lines.push(("compiler", compiler.clone()));
        }
        let pinned = match results.processors {
            Some(chosen) => {
                format!("server on processor {}, load generator on processor {}", chosen.server, chosen.load)
            }
            None => "no".to_owned(),
        };
        lines.push(("pinned", pinned));
        lines.push(("load average before the run", self.load.clone()));
        if plan.is_quick {
            lines.push(("options", "`--quick`".to_owned()));
        }
        let lines = lines.iter().map(|(name, value)| format!("| {name} | {value} |"));
        format!("## The machine\n\n| | |\n|---|---|\n{}", lines.collect::<Vec<_>>().join("\n"))
    }
}

/// The version of the library that a server is built on.
pub(super) fn version(server: &Server) -> String {
    match server.program {
        Program::C { library, .. } => system::first_line("pkg-config", &["--modversion", library]),
        Program::Rust(_) if server.name == BASE => {
            locked("rustix").map(|version| format!("rustix {version}"))
        }
        Program::Rust(_) if super::is_ours(server) => locked("dispatch-loop"),
        Program::Rust(_) => locked(server.name),
    }
    .unwrap_or_default()
}

fn locked(package: &str) -> Option<String> {
    let entry = LOCK.split(&format!("name = \"{package}\"\nversion = \"")).nth(1)?;
    Some(entry.split('"').next()?.to_owned())
}
