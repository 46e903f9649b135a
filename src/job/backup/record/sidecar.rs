//! The small files beside the data, ready to be put, and the sums over all files.

use std::collections::BTreeMap;

use bytes::Bytes;
use md5::Md5;
use sha2::{Digest, Sha256};

use crate::repository::backup_id::{BackupId, MD5SUMS, SHA256SUMS};
use crate::repository::manifest::FileRecord;
use crate::store::ObjectInfo;

/// A small file, ready to be put.
pub(in crate::job) struct Sidecar {
    pub key: String,
    pub name: String,
    pub bytes: Bytes,
    pub info: ObjectInfo,
}

impl Sidecar {
    /// `about` is how the store keeps the run's objects of this media type.
    pub(in crate::job) fn of(
        id: &BackupId,
        about: impl Fn(&'static str) -> ObjectInfo,
        name: &str,
        bytes: impl Into<Bytes>,
        content_type: &'static str,
    ) -> Self {
        let bytes = bytes.into();
        let mut info = about(content_type);
        info.tags
            .push(("sha256".to_owned(), hex::encode(Sha256::digest(&bytes))));
        Self {
            key: id.key(name),
            name: name.to_owned(),
            bytes,
            info,
        }
    }

    /// `SHA256SUMS` over these files, and `MD5SUMS` with these sums if it is asked for.
    pub(in crate::job) fn sums(
        id: &BackupId,
        about: impl Fn(&'static str) -> ObjectInfo,
        files: &BTreeMap<String, FileRecord>,
        md5: Option<Vec<(String, String)>>,
    ) -> Vec<Self> {
        let sha256 = files.values().map(|file| (file.name.clone(), file.sha256.clone()));
        let mut sums = vec![(SHA256SUMS, sha256.collect())];
        sums.extend(md5.map(|md5| (MD5SUMS, md5)));
        let sidecar = |(name, sums)| Self::of(id, &about, name, sums_file(sums), "text/plain");
        sums.into_iter().map(sidecar).collect()
    }
}

pub(in crate::job) fn file_record(name: &str, bytes: &[u8]) -> FileRecord {
    FileRecord {
        name: name.to_owned(),
        bytes: bytes.len() as u64,
        sha256: hex::encode(Sha256::digest(bytes)),
    }
}

/// By name. The large files come first; they were summed earlier, since they have passed.
pub(in crate::job) fn md5_of(
    large: impl IntoIterator<Item = (String, String)>,
    sidecars: &[Sidecar],
) -> Vec<(String, String)> {
    let beside = sidecars
        .iter()
        .map(|file| (file.name.clone(), hex::encode(Md5::digest(&file.bytes))));
    large.into_iter().chain(beside).collect()
}

/// In the format of `sha256sum` and `md5sum`. pgstow's file names hold no backslash and no newline, so no line needs
/// escapes.
fn sums_file(mut sums: Vec<(String, String)>) -> Bytes {
    sums.sort();
    sums.iter()
        .map(|(name, sum)| format!("{sum}  {name}\n"))
        .collect::<String>()
        .into()
}
