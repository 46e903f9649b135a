//! What one pg_restore loads.

use std::ops::Range;

use crate::repository::stored_archive::StoredArchive;

/// What one pg_restore loads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Load {
    /// Indexes into the archive's blocks, ascending.
    pub blocks: Vec<usize>,
    /// Dump ids, in the archive's order.
    pub list: Vec<i64>,
    /// Set where the load's one block is loaded in parts.
    pub part: Option<Part>,
    pub stored_bytes: u64,
}

/// Some of a table's ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Indexes into the ranges of the load's one block.
    pub ranges: Range<usize>,
}

impl Load {
    /// The ranges of the stored archive that contain the blocks. Neighbours in its own file are read as one range.
    pub fn stretches(&self, archive: &StoredArchive) -> Vec<(Range<u64>, Vec<usize>)> {
        let mut stretches: Vec<(Range<u64>, Vec<usize>)> = Vec::new();
        for &index in &self.blocks {
            let place = archive.places[index].range();
            match stretches.last_mut() {
                Some((range, blocks)) if range.end == place.start && archive.is_own(index) => {
                    range.end = place.end;
                    blocks.push(index);
                }
                _ => stretches.push((place, vec![index])),
            }
        }
        stretches
    }
}
