//! All that the library offers is documented. The lint `missing_docs` does not see it, because the modules that define
//! it are hidden from the documentation.

use std::fs;
use std::path::{Path, PathBuf};

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The names that `src/lib.rs` offers, each with the module that it names.
fn offered() -> Vec<(String, String)> {
    let text = fs::read_to_string(source().join("lib.rs")).unwrap();
    let uses = text
        .split(';')
        .filter_map(|one| one.split_once("pub use ").map(|(_, path)| path));
    uses.flat_map(|path| {
        let (module, names) = path.rsplit_once("::").unwrap();
        let names = names.trim_matches(['{', '}', ' ', '\n']).split(',');
        names.map(move |name| (module.to_owned(), name.trim().to_owned()))
    })
    .filter(|(_, name)| !name.is_empty())
    .collect()
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Whether this line defines the type, and as what.
fn kind_of<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (kind, rest) = line.strip_prefix("pub ")?.split_once(' ')?;
    let rest = rest.strip_prefix(name)?;
    let is_whole = !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_');
    (is_whole && ["struct", "enum", "trait", "type"].contains(&kind)).then_some(kind)
}

fn is_documented(lines: &[&str], at: usize) -> bool {
    let mut above = lines[..at].iter().rev().map(|line| line.trim());
    above
        .find(|line| !line.starts_with("#[") && !line.ends_with(")]"))
        .is_some_and(|line| line.starts_with("///"))
}

/// Whether a line within the type's braces is an item of its own: a field, a variant or its field, a method.
fn is_item(kind: &str, line: &str) -> bool {
    let deep = line.len() - line.trim_start().len();
    let line = line.trim_start();
    match kind {
        "struct" => deep == 4 && line.starts_with("pub ") && !line.starts_with("pub("),
        "enum" if deep == 4 => line.starts_with(|first: char| first.is_ascii_uppercase()),
        "enum" => deep == 8 && line.starts_with(|first: char| first.is_ascii_lowercase()) && line.contains(": "),
        "trait" => deep == 4 && (line.starts_with("fn ") || line.starts_with("async fn ")),
        _ => false,
    }
}

/// The lines of a type's definition, and of its own methods, that want a document and have none.
fn undocumented(text: &str, name: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    let mut within = None;
    for (at, line) in lines.iter().enumerate() {
        if let Some(kind) = kind_of(line, name) {
            if !is_documented(&lines, at) {
                found.push((*line).to_owned());
            }
            within = line.ends_with('{').then_some(kind);
        } else if line.starts_with("impl") && line.ends_with(&format!(" {name} {{")) && !line.contains(" for ") {
            within = Some("methods");
        } else if *line == "}" {
            within = None;
        }
        let is_method = ["    pub fn ", "    pub async fn ", "    pub const fn "]
            .iter()
            .any(|start| line.starts_with(start));
        let is_item = match within {
            Some("methods") => is_method,
            Some(kind) => is_item(kind, line),
            None => false,
        };
        if is_item && !is_documented(&lines, at) {
            found.push(line.trim().to_owned());
        }
    }
    found
}

#[test]
fn all_that_the_library_offers_is_documented() {
    let offered = offered();
    assert!(offered.len() > 15, "{offered:?}");
    let mut paths = Vec::new();
    files(&source(), &mut paths);
    let texts: Vec<(PathBuf, String)> = paths
        .into_iter()
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect();
    let mut lacking = Vec::new();
    for (module, name) in &offered {
        let defines = |text: &str| text.lines().any(|line| kind_of(line, name).is_some());
        let own = source().join(module.replace("::", "/")).with_extension("rs");
        let mut definitions: Vec<_> = texts.iter().filter(|(_, text)| defines(text)).collect();
        if definitions.iter().any(|(path, _)| *path == own) {
            definitions.retain(|(path, _)| *path == own);
        }
        assert!(!definitions.is_empty(), "{module}::{name} is defined nowhere");
        for (path, text) in definitions {
            let of_file = undocumented(text, name).into_iter();
            lacking.extend(of_file.map(|line| format!("{}: {name}: {line}", path.display())));
        }
    }
    assert!(lacking.is_empty(), "not documented:\n{}", lacking.join("\n"));
}

#[test]
fn what_lacks_a_document_is_found() {
    let text = "/// A thing.\npub struct Thing {\n    /// Told.\n    pub a: u8,\n    #[serde(default)]\n    pub b: u8,\n    c: u8,\n}\n\n\
                impl Thing {\n    pub fn d(&self) {}\n    fn e(&self) {}\n}\n\npub struct Things;\n";
    assert_eq!(undocumented(text, "Thing"), ["pub b: u8,", "pub fn d(&self) {}"]);
    assert_eq!(undocumented(text, "Things"), ["pub struct Things;"]);
    let text = "/// One of.\npub enum Either {\n    /// This.\n    One {\n        of: u8,\n    },\n    Other(u8),\n}\n";
    assert_eq!(undocumented(text, "Either"), ["of: u8,", "Other(u8),"]);
}
