//! The files that hold a backup's data, and places in them.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use serde_json::Value;

use super::files::{FileRecord, role};
use super::{Manifest, ManifestError};
use crate::store::{Part, StoreChecksum};

/// A file with data. Its name, length and digest are under its role in [`Manifest::files`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFile {
    /// The key in [`Manifest::files`].
    pub role: String,
    /// Its parts in the store that the manifest was made for: the composite checksum is computed from them.
    pub parts: Vec<Part>,
    /// Its checksum as that store reported it.
    pub store_checksum: Option<StoreChecksum>,
    /// `None`: not encrypted.
    pub encryption: Option<Value>,
}

impl DataFile {
    /// A file without a store's report, not encrypted.
    pub fn of(role: &str) -> Self {
        Self {
            role: role.to_owned(),
            parts: Vec::new(),
            store_checksum: None,
            encryption: None,
        }
    }
}

/// An index into [`Manifest::data_files`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileIndex(pub usize);

impl FileIndex {
    /// The only data file of a backup that one task makes.
    pub const FIRST: FileIndex = FileIndex(0);
}

/// Where bytes are: in which data file, and at which offset. In a plain script, the offset counts decompressed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileRange {
    pub file: FileIndex,
    pub offset: u64,
    pub length: u64,
}

impl FileRange {
    /// `None` if the end would be beyond the largest possible file.
    pub fn new(file: FileIndex, offset: u64, length: u64) -> Option<Self> {
        offset.checked_add(length)?;
        Some(Self { file, offset, length })
    }

    pub fn end(self) -> u64 {
        self.offset.saturating_add(self.length)
    }

    /// The end, in its file.
    pub fn range(self) -> Range<u64> {
        self.offset..self.end()
    }
}

impl Manifest {
    /// The data file with this role.
    pub fn data_file(&self, role: &str) -> Option<(FileIndex, &DataFile)> {
        let files = self.data_files.iter().enumerate();
        let mut named = files.filter(|(_, file)| file.role == role);
        named.next().map(|(index, file)| (FileIndex(index), file))
    }

    /// Name, length and digest of each data file, in their order.
    pub fn data_records(&self) -> impl Iterator<Item = &FileRecord> {
        self.data_files.iter().filter_map(|file| self.files.get(&file.role))
    }
}

/// Checks that each data file is one of the backup's files, and only once, and that the data files include every file
/// that can only be a data file: all other files are read whole.
pub(super) fn check(files: &BTreeMap<String, FileRecord>, data_files: &[DataFile]) -> Result<(), ManifestError> {
    let mut roles = HashSet::new();
    let mut names = HashSet::new();
    for DataFile { role, .. } in data_files {
        let Some(file) = files.get(role) else {
            return Err(ManifestError::Shape(format!(
                "`data_files` has the role {role:?}, but `files` has none"
            )));
        };
        if !roles.insert(role.as_str()) || !names.insert(file.name.as_str()) {
            return Err(ManifestError::Shape(format!(
                "`data_files` names {:?} twice",
                file.name
            )));
        }
    }
    let data = [role::DUMP, role::SQL];
    match data
        .iter()
        .find(|role| files.contains_key(**role) && !roles.contains(*role))
    {
        Some(role) => Err(ManifestError::Shape(format!(
            "`files` has the role {role:?}, but `data_files` has none"
        ))),
        None => Ok(()),
    }
}
