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
}

impl TableBase {
    /// A table of which nothing is known yet.
    fn new(rows: Rows) -> Self {
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
            at.cover(covered, &mut tables);
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
    /// In an increment, a table is exact up to `to`, and again from `from` on: between the two is a gap.
    fn cover(&self, covered: &TableCoverage, tables: &mut BTreeMap<u32, TableBase>) {
        let (begin, end, place) = (self.increment.stream.from, self.increment.stream.to, self.place);
        let baseline = self.increment.baselines.iter().find(|one| one.oid == covered.oid);
        let is_made_later = covered.to.is_some_and(|to| place.latest <= to);
        if is_made_later && !tables.contains_key(&covered.oid) {
            return;
        }
        if covered.is_gone && covered.from.is_some_and(|from| from <= place.earliest) {
            tables.remove(&covered.oid);
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
                let is_inside = |last: &Lsn| *last > begin || covered.to.is_some();
                let is_read_each_time = state == CoverageState::Baseline;
                let before = Some(last)
                    .filter(is_inside)
                    .filter(|_| !(is_read_each_time && was_read));
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
                table.not_exact = Some(inexact(covered.to, None));
            }
            // What changes after it was read is not known before the next increment.
            CoverageState::Baseline if is_read && place.earliest <= end => {
                table.not_exact = Some(inexact(Some(begin).filter(|_| !was_read), None));
            }
            _ => {}
        }
        let last = if covered.to.is_some() { last } else { begin };
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
mod tests {
    use super::*;
    use crate::repository::manifest::{Baseline, IndexRecord, Stream};

    const BEGIN: Lsn = Lsn(100);
    const END: Lsn = Lsn(200);

    fn covered(state: CoverageState, to: Option<u64>, from: Option<u64>) -> TableCoverage {
        TableCoverage {
            schema: "public".into(),
            name: "t".into(),
            oid: 7,
            state,
            from: from.map(Lsn),
            to: to.map(Lsn),
            why: None,
            is_gone: false,
            renamed: false,
        }
    }

    fn stream() -> Stream {
        Stream {
            id: "s".into(),
            slot: "s".into(),
            system_identifier: "1".into(),
            timeline: 1,
            database_oid: 1,
            from: BEGIN,
            to: END,
            predecessor: None,
            first_commit: None,
            last_commit: None,
            seen_to: jiff::Timestamp::UNIX_EPOCH,
            reached: None,
            transactions: 0,
            newest_xid: None,
            settled: None,
            settled_xid: None,
            index: IndexRecord {
                offset: 0,
                length: 0,
                sha256: String::new(),
                earliest: None,
                latest: None,
            },
        }
    }

    fn at(position: u64, covered: &TableCoverage, baseline: bool) -> TableBase {
        within(Place::at(Lsn(position)), covered, baseline)
    }

    fn within(place: Place, covered: &TableCoverage, baseline: bool) -> TableBase {
        let snapshot = SnapshotRecord {
            lsn: None,
            xmin: 5,
            xmax: 5,
            xip: Vec::new(),
            end: None,
        };
        let increment = Increment {
            stream: stream(),
            changes: Vec::new(),
            coverage: vec![covered.clone()],
            baselines: match baseline {
                true => vec![Baseline {
                    oid: 7,
                    schema: "public".into(),
                    name: "t".into(),
                    snapshot,
                    proof: None,
                    why: String::new(),
                }],
                false => Vec::new(),
            },
            sequences: Vec::new(),
            large_objects: None,
        };
        let mut tables = BTreeMap::from([(
            7,
            TableBase {
                schema: "public".into(),
                name: "t".into(),
                ..TableBase::new(Rows::Full)
            },
        )]);
        let at = At {
            number: 3,
            increment: &increment,
            place,
        };
        at.cover(covered, &mut tables);
        tables.remove(&7).unwrap()
    }

    #[test]
    fn a_table_in_its_gap_is_not_exact_and_has_the_rows_of_its_baseline_after_it() {
        let gap = covered(CoverageState::Exact, Some(120), Some(150));
        for (position, rows, gap_around) in [
            (110, Rows::Full, None),
            (120, Rows::Full, None),
            (130, Rows::Full, Some((Some(Lsn(120)), Some(Lsn(150))))),
            (150, Rows::Baseline(3), None),
            (300, Rows::Baseline(3), None),
        ] {
            let table = at(position, &gap, true);
            assert_eq!((table.rows, table.follows), (rows, true), "{position}");
            assert_eq!(
                table.not_exact.map(|one| (one.before, one.after)),
                gap_around,
                "{position}"
            );
        }
    }

    #[test]
    fn a_moment_by_time_is_exact_only_if_no_gap_is_where_it_may_lie() {
        let gap = covered(CoverageState::Exact, Some(120), Some(150));
        for (earliest, latest, rows, is_exact) in [
            (110, 120, Rows::Full, true),
            (110, 121, Rows::Full, false),
            (110, 300, Rows::Full, false),
            (130, 140, Rows::Full, false),
            (149, 150, Rows::Full, false),
            (150, 300, Rows::Baseline(3), true),
        ] {
            let place = Place {
                earliest: Lsn(earliest),
                latest: Lsn(latest),
            };
            let table = within(place, &gap, true);
            assert_eq!(
                (table.rows, table.not_exact.is_none()),
                (rows, is_exact),
                "{earliest} to {latest}"
            );
            // Without a baseline the changes lead through the gap, but its definition changes there.
            let table = within(place, &gap, false);
            assert_eq!(table.not_exact.is_none(), is_exact, "{earliest} to {latest}");
        }
    }

    #[test]
    fn a_rewrite_that_comes_with_other_names_is_proved_by_no_replay() {
        let mut gap = covered(CoverageState::Exact, Some(120), Some(150));
        gap.renamed = true;
        assert!(at(130, &gap, true).provable.is_none());
    }

    #[test]
    fn a_table_that_the_increments_do_not_have_is_as_in_the_full() {
        let table = at(150, &covered(CoverageState::FullOnly, None, None), false);
        assert!(table.not_exact.is_some());
        assert_eq!(table.until, Some(BEGIN));
        let table = at(110, &covered(CoverageState::FullOnly, Some(120), None), false);
        assert!(table.not_exact.is_none());
    }

    #[test]
    fn a_table_that_is_made_later_or_gone_is_not_there() {
        let increment = |covered: &TableCoverage| Increment {
            stream: stream(),
            changes: Vec::new(),
            coverage: vec![covered.clone()],
            baselines: Vec::new(),
            sequences: Vec::new(),
            large_objects: None,
        };
        let there = |position: u64, covered: &TableCoverage, mut tables: BTreeMap<u32, TableBase>| {
            let at = At {
                number: 3,
                increment: &increment(covered),
                place: Place::at(Lsn(position)),
            };
            at.cover(covered, &mut tables);
            tables.remove(&7).map(|table| table.not_exact.is_none())
        };
        let made = covered(CoverageState::Exact, Some(120), Some(150));
        assert_eq!(there(110, &made, BTreeMap::new()), None);
        assert_eq!(there(130, &made, BTreeMap::new()), Some(false));
        assert_eq!(there(150, &made, BTreeMap::new()), Some(true));
        let gone = TableCoverage { is_gone: true, ..made };
        let before = || BTreeMap::from([(7, TableBase::new(Rows::Full))]);
        assert_eq!(there(110, &gone, before()), Some(true));
        assert_eq!(there(130, &gone, before()), Some(false));
        assert_eq!(there(150, &gone, before()), None);
    }

    #[test]
    fn a_table_that_changed_at_the_end_is_exact_again_if_the_next_increment_says_so() {
        let open = covered(CoverageState::Exact, Some(180), Some(201));
        assert!(at(190, &open, false).not_exact.is_some());
        assert!(at(250, &open, false).not_exact.is_none());
    }

    #[test]
    fn a_table_that_is_not_exact_is_restored_as_it_was_at_its_last_exact_position() {
        let gap = covered(CoverageState::Exact, Some(120), Some(150));
        let until = |position: u64, baseline: bool| at(position, &gap, baseline).until;
        assert_eq!((until(120, true), until(150, true)), (None, None));
        assert_eq!((until(130, true), until(130, false)), (Some(Lsn(120)), Some(Lsn(120))));
        let lost = covered(CoverageState::Exact, Some(120), None);
        assert_eq!(at(130, &lost, false).until, Some(Lsn(120)));
    }

    /// Changes of it between the reading and the increment's end do not arrive.
    #[test]
    fn a_table_that_is_read_because_its_updates_do_not_arrive_is_not_exact_up_to_the_end() {
        let each_time = covered(CoverageState::Baseline, Some(100), Some(150));
        for (position, is_exact) in [(130, false), (150, false), (200, false), (201, true)] {
            let table = at(position, &each_time, true);
            assert_eq!(table.not_exact.is_none(), is_exact, "{position}");
            assert!(table.not_exact.is_none_or(|one| one.after.is_none()));
            assert_eq!(table.follows, position < 150);
        }
    }
}
