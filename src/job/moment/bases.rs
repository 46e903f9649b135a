//! Which rows each table's changes are applied to, and whether the result is exact: a pure choice from the manifests.

use std::collections::{BTreeMap, BTreeSet};

use super::place::Place;
use super::report::NotExact;
use crate::format::Lsn;
use crate::format::fold::{Base, Horizon};
use crate::repository::manifest::{CoverageState, Increment, Manifest, ReplayProof, SnapshotRecord, TableCoverage};

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
    /// Of a table that is not exact: the last position at which it was. It is restored as it was there.
    pub until: Option<Lsn>,
    /// Columns of it got other names since.
    pub renamed: bool,
    /// Only INSERT and TRUNCATE arrive, whatever the stream says of a key. `None`: no increment says anything of it.
    pub appends: Option<bool>,
    pub not_exact: Option<NotExact>,
    /// What may be replayed, up to the baseline in the increment of this number, to show that it is exact all the same.
    pub provable: Option<(usize, ReplayProof)>,
    /// The gap in which the moment lies, if a replay has shown that the table is exact in it.
    pub closed: Option<NotExact>,
    /// The moment lies in the gap before the baseline in the increment of this number.
    pub later: Option<usize>,
    /// Up to here it was exact in an increment that says nothing of the rest up to its end: the next one does.
    open: Option<Lsn>,
}

impl TableBase {
    /// A table of which nothing is known yet.
    pub(super) fn new(rows: Rows) -> Self {
        Self {
            schema: String::new(),
            name: String::new(),
            rows,
            horizon: Horizon::default(),
            follows: true,
            until: None,
            renamed: false,
            appends: None,
            not_exact: None,
            provable: None,
            closed: None,
            later: None,
            open: None,
        }
    }

    /// What its changes are applied to.
    pub fn base(&self, columns: Option<Vec<Vec<u8>>>) -> Base {
        Base {
            horizon: self.horizon.clone(),
            columns,
            until: self.until,
            renamed: self.renamed,
            appends: self.appends == Some(true),
        }
    }
}

/// Where the large objects come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Objects {
    #[default]
    Full,
    /// The increment of this number.
    Baseline(usize),
    /// There are none.
    Nothing,
}

/// The tables that exist at the moment, by OID.
#[derive(Debug, Clone, Default)]
pub(crate) struct Choice {
    pub tables: BTreeMap<u32, TableBase>,
    /// Those that were dropped before the moment.
    pub gone: BTreeSet<u32>,
    pub objects: Objects,
    /// Whether the large objects are not those of the moment, and why.
    pub large_objects: Option<NotExact>,
    /// An increment has read others, which may be those of the moment.
    has_later_objects: bool,
}

pub(super) fn horizon(snapshot: &SnapshotRecord) -> Horizon {
    Horizon::new(snapshot.xmin, snapshot.xmax, snapshot.xip.clone())
}

/// A table is exact only if it is so at every position at which the moment may lie.
pub(crate) fn choose(full: &Manifest, increments: &[Manifest], place: Place) -> Choice {
    let of_full = full.tables.iter().filter_map(|table| Some((table.oid?, table)));
    let mut tables: BTreeMap<u32, TableBase> = of_full
        .map(|(oid, table)| {
            let base = TableBase {
                schema: table.schema.clone(),
                name: table.name.clone(),
                rows: Rows::Full,
                horizon: horizon(&full.snapshot),
                ..TableBase::new(Rows::Full)
            };
            (oid, base)
        })
        .collect();
    let mut choice = Choice {
        objects: match full.large_objects.is_empty() {
            true => Objects::Nothing,
            false => Objects::Full,
        },
        ..Choice::default()
    };
    let begun = begun(full);
    let mut told: Option<BTreeSet<u32>> = None;
    for (number, manifest) in increments.iter().enumerate() {
        let Some(increment) = &manifest.increment else { continue };
        let (from, to) = (increment.stream.from, increment.stream.to);
        if from >= place.latest && number > 0 {
            break;
        }
        let listed: BTreeSet<u32> = increment.coverage.iter().map(|table| table.oid).collect();
        // It ended before the full was made, which has all of it.
        let is_before = begun.is_some_and(|begun| to <= begun);
        // Dropped in this increment at the latest: it is there for moments before its end.
        if to <= place.earliest && !listed.is_empty() && !is_before {
            choice.gone.extend(tables.keys().filter(|oid| !listed.contains(oid)));
            tables.retain(|oid, _| listed.contains(oid));
        }
        // If the increment ended early, it has seen the catalog behind its end.
        let is_known = |covered: &&TableCoverage| !is_before || covered.from > begun;
        for covered in increment.coverage.iter().filter(is_known) {
            let at = At {
                number,
                increment,
                place,
            };
            if at.is_gone(covered) {
                tables.remove(&covered.oid);
                choice.gone.insert(covered.oid);
            } else {
                at.cover(covered, &mut tables);
            }
        }
        if !is_before {
            choice.take_objects(number, increment, place);
            if !listed.is_empty() {
                told.get_or_insert_default().extend(listed);
            }
        }
    }
    let unknown = |(oid, _): &(&u32, &mut TableBase)| told.as_ref().is_some_and(|told| !told.contains(oid));
    for (_, table) in tables.iter_mut().filter(unknown) {
        // It was made after one look at the catalog, and dropped before the next one.
        table.not_exact = Some(NotExact {
            what: format!("{}.{}", table.schema, table.name),
            why: "the increments do not say anything of it: its rows are those of the full backup".into(),
            before: None,
            after: None,
        });
        table.follows = false;
    }
    // A table that left an extension and came back, for example.
    choice.gone.retain(|oid| !tables.contains_key(oid));
    choice.tables = tables;
    choice
}

/// What was committed before this position is in the full.
pub(super) fn begun(full: &Manifest) -> Option<Lsn> {
    full.snapshot.lsn.as_deref()?.parse().ok()
}

/// The choice without rows that were read later than this snapshot was taken: those tables are as they were just before
/// that reading.
pub(super) fn choose_for(full: &Manifest, increments: &[Manifest], position: Lsn, snapshot: &Horizon) -> Choice {
    let mut choice = choose(full, increments, Place::at(position));
    let is_later = |(oid, table): (&u32, &TableBase)| match table.rows {
        Rows::Baseline(number) if !table.horizon.is_within(snapshot) => Some((*oid, number)),
        _ => None,
    };
    let later: Vec<(u32, usize)> = choice.tables.iter().filter_map(is_later).collect();
    for (oid, number) in later {
        let before = increments[number].increment.as_ref().and_then(|one| one.read_from(oid));
        let before = before.and_then(|read| read.0.checked_sub(1)).map_or(position, Lsn);
        match choose(full, increments, Place::at(before)).tables.remove(&oid) {
            // It was read before that too.
            Some(table) if table.rows != Rows::Baseline(number) => choice.tables.insert(oid, table),
            _ => choice.tables.remove(&oid),
        };
    }
    choice
}

impl Choice {
    fn take_objects(&mut self, number: usize, increment: &Increment, place: Place) {
        let (begin, to) = (increment.stream.from, increment.stream.to);
        let inexact = |why: &str, before, after| {
            Some(NotExact {
                what: "large objects".into(),
                why: why.to_owned(),
                before,
                after,
            })
        };
        // Up to its beginning they are those that were there before.
        let before = self.large_objects.is_none().then_some(begin);
        let Some(objects) = &increment.large_objects else {
            (self.objects, self.large_objects) = match (to <= place.earliest, self.objects) {
                (true, _) | (false, Objects::Nothing) => {
                    self.has_later_objects = false;
                    (Objects::Nothing, None)
                }
                (false, there) => {
                    self.has_later_objects = true;
                    (there, inexact("they were removed in this increment", before, Some(to)))
                }
            };
            return;
        };
        self.large_objects = match objects.state {
            // They are those that were read last, which need not be those that the moment has.
            CoverageState::Exact => self.large_objects.take().filter(|_| self.has_later_objects),
            CoverageState::Baseline if to <= place.earliest => {
                (self.objects, self.has_later_objects) = (Objects::Baseline(number), false);
                (to < place.latest)
                    .then(|| inexact(&objects.why, Some(to), None))
                    .flatten()
            }
            CoverageState::Baseline => {
                self.has_later_objects = true;
                inexact(&objects.why, before, Some(to))
            }
            CoverageState::Inserts | CoverageState::FullOnly => inexact(&objects.why, before, None),
        };
    }
}

/// One increment, as it concerns the moment.
struct At<'a> {
    number: usize,
    increment: &'a Increment,
    place: Place,
}

impl At<'_> {
    /// Whether the table was dropped before the moment.
    fn is_gone(&self, covered: &TableCoverage) -> bool {
        covered.is_gone && covered.from.is_some_and(|from| from <= self.place.earliest)
    }

    /// In an increment, a table is exact up to `to`, and again from `from` on: between the two is a gap.
    fn cover(&self, covered: &TableCoverage, tables: &mut BTreeMap<u32, TableBase>) {
        let (begin, end, place) = (self.increment.stream.from, self.increment.stream.to, self.place);
        let baseline = self.increment.baselines.iter().find(|one| one.oid == covered.oid);
        let is_made_later = covered.to.is_some_and(|to| place.latest <= to);
        if is_made_later && !tables.contains_key(&covered.oid) {
            return;
        }
        let table = tables
            .entry(covered.oid)
            .or_insert_with(|| TableBase::new(Rows::Nothing));
        table.provable = None;
        table.schema.clone_from(&covered.schema);
        table.name.clone_from(&covered.name);
        let inexact = |before: Option<Lsn>, after: Option<Lsn>| NotExact {
            what: format!("{}.{}", covered.schema, covered.name),
            why: covered
                .why
                .clone()
                .unwrap_or_else(|| "its definition changed".to_owned()),
            before,
            after,
        };
        let last = match (covered.to, covered.from) {
            (Some(to), _) => to,
            // Nothing is known before.
            (None, Some(_)) => begin,
            (None, None) => end,
        };
        let open = table.open.take();
        let last = open.map_or(last, |open| open.min(last));
        if covered.from.is_some_and(|from| from > end) {
            table.open = Some(last);
        }
        // A position behind the increment's end: the next increment says more.
        let is_again = covered.from.is_some_and(|from| from <= place.earliest);
        let is_read = self
            .increment
            .read_from(covered.oid)
            .is_some_and(|read| read <= place.earliest);
        // It had been read whole already, and rows of it changed since.
        let was_read = !table.follows && matches!(table.rows, Rows::Baseline(_));
        if let (true, Some(baseline)) = (is_read, baseline) {
            table.rows = Rows::Baseline(self.number);
            table.horizon = horizon(&baseline.snapshot);
        }
        table.renamed = !is_read && (table.renamed || covered.renamed);
        match covered.state {
            _ if is_again || is_read => table.not_exact = None,
            _ if place.latest <= last => {}
            _ if covered.to.is_none() && covered.from.is_none() => {}
            state => {
                let is_inside = |last: &Lsn| *last > begin || covered.to.is_some() || open.is_some();
                let is_read_each_time = state == CoverageState::Baseline;
                let before = match &table.not_exact {
                    // It was not exact at the beginning of this increment either.
                    Some(earlier) => earlier.before.map(|before| before.min(last)),
                    None => Some(last).filter(is_inside),
                };
                let before = before.filter(|_| !(is_read_each_time && was_read));
                table.not_exact = Some(inexact(before, covered.from.filter(|_| !is_read_each_time)));
                // Rows are compared without the names of their columns.
                let proof = baseline
                    .and_then(|baseline| baseline.proof)
                    .filter(|_| !covered.renamed);
                table.provable = proof.map(|proof| (self.number, proof));
                table.later = baseline.map(|_| self.number);
            }
        }
        match covered.state {
            CoverageState::FullOnly if covered.to.is_none_or(|to| to < place.latest) => {
                table.provable = None;
                table.not_exact = Some(inexact(covered.to.map(|to| to.min(last)), None));
            }
            // What changes after it was read is not known before the next increment.
            CoverageState::Baseline if is_read && place.earliest <= end => {
                table.not_exact = Some(inexact(Some(begin).filter(|_| !was_read), None));
            }
            _ => {}
        }
        let last = match covered.to {
            Some(_) => last,
            None => open.unwrap_or(begin),
        };
        table.follow(covered.state, last, is_read);
    }
}

impl TableBase {
    /// Whether and how far its changes are applied. `last` is its last exact position, if it is not exact.
    fn follow(&mut self, state: CoverageState, last: Lsn, is_read: bool) {
        let appends = matches!(state, CoverageState::Inserts | CoverageState::Baseline);
        if state == CoverageState::Baseline && is_read {
            self.follows = false;
        } else if self.not_exact.is_none() {
            self.follows = true;
        }
        if self.not_exact.is_none() {
            (self.until, self.later, self.appends) = (None, None, Some(appends));
        } else if self.until.is_none() {
            self.until = Some(last);
            self.appends.get_or_insert(appends);
        }
    }
}

#[cfg(test)]
mod tests;
