//! The size limits of objects that are read whole, by kind: a person who can write to a store must not decide how
//! much memory a reader uses. Archives and scripts are never read whole.

use crate::error::{Code, Error, Result};

/// A manifest has about 340 bytes per table: this is nearly 400,000 tables.
pub const MANIFEST: u64 = 128 << 20;
/// The archive's head: three entries of the table of contents for most tables, and longer ones for functions and
/// views.
pub const TOC: u64 = 512 << 20;
/// A role takes about 200 bytes.
pub const GLOBALS: u64 = 64 << 20;
pub const SYSTEM_INFO: u64 = 16 << 20;
/// A table takes about 500 bytes, and each column about 100: this is nearly 100,000 tables.
pub const CATALOG: u64 = 128 << 20;
/// A failed drill lists a limited number of differences.
pub const VERIFICATION: u64 = 8 << 20;
/// One line for each of a few files.
pub const SUMS: u64 = 1 << 20;
pub const LEASE: u64 = 64 << 10;
/// For names that this version does not know.
const OTHER: u64 = 16 << 20;

/// The largest size of an object with this key that is read whole. The names are those of `docs/FORMAT.md`.
pub fn most(key: &str) -> u64 {
    let name = key.rsplit_once('/').map_or(key, |(_, name)| name);
    match name {
        "manifest.json" => MANIFEST,
        "verification.json" => VERIFICATION,
        "system_info.json" => SYSTEM_INFO,
        "catalog.json" => CATALOG,
        "globals.sql" => GLOBALS,
        "SHA256SUMS" | "MD5SUMS" => SUMS,
        ".lease" | ".lease-incremental" => LEASE,
        // Definitions without rows are an archive's head.
        _ if name.ends_with(".toc") || name.ends_with(".schema") => TOC,
        _ => OTHER,
    }
}

/// Refuses to write an object that would be too long to be read again.
pub fn fits(key: &str, bytes: u64) -> Result<()> {
    let most = most(key);
    if bytes <= most {
        return Ok(());
    }
    Err(Error::new(
        Code::PgDumpErr,
        format!("{key} would have {bytes} bytes, but only {most} can be read again: no backup was made"),
    )
    .hint(
        "the database has more definitions, or longer ones, than pgstow can keep: look for functions or comments of many \
         megabytes",
    ))
}

/// `name` is the object's name and place.
pub fn too_long(name: &str, bytes: u64, most: u64) -> Error {
    Error::new(
        Code::Integrity,
        format!("{name} has at least {bytes} bytes, more than the limit of {most}: it was not read"),
    )
    .hint("find out who put it there: this version of pgstow writes no object of that length")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::backup_id::{
        BackupId, CATALOG as CATALOG_NAME, GLOBALS as GLOBALS_NAME, MANIFEST as MANIFEST_NAME, lease_key,
    };

    #[test]
    fn every_small_file_of_a_backup_has_its_limit() {
        let id: BackupId = "shop/20250131T040500Z-full".parse().unwrap();
        assert_eq!(most(&id.manifest_key()), MANIFEST);
        assert_eq!(most(MANIFEST_NAME), MANIFEST);
        assert_eq!(most(&id.key(GLOBALS_NAME)), GLOBALS);
        assert_eq!(most(&id.key(&id.toc_name())), TOC);
        assert_eq!(most(&id.key(&id.schema_name())), TOC);
        assert_eq!(most(&id.key(CATALOG_NAME)), CATALOG);
        assert_eq!(most(&lease_key("shop")), LEASE);
        assert_eq!(most(&id.key("notes.txt")), OTHER);
    }

    #[test]
    fn what_is_longer_than_a_reader_takes_in_is_not_written() {
        let id: BackupId = "shop/20250131T040500Z-full".parse().unwrap();
        for key in [
            id.manifest_key(),
            id.key(GLOBALS_NAME),
            id.key(&id.toc_name()),
            id.key("system_info.json"),
        ] {
            assert!(fits(&key, most(&key)).is_ok());
            let error = fits(&key, most(&key) + 1).unwrap_err();
            assert_eq!(error.code(), Code::PgDumpErr);
            assert!(error.message().contains("no backup was made"), "{error}");
        }
    }
}
