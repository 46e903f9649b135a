//! The head: header and table of contents. Its length is final as soon as it is read, since the
//! compression is the only field that changes, and offsets have a fixed width.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

use super::input::{Input, encode_int};
use super::texts::{Meeting, Texts};
use super::{ArchiveError, BlockKind, Loading};

/// Where the compression stands in every header.
const COMPRESSION_AT: usize = 11;
/// A table of contents beyond this is not one.
const HEAD_LIMIT: u64 = 1 << 30;
const FORMAT_CUSTOM: u8 = 1;

const OFFSET_NOT_SET: u8 = 1;
const OFFSET_SET: u8 = 2;
const OFFSET_NO_DATA: u8 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u8,
    pub minor: u8,
    pub revision: u8,
}

impl Version {
    /// From 1.15 the header names an algorithm; before, a zlib level.
    pub fn names_algorithm(self) -> bool {
        self.minor >= 15
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// How the blocks are compressed, as the header says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    None,
    /// One zlib stream per table or large object.
    Gzip,
    Lz4,
    /// Concatenated zstd frames, none of them ending inside a chunk.
    Zstd,
}

/// One entry of the table of contents, as far as the data path needs it; [`Details`] is the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    pub dump_id: i64,
    /// The OID of the dumped object, 0 where there is none.
    pub oid: u32,
    pub tag: String,
    /// `TABLE DATA`, `BLOBS`, …
    pub desc: String,
    pub namespace: Option<String>,
    pub owner: String,
    /// Whether a block follows for this entry.
    pub has_data: bool,
    /// Where the entry's Offset field starts in the head.
    pub(crate) offset_at: usize,
    /// Schema and tag as they were written, where that is not UTF-8.
    pub(crate) written: Option<[Vec<u8>; 2]>,
}

impl Entry {
    /// The block kind that carries this entry's data.
    pub fn block_kind(&self) -> BlockKind {
        if self.desc == "BLOBS" {
            BlockKind::LargeObjects
        } else {
            BlockKind::Table
        }
    }

    /// Schema and tag in the archive's encoding.
    pub fn path(&self) -> [Vec<u8>; 2] {
        let own = || [self.namespace.as_deref().unwrap_or_default(), &self.tag].map(|name| name.as_bytes().to_vec());
        self.written.clone().unwrap_or_else(own)
    }

    /// With its schema, where it has one.
    pub fn name(&self) -> String {
        match self.namespace.as_deref().filter(|schema| !schema.is_empty()) {
            Some(schema) => format!("{schema}.{}", self.tag),
            None => self.tag.clone(),
        }
    }
}

impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {}.{}", self.desc, namespace, self.tag),
            None => write!(f, "{} {}", self.desc, self.tag),
        }
    }
}

/// What a restore needs to know of an entry beside [`Entry`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Details {
    /// As written: none 1, pre-data 2, data 3, post-data 4.
    pub section: i64,
    pub definition: String,
    /// As it was written, where that is not UTF-8.
    pub definition_bytes: Option<Vec<u8>>,
    pub drop_statement: String,
    /// In the database's encoding, as it was written.
    pub copy_statement: Vec<u8>,
    /// Where that stands in the head, with its length in front.
    pub(crate) copy_at: Range<usize>,
    pub tablespace: Option<String>,
    pub access_method: Option<String>,
    pub owner: String,
    /// The dump ids of what must be there first.
    pub dependencies: Vec<i64>,
}

/// Header and table of contents, with the very bytes that they were read from.
#[derive(Debug, Clone)]
pub struct Head {
    pub version: Version,
    pub int_size: usize,
    pub offset_size: usize,
    pub compression: Algorithm,
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
        let magic = input.at_least(COMPRESSION_AT)?;
        if magic.len() < COMPRESSION_AT {
            return Err(if b"PGDMP".starts_with(&magic[..magic.len().min(5)]) {
                input.ends_early("the header is cut")
            } else {
                input.malformed("this is no pg_dump archive")
            });
        }
        if &magic[..5] != b"PGDMP" {
            return Err(input.malformed("this is no pg_dump archive"));
        }
        let (major, minor, revision) = (magic[5], magic[6], magic[7]);
        let (int_size, offset_size, format) = (usize::from(magic[8]), usize::from(magic[9]), magic[10]);
        if major != 1 || !(14..=16).contains(&minor) {
            return Err(ArchiveError::Version(major, minor, revision));
        }
        let version = Version { major, minor, revision };
        if !(1..=8).contains(&int_size) || !(1..=8).contains(&offset_size) {
            return Err(input.malformed(format!("integers of {int_size} and offsets of {offset_size} bytes")));
        }
        if format != FORMAT_CUSTOM {
            return Err(input.malformed(format!("archive format {format} is not the custom format")));
        }
        input.consume(COMPRESSION_AT);
        let compression = if version.names_algorithm() {
            match input.byte("the compression")? {
                0 => Algorithm::None,
                1 => Algorithm::Gzip,
                2 => Algorithm::Lz4,
                3 => Algorithm::Zstd,
                other => return Err(input.malformed(format!("compression {other} is unknown"))),
            }
        } else if input.int(int_size, "the compression")? == 0 {
            Algorithm::None
        } else {
            Algorithm::Gzip
        };
        for field in ["second", "minute", "hour", "day", "month", "year", "daylight saving"] {
            input.int(int_size, field)?;
        }
        let texts = Texts::new();
        let meeting = Meeting {
            known: &texts,
            met: None,
        };
        let mut strings = Strings {
            input,
            int_size,
            texts: meeting,
        };
        let database = strings.text("the database's name")?.unwrap_or_default();
        let server_version = strings.text("the server's version")?.unwrap_or_default();
        let pg_dump_version = strings.text("pg_dump's version")?.unwrap_or_default();

        let count = input.int(int_size, "the number of entries")?;
        let Ok(entries) = usize::try_from(count) else {
            return Err(input.malformed(format!("{count} entries")));
        };
        let entries_at = usize::try_from(input.position()).unwrap_or(usize::MAX);
        let mut data = Vec::new();
        for number in 1..=entries {
            let (entry, _) = read_entry(input, version, int_size, offset_size, meeting, number)?;
            if entry.has_data {
                data.push(entry);
            }
            if input.position() > HEAD_LIMIT {
                return Err(input.malformed("the table of contents does not end"));
            }
        }
        let bytes = input.recorded();
        Ok(Self {
            version,
            int_size,
            offset_size,
            compression,
            database,
            server_version,
            pg_dump_version,
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
            let (_, details) = read_entry(
                &mut input,
                self.version,
                self.int_size,
                self.offset_size,
                strings,
                number,
            )?;
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
                read_entry(&mut input, self.version, self.int_size, self.offset_size, texts, number)
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
    pub fn announcing(&self, algorithm: Algorithm, level: u32) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        if self.version.names_algorithm() {
            bytes[COMPRESSION_AT] = match algorithm {
                Algorithm::None => 0,
                Algorithm::Gzip => 1,
                Algorithm::Lz4 => 2,
                Algorithm::Zstd => 3,
            };
        } else {
            let mut level_int = Vec::with_capacity(1 + self.int_size);
            encode_int(
                if algorithm == Algorithm::None {
                    0
                } else {
                    i64::from(level.max(1))
                },
                self.int_size,
                &mut level_int,
            );
            bytes[COMPRESSION_AT..COMPRESSION_AT + level_int.len()].copy_from_slice(&level_int);
        }
        bytes
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

struct Strings<'a, R> {
    input: &'a mut Input<R>,
    int_size: usize,
    texts: Meeting<'a>,
}

impl<R: Read> Strings<'_, R> {
    /// Names are in the database's encoding; for reports and the manifest they must be UTF-8.
    fn text(&mut self, name: &str) -> Result<Option<String>, ArchiveError> {
        let texts = self.texts;
        Ok(self.bytes(name)?.map(|bytes| texts.read(bytes)))
    }

    fn bytes(&mut self, name: &str) -> Result<Option<Vec<u8>>, ArchiveError> {
        self.input.string(self.int_size, HEAD_LIMIT, name)
    }

    fn skip(&mut self, name: &str) -> Result<bool, ArchiveError> {
        Ok(self.input.string(self.int_size, HEAD_LIMIT, name)?.is_some())
    }
}

fn read_entry<R: Read>(
    input: &mut Input<R>,
    version: Version,
    int_size: usize,
    offset_size: usize,
    texts: Meeting<'_>,
    number: usize,
) -> Result<(Entry, Details), ArchiveError> {
    let dump_id = input.int(int_size, "an entry's dump id")?;
    let has_data = match input.int(int_size, "an entry's data flag")? {
        0 => false,
        1 => true,
        other => return Err(input.malformed(format!("entry {number} has the data flag {other}"))),
    };
    let mut strings = Strings { input, int_size, texts };
    strings.skip("an entry's catalog")?;
    let oid = strings.text("an entry's OID")?.unwrap_or_default();
    let tag_bytes = strings.bytes("an entry's tag")?.unwrap_or_default();
    let tag = texts.read(tag_bytes.clone());
    let desc = strings.text("an entry's kind")?.unwrap_or_default();
    let section = strings.input.int(int_size, "an entry's section")?;
    let definition = strings.bytes("an entry's definition")?.unwrap_or_default();
    let definition_bytes = std::str::from_utf8(&definition).is_err().then(|| definition.clone());
    let definition = texts.read(definition);
    let drop_statement = strings.text("an entry's drop statement")?.unwrap_or_default();
    let copy_starts = strings.input.position();
    let copy_statement = strings.bytes("an entry's copy statement")?.unwrap_or_default();
    let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    let copy_at = place(copy_starts)..place(strings.input.position());
    let namespace_bytes = strings.bytes("an entry's schema")?;
    let namespace = namespace_bytes.clone().map(|bytes| texts.read(bytes));
    let tablespace = strings.text("an entry's tablespace")?;
    let access_method = strings.text("an entry's access method")?;
    if version.minor >= 16 {
        strings.input.int(int_size, "an entry's relation kind")?;
    }
    let owner = strings.text("an entry's owner")?.unwrap_or_default();
    strings.skip("an entry's OID flag")?;
    let mut dependencies = Vec::new();
    while let Some(dependency) = strings.text("an entry's dependency")? {
        let Ok(dependency) = dependency.parse() else {
            return Err(input.malformed(format!("entry {number} depends on {dependency:?}, which is no dump id")));
        };
        dependencies.push(dependency);
    }

    let offset_at = usize::try_from(input.position()).unwrap_or(usize::MAX);
    let state = input.byte("an entry's offset")?;
    for _ in 0..offset_size {
        input.byte("an entry's offset")?;
    }
    let promises = match state {
        OFFSET_NOT_SET | OFFSET_SET => true,
        OFFSET_NO_DATA => false,
        other => return Err(input.malformed(format!("entry {number} has the offset state {other}"))),
    };
    if promises != has_data {
        return Err(input.malformed(format!(
            "entry {number} ({desc} {tag}) contradicts itself on having data"
        )));
    }
    let path = [namespace_bytes.unwrap_or_default(), tag_bytes];
    let written = path
        .iter()
        .any(|name| std::str::from_utf8(name).is_err())
        .then_some(path);
    // OIDs above 2^31 come out negative in some builds: the low 32 bits are the OID.
    let oid = oid.parse::<i64>().map_or(0, |oid| oid as u32);
    let entry = Entry {
        dump_id,
        oid,
        tag,
        desc,
        namespace,
        owner: owner.clone(),
        has_data,
        offset_at,
        written,
    };
    let details = Details {
        section,
        definition,
        definition_bytes,
        drop_statement,
        copy_statement,
        copy_at,
        tablespace,
        access_method,
        owner,
        dependencies,
    };
    Ok((entry, details))
}
