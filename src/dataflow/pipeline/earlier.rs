//! Blocks of an earlier archive: if a table's text is the same, its block need not be stored again.

use std::collections::{HashMap, HashSet};

use crate::format::archive::{BlockContent, BlockDigest, BlockKind, TocEntry};

/// The longest text that is kept in memory until it is known whether it is the same. A longer one has to be
/// compared before, and is read twice.
pub const HELD: u64 = 4 << 20;

/// A table's block in an earlier archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EarlierBlock {
    pub schema: String,
    pub name: String,
    pub digest: BlockDigest,
    /// The bytes of the whole block, as it is stored.
    pub length: u64,
}

impl EarlierBlock {
    pub fn is_held(&self) -> bool {
        self.digest.bytes <= HELD
    }
}

/// The tables of an earlier archive that may be the same, by OID.
#[derive(Debug, Clone, Default)]
pub struct EarlierBlocks {
    tables: HashMap<u32, EarlierBlock>,
    /// Those whose text was read in this snapshot, and is the same.
    proved: HashSet<u32>,
}

impl EarlierBlocks {
    pub fn new(tables: HashMap<u32, EarlierBlock>) -> Self {
        Self {
            tables,
            proved: HashSet::new(),
        }
    }

    /// The earlier block of this entry's table. The OID alone is not enough: a table may have got the OID of another.
    pub fn of(&self, entry: &TocEntry) -> Option<&EarlierBlock> {
        let earlier = self.tables.get(&entry.oid)?;
        let is_same = entry.block_kind() == BlockKind::Table
            && entry.namespace.as_deref().unwrap_or_default() == earlier.schema
            && entry.tag == earlier.name;
        is_same.then_some(earlier)
    }

    pub(in crate::dataflow) fn prove(&mut self, oid: u32) {
        self.proved.insert(oid);
    }

    pub(super) fn is_proved(&self, entry: &TocEntry) -> bool {
        self.proved.contains(&entry.oid) && self.of(entry).is_some()
    }
}

impl EarlierBlock {
    /// Whether a text with this digest is the same.
    pub(in crate::dataflow) fn is(&self, digest: &BlockDigest) -> bool {
        matches!(digest.content, BlockContent::Table { .. }) && *digest == self.digest
    }
}
