//! Which rows each table's changes are applied to, and whether the result is exact: a pure choice from the manifests.

use std::collections::{BTreeMap, BTreeSet};

use super::report::NotExact;
use crate::format::Lsn;
use crate::format::fold::Horizon;
use crate::repository::manifest::{CoverageState, Manifest, SnapshotRecord, TableCoverage};

/// Where the rows of a table come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rows {
    Full,
    /// The baseline in the increment of this number.
    Baseline(usize),
    /// It was made after the full, so all of its rows are changes.
    Nothing,
}

#[derive(Debug, Clone)]
pub(crate) struct TableBase {
    pub schema: String,
    pub name: String,
    pub rows: Rows,
    /// Which transactions the rows hold already.
    pub horizon: Horizon,
    /// Whether changes are applied to the rows.
    pub follows: bool,
    pub not_exact: Option<NotExact>,
}

/// The tables that exist at the moment, by OID.
#[derive(Debug, Clone, Default)]
pub(crate) struct Choice {
    pub tables: BTreeMap<u32, TableBase>,
    /// Whether the large objects are not those of the moment, and why.
    pub large_objects: Option<NotExact>,
}

pub(super) fn horizon(snapshot: &SnapshotRecord) -> Horizon {
    Horizon::new(snapshot.xmin, snapshot.xmax, snapshot.xip.clone())
}

/// `position`: every transaction before it belongs to the moment, and none from there on.
pub(crate) fn choose(full: &Manifest, increments: &[Manifest], position: Lsn) -> Choice {
    let of_full = full.tables.iter().filter_map(|table| Some((table.oid?, table)));
    let mut tables: BTreeMap<u32, TableBase> = of_full
        .map(|(oid, table)| {
            let base = TableBase {
                schema: table.schema.clone(),
                name: table.name.clone(),
                rows: Rows::Full,
                horizon: horizon(&full.snapshot),
                follows: true,
                not_exact: None,
            };
            (oid, base)
        })
        .collect();
    let mut choice = Choice::default();
    for (number, manifest) in increments.iter().enumerate() {
        let Some(increment) = &manifest.increment else { continue };
        let (from, to) = (increment.stream.from, increment.stream.to);
        if from >= position && number > 0 {
            break;
        }
        let listed: BTreeSet<u32> = increment.coverage.iter().map(|table| table.oid).collect();
        // Dropped in this increment at the latest: it is there for moments before its end.
        if to <= position && !listed.is_empty() {
            tables.retain(|oid, _| listed.contains(oid));
        }
        for covered in &increment.coverage {
            let at = At {
                number,
                manifest,
                span: (from, to),
                position,
            };
            at.cover(covered, &mut tables);
        }
        if let Some(objects) = &increment.large_objects {
            let is_exact = objects.state == CoverageState::Baseline && to == position;
            choice.large_objects = (!is_exact).then(|| NotExact {
                what: "large objects".into(),
                why: objects.why.clone(),
                before: None,
                after: (objects.state == CoverageState::Baseline).then_some(to),
            });
        }
    }
    choice.tables = tables;
    choice
}

/// One increment, as it concerns the moment.
struct At<'a> {
    number: usize,
    manifest: &'a Manifest,
    span: (Lsn, Lsn),
    position: Lsn,
}

impl At<'_> {
    fn cover(&self, covered: &TableCoverage, tables: &mut BTreeMap<u32, TableBase>) {
        let (begin, end) = self.span;
        let from = covered.from.unwrap_or(begin);
        let to = covered.to.unwrap_or(end);
        let position = self.position;
        let baseline = self.manifest.increment.as_ref().and_then(|increment| {
            let of_table = |one: &&crate::repository::manifest::Baseline| one.oid == covered.oid;
            increment.baselines.iter().find(of_table)
        });
        let is_new = !tables.contains_key(&covered.oid);
        if is_new && covered.from.is_some_and(|from| from > position) {
            // It is not said whether it was there before: its definition decides.
            tables.insert(covered.oid, self.missing(covered, "its rows are known from then on", from));
            return;
        }
        let table = tables.entry(covered.oid).or_insert_with(|| TableBase {
            schema: String::new(),
            name: String::new(),
            rows: Rows::Nothing,
            horizon: Horizon::default(),
            follows: true,
            not_exact: None,
        });
        table.schema.clone_from(&covered.schema);
        table.name.clone_from(&covered.name);
        let inexact = |why: Option<&String>, before: Option<Lsn>, after: Option<Lsn>| NotExact {
            what: format!("{}.{}", covered.schema, covered.name),
            why: why.cloned().unwrap_or_else(|| "its definition changed".to_owned()),
            before,
            after,
        };
        if let Some(baseline) = baseline
            && from <= position
        {
            table.rows = Rows::Baseline(self.number);
            table.horizon = horizon(&baseline.snapshot);
            table.not_exact = None;
        }
        match covered.state {
            CoverageState::Exact | CoverageState::Inserts => {
                table.follows = true;
                if covered.from.is_some() && position < from && !(is_new && baseline.is_none()) {
                    // Before the baseline, the table is exact as far as the increment before says.
                    let since = (begin < position).then_some(begin);
                    table.not_exact = Some(inexact(covered.why.as_ref(), since, Some(from)));
                }
                if to < position && covered.to.is_some() {
                    table.not_exact = Some(inexact(covered.why.as_ref(), Some(to), None));
                }
            }
            CoverageState::Baseline => {
                table.follows = false;
                if position != end && position > from {
                    table.not_exact = Some(inexact(covered.why.as_ref(), Some(begin), Some(end)));
                }
            }
            CoverageState::FullOnly => {
                table.follows = false;
                table.not_exact = Some(inexact(covered.why.as_ref(), None, None));
            }
        }
    }

    fn missing(&self, covered: &TableCoverage, why: &str, after: Lsn) -> TableBase {
        TableBase {
            schema: covered.schema.clone(),
            name: covered.name.clone(),
            rows: Rows::Nothing,
            horizon: Horizon::default(),
            follows: false,
            not_exact: Some(NotExact {
                what: format!("{}.{}", covered.schema, covered.name),
                why: covered.why.clone().unwrap_or_else(|| why.to_owned()),
                before: None,
                after: Some(after),
            }),
        }
    }
}
