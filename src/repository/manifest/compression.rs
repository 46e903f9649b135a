//! How the data is compressed.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CompressionAlgorithm {
    None,
    Gzip,
    Zstd,
}

impl CompressionAlgorithm {
    /// As manifests spell it.
    pub fn name(self) -> &'static str {
        match self {
            CompressionAlgorithm::None => "none",
            CompressionAlgorithm::Gzip => "gzip",
            CompressionAlgorithm::Zstd => "zstd",
        }
    }

    /// The extension of a plain script with this compression.
    pub fn extension(self) -> &'static str {
        match self {
            CompressionAlgorithm::None => "",
            CompressionAlgorithm::Gzip => ".gz",
            CompressionAlgorithm::Zstd => ".zst",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompressionRecord {
    pub algorithm: CompressionAlgorithm,
    pub level: i32,
}
