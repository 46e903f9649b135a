//! Finds the folders that lead from the root to a key's file.

use std::path::Path;

use crate::error::{Error, Result};
use crate::run::publication::final_name;
use crate::store::beneath::Folder;

/// The names that lead to a key's file. The catalog has encoded the key; one that could leave the root, or that names
/// a temporary file, is a bug there and must not become a path here.
pub(super) fn segments(key: &str) -> Result<Vec<String>> {
    let hostile =
        |segment: &str| matches!(segment, "" | "." | "..") || segment.contains('\0') || final_name(segment).is_some();
    if key.split('/').any(hostile) {
        return Err(Error::internal(format!("{key:?} is not a key of a store")));
    }
    Ok(key.split('/').map(str::to_owned).collect())
}

/// The folders that contain all keys with this prefix.
pub(super) fn folders_of(prefix: &str) -> Result<Vec<String>> {
    match prefix.rsplit_once('/') {
        Some((folder, _)) => segments(folder),
        None => Ok(Vec::new()),
    }
}

/// The folder that these names lead to; `None` if one of them does not exist.
pub(super) fn descend(root: &Path, names: &[String]) -> Result<Option<Folder>> {
    Ok(way(root, names)?.pop())
}

/// The root and each folder on the way; empty if one of them does not exist.
pub(super) fn way(root: &Path, names: &[String]) -> Result<Vec<Folder>> {
    let Some(root) = Folder::root(root)? else {
        return Ok(Vec::new());
    };
    let mut way = vec![root];
    for name in names {
        let Some(next) = way.last().map(|last| last.folder(name)).transpose()?.flatten() else {
            return Ok(Vec::new());
        };
        way.push(next);
    }
    Ok(way)
}

/// Removes the folders at the end of a way that are empty, but not the root. If that fails, no error follows: an
/// empty folder is not an object.
pub(super) fn remove_folders(way: &[Folder], names: &[String]) {
    let _ = way
        .iter()
        .zip(names)
        .rev()
        .all(|(around, name)| around.remove_folder(name));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn a_key_never_leaves_the_root() {
        for key in [
            "",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "a//b",
            "a/",
            ".",
            "a/./b",
            "a\0b",
        ] {
            assert_eq!(segments(key).unwrap_err().code(), Code::Internal, "{key:?}");
        }
        assert_eq!(segments("shop/.lease").unwrap(), ["shop", ".lease"]);
    }
}
