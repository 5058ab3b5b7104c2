//! The house: arrows between folders run down a floor or stay on it, and a name is imported from the
//! file that defines it, so that the arrows can be seen.

use std::fs;
use std::path::{Path, PathBuf};

/// Each entry with the folders and files of one floor, the lowest first. The longest match counts.
const FLOORS: [&[&str]; 6] = [
    &["clock", "error", "guard", "reason", "report", "timers", "token"],
    &["net", "sys", "threads/bell", "threads/credit", "threads/queue"],
    &["link"],
    &["core"],
    &["event_loop"],
    &["channels", "threads"],
];

fn floor_of(path: &str) -> Option<usize> {
    let holds = |name: &str| path == name || path.starts_with(&format!("{name}/"));
    let floors = FLOORS.iter().enumerate();
    let found = floors.flat_map(|(floor, names)| names.iter().map(move |name| (floor, *name)));
    found.filter(|(_, name)| holds(name)).max_by_key(|(_, name)| name.len()).map(|(floor, _)| floor)
}

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources(&path, into),
            false => into.push(path),
        }
    }
}

#[test]
fn no_import_goes_up_a_floor_or_through_the_front_door() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut wrong = Vec::new();
    for file in files {
        let name = file.strip_prefix(&src).unwrap().with_extension("").to_str().unwrap().to_owned();
        // The layers stand on the public API, which `lib` makes.
        if name == "lib" || name.starts_with("layers/") {
            continue;
        }
        let own = floor_of(&name);
        for line in fs::read_to_string(&file).unwrap().lines().map(str::trim_start) {
            // `faults` has a module of its own for each kind of build.
            let exports = line.starts_with("pub use ") || line.starts_with("pub(crate) use ");
            let code = line.split("//").next().unwrap_or_default();
            let up = code.match_indices("crate::").any(|(at, key)| {
                let path = code[at + key.len()..].replace("::", "/");
                let end = path.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '/');
                own.is_none() || floor_of(&path[..end.unwrap_or(path.len())]).is_none_or(|to| Some(to) > own)
            });
            if up || exports && name != "sys/faults" {
                wrong.push(format!("{name}: {line}"));
            }
        }
    }
    assert!(wrong.is_empty(), "see CONTRIBUTING, \"Floors\":\n{}", wrong.join("\n"));
}
