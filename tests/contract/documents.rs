//! The documents: each test that they name is there, and so is each page to which they link.

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

/// The files to which `text` links: `[…](file)`, and the definitions `[file]: file`.
fn links(text: &str) -> Vec<&str> {
    let inline = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let defined = text.lines().filter(|line| line.starts_with('[')).filter_map(|line| line.split_once("]: "));
    let paths = inline.chain(defined.map(|(_, path)| path)).filter_map(|path| path.split('#').next());
    paths
        .filter(|path| [".md", ".svg"].iter().any(|end| path.ends_with(end)) && !path.contains(':'))
        .collect()
}

#[test]
fn every_page_and_picture_that_a_document_links_to_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages: Vec<_> = fs::read_dir(root.join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .chain(["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"].map(|page| root.join(page)))
        .filter(|path| path.extension().is_some_and(|end| end == "md"))
        .collect();
    let for_rustdoc = fs::read_to_string(root.join("docs/rustdoc/links.md")).unwrap();
    let chapters = fs::read_to_string(root.join("src/guide.rs")).unwrap();
    let mut wrong = Vec::new();
    for page in &pages {
        let text = fs::read_to_string(page).unwrap();
        let page = page.strip_prefix(root).unwrap().display().to_string();
        let folder = root.join(&page).parent().unwrap().to_path_buf();
        let missing = links(&text).into_iter().filter(|link| !folder.join(link).exists());
        wrong.extend(missing.map(|link| format!("{page}: there is no {link}")));
        // `[text][file]`, which leads to a chapter in the documentation.
        for label in text.split("][").skip(1).filter_map(|rest| rest.split(']').next()) {
            if label.ends_with(".md") || label.ends_with(".svg") {
                let definition = format!("\n[{label}]: ");
                if !text.contains(&definition) || !format!("\n{for_rustdoc}").contains(&definition) {
                    wrong.push(format!("{page}: {label} is not defined there, or in docs/rustdoc/links.md"));
                }
            }
        }
    }
    for line in for_rustdoc.lines().filter(|line| line.contains("]: crate::guide::")) {
        let page = line.split([']', '[']).nth(1).unwrap();
        if !chapters.contains(&format!("../docs/{page}")) {
            wrong.push(format!("src/guide.rs has no {page}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(pages.len() > 30);
}
