//! The blocks of a backup that refers to another one: some are in its own archive, some in the other's.

use super::Referred;
use super::record::Record;
use crate::dataflow::stored_file::{Assembly, Source};
use crate::format::archive::{BlockKind, Head, Layout, TocEntry};
use crate::repository::manifest::{FileIndex, FileRange, Manifest, References};

/// Joins the blocks of one file, and those of the file that the backup refers to, to one archive.
pub(super) struct Joining<'a> {
    own: Option<FileIndex>,
    /// The end of the blocks in the backup's own file so far.
    pub(super) own_end: u64,
    /// The end of all blocks so far.
    end: u64,
    layout: Layout,
    references: Option<(FileIndex, &'a References)>,
    blocks: Vec<bool>,
    assembly: Assembly,
}

impl<'a> Joining<'a> {
    pub(super) fn new(manifest: &'a Manifest, own: Option<FileIndex>, head: &Head) -> Self {
        let references = manifest.referenced_file().zip(manifest.references.as_ref());
        let mut assembly = match references {
            Some((_, references)) => Assembly::with(references.from.key(&references.file.name)),
            None => Assembly::default(),
        };
        assembly.push(Source::Own(0), head.length());
        Self {
            own,
            own_end: head.length(),
            end: head.length(),
            layout: Layout {
                int_size: head.int_size,
            },
            references,
            blocks: Vec::new(),
            assembly,
        }
    }

    /// The place of the next block in the whole archive. `None` if the record names another file, or another place in
    /// its own file than after the block before.
    pub(super) fn join(&mut self, entry: &TocEntry, record: &Record) -> Option<u64> {
        let FileRange { file, offset, length } = record.place;
        let at = self.end;
        self.end = self.end.saturating_add(length);
        if Some(file) == self.own {
            if self.references.is_none() {
                // The places of a single file are compared with the table of contents.
                self.own_end = record.place.end();
                return Some(offset);
            }
            self.blocks.push(false);
            self.assembly.push(Source::Own(offset), length);
            let follows = offset == self.own_end;
            self.own_end = record.place.end();
            return follows.then_some(at);
        }
        let (_, references) = self.references.filter(|(index, _)| *index == file)?;
        let header = self.layout.block_header();
        if entry.block_kind() != BlockKind::Table || length <= header || record.place.end() > references.file.bytes {
            return None;
        }
        self.blocks.push(true);
        // The block begins with the number of its entry, which is another one in the other archive.
        let mut begin = Vec::new();
        self.layout.begin_block(BlockKind::Table, entry.dump_id, &mut begin);
        self.assembly.push(Source::Bytes(begin.into()), header);
        self.assembly
            .push(Source::Other(offset.saturating_add(header)), length - header);
        Some(at)
    }

    pub(super) fn referred(self) -> Option<Referred> {
        let (_, references) = self.references?;
        Some(Referred {
            key: references.from.key(&references.file.name),
            blocks: self.blocks,
            assembly: self.assembly,
        })
    }
}
