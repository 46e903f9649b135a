//! What docs/SEMANTICS.md promises, each statement by the test that is named behind it.

// clippy.toml allows unwrap in test functions, but does not see that these are called by them alone.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

#[path = "semantics/copies.rs"]
mod copies;
#[path = "semantics/crashes.rs"]
mod crashes;
#[path = "semantics/crashing.rs"]
mod crashing;
#[path = "semantics/kills.rs"]
mod kills;
#[path = "semantics/leases.rs"]
mod leases;
#[path = "semantics/place.rs"]
mod place;
#[path = "semantics/promises.rs"]
mod promises;
#[path = "semantics/tiers.rs"]
mod tiers;
#[path = "semantics/world.rs"]
mod world;

use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// Where a test of `file` may stand: in that file of `tests` or one that it takes in from a folder
/// beside it, or in a module of `src`.
fn may_hold(root: &Path, path: &Path, file: &str) -> bool {
    let named = path.file_stem().is_some_and(|stem| stem == file);
    if path.starts_with(root.join("src")) {
        return named || path.parent().is_some_and(|folder| folder.ends_with(file));
    }
    let top = path.parent() == Some(&root.join("tests"));
    named || (!top && root.join(format!("tests/{file}.rs")).exists())
}

#[test]
fn every_test_that_the_documents_name_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = sources(&root.join("src"));
    files.extend(sources(&root.join("tests")));
    let mut named = 0;
    for document in ["docs/FORMAT.md", "docs/SEMANTICS.md"] {
        let text = fs::read_to_string(root.join(document)).unwrap();
        let is_word = |word: &str| {
            word.chars()
                .all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_')
        };
        // Every second piece stands between backticks.
        for name in text.split('`').skip(1).step_by(2) {
            let Some((file, test)) = name.split_once("::") else {
                continue;
            };
            // `file::test` is how they explain what they do.
            if !is_word(file) || !is_word(test) || name == "file::test" {
                continue;
            }
            named += 1;
            let patterns = [format!("fn {test}("), format!("    {test}: "), format!("mod {test}")];
            let exists = files.iter().filter(|path| may_hold(root, path, file)).any(|path| {
                let source = fs::read_to_string(path).unwrap();
                patterns.iter().any(|pattern| source.contains(pattern))
            });
            assert!(exists, "{document} names {name}, which does not exist");
        }
    }
    assert!(named > 30, "only {named} tests are named");
}
