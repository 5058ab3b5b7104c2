//! The documents that name tests: each test is there.

use std::fs;
use std::path::Path;

/// The names between backquotes in `text` that are paths of tests.
fn names(text: &str) -> Vec<&str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted
        .filter(|name| {
            name.contains("::")
                && name.starts_with(char::is_lowercase)
                && name.chars().all(|c| c.is_alphanumeric() || "_:".contains(c))
        })
        .collect()
}

#[test]
fn every_test_that_a_document_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut missing = Vec::new();
    for (document, at_least) in
        [("tests/EDGE_CASES.md", 150), ("docs/asyncore.md", 40), ("docs/promises.md", 80)]
    {
        let text = fs::read_to_string(root.join(document)).unwrap();
        let names = names(&text);
        assert!(names.len() >= at_least, "{document} names {} tests", names.len());
        for name in names {
            let (file, test) = name.rsplit_once("::").unwrap();
            let path = root.join("tests").join(file.replace("::", "/")).with_extension("rs");
            let code = fs::read_to_string(path).unwrap_or_default();
            if !code.contains(&format!("fn {test}(")) {
                missing.push(format!("{document}: {name}"));
            }
        }
    }
    assert!(missing.is_empty(), "no such test:\n{}", missing.join("\n"));
}
