//! The house: imports between folders stay on a floor or go down, there is one circle of files, and a
//! name is imported from the file that defines it, so that the `use` lines tell all this.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The folders and files of each floor, the lowest first. The longest match counts.
const FLOORS: [&[&str]; 7] = [
    &[
        "bucket", "chance", "clock", "drain", "error", "guard", "numbers", "reason", "report", "timers",
        "token",
    ],
    &[
        "net",
        "sys",
        "threads/bell",
        "threads/credit",
        "threads/pool",
        "threads/pulse",
        "threads/queue",
        "threads/readers",
        "threads/room",
        "threads/send_error",
        "threads/source_waker",
        "threads/watcher",
    ],
    &["link", "kit/end", "kit/peer", "kit/pipe", "kit/server", "kit/stage"],
    &["core"],
    &["event_loop"],
    &["channels", "kit", "threads"],
    &["group"],
];

/// The views and what they hold: the one circle.
const KNOT: [&str; 4] = ["core/action", "core/channel", "core/dispatcher", "core/map"];

fn floor_of(file: &str) -> Option<usize> {
    let holds = |name: &str| file == name || file.starts_with(&format!("{name}/"));
    let names =
        FLOORS.iter().enumerate().flat_map(|(floor, names)| names.iter().map(move |name| (floor, name)));
    names.filter(|(_, name)| holds(name)).max_by_key(|(_, name)| name.len()).map(|(floor, _)| floor)
}

/// The code of each file, by its path without `.rs` and `/mod`; without the layers, TLS and `lib`,
/// which use and make the public API.
fn sources(folder: &Path, name: &str, into: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let file = if name.is_empty() { stem.to_owned() } else { format!("{name}/{stem}") };
        if path.is_dir() && !["layers", "tls"].contains(&&*file) {
            sources(&path, &file, into);
        } else if path.is_file() && file != "lib" {
            let text = fs::read_to_string(&path).unwrap();
            let code: Vec<&str> = text.lines().filter_map(|line| line.split("//").next()).collect();
            into.insert(file.trim_end_matches("/mod").to_owned(), code.join("\n"));
        }
    }
}

/// Every path in `code` that begins with `crate::`, with `/` for `::`, and one for each name in braces.
fn paths(code: &str) -> Vec<String> {
    let in_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let mut paths = Vec::new();
    for (at, key) in code.match_indices("crate::") {
        let rest = &code[at + key.len()..];
        let (path, rest) = rest.split_at(rest.find(|c| !in_path(c)).unwrap_or(rest.len()));
        let names = rest.strip_prefix('{').and_then(|rest| rest.split('}').next()).unwrap_or("");
        paths.extend(names.split(',').map(|name| format!("{path}{}", name.trim()).replace("::", "/")));
    }
    paths
}

#[test]
fn imports_name_the_defining_file_and_go_up_no_floor_and_round_in_no_circle_but_one() {
    let mut files = BTreeMap::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut files);
    let mut wrong = Vec::new();
    let mut arrows = BTreeSet::new();
    for (file, code) in &files {
        for path in paths(code) {
            let mut parts = path.trim_end_matches("/self").to_owned();
            while !files.contains_key(&parts) && !parts.is_empty() {
                parts.truncate(parts.rfind('/').unwrap_or(0));
            }
            // The group uses the public API where it can, through the front door, as the layers do.
            if file.starts_with("group") && parts.is_empty() {
                continue;
            }
            let up = floor_of(file).is_none_or(|own| floor_of(&parts).is_none_or(|to| to > own));
            if up {
                wrong.push(format!("{file} imports {path}"));
            }
            if parts != *file {
                arrows.insert((file.clone(), parts));
            }
        }
        // `faults` has a module of its own for each kind of build, in the same file.
        let exports = |line: &&str| line.trim_start().starts_with("pub") && line.contains(" use ");
        if file != "sys/faults" {
            wrong.extend(code.lines().filter(exports).map(|line| format!("{file} exports: {line}")));
        }
    }
    assert!(wrong.is_empty(), "see CONTRIBUTING, \"Floors\":\n{}", wrong.join("\n"));

    // What is left when files that import none of the others, or are imported by none, are taken away.
    let mut left: BTreeSet<&String> = files.keys().collect();
    loop {
        let inner = |file: &&String| {
            let to = arrows.iter().any(|(from, to)| from == *file && left.contains(to));
            to && arrows.iter().any(|(from, to)| to == *file && left.contains(from))
        };
        let next: BTreeSet<&String> = left.iter().copied().filter(inner).collect();
        if next == left {
            break;
        }
        left = next;
    }
    assert_eq!(left.into_iter().collect::<Vec<_>>(), KNOT, "the circles, and what lies between them");
}
