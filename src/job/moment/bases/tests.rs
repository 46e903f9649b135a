use super::*;
use crate::repository::manifest::{Baseline, IndexRecord, ObjectsCoverage, Stream};

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
        if at.is_gone(covered) {
            return None;
        }
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

/// What two increments say of a table, the first up to 200 and the second up to 300.
fn after_two(position: u64, says: [&TableCoverage; 2]) -> TableBase {
    let mut tables = BTreeMap::from([(7, TableBase::new(Rows::Full))]);
    for (number, covered) in says.into_iter().enumerate() {
        let from = 100 + 100 * number as u64;
        let increment = Increment {
            stream: Stream {
                from: Lsn(from),
                to: Lsn(from + 100),
                ..stream()
            },
            changes: Vec::new(),
            coverage: Vec::new(),
            baselines: Vec::new(),
            sequences: Vec::new(),
            large_objects: None,
        };
        let at = At {
            number,
            increment: &increment,
            place: Place::at(Lsn(position)),
        };
        at.cover(covered, &mut tables);
    }
    tables.remove(&7).unwrap()
}

/// The second increment has found out that the change at the end of the first one is none that the stream has.
#[test]
fn what_an_increment_leaves_open_is_not_exact_if_the_next_one_reads_the_table() {
    let open = covered(CoverageState::Exact, Some(180), Some(201));
    let lost = covered(CoverageState::Exact, Some(180), None);
    let read = covered(CoverageState::Exact, Some(200), Some(250));
    for first in [&open, &lost] {
        let table = after_two(230, [first, &read]);
        assert_eq!(table.until, Some(Lsn(180)));
        let not_exact = table.not_exact.unwrap();
        assert_eq!((not_exact.before, not_exact.after), (Some(Lsn(180)), Some(Lsn(250))));
        assert!(after_two(250, [first, &read]).not_exact.is_none());
    }
    let kept = covered(CoverageState::Exact, None, None);
    let table = after_two(230, [&open, &kept]);
    assert!(table.not_exact.is_none() && table.until.is_none() && table.follows);
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

/// The objects after these increments, each of a hundred bytes of the log, and whether they are exact.
fn objects(states: &[CoverageState], place: Place) -> (Objects, bool) {
    let mut choice = Choice::default();
    for (number, state) in states.iter().enumerate() {
        let from = 100 + 100 * number as u64;
        let increment = Increment {
            stream: Stream {
                from: Lsn(from),
                to: Lsn(from + 100),
                ..stream()
            },
            changes: Vec::new(),
            coverage: Vec::new(),
            baselines: Vec::new(),
            sequences: Vec::new(),
            large_objects: Some(ObjectsCoverage {
                state: *state,
                why: String::new(),
            }),
        };
        choice.take_objects(number, &increment, place);
    }
    (choice.objects, choice.large_objects.is_none())
}

#[test]
fn large_objects_are_those_that_were_read_last_before_the_moment() {
    use CoverageState::{Baseline, Exact, FullOnly};
    let at = |position| Place::at(Lsn(position));
    assert_eq!(objects(&[Exact], at(150)), (Objects::Full, true));
    assert_eq!(objects(&[Baseline, Exact], at(250)), (Objects::Baseline(0), true));
    // They were read after the moment, or not at all.
    assert_eq!(objects(&[Baseline], at(150)), (Objects::Full, false));
    assert_eq!(objects(&[FullOnly], at(150)), (Objects::Full, false));
    // The next increment has seen that no page of them was written.
    assert_eq!(objects(&[FullOnly, Exact], at(250)), (Objects::Full, true));
    // The same, but the moment may lie before those that were read.
    let unknown = Place {
        earliest: Lsn(150),
        latest: Lsn(250),
    };
    assert_eq!(objects(&[Baseline, Exact], unknown), (Objects::Full, false));
}
