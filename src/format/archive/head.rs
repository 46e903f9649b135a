//! The head: header and table of contents. Its length is final as soon as pgstow has read it, because pgstow changes
//! only the compression and the offsets, and both have a fixed width.

mod entry;
mod graft;
mod header;
mod strings;

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

pub use entry::{Addition, Details, TocEntry};
pub use graft::{Graft, Place};
pub use header::{ArchiveVersion, BlockCompression};

use super::input::{Input, encode_int};
use super::texts::{Meeting, Texts};
use super::{ArchiveError, Loading};
use entry::{OFFSET_NOT_SET, OFFSET_SET};
use header::{Form, Header};
use strings::HEAD_LIMIT;

/// The number of the section of the rows, and of the one after it.
const DATA: i64 = 3;
const POST_DATA: i64 = 4;

/// Header and table of contents, with the bytes from which they were read.
#[derive(Debug, Clone)]
pub struct Head {
    pub version: ArchiveVersion,
    pub int_size: usize,
    pub offset_size: usize,
    pub compression: BlockCompression,
    pub database: String,
    pub server_version: String,
    pub pg_dump_version: String,
    /// How many entries the table of contents has in all.
    pub entries: usize,
    /// The entries that have a block, in the order of the blocks.
    pub data: Vec<TocEntry>,
    /// Where the first entry starts in `bytes`.
    entries_at: usize,
    bytes: Vec<u8>,
    texts: Arc<Texts>,
}

impl Head {
    pub fn read<R: Read>(input: &mut Input<R>) -> Result<Self, ArchiveError> {
        input.record();
        let texts = Texts::new();
        let meeting = Meeting {
            known: &texts,
            met: None,
        };
        let header = Header::read(input, meeting)?;
        let form = header.form;
        let count = input.int(form.int_size, "the number of entries")?;
        let Ok(entries) = usize::try_from(count) else {
            return Err(input.malformed(format!("{count} entries")));
        };
        let entries_at = usize::try_from(input.position()).unwrap_or(usize::MAX);
        let mut data = Vec::new();
        for number in 1..=entries {
            let (entry, _) = entry::read(input, form, meeting, number)?;
            if entry.has_data {
                data.push(entry);
            }
            if input.position() > HEAD_LIMIT {
                return Err(input.malformed("the table of contents does not end"));
            }
        }
        let bytes = input.recorded();
        Ok(Self {
            version: form.version,
            int_size: form.int_size,
            offset_size: form.offset_size,
            compression: header.compression,
            database: header.database,
            server_version: header.server_version,
            pg_dump_version: header.pg_dump_version,
            entries,
            data,
            entries_at,
            bytes,
            texts: Arc::default(),
        })
    }

    /// The names, definitions and columns of tables in the table of contents that are not UTF-8. If the archive has
    /// another encoding, all texts that are not ASCII, also those whose bytes are a different text in UTF-8.
    pub fn foreign_texts(&self) -> Result<BTreeSet<Vec<u8>>, ArchiveError> {
        let mut found = BTreeSet::new();
        let mut input = Input::at(&self.bytes[self.entries_at..], self.entries_at as u64);
        let met = RefCell::new(BTreeSet::new());
        let mut other_encoding = false;
        for number in 1..=self.entries {
            let strings = Meeting {
                known: &self.texts,
                met: Some(&met),
            };
            let (entry, details) = entry::read(&mut input, self.form(), strings, number)?;
            if entry.desc == "ENCODING" {
                let named = details.definition.split('\'').nth(1);
                other_encoding = named.is_some_and(|name| !["UTF8", "SQL_ASCII"].contains(&name));
            }
            found.extend(
                Loading::parse(&details.copy_statement)
                    .iter()
                    .flat_map(Loading::column_names),
            );
        }
        found.extend(met.into_inner());
        found.retain(|bytes| match other_encoding {
            true => !bytes.is_ascii(),
            false => std::str::from_utf8(bytes).is_err(),
        });
        Ok(found)
    }

    /// The same head, read with these translations.
    pub fn with_texts(mut self, texts: Arc<Texts>) -> Result<Head, ArchiveError> {
        self.texts = texts;
        let entries = self.read_entries()?.into_iter();
        self.data = entries.map(|(entry, _)| entry).filter(|entry| entry.has_data).collect();
        Ok(self)
    }

    /// A name of the archive in UTF-8, for people and for pgstow's own sessions.
    pub fn text(&self, bytes: &[u8]) -> String {
        let known = self.texts.get(bytes).cloned();
        known.unwrap_or_else(|| String::from_utf8_lossy(bytes).into_owned())
    }

    /// Every whole entry, read again from the head's bytes: a backup does not need the texts of a large schema, so it
    /// does not keep them in memory.
    pub(super) fn read_entries(&self) -> Result<Vec<(TocEntry, Details)>, ArchiveError> {
        let mut input = Input::at(&self.bytes[self.entries_at..], self.entries_at as u64);
        (1..=self.entries)
            .map(|number| {
                let texts = Meeting {
                    known: &self.texts,
                    met: None,
                };
                entry::read(&mut input, self.form(), texts, number)
            })
            .collect()
    }

    /// The COPY statement of each block's table, in the order of `data`.
    pub fn copy_statements(&self) -> Result<Vec<Vec<u8>>, ArchiveError> {
        let entries = self.read_entries()?.into_iter();
        Ok(entries
            .filter(|(entry, _)| entry.has_data)
            .map(|(_, details)| details.copy_statement)
            .collect())
    }

    /// The same head with other COPY statements for some entries, by dump id. Everything after them moves, so this is
    /// only for a pg_restore that reads from a pipe.
    pub fn with_copy_statements(&self, statements: &HashMap<i64, Vec<u8>>) -> Result<Head, ArchiveError> {
        self.edited(&HashMap::new(), statements, &[])
    }

    /// With other definitions and COPY statements of the entries with these dump ids, and with more entries. Those of
    /// the section of the rows come behind all definitions that are before them, the others come last. The offsets are
    /// no longer right.
    pub fn edited(
        &self,
        definitions: &HashMap<i64, Vec<u8>>,
        statements: &HashMap<i64, Vec<u8>>,
        additions: &[Addition],
    ) -> Result<Head, ArchiveError> {
        let entries = self.read_entries()?;
        let is_after = |(_, details): &&(TocEntry, Details)| details.section == POST_DATA;
        let middle = entries
            .iter()
            .find(is_after)
            .map_or(self.bytes.len(), |(_, details)| details.begins_at);
        let mut edits: Vec<(Range<usize>, Vec<u8>)> = Vec::new();
        for (entry, details) in &entries {
            let texts = [(&details.definition_at, definitions), (&details.copy_at, statements)];
            for (place, text) in texts
                .into_iter()
                .filter_map(|(place, all)| Some((place, all.get(&entry.dump_id)?)))
            {
                let mut written = Vec::with_capacity(text.len() + 5);
                encode_int(text.len() as i64, self.int_size, &mut written);
                written.extend_from_slice(text);
                edits.push((place.clone(), written));
            }
        }
        for (at, is_of_rows) in [(middle, true), (self.bytes.len(), false)] {
            let mut written = Vec::new();
            let added = additions
                .iter()
                .filter(|addition| (addition.section == DATA) == is_of_rows);
            added.for_each(|addition| addition.write(self.form(), &mut written));
            edits.push((at..at, written));
        }
        self.spliced(edits, self.entries + additions.len())
    }

    /// Without the entries that have these dump ids. The offsets are no longer right.
    pub fn without(&self, ids: &HashSet<i64>) -> Result<Head, ArchiveError> {
        let entries = self.read_entries()?.into_iter();
        let gone: Vec<(Range<usize>, Vec<u8>)> = entries
            .filter(|(entry, _)| ids.contains(&entry.dump_id))
            .map(|(_, details)| (details.begins_at..details.ends_at, Vec::new()))
            .collect();
        let left = self.entries - gone.len();
        self.spliced(gone, left)
    }

    /// With other bytes at these places, and so many entries.
    fn spliced(&self, mut edits: Vec<(Range<usize>, Vec<u8>)>, entries: usize) -> Result<Head, ArchiveError> {
        let mut count = Vec::new();
        encode_int(entries as i64, self.int_size, &mut count);
        edits.push((self.entries_at - count.len()..self.entries_at, count));
        edits.sort_by_key(|(place, _)| (place.start, place.end));
        let mut bytes = Vec::with_capacity(self.bytes.len());
        let mut taken = 0;
        for (place, written) in edits {
            bytes.extend_from_slice(&self.bytes[taken..place.start]);
            bytes.extend_from_slice(&written);
            taken = place.end;
        }
        bytes.extend_from_slice(&self.bytes[taken..]);
        Head::read(&mut Input::new(&bytes[..]))?.with_texts(Arc::clone(&self.texts))
    }

    /// The head as at the start of the archive when it is written: without offsets.
    pub fn without_offsets(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for entry in &self.data {
            bytes[entry.offset_at] = OFFSET_NOT_SET;
            bytes[entry.offset_at + 1..][..self.offset_size].fill(0);
        }
        bytes
    }

    /// Where the blocks start, in the order of `data`, if the offsets are set. In a stored table of contents they are.
    pub fn positions(&self) -> Option<Vec<u64>> {
        let position = |entry: &TocEntry| {
            let field = self.bytes.get(entry.offset_at..=entry.offset_at + self.offset_size)?;
            let little_endian = field[1..].iter().rev();
            (field[0] == OFFSET_SET).then(|| little_endian.fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
        };
        self.data.iter().map(position).collect()
    }

    /// The number of bytes of header and table of contents.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// [`Self::len`], as a position in the archive.
    pub fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The bytes of the same head with another compression. They have the same length, so nothing moves.
    pub fn announcing(&self, compression: BlockCompression, level: u32) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        compression.write_over(self.form(), level, &mut bytes);
        bytes
    }

    fn form(&self) -> Form {
        Form {
            version: self.version,
            int_size: self.int_size,
            offset_size: self.offset_size,
        }
    }

    /// Sets the offset of each data entry to the start of its block. `announced` is a head of this archive;
    /// `positions` are in the order of `data`.
    pub fn with_offsets(&self, mut announced: Vec<u8>, positions: &[u64]) -> Vec<u8> {
        debug_assert_eq!(announced.len(), self.bytes.len());
        for (entry, position) in self.data.iter().zip(positions) {
            announced[entry.offset_at] = OFFSET_SET;
            let field = &mut announced[entry.offset_at + 1..][..self.offset_size];
            for (index, byte) in field.iter_mut().enumerate() {
                *byte = (position >> (8 * index)) as u8;
            }
        }
        announced
    }
}
