//! What docs/SEMANTICS.md promises, each statement by the test that is named behind it.

mod copies;
mod crashes;
pub mod crashing;
mod kills;
mod leases;
pub mod place;
mod promises;
mod tiers;
pub mod world;

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

/// Where a test of `file` may stand: in a file of that name, or in the folder beside it.
fn may_hold(path: &Path, file: &str) -> bool {
    let named = path.file_stem().is_some_and(|stem| stem == file);
    named || path.parent().is_some_and(|folder| folder.ends_with(file))
}

#[test]
fn every_test_that_the_documents_name_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = sources(&root.join("src"));
    files.extend(sources(&root.join("tests")));
    let mut named = 0;
    for document in ["docs/FORMAT.md", "docs/SEMANTICS.md", "docs/security.md"] {
        let text = fs::read_to_string(root.join(document)).unwrap();
        let is_word = |word: &str| {
            word.chars()
                .all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_')
        };
        // Every second piece stands between backticks.
        for name in text.split('`').skip(1).step_by(2) {
            let Some((place, test)) = name.rsplit_once("::") else {
                continue;
            };
            let file = place.rsplit("::").next().unwrap();
            // A long name may end early.
            let (test, whole) = match test.strip_suffix('…') {
                Some(start) => (start, false),
                None => (test, true),
            };
            // `file::test` is how they explain what they do.
            if !is_word(file) || !is_word(test) || test.is_empty() || name == "file::test" {
                continue;
            }
            named += 1;
            let patterns = match whole {
                true => vec![format!("fn {test}("), format!("    {test}: "), format!("mod {test}")],
                false => vec![format!("fn {test}"), format!("    {test}")],
            };
            let exists = files.iter().filter(|path| may_hold(path, file)).any(|path| {
                let source = fs::read_to_string(path).unwrap();
                patterns.iter().any(|pattern| source.contains(pattern))
            });
            assert!(exists, "{document} names {name}, which does not exist");
        }
    }
    assert!(named > 30, "only {named} tests are named");
}
