//! The files of a backup, by their role.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ManifestError;

/// The longest name of a file, in bytes, on every file system.
const LONGEST_NAME: usize = 255;

/// The keys of [`Manifest::files`](super::Manifest::files). A full backup has either a dump or a script. An
/// increment has changes; its dump, if any, holds its baselines.
pub mod role {
    pub const DUMP: &str = "dump";
    pub const SQL: &str = "sql";
    pub const TOC: &str = "toc";
    pub const GLOBALS: &str = "globals";
    pub const SYSTEM_INFO: &str = "system_info";
    /// The changes of an increment.
    pub const CHANGES: &str = "changes";
    /// The definitions, as an archive without data, if they changed since the backup before.
    pub const SCHEMA: &str = "schema";
    /// The catalog that an increment saw: tables, columns, identities.
    pub const CATALOG: &str = "catalog";
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// The name in the backup's folder.
    pub name: String,
    pub bytes: u64,
    /// Hex digits.
    pub sha256: String,
}

/// The value of [`Manifest::checksums`](super::Manifest::checksums) for these files.
pub fn checksums(files: &BTreeMap<String, FileRecord>) -> BTreeMap<String, String> {
    files
        .iter()
        .map(|(role, file)| (role.clone(), format!("sha256:{}", file.sha256)))
        .collect()
}

/// These names become keys, paths and lines of text: a name that leaves the folder, or that a terminal or a list of
/// checksums reads as something else, must be refused here.
pub(super) fn check_names(files: &BTreeMap<String, FileRecord>) -> Result<(), ManifestError> {
    for file in files.values() {
        let is_odd = matches!(file.name.as_str(), "" | "." | "..")
            || file.name.contains(['/', '\\'])
            || file.name.contains(char::is_control)
            || file.name.len() > LONGEST_NAME;
        if is_odd {
            return Err(ManifestError::FileName(file.name.clone()));
        }
    }
    Ok(())
}
