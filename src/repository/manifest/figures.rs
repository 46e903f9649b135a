//! A manifest as a list shows it. The tables are counted while they are read, and not kept, since thousands of
//! manifests may have thousands of tables each.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::error::parse;
use super::files::check_names;
use super::server::hides_transactions;
use super::{
    CompressionRecord, CoverageState, FileRecord, ManifestError, Omission, Predecessor, References, Server,
    SnapshotEnd, Stream, TableChanges, TableCoverage, Tagged, bounded, custom, format_name,
};
use crate::format::Format;
use crate::repository::backup_id::{BackupId, BackupKind};
use crate::repository::retention::Tier;

/// The most bytes of text that a list keeps of one manifest.
const MOST_TEXT: usize = 64 << 10;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Figures {
    pub id: BackupId,
    #[serde(rename = "type")]
    pub kind: BackupKind,
    pub timestamp: Timestamp,
    pub finished_at: Timestamp,
    /// The version of pgstow that made it.
    pub version: String,
    pub database: String,
    #[serde(default)]
    pub digest_file: Option<String>,
    #[serde(default)]
    pub predecessor: Option<Predecessor>,
    #[serde(default)]
    pub store: Option<String>,
    #[serde(default, deserialize_with = "bounded::stores")]
    pub stores: Vec<String>,
    #[serde(default)]
    pub tags: Option<Tagged>,
    pub server: Server,
    #[serde(default)]
    pub snapshot: Position,
    #[serde(with = "format_name", default = "custom")]
    pub format: Format,
    pub compression: CompressionRecord,
    pub tier: Tier,
    #[serde(deserialize_with = "bounded::few")]
    pub files: BTreeMap<String, FileRecord>,
    #[serde(default, deserialize_with = "bounded::few")]
    pub missing: BTreeMap<String, String>,
    #[serde(default)]
    pub left_out: Kinds,
    #[serde(default)]
    pub warnings: Count,
    #[serde(default)]
    pub tables: Tally,
    /// The backup that has the tables which had not changed. `None`: this one has everything.
    #[serde(default)]
    pub references: Option<References>,
    /// The span of the stream that an increment holds; `None` for a full.
    #[serde(default)]
    pub stream: Option<Stream>,
    #[serde(default, deserialize_with = "changes")]
    pub changes: ChangeTally,
    #[serde(default, deserialize_with = "coverage")]
    pub coverage: CoverageTally,
    /// How many tables an increment read whole.
    #[serde(default)]
    pub baselines: Count,
}

/// How many things of each kind are in the database but not in the backup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Kinds(pub BTreeMap<String, u64>);

/// The number of entries of a list that is not parsed here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Count(pub u64);

/// What a list shows of the snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Position {
    #[serde(default)]
    pub lsn: Option<String>,
    #[serde(default)]
    pub xmin: u64,
    #[serde(default)]
    pub xmax: u64,
    #[serde(default)]
    pub end: Option<SnapshotEnd>,
}

impl Position {
    /// As that of the whole record.
    pub fn hides_transactions(&self) -> bool {
        hides_transactions(self.end, self.xmin, self.xmax)
    }
}

/// How many tables were changed, and how often.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeTally {
    pub tables: u64,
    pub inserts: u64,
    pub updates: u64,
    pub deletes: u64,
    pub truncates: u64,
}

/// How many tables are covered how well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub struct CoverageTally {
    pub exact: u64,
    pub inserts: u64,
    pub baseline: u64,
    pub full_only: u64,
    /// Those of any state that are not so from the beginning of the increment to its end.
    pub in_part: u64,
}

/// How many tables there are, and how many rows in them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    pub count: u64,
    pub rows: u64,
}

impl Figures {
    /// Reads the manifest found in `id`'s folder.
    pub fn parse(bytes: &[u8], id: &BackupId) -> Result<Self, ManifestError> {
        let figures: Self = parse(bytes)?;
        ManifestError::unless_of(id, &figures.id)?;
        check_names(&figures.files)?;
        if figures.stream.is_some() != (figures.kind == BackupKind::Incremental) {
            let what = "it is an increment without a span of a stream, or a full with one";
            return Err(ManifestError::Shape(what.to_owned()));
        }
        if figures.text() > MOST_TEXT {
            return Err(ManifestError::Shape("its names and versions are too long".to_owned()));
        }
        Ok(figures)
    }

    /// Bytes of text in it: a list of thousands of backups keeps these for each.
    fn text(&self) -> usize {
        let server = [&self.server.version, &self.server.encoding];
        let files = self
            .files
            .iter()
            .flat_map(|(role, file)| [role, &file.name, &file.sha256]);
        let missing = self.missing.iter().flat_map(|(role, why)| [role, why]);
        let own = [&self.version, &self.database].into_iter().chain(server);
        let predecessor = self.predecessor.as_ref().map(|one| &one.manifest_sha256);
        let stream = self.stream.as_ref();
        let stream = stream.map(|stream| {
            [
                &stream.id,
                &stream.slot,
                &stream.system_identifier,
                &stream.index.sha256,
            ]
        });
        own.chain(self.server.system_identifier.as_ref())
            .chain(predecessor)
            .chain(self.digest_file.as_ref())
            .chain(self.store.as_ref())
            .chain(&self.snapshot.lsn)
            .chain(&self.stores)
            .chain(files)
            .chain(missing)
            .chain(stream.into_iter().flatten())
            .map(String::len)
            .sum()
    }

    pub fn seconds(&self) -> f64 {
        self.finished_at.duration_since(self.timestamp).as_secs_f64().max(0.0)
    }
}

/// Reads a list entry by entry, and keeps only what `add` makes of them.
fn fold<'de, D, T, S>(deserializer: D, list: &'static str, add: fn(&mut S, T)) -> Result<S, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
    S: Default,
{
    struct Folding<T, S> {
        list: &'static str,
        add: fn(&mut S, T),
    }
    impl<'de, T: Deserialize<'de>, S: Default> Visitor<'de> for Folding<T, S> {
        type Value = S;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.list)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<S, A::Error> {
            let mut sum = S::default();
            while let Some(entry) = entries.next_element()? {
                (self.add)(&mut sum, entry);
            }
            Ok(sum)
        }
    }
    deserializer.deserialize_seq(Folding { list, add })
}

impl<'de> Deserialize<'de> for Tally {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Table {
            rows: u64,
        }
        fold(deserializer, "a list of tables", |tally: &mut Tally, table: Table| {
            tally.count += 1;
            tally.rows = tally.rows.saturating_add(table.rows);
        })
    }
}

/// Reads the list of changed tables.
fn changes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ChangeTally, D::Error> {
    fold(
        deserializer,
        "a list of changed tables",
        |tally: &mut ChangeTally, table: TableChanges| {
            tally.tables += 1;
            tally.inserts = tally.inserts.saturating_add(table.inserts);
            tally.updates = tally.updates.saturating_add(table.updates);
            tally.deletes = tally.deletes.saturating_add(table.deletes);
            tally.truncates = tally.truncates.saturating_add(table.truncates);
        },
    )
}

/// Reads the list of tables with their coverage.
fn coverage<'de, D: Deserializer<'de>>(deserializer: D) -> Result<CoverageTally, D::Error> {
    fold(
        deserializer,
        "a list of covered tables",
        |tally: &mut CoverageTally, table: TableCoverage| {
            *match table.state {
                CoverageState::Exact => &mut tally.exact,
                CoverageState::Inserts => &mut tally.inserts,
                CoverageState::Baseline => &mut tally.baseline,
                CoverageState::FullOnly => &mut tally.full_only,
            } += 1;
            tally.in_part += u64::from(table.from.is_some() || table.to.is_some());
        },
    )
}

/// How many kinds are counted apart.
const KINDS: usize = 50;
/// The longest name of a kind, in bytes.
const KIND: usize = 64;

impl<'de> Deserialize<'de> for Kinds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        fold(
            deserializer,
            "a list of what was left out",
            |kinds: &mut Kinds, thing: Omission| {
                let Kinds(kinds) = kinds;
                let Omission { kind, name, .. } = thing;
                // The last entry may stand for many.
                let count = name.strip_suffix(" more").and_then(|count| count.parse().ok());
                let is_known = kinds.contains_key(&kind) || (kinds.len() < KINDS && kind.len() <= KIND);
                let kind = if is_known { kind } else { "other".to_owned() };
                let sum = kinds.entry(kind).or_default();
                *sum = sum.saturating_add(count.unwrap_or(1));
            },
        )
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        fold(deserializer, "a list", |count: &mut Count, _: IgnoredAny| count.0 += 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::manifest::tests::sample;

    #[test]
    fn tables_are_counted_and_what_is_no_table_is_a_broken_shape() {
        let id: BackupId = "shop/20250131T040500Z-full".parse().unwrap();
        let mut manifest = sample(&id, Tier::Weekly);
        manifest.finished_at = id.timestamp() + jiff::SignedDuration::from_secs(90);
        manifest.tables = vec![manifest.tables[0].clone(); 5];
        manifest.warnings = vec!["a".into(), "b".into()];
        let left_out = |kind: &str, name: &str| Omission {
            kind: kind.into(),
            name: name.into(),
            why: "so".into(),
        };
        manifest.left_out = vec![
            left_out("rows", "t"),
            left_out("sequence", "s"),
            left_out("sequence", "41 more"),
        ];
        let figures = Figures::parse(&manifest.to_bytes().unwrap(), &id).unwrap();
        assert_eq!(figures.tables, Tally { count: 5, rows: 15 });
        assert_eq!((figures.tier, figures.seconds()), (Tier::Weekly, 90.0));
        assert_eq!(figures.files, manifest.files);
        assert_eq!(figures.warnings, Count(2));
        let kinds = [("rows".to_owned(), 1), ("sequence".to_owned(), 42)];
        assert_eq!(figures.left_out, Kinds(kinds.into()));

        let mut json = serde_json::to_value(&manifest).unwrap();
        json["tables"] = serde_json::json!([7]);
        let broken = Figures::parse(json.to_string().as_bytes(), &id).unwrap_err();
        assert!(matches!(broken, ManifestError::Shape(_)), "{broken}");
    }
}
