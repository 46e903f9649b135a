//! The head: header and table of contents. Its length is final as soon as it is read, since the
//! compression is the only field that changes, and offsets have a fixed width.

mod entry;
mod header;
mod strings;

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::io::Read;
use std::sync::Arc;

pub use entry::{Details, Entry};
pub use header::{BlockCompression, Version};

use super::input::{Input, encode_int};
use super::texts::{Meeting, Texts};
use super::{ArchiveError, Loading};
use entry::{OFFSET_NOT_SET, OFFSET_SET};
use header::{Form, Header};
use strings::HEAD_LIMIT;

/// Header and table of contents, with the very bytes that they were read from.
#[derive(Debug, Clone)]
pub struct Head {
    pub version: Version,
    pub int_size: usize,
    pub offset_size: usize,
    pub compression: BlockCompression,
    pub database: String,
    pub server_version: String,
    pub pg_dump_version: String,
    /// How many entries the table of contents has in all.
    pub entries: usize,
    /// The entries that have a block, in the order in which the blocks follow.
    pub data: Vec<Entry>,
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

    /// What is written in the table of contents and is not UTF-8: names, definitions, and columns of tables.
    pub fn foreign_texts(&self) -> Result<BTreeSet<Vec<u8>>, ArchiveError> {
        let mut found = BTreeSet::new();
        let mut input = Input::at(&self.bytes[self.entries_at..], self.entries_at as u64);
        let met = RefCell::new(BTreeSet::new());
        for number in 1..=self.entries {
            let strings = Meeting {
                known: &self.texts,
                met: Some(&met),
            };
            let (_, details) = entry::read(&mut input, self.form(), strings, number)?;
            found.extend(
                Loading::parse(&details.copy_statement)
                    .iter()
                    .flat_map(Loading::column_names),
            );
        }
        found.extend(met.into_inner());
        found.retain(|bytes| std::str::from_utf8(bytes).is_err());
        Ok(found)
    }

    /// The same, read with these.
    pub fn with_texts(mut self, texts: Arc<Texts>) -> Result<Head, ArchiveError> {
        self.texts = texts;
        let entries = self.read_entries()?.into_iter();
        self.data = entries.map(|(entry, _)| entry).filter(|entry| entry.has_data).collect();
        Ok(self)
    }

    /// A name as it stands in the archive, for people and for a session of ours.
    pub fn text(&self, bytes: &[u8]) -> String {
        let known = self.texts.get(bytes).cloned();
        known.unwrap_or_else(|| String::from_utf8_lossy(bytes).into_owned())
    }

    /// Every entry in full. Read again from the head's bytes: a backup, which has no use for it,
    /// does not pay for the texts of a large schema.
    pub(super) fn read_entries(&self) -> Result<Vec<(Entry, Details)>, ArchiveError> {
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

    /// How each block's table is copied back, in the order of `data`.
    pub fn copy_statements(&self) -> Result<Vec<Vec<u8>>, ArchiveError> {
        let entries = self.read_entries()?.into_iter();
        Ok(entries
            .filter(|(entry, _)| entry.has_data)
            .map(|(_, details)| details.copy_statement)
            .collect())
    }

    /// The same with other statements for how some entries' tables are copied back, by dump id: for a pg_restore that
    /// reads from a pipe, as everything after them moves.
    pub fn with_copy_statements(&self, statements: &HashMap<i64, Vec<u8>>) -> Result<Head, ArchiveError> {
        let mut bytes = Vec::with_capacity(self.bytes.len());
        let mut taken = 0;
        for (entry, details) in self.read_entries()? {
            let Some(statement) = statements.get(&entry.dump_id) else {
                continue;
            };
            bytes.extend_from_slice(&self.bytes[taken..details.copy_at.start]);
            encode_int(statement.len() as i64, self.int_size, &mut bytes);
            bytes.extend_from_slice(statement);
            taken = details.copy_at.end;
        }
        bytes.extend_from_slice(&self.bytes[taken..]);
        Head::read(&mut Input::new(&bytes[..]))?.with_texts(Arc::clone(&self.texts))
    }

    /// The head as the archive itself begins with it: offsets not set.
    pub fn without_offsets(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for entry in &self.data {
            bytes[entry.offset_at] = OFFSET_NOT_SET;
            bytes[entry.offset_at + 1..][..self.offset_size].fill(0);
        }
        bytes
    }

    /// Where the blocks start, in the order of `data`, if the offsets are filled in: those of a
    /// stored table of contents are.
    pub fn positions(&self) -> Option<Vec<u64>> {
        let position = |entry: &Entry| {
            let field = self.bytes.get(entry.offset_at..=entry.offset_at + self.offset_size)?;
            let little_endian = field[1..].iter().rev();
            (field[0] == OFFSET_SET).then(|| little_endian.fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
        };
        self.data.iter().map(position).collect()
    }

    /// The bytes in the archive that header and table of contents take.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// How long it is.
    pub fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The same head, saying that its blocks are compressed. Same length, nothing moves.
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

    /// Fills in where each data entry's block starts; `announced` is a head of this archive.
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
