//! The large objects of a moment, in the place of those that an archive has.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::error::{Code, Error, Result};
use crate::format::archive::{BlockContent, BlockDigest, Graft, Head, Item, Place, contents};
use crate::repository::manifest::{FileIndex, FileRange};
use crate::repository::stored_archive::{Origin, StoredArchive};

/// Takes the large objects of the archive away, and puts those of `others` there.
pub(super) fn replaced(archive: StoredArchive, others: Option<&Arc<StoredArchive>>) -> Result<StoredArchive> {
    let items = contents(&archive.head)?;
    let old: HashSet<i64> = items.iter().filter(|item| is_object(item)).map(id).collect();
    let others = match others {
        Some(others) => Some((others, contents(&others.head)?)),
        None => None,
    };
    let new = others.as_ref().map_or(&[][..], |(_, items)| items.as_slice());
    let new: Vec<&Item> = new.iter().filter(|item| is_object(item)).collect();
    if old.is_empty() && new.is_empty() {
        return Ok(archive);
    }
    let first = items.iter().map(id).max().unwrap_or(0) + 1;
    let ids: HashMap<i64, i64> = new.iter().map(|item| id(item)).zip(first..).collect();
    let grafts: Vec<Graft> = new
        .iter()
        .map(|item| Graft {
            of: id(item),
            dump_id: ids[&id(item)],
            dependencies: item
                .details
                .dependencies
                .iter()
                .filter_map(|id| ids.get(id).copied())
                .collect(),
            place: Place::BeforeRows,
        })
        .collect();
    let mut head = archive.head.without(&old)?;
    let mut origins = origins(archive);
    if let Some((others, _)) = &others {
        let grafted = head.grafted(&others.head, &grafts, &HashMap::new())?;
        head = grafted.ok_or_else(|| {
            let what = format!("another version of pg_dump wrote the large objects of {}", others.key);
            Error::new(Code::RestoreErr, what).hint("restore the tables without them, with --table")
        })?;
        for (index, entry) in others.head.data.iter().enumerate() {
            if let Some(id) = ids.get(&entry.dump_id) {
                origins.blocks.insert(*id, Origin::Block(Arc::clone(others), index));
            }
        }
    }
    let blocks = head.data.iter().map(|entry| origins.blocks.remove(&entry.dump_id));
    let blocks: Option<Vec<Origin>> = blocks.collect();
    let blocks = blocks.ok_or_else(|| Error::internal("a block of the moment has no origin"))?;
    Ok(joined(head, &origins.archive, blocks))
}

fn id(item: &Item) -> i64 {
    item.entry.dump_id
}

fn is_object(item: &Item) -> bool {
    item.entry.desc.starts_with("BLOB") || item.entry.tag.starts_with("LARGE OBJECT")
}

/// Where the blocks of an archive are, by their dump ids.
pub(super) struct Origins {
    pub archive: Arc<StoredArchive>,
    pub blocks: HashMap<i64, Origin>,
}

pub(super) fn origins(archive: StoredArchive) -> Origins {
    let archive = Arc::new(archive);
    let origin = |index: usize| {
        let own = || Origin::Block(Arc::clone(&archive), index);
        archive.origins.get(index).cloned().unwrap_or_else(own)
    };
    let entries = archive.head.data.iter().enumerate();
    let blocks = entries.map(|(index, entry)| (entry.dump_id, origin(index))).collect();
    Origins { archive, blocks }
}

/// The archive with this head, whose blocks have these origins. It has the name of `full`.
pub(super) fn joined(head: Head, full: &StoredArchive, origins: Vec<Origin>) -> StoredArchive {
    let place = |origin: &Origin| match origin {
        Origin::Block(archive, index) => archive.places[*index],
        Origin::Nothing => FileRange {
            file: FileIndex(0),
            offset: 0,
            length: 0,
        },
    };
    let promise = |origin: &Origin| match origin {
        Origin::Block(archive, index) => archive.promises[*index].clone(),
        Origin::Nothing => BlockDigest {
            content: BlockContent::Table { rows: 0 },
            bytes: 0,
            sha256: EMPTY,
        },
    };
    let is_table = |origin: &Origin| match origin {
        Origin::Block(archive, index) => archive.tables[*index].is_some(),
        Origin::Nothing => true,
    };
    let name = |(entry, origin): (&crate::format::archive::TocEntry, &Origin)| {
        let names = || (entry.namespace.clone().unwrap_or_default(), entry.tag.clone());
        is_table(origin).then(names)
    };
    StoredArchive {
        key: full.key.clone(),
        file: full.file.clone(),
        places: origins.iter().map(place).collect(),
        promises: origins.iter().map(promise).collect(),
        // A part of a table cannot be rewritten alone.
        ranges: origins.iter().map(|_| Vec::new()).collect(),
        tables: head.data.iter().zip(&origins).map(name).collect(),
        changes: HashMap::new(),
        referred: None,
        origins,
        head,
    }
}

/// The SHA-256 of no bytes.
const EMPTY: [u8; 32] = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41,
    0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];
