//! The way to a moment, and refusals.

use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;
use crate::error::Code;
use crate::repository::backup_id::BackupKind;
use crate::repository::chain::tests::{full, history, id, link, minute, position};
use crate::repository::chain::{Full, Link};
use crate::repository::window::{current, needed, windows};

fn to(history: &History, target: RecoveryTarget) -> Result<Route, Box<NotCovered>> {
    route(history, target, &BTreeSet::new(), minute(1_000_000))
}

fn seconds(seconds: i64) -> Timestamp {
    minute(0) + SignedDuration::from_secs(seconds)
}

fn hundred() -> History {
    history((0..10).map(|at| link(at * 10, at * 10 + 10)), [full(3), full(55)])
}

#[test]
fn the_newest_base_before_the_target_is_taken_with_the_increments_up_to_it() {
    let history = hundred();
    let incr = |at: i64| id(BackupKind::Incremental, at);
    let found = to(&history, RecoveryTarget::Time(seconds(3_600 + 30))).unwrap();
    assert_eq!(found.base, id(BackupKind::Full, 55));
    assert_eq!(found.increments, [incr(60), incr(70)]);
    assert_eq!(found.stop, StopPoint::Time(seconds(3_630)));
    assert_eq!(found.bytes, 1_020);
    let found = to(&history, RecoveryTarget::Lsn(position(20))).unwrap();
    assert_eq!(
        (found.base, found.increments),
        (id(BackupKind::Full, 3), vec![incr(10), incr(20)])
    );
    let found = to(&history, RecoveryTarget::Latest).unwrap();
    assert_eq!(found.increments.len(), 5);
    assert_eq!(found.stop, StopPoint::Lsn(position(100)));
    // One that lacks a wanted table is passed over.
    let unfit = BTreeSet::from([id(BackupKind::Full, 55)]);
    let found = route(&history, RecoveryTarget::Latest, &unfit, minute(101)).unwrap();
    assert_eq!((found.base, found.increments.len()), (id(BackupKind::Full, 3), 10));
}

#[test]
fn a_moment_that_cannot_be_had_is_refused_with_the_nearest_that_can() {
    let history = hundred();
    let refused = |target| to(&history, target).unwrap_err();
    let early = refused(RecoveryTarget::Time(minute(1)));
    assert_eq!(early.why, Why::BeforeTheFirst);
    assert_eq!(early.nearest.after, Some(current(&history).unwrap().earliest));
    assert_eq!(early.nearest.before, None);
    let late = refused(RecoveryTarget::Time(minute(100)));
    assert_eq!(late.why, Why::AfterTheLast);
    assert_eq!(
        late.nearest.before.unwrap().time,
        seconds(6_000) - SignedDuration::from_micros(1)
    );
    let error = late.into_error("shop");
    assert_eq!(error.code(), Code::NotCovered);
    assert!(
        error
            .message()
            .contains("nearest exact moment is 2025-01-31T01:39:59.999999Z"),
        "{error}"
    );
    assert!(to(&history, RecoveryTarget::Time(seconds(5_999))).is_ok());
    assert_eq!(refused(RecoveryTarget::Lsn(Lsn(10_001))).why, Why::AfterTheLast);
    assert_eq!(refused(RecoveryTarget::Lsn(Lsn(350))).why, Why::BeforeTheFirst);
    let ahead = route(&history, RecoveryTarget::Time(minute(50)), &BTreeSet::new(), minute(40)).unwrap_err();
    assert_eq!(ahead.why, Why::Future { now: minute(40) });
    let unfit = BTreeSet::from([id(BackupKind::Full, 55), id(BackupKind::Full, 3)]);
    assert_eq!(
        route(&history, RecoveryTarget::Latest, &unfit, minute(101))
            .unwrap_err()
            .why,
        Why::Unfit
    );
    assert_eq!(
        to(&History::default(), RecoveryTarget::Latest).unwrap_err().why,
        Why::NoIncrements
    );
    let mut plain = full(3);
    plain.snapshot.end = None;
    let without = super::super::chain::tests::history([link(0, 10)], [plain]);
    assert!(matches!(
        to(&without, RecoveryTarget::Latest).unwrap_err().why,
        Why::NoBase(Some(_))
    ));
}

#[test]
fn a_moment_in_a_gap_is_named_with_the_moments_around_it() {
    let links = (0..10).filter(|at| *at != 4).map(|at| link(at * 10, at * 10 + 10));
    let history = history(links, [full(3), full(65)]);
    for target in [RecoveryTarget::Time(minute(45)), RecoveryTarget::Lsn(position(45))] {
        let refused = to(&history, target).unwrap_err();
        assert!(
            matches!(&refused.why, Why::Gap(gap) if gap.contains("not in the store")),
            "{refused}"
        );
        assert_eq!(refused.nearest.before.unwrap().lsn, position(40));
        assert_eq!(refused.nearest.after.unwrap().lsn, Lsn(6_551));
    }
    // Behind the gap, but before the first full backup there.
    let refused = to(&history, RecoveryTarget::Time(minute(62))).unwrap_err();
    assert!(!refused.to_string().is_empty());
    assert!(to(&history, RecoveryTarget::Time(minute(66))).is_ok());
}

#[test]
fn a_position_that_two_servers_have_is_refused_and_its_time_is_not() {
    let others = (0..10).map(|at| {
        let mut link = link(at * 10, at * 10 + 10);
        link.id = id(BackupKind::Incremental, 500 + at);
        link.stream.predecessor = (at > 0).then(|| id(BackupKind::Incremental, 499 + at));
        link.stream.id = "two".into();
        link.stream.timeline = 2;
        link.until = minute(500 + at * 10);
        link.stream.seen_to = link.until;
        link
    });
    let mut later = full(3);
    later.id = id(BackupKind::Full, 495);
    later.snapshot.end.as_mut().unwrap().timeline = Some(2);
    later.snapshot.end.as_mut().unwrap().at = Some(minute(495));
    let links = (0..10).map(|at| link(at * 10, at * 10 + 10)).chain(others);
    let history = history(links, [full(3), later]);
    assert!(matches!(
        to(&history, RecoveryTarget::Lsn(position(20))).unwrap_err().why,
        Why::TwoSources { .. }
    ));
    assert_eq!(
        to(&history, RecoveryTarget::Time(minute(20))).unwrap().base,
        id(BackupKind::Full, 3)
    );
    assert_eq!(
        to(&history, RecoveryTarget::Time(minute(520))).unwrap().base,
        id(BackupKind::Full, 495)
    );
}

#[test]
fn among_a_thousand_increments_every_moment_has_its_route() {
    let fulls = (0..30).map(|at| full(at * 300 + 3));
    let history = history((0..1_000).map(|at| link(at * 10, at * 10 + 10)), fulls);
    for at in 1..100 {
        let found = to(&history, RecoveryTarget::Time(minute(at * 100))).unwrap();
        assert!(found.base_end.time <= minute(at * 100));
    }
}

/// A store: increments of ten minutes of which some are missing, and full backups whose oldest running transaction
/// began some minutes before.
fn any_store() -> impl Strategy<Value = (Vec<Link>, Vec<Full>)> {
    let links = proptest::collection::vec(prop_oneof![9 => Just(true), 1 => Just(false)], 1..30);
    let fulls = proptest::collection::btree_map(0_i64..300, 0_u64..200, 0..8);
    (links, fulls).prop_map(|(there, fulls)| {
        let links = (0..).zip(there).filter(|(_, there)| *there);
        let links = links.map(|(at, _)| link(at * 10, at * 10 + 10)).collect();
        let fulls = fulls.into_iter().map(|(at, open)| {
            let mut one = full(at);
            one.snapshot.xmin = one.snapshot.xmin.saturating_sub(open).max(1);
            one
        });
        (links, fulls.collect())
    })
}

proptest! {
    #[test]
    fn every_moment_of_a_window_has_a_route_without_a_hole(
        (links, fulls) in any_store(),
        at in 0_i64..20_000,
    ) {
        let history = history(links.clone(), fulls.clone());
        let time = seconds(at);
        let is_inside = windows(&history).iter().any(|window| window.earliest.time <= time && time <= window.latest.time);
        let found = to(&history, RecoveryTarget::Time(time));
        prop_assert_eq!(found.is_ok(), is_inside, "{:?}", found);
        let Ok(found) = found else { return Ok(()) };
        let base = fulls.iter().find(|full| full.id == found.base).unwrap();
        prop_assert!(found.base_end.time <= time);
        let taken: Vec<&Link> = found.increments.iter()
            .map(|id| links.iter().find(|link| link.id == *id).unwrap())
            .collect();
        for pair in taken.windows(2) {
            prop_assert_eq!(pair[0].stream.to, pair[1].stream.from);
        }
        // They reach the target, and what is before the first of them is in the base.
        prop_assert!(taken.last().unwrap().stream.seen_to > time);
        prop_assert!(taken[0].stream.from <= found.base_end.lsn);
        let before = links.iter().filter(|link| link.stream.to <= taken[0].stream.from);
        let seen = before.filter_map(|link| link.stream.newest_xid).max().unwrap_or(0);
        prop_assert!(seen < base.snapshot.xmin);
        // A newer base that would do is never passed over.
        let newer = fulls.iter().filter(|full| full.id > base.id && full.snapshot.end.unwrap().at.unwrap() <= time);
        for full in newer {
            let run = history.runs().iter().find(|run| run.bases().iter().any(|base| base.id == found.base)).unwrap();
            prop_assert!(run.bases().iter().all(|base| base.id != full.id));
        }
    }

    #[test]
    fn whatever_is_not_needed_can_go_and_no_moment_of_the_span_is_lost(
        (links, fulls) in any_store(),
        since in 0_i64..300,
        removed in proptest::collection::vec(any::<bool>(), 40),
        at in 0_i64..18_000,
    ) {
        let before = history(links.clone(), fulls.clone());
        let needed = needed(&before, minute(since), |_| false);
        let mut chances = removed.into_iter();
        // In any order, and stopped anywhere.
        let mut stays = |id: &BackupId| needed.contains_key(id) || !chances.next().unwrap_or(true);
        let links: Vec<Link> = links.into_iter().filter(|link| stays(&link.id)).collect();
        let fulls: Vec<Full> = fulls.into_iter().filter(|full| stays(&full.id)).collect();
        let after = history(links, fulls);
        let time = seconds(at).max(minute(since));
        if to(&before, RecoveryTarget::Time(time)).is_ok() {
            prop_assert!(to(&after, RecoveryTarget::Time(time)).is_ok(), "{time}");
        }
    }
}
