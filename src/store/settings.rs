//! The settings for stores.

use std::time::Duration;

pub use crate::outside::aws::settings::Checksums;

/// What a backup does if a folder store is still empty, which may be a disk that is not mounted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StoreCreate {
    /// Starts there, unless there are signs that the folder held backups before.
    #[default]
    Auto,
    Always,
    Never,
}

/// How objects are stored in S3.
#[derive(Debug, Clone)]
pub struct S3 {
    /// 10,000 unless the provider allows fewer.
    pub max_parts: u32,
    pub part_size: u64,
    /// The bytes of memory for the parts of one upload.
    pub memory: u64,
    /// How long requests to a failing store are retried.
    pub retry: Duration,
    pub checksums: Checksums,
    pub tagging: TagMode,
    pub encryption: Encryption,
    pub storage_class: Option<String>,
    /// `None`: path-style for a custom endpoint, virtual-hosted otherwise.
    pub path_style: Option<bool>,
}

/// Whether objects get tags, which lifecycle rules use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagMode {
    /// If the store knows them.
    Auto,
    /// A store that refuses them is an error.
    On,
    Off,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encryption {
    /// The bucket's default.
    Bucket,
    SseS3,
    SseKms {
        key_id: Option<String>,
    },
}
