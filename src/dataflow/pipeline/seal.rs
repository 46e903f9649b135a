//! The seal: counts and digests the bytes as they are stored, and passes them to the stores.
//!
//! Each digest of stored bytes has its own use, and none can be computed from another:
//!
//! | digest | over | for |
//! | --- | --- | --- |
//! | SHA-256 of the file | every byte, once | `sha256sum -c SHA256SUMS`, the manifest, `verify`, `download` |
//! | SHA-256 of a range | once more, if a table is longer than one piece | a restore that reads some ranges of a table alone |
//! | SHA-256 of a part | once more for each S3 store (`store/sending.rs`) | the request's signature and the store's checksum: one digest for both |
//! | MD5 | only with `BACKUP_MD5`, or for a store that knows no newer checksum | `MD5SUMS`, `Content-MD5` |
//!
//! The SHA-256 of parts or ranges cannot be combined to that of the file. CRCs of parts can be combined. But a CRC of
//! each part would be one more digest, because the request's signature needs the SHA-256 of the body, and the manifest
//! names it. A table of one piece opens no range. A longer one does, although it may turn out to have only one range:
//! its first bytes do not say how long it will be. A folder store computes no digest of an upload.

use std::collections::VecDeque;
use std::time::Instant;

use md5::Md5;
use sha2::{Digest, Sha256};

use super::ended::Ended;
use super::fanout::Outlets;
use super::level::Waited;
use super::passing::{Mark, Passing};
use crate::store::Expected;

/// A data file after its last byte has passed: its record in the manifest is made from this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedFile {
    /// The stored length.
    pub bytes: u64,
    pub sha256: [u8; 32],
    /// The length before any stage changed the bytes; offsets of blocks and ranges count these.
    pub content_bytes: u64,
}

impl SealedFile {
    /// What every upload must hold.
    pub fn object(&self) -> Expected {
        Expected {
            bytes: self.bytes,
            sha256: self.sha256,
        }
    }
}

/// The stored bytes between two marks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SealedStretch {
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) sha256: [u8; 32],
}

/// All results of the seal.
pub(super) struct Sealed {
    pub(super) file: SealedFile,
    pub(super) md5: Option<[u8; 16]>,
    /// In the order in which they began.
    pub(super) stretches: Vec<SealedStretch>,
}

pub(super) struct Seal {
    outlets: Outlets,
    waited: Waited,
    bytes: u64,
    sha256: Sha256,
    md5: Option<Md5>,
    /// Ranges that have begun and not ended. Usually one; two for the few bytes that a stage needs for both.
    open: VecDeque<Open>,
    stretches: Vec<SealedStretch>,
}

struct Open {
    offset: u64,
    sha256: Sha256,
}

impl Seal {
    pub(super) fn new(outlets: Outlets, waited: Waited, md5: bool) -> Self {
        Self {
            outlets,
            waited,
            bytes: 0,
            sha256: Sha256::new(),
            md5: md5.then(Md5::new),
            open: VecDeque::new(),
            stretches: Vec::new(),
        }
    }

    pub(super) fn take(&mut self, passing: Passing) -> Result<(), Ended> {
        let bytes = match passing {
            Passing::Bytes(bytes) => bytes,
            Passing::Mark(mark) => {
                self.mark(mark);
                return Ok(());
            }
        };
        self.sha256.update(&bytes);
        if let Some(md5) = &mut self.md5 {
            md5.update(&bytes);
        }
        for open in &mut self.open {
            open.sha256.update(&bytes);
        }
        self.bytes += bytes.len() as u64;
        let began = Instant::now();
        let sent = self.outlets.send(&bytes);
        self.waited.since(began);
        sent
    }

    fn mark(&mut self, mark: Mark) {
        match mark {
            Mark::Begin => self.open.push_back(Open {
                offset: self.bytes,
                sha256: Sha256::new(),
            }),
            Mark::End => {
                let ended = self.open.pop_front().map(|open| SealedStretch {
                    offset: open.offset,
                    length: self.bytes - open.offset,
                    sha256: open.sha256.finalize().into(),
                });
                self.stretches.extend(ended);
            }
            Mark::Dropped => {
                self.open.pop_front();
            }
        }
    }

    pub(super) fn close(self, content_bytes: u64) -> Sealed {
        Sealed {
            file: SealedFile {
                bytes: self.bytes,
                sha256: self.sha256.finalize().into(),
                content_bytes,
            },
            md5: self.md5.map(|md5| md5.finalize().into()),
            stretches: self.stretches,
        }
    }
}
