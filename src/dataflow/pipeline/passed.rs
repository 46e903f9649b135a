//! The results, when every byte has passed.

use std::collections::BTreeMap;

use super::ended::UploadOutcome;
use super::framing::BlockPlace;
use super::seal::SealedFile;
use crate::dataflow::read_by::ReadBy;
use crate::format::archive::{BlockDigest, Head, SealedRange};
use crate::format::script::Contents;
use crate::format::script::Refused;

pub struct Passed {
    /// The archive's head and blocks; `None` for plain SQL.
    pub archive: Option<Archive>,
    /// The content of plain SQL, or why it could not be counted; `None` for an archive.
    pub script: Option<std::result::Result<Contents, Refused>>,
    /// What every upload must hold; the data file's record is made from it.
    pub expected: SealedFile,
    pub md5: Option<[u8; 16]>,
    /// Bytes that came in.
    pub bytes_read: u64,
    /// Bytes of content by the level at which they were compressed.
    pub levels: BTreeMap<i32, u64>,
    /// In the order in which the uploads were given; the first, the primary's, is open.
    pub copies: Vec<UploadOutcome>,
}

pub struct Archive {
    pub head: Head,
    /// The head with the offsets filled in: `<database>.toc`. They are those of the whole archive, with the blocks that
    /// are elsewhere.
    pub toc: Vec<u8>,
    pub blocks: Vec<Block>,
}

/// One block: its place and its content.
pub struct Block {
    pub place: BlockPlace,
    pub digest: BlockDigest,
    /// An earlier archive has it. This one does not; the place says where it would be.
    pub is_elsewhere: bool,
    pub read_by: ReadBy,
    /// The ranges of a large table that can be loaded in parts.
    pub ranges: Vec<SealedRange>,
}
