//! What a user can say of stores.

use std::time::Duration;

pub use crate::outside::aws::settings::Checksums;

/// What a backup does where a folder store has nothing yet, which may be a disk that is not mounted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StoreCreate {
    /// Begins there, unless something says that backups were there before.
    #[default]
    Auto,
    Always,
    Never,
}

/// How objects are kept in S3.
#[derive(Debug, Clone)]
pub struct S3 {
    /// 10,000 unless the provider allows fewer.
    pub max_parts: u32,
    pub part_size: u64,
    /// Bytes that one upload's parts may take in memory.
    pub memory: u64,
    /// How long a store that keeps failing is asked again.
    pub retry: Duration,
    pub checksums: Checksums,
    pub tagging: Tagging,
    pub encryption: Encryption,
    pub storage_class: Option<String>,
    /// `None`: path-style for a custom endpoint, virtual-hosted otherwise.
    pub path_style: Option<bool>,
}

/// Whether objects get tags, which lifecycle rules go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tagging {
    /// Where the store knows them.
    Auto,
    /// A store that refuses them is an error.
    On,
    Off,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encryption {
    /// What the bucket does by default.
    Bucket,
    SseS3,
    SseKms {
        key_id: Option<String>,
    },
}
