//! One archive of a moment: the definitions that were in force, and for each table the block with the rows that its
//! changes are applied to.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::bases::{Choice, Rows};
use super::report::NotExact;
use super::sequences;
use super::spelling::{qualified, statement};
use crate::error::{Code, Error, Result};
use crate::format::Lsn;
use crate::format::archive::{Addition, BlockContent, BlockDigest, Head, Input, Item, Loading, contents};
use crate::repository::backup_id::BackupId;
use crate::repository::manifest::{FileIndex, FileRange, Manifest, role};
use crate::repository::stored_archive::{Origin, StoredArchive, file_of, read_file};
use crate::repository::stored_changes::StoredChanges;
use crate::store::Store;

/// The sections of the rows, and of what comes after them.
const DATA: i64 = 3;
const POST_DATA: i64 = 4;

/// What goes into the archive.
pub(super) struct Parts<'a> {
    pub store: &'a Arc<dyn Store>,
    pub full: &'a Manifest,
    pub increments: &'a [Manifest],
    pub changes: &'a [StoredChanges],
    pub position: Lsn,
}

/// The archive, the backup that its definitions are from, and what it lacks.
pub(super) struct Composed {
    pub archive: StoredArchive,
    pub definitions_of: BackupId,
    pub lacking: Vec<NotExact>,
}

/// Archives with rows: the full's, and those of the baselines.
pub(super) struct Sources {
    pub full: Arc<StoredArchive>,
    pub baselines: BTreeMap<usize, Arc<StoredArchive>>,
}

impl Sources {
    /// The block with the rows of a table.
    pub fn block(&self, oid: u32, rows: Rows) -> Option<Origin> {
        let archive = match rows {
            Rows::Nothing => return Some(Origin::Nothing),
            Rows::Full => &self.full,
            Rows::Baseline(number) => self.baselines.get(&number)?,
        };
        let is_of_table = |entry: &crate::format::archive::TocEntry| entry.desc == "TABLE DATA" && entry.oid == oid;
        let index = archive.head.data.iter().position(is_of_table)?;
        Some(Origin::Block(Arc::clone(archive), index))
    }
}

pub(super) async fn compose(parts: &Parts<'_>, full: StoredArchive, choice: &Choice) -> Result<Composed> {
    let baselines = baselines(parts.store, parts.increments, choice).await?;
    let in_force = |manifest: &&Manifest| {
        let ends = manifest.increment.as_ref().map(|increment| increment.stream.to);
        manifest.files.contains_key(role::SCHEMA) && ends.is_some_and(|to| to <= parts.position)
    };
    let definitions = parts.increments.iter().rev().find(in_force);
    let head = match definitions {
        Some(manifest) => Some(schema(&**parts.store, manifest).await?),
        None => None,
    };
    let definitions_of = definitions.unwrap_or(parts.full).id.clone();
    let (archive, lacking) = match head {
        None if baselines.is_empty() => (moved_on(parts, full)?, Vec::new()),
        None => {
            let full = moved_on(parts, full)?;
            with_baselines(full, baselines, choice)?
        }
        Some(head) => {
            let sources = Sources {
                full: Arc::new(full),
                baselines,
            };
            redefined(parts, &head, &sources, choice)?
        }
    };
    let mut lacking = lacking;
    lacking.extend(without_definition(&archive, choice));
    lacking.extend(sequences::set_back(sequences::positions(
        parts.increments,
        parts.position,
    )));
    Ok(Composed {
        archive,
        definitions_of,
        lacking,
    })
}

/// The archives of the baselines that are needed, by the number of their increment.
pub(super) async fn baselines(
    store: &Arc<dyn Store>,
    increments: &[Manifest],
    choice: &Choice,
) -> Result<BTreeMap<usize, Arc<StoredArchive>>> {
    let mut baselines = BTreeMap::new();
    for table in choice.tables.values() {
        if let Rows::Baseline(number) = table.rows
            && !baselines.contains_key(&number)
        {
            let archive = StoredArchive::open(&**store, &increments[number]).await?;
            baselines.insert(number, Arc::new(archive));
        }
    }
    Ok(baselines)
}

/// The definitions that an increment stored.
async fn schema(store: &dyn Store, manifest: &Manifest) -> Result<Head> {
    let file = file_of(manifest, role::SCHEMA)?;
    let bytes = read_file(store, &manifest.id, file).await?;
    Head::read(&mut Input::new(&bytes[..])).map_err(|error| {
        let what = format!("{}: {error}", manifest.id.key(&file.name));
        Error::new(Code::Integrity, what)
    })
}

/// The full's archive, with the sequences of the moment.
fn moved_on(parts: &Parts<'_>, full: StoredArchive) -> Result<StoredArchive> {
    let states = sequences::positions(parts.increments, parts.position);
    let items = contents(&full.head)?;
    let set = items.iter().filter(|item| item.entry.desc == "SEQUENCE SET");
    let moved: HashMap<i64, Vec<u8>> = set
        .filter_map(|item| {
            let state = sequences::find(states, item)?;
            Some((item.entry.dump_id, sequences::moved(item.definition(), state)?))
        })
        .collect();
    let head = full.head.edited(&moved, &HashMap::new(), &[])?;
    Ok(StoredArchive { head, ..full })
}

/// The same with rows of baselines for some tables.
fn with_baselines(
    full: StoredArchive,
    baselines: BTreeMap<usize, Arc<StoredArchive>>,
    choice: &Choice,
) -> Result<(StoredArchive, Vec<NotExact>)> {
    let head = full.head.clone();
    let sources = Sources {
        full: Arc::new(full),
        baselines,
    };
    let mut statements = HashMap::new();
    let mut origins = Vec::new();
    for (index, entry) in head.data.iter().enumerate() {
        let own = Origin::Block(Arc::clone(&sources.full), index);
        let table = choice.tables.get(&entry.oid).filter(|_| entry.desc == "TABLE DATA");
        let origin = match table.map(|table| table.rows) {
            Some(rows @ Rows::Baseline(_)) => {
                let found = sources.block(entry.oid, rows).ok_or_else(|| missing(&entry.name()))?;
                statements.insert(entry.dump_id, statement_of(&found, &entry.path())?);
                found
            }
            _ => own,
        };
        origins.push(origin);
    }
    let head = head.edited(&HashMap::new(), &statements, &[])?;
    Ok((joined(head, &sources, origins), Vec::new()))
}

/// Newer definitions, with the rows of all tables that they have.
fn redefined(
    parts: &Parts<'_>,
    head: &Head,
    sources: &Sources,
    choice: &Choice,
) -> Result<(StoredArchive, Vec<NotExact>)> {
    let items = contents(head)?;
    let mut next = items.iter().map(|item| item.entry.dump_id).max().unwrap_or(0);
    let mut number = || {
        next += 1;
        next
    };
    let (mut additions, mut origins) = (Vec::new(), Vec::new());
    let mut lacking = Vec::new();
    for item in items.iter().filter(|item| holds_rows(item)) {
        let Some(table) = choice.tables.get(&item.entry.oid) else {
            continue;
        };
        let Some(origin) = sources.block(item.entry.oid, table.rows) else {
            lacking.push(lacks_rows(&item.entry.name()));
            continue;
        };
        let path = item.entry.path();
        let copy_statement = match &origin {
            Origin::Nothing => statement_from_changes(parts, item.entry.oid, &path),
            Origin::Block(..) => statement_of(&origin, &path)?,
        };
        let [namespace, tag] = path;
        additions.push(Addition {
            dump_id: number(),
            oid: item.entry.oid,
            tag,
            desc: "TABLE DATA",
            section: DATA,
            copy_statement,
            namespace,
            owner: item.details.owner.clone().into_bytes(),
            dependencies: vec![item.entry.dump_id],
            has_data: true,
            ..Addition::default()
        });
        origins.push(origin);
    }
    let states = sequences::positions(parts.increments, parts.position);
    for item in items.iter().filter(|item| item.entry.desc == "SEQUENCE") {
        if let Some(state) = sequences::find(states, item) {
            additions.push(sequences::addition(number(), item, state));
        }
    }
    for item in items.iter().filter(|item| item.entry.desc == "MATERIALIZED VIEW") {
        let [namespace, tag] = item.entry.path();
        additions.push(Addition {
            dump_id: number(),
            definition: [b"REFRESH MATERIALIZED VIEW ", &*qualified(&namespace, &tag), b";\n"].concat(),
            tag,
            desc: "MATERIALIZED VIEW DATA",
            section: POST_DATA,
            namespace,
            owner: item.details.owner.clone().into_bytes(),
            dependencies: vec![item.entry.dump_id],
            ..Addition::default()
        });
    }
    if sources.full.head.data.iter().any(|entry| entry.desc == "BLOBS") {
        lacking.push(NotExact {
            what: "large objects".into(),
            why: "they are not restored together with definitions that are newer than the full backup".into(),
            before: None,
            after: None,
        });
    }
    let head = head.edited(&HashMap::new(), &HashMap::new(), &additions)?;
    Ok((joined(head, sources, origins), lacking))
}

/// Ordinary tables: a partitioned one has no rows of its own.
fn holds_rows(item: &Item) -> bool {
    item.entry.desc == "TABLE" && !item.details.definition.contains("\nPARTITION BY ")
}

/// The archive with this head, whose blocks have these origins.
fn joined(head: Head, sources: &Sources, origins: Vec<Origin>) -> StoredArchive {
    let full = &sources.full;
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

/// The statement that loads the rows of a block into the table with this name.
pub(super) fn statement_of(origin: &Origin, path: &[Vec<u8>; 2]) -> Result<Vec<u8>> {
    let Origin::Block(archive, index) = origin else {
        return Ok(Vec::new());
    };
    let statements = archive.head.copy_statements()?;
    let statement = statements.get(*index).and_then(|statement| Loading::parse(statement));
    let loading = statement.ok_or_else(|| {
        let what = format!(
            "{}: {}: its COPY statement is not one that pg_dump writes",
            archive.key,
            archive.name(*index)
        );
        Error::new(Code::Integrity, what)
    })?;
    Ok(loading.for_table(path))
}

/// The same for rows that are all changes: their columns are those that the stream describes. Without a description
/// there are no rows either.
fn statement_from_changes(parts: &Parts<'_>, oid: u32, path: &[Vec<u8>; 2]) -> Vec<u8> {
    let described = parts
        .changes
        .iter()
        .rev()
        .flat_map(|changes| changes.index.described.iter().rev());
    let columns = described
        .filter(|described| described.oid() == oid)
        .find_map(|described| {
            let relation = described.relation()?;
            Some(
                relation
                    .columns
                    .into_iter()
                    .map(|column| column.name)
                    .collect::<Vec<_>>(),
            )
        });
    statement(path, &columns.unwrap_or_default())
}

fn missing(name: &str) -> Error {
    let what = format!("the rows of {name} are not in the increment that should hold them");
    Error::new(Code::Integrity, what)
}

fn lacks_rows(name: &str) -> NotExact {
    NotExact {
        what: name.to_owned(),
        why: "no backup that leads to the moment has its rows".into(),
        before: None,
        after: None,
    }
}

/// Tables of the moment that the definitions do not have: they were made in the increment that holds the moment, whose
/// definitions are those of its end.
fn without_definition<'a>(archive: &'a StoredArchive, choice: &'a Choice) -> impl Iterator<Item = NotExact> + 'a {
    let items = contents(&archive.head).unwrap_or_default();
    let defined: std::collections::HashSet<u32> = items
        .iter()
        .filter(|item| item.entry.desc.ends_with("TABLE"))
        .map(|item| item.entry.oid)
        .collect();
    let unknown = move |(oid, _): &(&u32, &super::TableBase)| !defined.contains(oid);
    choice.tables.iter().filter(unknown).map(|(_, table)| NotExact {
        what: format!("{}.{}", table.schema, table.name),
        why: "it was made after the newest definitions that are not later than the moment".into(),
        before: None,
        after: table.not_exact.as_ref().and_then(|one| one.after),
    })
}
