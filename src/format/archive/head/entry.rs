//! An entry of the table of contents.

use std::io::Read;
use std::ops::Range;

use super::super::input::{Input, encode_int};
use super::super::texts::Meeting;
use super::super::{ArchiveError, BlockKind};
use super::header::Form;
use super::strings::Strings;

pub(super) const OFFSET_NOT_SET: u8 = 1;
pub(super) const OFFSET_SET: u8 = 2;
const OFFSET_NO_DATA: u8 = 3;

/// The part of an entry of the table of contents that is needed to move data; [`Details`] is the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TocEntry {
    pub dump_id: i64,
    /// The OID of the dumped object, 0 if there is none.
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
    /// Schema and tag as in the archive, if that is not UTF-8.
    pub(crate) written: Option<[Vec<u8>; 2]>,
}

impl TocEntry {
    /// The kind of the block that holds this entry's data.
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

    /// With its schema, if it has one.
    pub fn name(&self) -> String {
        match self.namespace.as_deref().filter(|schema| !schema.is_empty()) {
            Some(schema) => format!("{schema}.{}", self.tag),
            None => self.tag.clone(),
        }
    }
}

impl std::fmt::Display for TocEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {}.{}", self.desc, namespace, self.tag),
            None => write!(f, "{} {}", self.desc, self.tag),
        }
    }
}

/// What a restore needs of an entry, in addition to [`TocEntry`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Details {
    /// Where the entry begins in the head.
    pub(crate) begins_at: usize,
    /// The number in the archive: none 1, pre-data 2, data 3, post-data 4.
    pub section: i64,
    pub definition: String,
    /// As in the archive, if that is not UTF-8.
    pub definition_bytes: Option<Vec<u8>>,
    /// Its place in the head, with the length before it.
    pub(crate) definition_at: Range<usize>,
    pub drop_statement: String,
    /// As in the archive, in the database's encoding.
    pub copy_statement: Vec<u8>,
    /// Its place in the head, with the length before it.
    pub(crate) copy_at: Range<usize>,
    pub tablespace: Option<String>,
    pub access_method: Option<String>,
    /// As in `pg_class.relkind`; 0: no relation. `None`: the archive's version does not have it.
    pub relation_kind: Option<u8>,
    pub owner: String,
    /// The dump ids of the entries that must be restored first.
    pub dependencies: Vec<i64>,
    /// Their place in the head, without what ends them.
    pub(crate) dependencies_at: Range<usize>,
    /// Where the entry ends in the head.
    pub(crate) ends_at: usize,
}

/// An entry that pgstow adds to a table of contents. Texts are in the archive's encoding.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addition {
    pub dump_id: i64,
    /// The OID of the object in `pg_class`, 0 if there is none.
    pub oid: u32,
    pub tag: Vec<u8>,
    pub desc: &'static str,
    /// As in [`Details::section`].
    pub section: i64,
    pub definition: Vec<u8>,
    pub copy_statement: Vec<u8>,
    pub namespace: Vec<u8>,
    pub owner: Vec<u8>,
    pub dependencies: Vec<i64>,
    /// Whether a block follows for this entry.
    pub has_data: bool,
}

/// The OID of `pg_class`.
const CLASS: &[u8] = b"1259";

impl Addition {
    pub(super) fn write(&self, form: Form, out: &mut Vec<u8>) {
        let int = |value: i64, out: &mut Vec<u8>| encode_int(value, form.int_size, out);
        let text = |text: &[u8], out: &mut Vec<u8>| {
            int(text.len() as i64, out);
            out.extend_from_slice(text);
        };
        int(self.dump_id, out);
        int(i64::from(self.has_data), out);
        let catalog = if self.oid == 0 { &b"0"[..] } else { CLASS };
        text(catalog, out);
        text(self.oid.to_string().as_bytes(), out);
        text(&self.tag, out);
        text(self.desc.as_bytes(), out);
        int(self.section, out);
        text(&self.definition, out);
        text(b"", out);
        text(&self.copy_statement, out);
        text(&self.namespace, out);
        // No tablespace and no access method.
        int(-1, out);
        int(-1, out);
        if form.version.minor >= 16 {
            int(0, out);
        }
        text(&self.owner, out);
        text(b"false", out);
        for dependency in &self.dependencies {
            text(dependency.to_string().as_bytes(), out);
        }
        int(-1, out);
        out.push(if self.has_data { OFFSET_NOT_SET } else { OFFSET_NO_DATA });
        out.resize(out.len() + form.offset_size, 0);
    }
}

/// Reads the entry of this number, from 1.
pub(super) fn read<R: Read>(
    input: &mut Input<R>,
    form: Form,
    texts: Meeting<'_>,
    number: usize,
) -> Result<(TocEntry, Details), ArchiveError> {
    let int_size = form.int_size;
    let begins_at = place(input.position());
    let dump_id = input.int(int_size, "an entry's dump id")?;
    if i32::try_from(dump_id).is_err() {
        return Err(input.malformed(format!("entry {number} has the dump id {dump_id}")));
    }
    let has_data = match input.int(int_size, "an entry's data flag")? {
        0 => false,
        1 => true,
        other => return Err(input.malformed(format!("entry {number} has the data flag {other}"))),
    };
    let mut strings = Strings { input, int_size, texts };
    strings.skip("an entry's catalog")?;
    let oid = strings.text("an entry's OID")?.unwrap_or_default();
    let tag_bytes = strings.bytes("an entry's tag")?.unwrap_or_default();
    let desc = strings.text("an entry's kind")?.unwrap_or_default();
    let (mut details, namespace_bytes) = read_details(&mut strings, form)?;
    details.begins_at = begins_at;
    let dependencies_begin = strings.input.position();
    details.dependencies = read_dependencies(&mut strings, number)?;
    let dependencies_end = strings.input.position().saturating_sub(1 + int_size as u64);
    details.dependencies_at = place(dependencies_begin)..place(dependencies_end);
    let entry = TocEntry {
        dump_id,
        // Some builds write OIDs above 2^31 as negative numbers: the low 32 bits are the OID.
        oid: oid.parse::<i64>().map_or(0, |oid| oid as u32),
        tag: texts.read(tag_bytes.clone()),
        desc,
        namespace: namespace_bytes.clone().map(|bytes| texts.read(bytes)),
        owner: details.owner.clone(),
        has_data,
        offset_at: place(input.position()),
        written: written(texts, [namespace_bytes.unwrap_or_default(), tag_bytes]),
    };
    details.ends_at = place(input.position() + 1 + form.offset_size as u64);
    if read_offset(input, form, number)? != has_data {
        return Err(input.malformed(format!(
            "entry {number} ({} {}) says both that it has data and that it has none",
            entry.desc, entry.tag
        )));
    }
    Ok((entry, details))
}

fn place(at: u64) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}

/// Reads the fields between an entry's kind and its dependencies; the second value is its schema.
fn read_details<R: Read>(strings: &mut Strings<'_, R>, form: Form) -> Result<(Details, Option<Vec<u8>>), ArchiveError> {
    let (int_size, texts) = (form.int_size, strings.texts);
    let section = strings.input.int(int_size, "an entry's section")?;
    let definition_starts = strings.input.position();
    let bytes = strings.bytes("an entry's definition")?.unwrap_or_default();
    let definition_at = place(definition_starts)..place(strings.input.position());
    let definition = texts.read(bytes.clone());
    let definition_bytes = (definition.as_bytes() != bytes).then_some(bytes);
    let drop_statement = strings.text("an entry's drop statement")?.unwrap_or_default();
    let copy_starts = strings.input.position();
    let copy_statement = strings.bytes("an entry's copy statement")?.unwrap_or_default();
    let copy_at = place(copy_starts)..place(strings.input.position());
    let namespace = strings.bytes("an entry's schema")?;
    let tablespace = strings.text("an entry's tablespace")?;
    let access_method = strings.text("an entry's access method")?;
    let mut relation_kind = None;
    if form.version.minor >= 16 {
        let kind = strings.input.int(int_size, "an entry's relation kind")?;
        relation_kind = Some(u8::try_from(kind).unwrap_or_default());
    }
    let owner = strings.text("an entry's owner")?.unwrap_or_default();
    strings.skip("an entry's OID flag")?;
    let details = Details {
        section,
        definition,
        definition_bytes,
        definition_at,
        drop_statement,
        copy_statement,
        copy_at,
        tablespace,
        access_method,
        relation_kind,
        owner,
        ..Details::default()
    };
    Ok((details, namespace))
}

fn read_dependencies<R: Read>(strings: &mut Strings<'_, R>, number: usize) -> Result<Vec<i64>, ArchiveError> {
    let mut dependencies = Vec::new();
    while let Some(dependency) = strings.text("an entry's dependency")? {
        let Ok(dependency) = dependency.parse() else {
            let what = format!("entry {number} depends on {dependency:?}, which is not a dump id");
            return Err(strings.input.malformed(what));
        };
        dependencies.push(dependency);
    }
    Ok(dependencies)
}

/// Whether the entry's Offset says that it has data.
fn read_offset<R: Read>(input: &mut Input<R>, form: Form, number: usize) -> Result<bool, ArchiveError> {
    let state = input.byte("an entry's offset")?;
    for _ in 0..form.offset_size {
        input.byte("an entry's offset")?;
    }
    match state {
        OFFSET_NOT_SET | OFFSET_SET => Ok(true),
        OFFSET_NO_DATA => Ok(false),
        other => Err(input.malformed(format!("entry {number} has the offset state {other}"))),
    }
}

/// Names as in the archive, if the bytes of one of them are not its text in UTF-8.
fn written(texts: Meeting<'_>, path: [Vec<u8>; 2]) -> Option<[Vec<u8>; 2]> {
    let foreign = path.iter().any(|name| texts.read(name.clone()).as_bytes() != name);
    foreign.then_some(path)
}
