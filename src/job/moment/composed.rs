//! One archive of a moment: the definitions that were in force, and for each table the block with the rows that its
//! changes are applied to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::bases::{Choice, Objects, Rows, TableBase, begun};
use super::columns::{Columns, Named, with_later_rows, without_rows};
use super::gone::{archive_without_dropped, without_dropped};
use super::grafted::graft;
use super::objects::{self, joined};
use super::place::Place;
use super::report::NotExact;
use super::sequences::{self, Positions, SetBack};
use super::spelling::{qualified, statement};
use crate::error::{Code, Error, Result};
use crate::format::archive::{Addition, Head, Input, Item, Loading, contents};
use crate::repository::backup_id::BackupId;
use crate::repository::manifest::{Manifest, role};
use crate::repository::seen_catalog::SeenCatalog;
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
    pub place: Place,
}

/// The archive, the backup that its definitions are from, and what it lacks.
pub(super) struct Composed {
    pub archive: StoredArchive,
    pub definitions_of: BackupId,
    pub lacking: Vec<NotExact>,
    pub set_back: Vec<SetBack>,
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

/// Tables whose rows cannot be had in any form are noted in the choice.
pub(super) async fn compose(parts: &Parts<'_>, full: StoredArchive, choice: &mut Choice) -> Result<Composed> {
    let Definitions { of, later } = definitions(parts).await?;
    with_later_rows(choice, of.as_ref().map(|of| of.number));
    let baselines = baselines(parts.store, parts.increments, choice).await?;
    let definitions_of = of.as_ref().map_or(&parts.full.id, |of| &parts.increments[of.number].id);
    let definitions_of = definitions_of.clone();
    let of_full = sequences::of_archive(&full.head)?;
    let positions = sequences::positions((parts.full, &of_full), parts.increments, parts.place);
    let (archive, mut lacking) = match of {
        None => {
            let full = archive_without_dropped(full, choice)?;
            let (full, made) = with_new_tables(full, later.as_ref(), choice)?;
            let full = moved_on(positions, full)?;
            match baselines.is_empty() && made.is_empty() {
                true => (full, Vec::new()),
                false => (with_other_rows(parts, full, baselines, choice, &made)?, Vec::new()),
            }
        }
        Some(of) => {
            let head = without_dropped(&of.head, choice)?.unwrap_or(of.head);
            let head = match &later {
                Some(later) => graft(&head, later, &undefined(&head, choice)?)?,
                None => head,
            };
            let columns = columns(parts, of.number, choice).await?;
            let sources = Sources {
                full: Arc::new(full),
                baselines,
            };
            let (archive, lacking) = redefined(parts, (&head, columns.as_ref()), (&sources, positions), choice)?;
            // Definitions alone have no large objects.
            match choice.objects {
                Objects::Full => (objects::replaced(archive, Some(&sources.full))?, lacking),
                _ => (archive, lacking),
            }
        }
    };
    let archive = match choice.objects {
        Objects::Full => archive,
        Objects::Nothing => objects::replaced(archive, None)?,
        Objects::Baseline(number) => {
            let of = StoredArchive::open(&**parts.store, &parts.increments[number]).await?;
            objects::replaced(archive, Some(&Arc::new(of)))?
        }
    };
    lacking.extend(without_definition(&archive, choice)?);
    // One that the definitions do not have was dropped before the moment.
    let items = contents(&archive.head)?;
    let there = items.iter().filter(|item| item.entry.desc == "SEQUENCE");
    let there: BTreeSet<u32> = there.map(|item| item.entry.oid).collect();
    let set_back = sequences::set_back(positions)
        .filter(|one| there.contains(&one.oid))
        .collect();
    Ok(Composed {
        archive,
        definitions_of,
        lacking,
        set_back,
    })
}

/// The definitions of the moment.
struct Definitions {
    /// The newest that are in force. `None`: those of the full.
    of: Option<OfIncrement>,
    /// Those at the end of the increment that holds the moment, if it has others.
    later: Option<Head>,
}

/// Definitions that the increment of this number stored.
struct OfIncrement {
    number: usize,
    head: Head,
}

async fn definitions(parts: &Parts<'_>) -> Result<Definitions> {
    let store = &**parts.store;
    let mut later = None;
    for (number, manifest) in parts.increments.iter().enumerate().rev() {
        if !manifest.files.contains_key(role::SCHEMA) {
            continue;
        }
        // That may be before the increment's end or, if the stream was not read to its end, behind it.
        let from = seen(store, manifest).await?.definitions.from;
        // Those of the full are newer.
        if begun(parts.full).is_some_and(|begun| from <= begun) {
            break;
        }
        let is_in_force = from <= parts.place.earliest;
        let head = schema(store, manifest).await?;
        if is_in_force {
            let of = Some(OfIncrement { number, head });
            return Ok(Definitions { of, later });
        }
        later = Some(head);
    }
    Ok(Definitions { of: None, later })
}

/// The tables as an increment saw them.
async fn seen(store: &dyn Store, manifest: &Manifest) -> Result<SeenCatalog> {
    let file = file_of(manifest, role::CATALOG)?;
    let bytes = read_file(store, &manifest.id, file).await?;
    SeenCatalog::parse(&bytes, &manifest.id)
}

/// The columns of the tables in the definitions that this increment stored. `None`: no table needs them.
async fn columns<'a>(parts: &Parts<'a>, number: usize, choice: &Choice) -> Result<Option<Columns<'a>>> {
    let is_needed = |table: &TableBase| table.renamed || table.not_exact.is_some();
    if !choice.tables.values().any(is_needed) {
        return Ok(None);
    }
    let catalog = seen(&**parts.store, &parts.increments[number]).await?;
    Ok(Some(Columns {
        catalog,
        full: parts.full,
        increments: parts.increments,
    }))
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
fn moved_on(positions: Positions<'_>, full: StoredArchive) -> Result<StoredArchive> {
    let items = contents(&full.head)?;
    let set = items.iter().filter(|item| item.entry.desc == "SEQUENCE SET");
    let moved: HashMap<i64, Vec<u8>> = set
        .filter_map(|item| {
            let state = sequences::find(positions, item)?;
            Some((item.entry.dump_id, sequences::moved(item.definition(), state)?))
        })
        .collect();
    let head = full.head.edited(&moved, &HashMap::new(), &[])?;
    Ok(StoredArchive { head, ..full })
}

/// The full's archive with the definitions of tables that were made since, and their OIDs.
fn with_new_tables(
    full: StoredArchive,
    later: Option<&Head>,
    choice: &Choice,
) -> Result<(StoredArchive, BTreeSet<u32>)> {
    let Some(later) = later else {
        return Ok((full, BTreeSet::new()));
    };
    let mut made = undefined(&full.head, choice)?;
    let head = graft(&full.head, later, &made)?;
    let lacking = undefined(&head, choice)?;
    made.retain(|oid| !lacking.contains(oid));
    Ok((StoredArchive { head, ..full }, made))
}

/// The same with rows of baselines for some tables, and rows of `made`, which has none but its changes.
fn with_other_rows(
    parts: &Parts<'_>,
    full: StoredArchive,
    baselines: BTreeMap<usize, Arc<StoredArchive>>,
    choice: &Choice,
    made: &BTreeSet<u32>,
) -> Result<StoredArchive> {
    let head = full.head.clone();
    let sources = Sources {
        full: Arc::new(full),
        baselines,
    };
    let (mut statements, mut loading) = (HashMap::new(), Statements::default());
    let mut origins = Vec::new();
    for (index, entry) in head.data.iter().enumerate() {
        let own = Origin::Block(Arc::clone(&sources.full), index);
        let table = choice.tables.get(&entry.oid).filter(|_| entry.desc == "TABLE DATA");
        let origin = match table.map(|table| table.rows) {
            Some(rows @ Rows::Baseline(_)) => {
                let found = sources.block(entry.oid, rows).ok_or_else(|| missing(&entry.name()))?;
                statements.insert(entry.dump_id, loading.of(&found, &entry.path())?);
                found
            }
            _ => own,
        };
        origins.push(origin);
    }
    let items = contents(&head)?;
    let mut next = items.iter().map(|item| item.entry.dump_id).max().unwrap_or(0);
    let mut additions = Vec::new();
    let is_made = |item: &&Item| item.entry.desc == "TABLE" && made.contains(&item.entry.oid);
    for item in items.iter().filter(is_made) {
        next += 1;
        let copy_statement = statement_from_changes(parts, item.entry.oid, &item.entry.path());
        additions.push(rows_of(item, next, copy_statement));
        origins.push(Origin::Nothing);
    }
    let head = head.edited(&HashMap::new(), &statements, &additions)?;
    Ok(joined(head, &sources.full, origins))
}

/// The entry of a table's rows.
fn rows_of(table: &Item, dump_id: i64, copy_statement: Vec<u8>) -> Addition {
    let [namespace, tag] = table.entry.path();
    Addition {
        dump_id,
        oid: table.entry.oid,
        tag,
        desc: "TABLE DATA",
        section: DATA,
        copy_statement,
        namespace,
        owner: table.details.owner.clone().into_bytes(),
        dependencies: vec![table.entry.dump_id],
        has_data: true,
        ..Addition::default()
    }
}

/// Newer definitions, with the rows of all tables that they have.
fn redefined(
    parts: &Parts<'_>,
    (head, columns): (&Head, Option<&Columns<'_>>),
    (sources, positions): (&Sources, Positions<'_>),
    choice: &mut Choice,
) -> Result<(StoredArchive, Vec<NotExact>)> {
    let items = contents(head)?;
    let mut next = items.iter().map(|item| item.entry.dump_id).max().unwrap_or(0);
    let mut number = || {
        next += 1;
        next
    };
    let (mut additions, mut origins) = (Vec::new(), Vec::new());
    let (mut lacking, mut loading) = (Vec::new(), Statements::default());
    for item in items.iter().filter(|item| holds_rows(item)) {
        let Some(table) = choice.tables.get_mut(&item.entry.oid) else {
            continue;
        };
        let Some(origin) = sources.block(item.entry.oid, table.rows) else {
            lacking.push(lacks_rows(&item.entry.name()));
            continue;
        };
        let path = item.entry.path();
        let named = columns.map_or(Ok(Named::AsRead), |columns| columns.named(item, table, &origin))?;
        let (origin, copy_statement) = match (named, &origin) {
            (Named::Nohow, _) => {
                without_rows(table, item);
                // The changes may describe columns of later definitions.
                let names = columns.and_then(|columns| columns.names(item.entry.oid));
                let copy_statement = match names {
                    Some(names) => statement(&path, &names),
                    None => statement_from_changes(parts, item.entry.oid, &path),
                };
                (Origin::Nothing, copy_statement)
            }
            (Named::Anew(copy_statement), _) => (origin, copy_statement),
            (Named::AsRead, Origin::Nothing) => {
                let from_changes = statement_from_changes(parts, item.entry.oid, &path);
                (origin, from_changes)
            }
            (Named::AsRead, Origin::Block(..)) => {
                let as_read = loading.of(&origin, &path)?;
                (origin, as_read)
            }
        };
        additions.push(rows_of(item, number(), copy_statement));
        origins.push(origin);
    }
    for item in items.iter().filter(|item| item.entry.desc == "SEQUENCE") {
        if let Some(state) = sequences::find(positions, item) {
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
    let head = head.edited(&HashMap::new(), &HashMap::new(), &additions)?;
    Ok((joined(head, &sources.full, origins), lacking))
}

fn holds_rows(item: &Item) -> bool {
    item.entry.desc == "TABLE" && !item.is_partitioned()
}

/// The statements that load the rows of blocks, read once from each archive.
#[derive(Default)]
struct Statements(HashMap<String, Vec<Vec<u8>>>);

impl Statements {
    /// The one for the rows of a block, into the table with this name.
    fn of(&mut self, origin: &Origin, path: &[Vec<u8>; 2]) -> Result<Vec<u8>> {
        let Origin::Block(archive, index) = origin else {
            return Ok(Vec::new());
        };
        if !self.0.contains_key(&archive.key) {
            self.0.insert(archive.key.clone(), archive.head.copy_statements()?);
        }
        let statement = self.0.get(&archive.key).and_then(|statements| statements.get(*index));
        let loading = statement
            .and_then(|statement| Loading::parse(statement))
            .ok_or_else(|| {
                let what = format!(
                    "{}: {}: its COPY statement is not one that pg_dump writes",
                    archive.key,
                    archive.name(*index)
                );
                Error::new(Code::Integrity, what)
            })?;
        Ok(loading.for_table(path))
    }
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

/// The OIDs of the tables that the definitions have.
fn defined(head: &Head) -> Result<BTreeSet<u32>> {
    let items = contents(head)?;
    let tables = items.iter().filter(|item| item.entry.desc.ends_with("TABLE"));
    Ok(tables.map(|item| item.entry.oid).collect())
}

/// The tables that were made since the full and are exact, but that the definitions do not have.
fn undefined(head: &Head, choice: &Choice) -> Result<BTreeSet<u32>> {
    let defined = defined(head)?;
    let is_made = |(oid, table): &(&u32, &TableBase)| {
        table.rows == Rows::Nothing && table.not_exact.is_none() && !defined.contains(oid)
    };
    Ok(choice.tables.iter().filter(is_made).map(|(oid, _)| *oid).collect())
}

/// Tables of the moment that the definitions do not have: they were made in the increment that holds the moment, whose
/// definitions are those of its end.
fn without_definition(archive: &StoredArchive, choice: &Choice) -> Result<Vec<NotExact>> {
    let defined = defined(&archive.head)?;
    let unknown = choice.tables.iter().filter(|(oid, _)| !defined.contains(oid));
    let lacking = unknown.map(|(_, table)| {
        let gap = table.not_exact.as_ref().or(table.closed.as_ref());
        NotExact {
            what: format!("{}.{}", table.schema, table.name),
            why: "it was made after the newest definitions that are not later than the moment".into(),
            before: gap.and_then(|gap| gap.before),
            after: gap.and_then(|gap| gap.after),
        }
    });
    Ok(lacking.collect())
}
