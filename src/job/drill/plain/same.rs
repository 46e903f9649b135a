//! Whether two scripts hold the same.

use std::collections::{BTreeMap, HashSet};

use super::Doubts;
use crate::format::script::{Contents, Definition, Header, LargeObjects, Sum, Table, TablePath};
use crate::job::drill::definitions::OWNED;
use crate::job::drill::{DrillReport, ProofOutcome, RESTORED, TableProof};
use crate::job::restore::LeftOut;
use crate::repository::manifest::Manifest;
use crate::repository::verification::Finding;
use crate::units::count;

fn differs(name: String, what: &str) -> Finding {
    Finding {
        file: RESTORED.to_owned(),
        table: Some(name),
        what: what.to_owned(),
    }
}

/// Compares every table by the digest of its rows; if their order differs, by a digest that does not depend on the
/// order. Partitions that are loaded through their root are compared together, because the server chooses the partition
/// of each row.
pub(super) fn rows(
    manifest: &Manifest,
    backup: &Contents,
    again: &Contents,
    doubts: &Doubts,
    report: &mut DrillReport,
) {
    let mut there = by_target(again);
    // A script has spaces in place of some line breaks in names; the manifest has the real names.
    let known = manifest.script.is_some() && manifest.tables.len() == backup.tables.len();
    let name = |(index, table): (usize, &Table)| match known {
        true => (
            manifest.tables[index].schema.clone(),
            manifest.tables[index].name.clone(),
        ),
        false => table.name(),
    };
    for (target, ours) in by_target(backup) {
        let theirs = there.remove(target).unwrap_or_default();
        let result = compare(&ours, &theirs);
        let (mut unlike, mut doubtful) = (ProofOutcome::Differs, false);
        if let Err(different) = &result {
            let (schema, name) = match ours.as_slice() {
                [(index, table)] => name((*index, table)),
                _ => (text(&target.schema), text(&target.name)),
            };
            let doubt = doubts.of_table(&schema, &name);
            let doubt = doubt.or_else(|| doubts.of_rows().filter(|_| different.only_printed));
            doubtful = doubt.is_some();
            match doubt {
                Some(why) => report.not_proved.push(LeftOut {
                    what: format!("TABLE DATA {schema}.{name}"),
                    why: format!("{why} (it {})", different.what),
                }),
                None => report
                    .problems
                    .push(differs(format!("{schema}.{name}"), &different.what)),
            }
        }
        if doubtful {
            unlike = ProofOutcome::NotProved;
        }
        for (index, table) in ours {
            let (schema, name) = name((index, table));
            report.tables.push(TableProof {
                schema,
                name,
                rows: table.rows(),
                result: *result.as_ref().unwrap_or(&unlike),
            });
        }
    }
    there.into_keys().for_each(|target| more(target, doubts, report));
}

/// A table that is not in the backup.
fn more(target: &TablePath, doubts: &Doubts, report: &mut DrillReport) {
    let (schema, name) = (text(&target.schema), text(&target.name));
    match doubts.of_table(&schema, &name) {
        Some(why) => report.not_proved.push(LeftOut {
            what: format!("TABLE DATA {schema}.{name}"),
            why: format!("{why} (it is there and not in the backup)"),
        }),
        None => report
            .problems
            .push(differs(format!("{schema}.{name}"), "is there and not in the backup")),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The tables with their numbers.
fn by_target(contents: &Contents) -> BTreeMap<&TablePath, Vec<(usize, &Table)>> {
    let mut tables: BTreeMap<&TablePath, Vec<(usize, &Table)>> = BTreeMap::new();
    for (index, table) in contents.tables.iter().enumerate() {
        tables.entry(&table.target).or_default().push((index, table));
    }
    tables
}

/// How two tables differ.
struct Different {
    what: String,
    /// They have the same columns and equally many rows.
    only_printed: bool,
}

fn compare(ours: &[(usize, &Table)], theirs: &[(usize, &Table)]) -> Result<ProofOutcome, Different> {
    let different = |what: &str, only_printed| {
        Err(Different {
            what: what.to_owned(),
            only_printed,
        })
    };
    if theirs.is_empty() {
        return different("is not there", false);
    }
    let pairs = ours.iter().zip(theirs);
    let mut same = pairs.map(|((_, ours), (_, theirs))| ours.digest == theirs.digest && ours.columns == theirs.columns);
    if ours.len() == theirs.len() && same.all(|same| same) {
        return Ok(ProofOutcome::Equal);
    }
    let rows = |tables: &[(usize, &Table)]| tables.iter().map(|(_, table)| table.rows()).sum::<u64>();
    let (here, there) = (rows(ours), rows(theirs));
    if here != there {
        return different(&format!("has {}, the backup {here}", count(there, "row")), false);
    }
    if columns(ours) != columns(theirs) {
        return different("has other columns than the backup", false);
    }
    let sum = |tables: &[(usize, &Table)]| all(tables.iter().map(|(_, table)| table.sum));
    if sum(ours) != sum(theirs) {
        return different("has as many rows as the backup, and other ones", true);
    }
    Ok(ProofOutcome::EqualInOtherOrder)
}

/// The column names, each once; their order may differ.
fn columns<'a>(tables: &[(usize, &'a Table)]) -> Vec<&'a [u8]> {
    let mut columns: Vec<&[u8]> = tables
        .iter()
        .flat_map(|(_, table)| &table.columns)
        .map(Vec::as_slice)
        .collect();
    columns.sort_unstable();
    columns.dedup();
    columns
}

fn all(sums: impl Iterator<Item = Sum>) -> Sum {
    let mut all = Sum::default();
    sums.for_each(|sum| all.merge(sum));
    all
}

/// Compares all large objects together, because their groups may differ.
pub(super) fn large_objects(backup: &Contents, again: &Contents, doubts: &Doubts, report: &mut DrillReport) {
    let count = |contents: &Contents| contents.large_objects.iter().map(LargeObjects::count).sum::<u64>();
    let sum = |contents: &Contents| all(contents.large_objects.iter().map(|objects| objects.sum));
    report.large_objects = count(backup);
    if (count(backup), sum(backup)) != (count(again), sum(again)) {
        let what = format!("{} are there, not the {} of the backup", count(again), count(backup));
        match doubts.of_large_objects() {
            Some(why) => report.not_proved.push(LeftOut {
                what: "large objects".into(),
                why: format!("{why} ({what})"),
            }),
            None => report.problems.push(differs("large objects".into(), &what)),
        }
    }
}

#[derive(Default)]
pub(super) struct Compared {
    /// Parts with the same text in both.
    pub equal: usize,
    /// Of them, positions of sequences.
    pub sequences: usize,
    /// Parts that are in only one.
    pub differences: Vec<Difference>,
    /// Parts that are in both with different texts.
    pub otherwise: Vec<Otherwise>,
    /// Parts that are in both, but too long to be kept.
    pub too_long: Vec<String>,
}

pub(super) struct Difference {
    pub finding: Finding,
    pub header: Header,
    /// It is about an object that the script does not make.
    pub is_foreign: bool,
}

/// Parts of one name with different texts.
pub(super) struct Otherwise {
    key: String,
    /// See [`Difference::is_foreign`].
    pub is_foreign: bool,
    shown: String,
    sequences: bool,
    /// The texts from the restored database.
    texts: Vec<Vec<u8>>,
}

/// A part is identified by its header: kind, schema, name, owner. `makers` are the roles that own objects of extensions
/// here; a dump does not say who owned them in the source.
pub(super) fn definitions(backup: &Contents, again: &Contents, makers: &[&str]) -> Compared {
    let mut compared = Compared::default();
    let of_extensions = of_extensions(again, makers);
    let makes = Makes::of(backup);
    let mut there = by_key(again, &of_extensions);
    let mut differ = |parts: &Parts<'_>, what: &str| {
        compared.differences.push(Difference {
            finding: differs(parts.header.to_string(), what),
            header: parts.header.clone(),
            is_foreign: makes.is_foreign(parts.header),
        });
    };
    for (key, ours) in by_key(backup, &of_extensions) {
        let Some(theirs) = there.remove(&key) else {
            if !ours.is_nothing() {
                differ(&ours, "is not there");
            }
            continue;
        };
        if ours.too_long || theirs.too_long {
            compared.too_long.push(ours.header.to_string());
        } else if ours.texts == theirs.texts {
            compared.equal += ours.texts.len();
            compared.sequences += if ours.is_of_sequences() { ours.texts.len() } else { 0 };
        } else if ours.texts.len() == theirs.texts.len() {
            compared.otherwise.push(Otherwise {
                key,
                is_foreign: makes.is_foreign(ours.header),
                shown: ours.header.to_string(),
                sequences: ours.is_of_sequences(),
                texts: theirs.texts,
            });
        } else {
            let what = format!(
                "is there {} times, in the backup {}",
                theirs.texts.len(),
                ours.texts.len()
            );
            differ(&ours, &what);
        }
    }
    for extra in there.values().filter(|extra| !extra.is_nothing()) {
        differ(extra, "is there and not in the backup");
    }
    compared
}

/// Schema and name of the objects that a script makes itself.
struct Makes(HashSet<(Option<String>, String)>);

/// Kinds that are about another object, whose kind comes before its name.
const SAID: [&str; 3] = ["ACL", "COMMENT", "SECURITY LABEL"];

impl Makes {
    fn of(contents: &Contents) -> Self {
        let made = contents.definitions.iter().map(|one| &one.header);
        let made = made.filter(|header| !SAID.contains(&header.kind().as_str()));
        Self(made.map(|header| (header.schema(), header.name())).collect())
    }

    /// About an object that the script does not make: it existed before, or an extension makes it.
    fn is_foreign(&self, header: &Header) -> bool {
        let (schema, name) = (header.schema(), header.name());
        // Large objects never belong to an extension, and many share one header.
        if !SAID.contains(&header.kind().as_str()) || name.starts_with("LARGE OBJECT ") {
            return false;
        }
        let made = |name: &str| self.0.contains(&(schema.clone(), name.to_owned()));
        // The kind may have several words. For a column (`COLUMN t.c`) the table's name counts.
        let mut names = name.match_indices(' ').map(|(at, _)| &name[at + 1..]);
        !names.any(|name| made(name) || name.match_indices('.').any(|(at, _)| made(&name[..at])))
    }
}

struct Parts<'a> {
    header: &'a Header,
    texts: Vec<Vec<u8>>,
    /// Some of its text was too long to be kept.
    too_long: bool,
}

impl Parts<'_> {
    fn is_of_sequences(&self) -> bool {
        self.header.kind() == "SEQUENCE SET"
    }

    /// Only rights of PUBLIC on a schema.
    fn is_nothing(&self) -> bool {
        !self.too_long && self.texts.iter().all(Vec::is_empty)
    }
}

fn of_extensions(contents: &Contents, makers: &[&str]) -> HashSet<String> {
    let theirs = contents.definitions.iter().filter(|one| {
        let owner = one.header.owner();
        owner.is_some_and(|owner| makers.contains(&owner.as_str())) && !OWNED.contains(&one.header.kind().as_str())
    });
    theirs.map(|one| one.header.identity(false)).collect()
}

fn by_key<'a>(contents: &'a Contents, of_extensions: &HashSet<String>) -> BTreeMap<String, Parts<'a>> {
    let mut parts: BTreeMap<String, Parts<'a>> = BTreeMap::new();
    for one in &contents.definitions {
        let ownerless = one.header.identity(false);
        let key = match of_extensions.contains(&ownerless) {
            true => ownerless,
            false => one.header.identity(true),
        };
        let of_this = parts.entry(key).or_insert_with(|| Parts {
            header: &one.header,
            texts: Vec::new(),
            too_long: false,
        });
        of_this.too_long |= one.statements.is_none();
        of_this.texts.push(words(one));
        of_this.texts.sort();
    }
    parts
}

/// While the script runs, the drill lets all roles use every schema. Such grants are left out here.
fn words(definition: &Definition) -> Vec<u8> {
    let statements = definition.statements.as_deref().unwrap_or_default();
    let of_schema = definition.header.kind() == "ACL" && definition.header.name().starts_with("SCHEMA ");
    let of_public = |sql: &[u8]| of_schema && (sql.ends_with(b" TO PUBLIC;") || sql.ends_with(b" FROM PUBLIC;"));
    let kept = statements.iter().filter(|sql| !of_public(sql));
    kept.flat_map(|sql| [&sql[..], b"\n"].concat()).collect()
}

impl Otherwise {
    pub fn name(&self) -> String {
        self.shown.clone()
    }

    pub fn number(&self) -> usize {
        self.texts.len()
    }

    pub fn sequences(&self) -> usize {
        if self.sequences { self.texts.len() } else { 0 }
    }

    /// Whether this server prints the same text when the same statements made the object in the twin.
    pub fn is_as_in(&self, twin: &Contents, makers: &[&str]) -> bool {
        let there = by_key(twin, &of_extensions(twin, makers));
        there.get(&self.key).is_some_and(|parts| parts.texts == self.texts)
    }

    pub fn finding(self) -> Finding {
        differs(self.shown, "is defined otherwise")
    }
}
