//! What is joined, and which full backups are bases.

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::format::{Format, Lsn};
use crate::repository::backup_id::BackupKind;
use crate::repository::manifest::tests::{sample, sample_increment};
use crate::repository::manifest::{IndexRecord, Manifest, Position, Server, SnapshotEnd, Stream};
use crate::repository::retention::Tier;

/// A minute of the tests' clock. At each minute `m` the log is at the position `m * 100`, and the next transaction has
/// the id `m * 10`.
pub(crate) fn minute(minute: i64) -> Timestamp {
    let begin: Timestamp = "2025-01-31T00:00:00Z".parse().unwrap();
    begin + SignedDuration::from_mins(minute)
}

pub(crate) fn position(minute: i64) -> Lsn {
    Lsn(u64::try_from(minute).unwrap() * 100)
}

pub(crate) fn id(kind: BackupKind, at: i64) -> BackupId {
    BackupId::next("shop", kind, minute(at), None)
}

/// The increment with the changes of these minutes.
pub(crate) fn link(from: i64, to: i64) -> Link {
    let stream = Stream {
        id: "one".into(),
        slot: "pgstow_1".into(),
        system_identifier: "7".into(),
        timeline: 1,
        database_oid: 5,
        from: position(from),
        to: position(to),
        predecessor: (from > 0).then(|| id(BackupKind::Incremental, from)),
        first_commit: None,
        last_commit: None,
        seen_to: minute(to),
        reached: None,
        transactions: 3,
        newest_xid: Some(u64::try_from(to).unwrap() * 10 - 1),
        settled: Some(Lsn(0)),
        settled_xid: None,
        index: IndexRecord {
            offset: 44,
            length: 1,
            sha256: "00".repeat(32),
            earliest: None,
            latest: None,
        },
    };
    Link::new(id(BackupKind::Incremental, to), stream, 10)
}

/// A full backup whose snapshot was taken in the middle of this minute.
pub(crate) fn full(at: i64) -> Full {
    let lsn = position(at).0 + 50;
    Full {
        id: id(BackupKind::Full, at),
        bytes: 1_000,
        server: Server {
            version: "18.1".into(),
            version_num: 180_001,
            encoding: "UTF8".into(),
            system_identifier: Some("7".into()),
            database_oid: Some(5),
        },
        format: Format::Custom,
        snapshot: Position {
            lsn: Some(Lsn(lsn).to_string()),
            xmin: u64::try_from(at).unwrap() * 10,
            xmax: u64::try_from(at).unwrap() * 10,
            end: Some(SnapshotEnd {
                lsn: Lsn(lsn + 1),
                at: Some(minute(at) + SignedDuration::from_secs(30)),
                timeline: Some(1),
            }),
        },
        timestamp: minute(at),
        finished_at: minute(at + 1),
    }
}

/// The manifest that says this.
pub(crate) fn manifest_of(full: &Full) -> Manifest {
    let mut manifest = sample(&full.id, Tier::Daily);
    manifest.server = full.server.clone();
    manifest.snapshot.lsn.clone_from(&full.snapshot.lsn);
    (manifest.snapshot.xmin, manifest.snapshot.xmax) = (full.snapshot.xmin, full.snapshot.xmax);
    manifest.snapshot.end = full.snapshot.end;
    manifest
}

pub(crate) fn manifest_of_link(link: &Link) -> Manifest {
    sample_increment(&link.id, link.stream.clone())
}

#[test]
fn a_manifest_gives_a_list_what_joins_it() {
    let link = link(10, 20);
    let bytes = manifest_of_link(&link).to_bytes().unwrap();
    let figures = Figures::parse(&bytes, &link.id).unwrap();
    assert_eq!(figures.stream.as_ref(), Some(&link.stream));
    assert_eq!((figures.changes.tables, figures.changes.inserts), (1, 5));
    assert_eq!((figures.coverage.exact, figures.coverage.full_only), (1, 1));
    assert_eq!(Member::of(&figures, 10, None), Member::Increment(Box::new(link)));
    let full = full(3);
    let bytes = manifest_of(&full).to_bytes().unwrap();
    let figures = Figures::parse(&bytes, &full.id).unwrap();
    let Member::Full(read) = Member::of(&figures, 1_000, None) else {
        panic!("{figures:?}")
    };
    assert_eq!((read.snapshot, read.server), (full.snapshot, full.server));
}

pub(crate) fn history(links: impl IntoIterator<Item = Link>, fulls: impl IntoIterator<Item = Full>) -> History {
    let links = links.into_iter().map(|link| Member::Increment(Box::new(link)));
    let fulls = fulls.into_iter().map(|full| Member::Full(Box::new(full)));
    History::of(links.chain(fulls))
}

fn spans(history: &History) -> Vec<(u64, u64, usize)> {
    let runs = history.runs().iter();
    runs.map(|run| {
        let (from, to) = (run.first().stream.from.0 / 100, run.last().stream.to.0 / 100);
        (from, to, run.bases().len())
    })
    .collect()
}

#[test]
fn increments_are_joined_in_any_order_and_a_missing_one_makes_two_runs() {
    let links = || (0..10).rev().map(|at| link(at * 10, at * 10 + 10));
    assert_eq!(spans(&history(links(), [full(3), full(55)])), [(0, 100, 2)]);
    let without = links().filter(|link| link.stream.from != position(40));
    let broken = history(without, [full(3), full(55)]);
    assert_eq!(spans(&broken), [(0, 40, 1), (50, 100, 0)]);
    let gaps = broken.gaps();
    assert!(
        gaps[0]
            .to_string()
            .contains("20250131T005000Z-incr, the increment before it, is not in the store"),
        "{}",
        gaps[0]
    );
    // Which transactions the missing one had is not known, but the link before the base proves it for a later one.
    let refused = broken.newest().unwrap().refused();
    assert_eq!(
        refused,
        [
            (id(BackupKind::Full, 3), NotABase::Before),
            (id(BackupKind::Full, 55), NotABase::Open)
        ]
    );
    assert_eq!(broken.newest().unwrap().no_base(), refused.last());
    let without = links().filter(|link| link.stream.from != position(40));
    assert_eq!(spans(&history(without, [full(65)])), [(0, 40, 0), (50, 100, 1)]);
}

#[test]
fn what_does_not_fit_is_not_joined_and_the_reason_is_said() {
    let whole = [link(0, 10), link(10, 20), link(20, 30)];
    let gap = |change: &dyn Fn(&mut Link)| {
        let mut links = whole.clone();
        change(&mut links[2]);
        let history = history(links, [full(3)]);
        assert_eq!(history.runs().len(), 2);
        history.gaps()[0].why.clone()
    };
    assert!(gap(&|link| link.stream.from = Lsn(2_001)).contains("ends at 0/7D0, and it begins at 0/7D1"));
    assert!(gap(&|link| link.stream.from = Lsn(1_999)).contains("begins at"));
    assert!(gap(&|link| link.stream.system_identifier = "8".into()).contains("another server"));
    assert!(gap(&|link| link.stream.timeline = 2).contains("timeline 1 to 2"));
    assert!(gap(&|link| link.stream.database_oid = 6).contains("another database"));
    assert!(gap(&|link| link.stream.id = "two".into()).contains("another stream"));
    assert!(gap(&|link| link.stream.predecessor = None).contains("new stream"));
    let unusable = History::of([
        Member::Increment(Box::new(whole[0].clone())),
        Member::Unusable(whole[1].id.clone(), "it lacks shop.changes".into()),
        Member::Increment(Box::new(whole[2].clone())),
    ]);
    assert!(unusable.gaps()[0].why.contains("cannot be used: it lacks shop.changes"));
}

#[test]
fn of_two_that_follow_the_same_one_the_run_takes_the_one_that_reaches_further() {
    let mut other = link(10, 15);
    other.id = id(BackupKind::Incremental, 16);
    let forked = history([link(0, 10), link(10, 20), other], [full(3)]);
    let mut spans = spans(&forked);
    spans.sort_unstable();
    assert_eq!(spans, [(0, 20, 1), (10, 15, 0)]);
}

#[test]
fn links_that_name_each_other_end() {
    let mut one = link(10, 10);
    let mut other = link(10, 10);
    one.id = id(BackupKind::Incremental, 11);
    other.id = id(BackupKind::Incremental, 12);
    one.stream.predecessor = Some(other.id.clone());
    other.stream.predecessor = Some(one.id.clone());
    let joined = history([one, other], []);
    assert_eq!(joined.runs().iter().map(|run| run.links().len()).sum::<usize>(), 2);
}

#[test]
fn a_full_backup_that_the_changes_do_not_lead_on_from_is_no_base_and_says_why() {
    let links = || (0..10).map(|at| link(at * 10, at * 10 + 10));
    let why = |change: &dyn Fn(&mut Full)| {
        let mut one = full(33);
        change(&mut one);
        history(links(), [one])
            .newest()
            .unwrap()
            .no_base()
            .map(|(_, why)| why.clone())
    };
    assert_eq!(why(&|_| ()), None);
    assert_eq!(why(&|full| full.format = Format::Plain), Some(NotABase::Script));
    assert_eq!(why(&|full| full.snapshot.end = None), Some(NotABase::NoPosition));
    assert_eq!(why(&|full| full.snapshot.lsn = None), Some(NotABase::NoPosition));
    assert_eq!(
        why(&|full| full.server.system_identifier = Some("8".into())),
        Some(NotABase::OtherSource)
    );
    assert_eq!(
        why(&|full| full.server.database_oid = Some(6)),
        Some(NotABase::OtherSource)
    );
    let later = |full: &mut Full| full.snapshot.end.as_mut().unwrap().lsn = Lsn(10_001);
    assert_eq!(why(&later), Some(NotABase::After));
    let timeline = |full: &mut Full, timeline| full.snapshot.end.as_mut().unwrap().timeline = timeline;
    assert_eq!(why(&|full| timeline(full, Some(2))), Some(NotABase::OtherSource));
    // Without a timeline, the time must fit: after a failover another server may have the position.
    assert_eq!(why(&|full| timeline(full, None)), None);
    // A standby does not say which of these transactions ran.
    let busy = |full: &mut Full| full.snapshot.xmax += 2;
    assert_eq!(why(&busy), None);
    assert_eq!(
        why(&|full| {
            timeline(full, None);
            busy(full);
        }),
        Some(NotABase::Standby)
    );
    let hours_later = |full: &mut Full| {
        timeline(full, None);
        (full.timestamp, full.finished_at) = (minute(200), minute(201));
    };
    assert_eq!(why(&hours_later), Some(NotABase::OtherSource));
    // Transactions that ran when the slot was made may be nowhere.
    let settled = links().map(|mut link| {
        link.stream.settled = Some(position(34));
        link
    });
    assert_eq!(
        history(settled, [full(33)]).newest().unwrap().refused()[0].1,
        NotABase::Before
    );
    // The oldest transaction that its snapshot does not see has the id 330.
    let settled = |xid: u64| {
        let links = links().map(|mut link| {
            link.stream.settled_xid = Some(xid);
            link
        });
        history(links, [full(33)]).newest().unwrap().bases().len()
    };
    assert_eq!([settled(330), settled(331)], [1, 0]);
}

#[test]
fn a_base_needs_the_earlier_increments_that_may_hold_what_its_snapshot_does_not_see() {
    let links = || (0..10).map(|at| link(at * 10, at * 10 + 10));
    let needed = |xmin: u64| {
        let mut one = full(55);
        one.snapshot.xmin = xmin;
        history(links(), [one]).newest().unwrap().bases()[0].first_needed
    };
    assert_eq!(needed(550), 5);
    assert_eq!(needed(500), 5);
    assert_eq!(needed(499), 4);
    assert_eq!(needed(3), 0);
}

#[test]
fn increments_without_transactions_leave_the_largest_id_as_it_was() {
    let links = (0..4).map(|at| {
        let mut link = link(at * 10, at * 10 + 10);
        if at != 2 {
            (link.stream.transactions, link.stream.newest_xid) = (0, None);
        }
        link
    });
    let history = history(links, []);
    let newest: Vec<u64> = history.runs()[0].links().iter().map(|link| link.newest_xid).collect();
    assert_eq!(newest, [0, 0, 299, 299]);
}

#[test]
fn a_hole_before_a_full_backup_is_told_from_what_has_expired() {
    let links = (0..10).map(|at| link(at * 10, at * 10 + 10));
    let links = links.filter(|link| link.stream.from != position(40));
    let broken = history(links, [full(3), full(25), full(45), full(85)]);
    let hole = |at: i64, since: i64| {
        let full = full(at);
        broken.hole_before(&full.id, full.snapshot.end.unwrap().lsn, minute(since))
    };
    assert_eq!(hole(25, 0), None);
    for at in [45, 85] {
        let (before, why) = hole(at, 0).unwrap();
        assert_eq!(before, full(25).id);
        assert!(why.contains("is not in the store"), "{why}");
        // The one that is missing was made in minute 50.
        assert_eq!(hole(at, 51), None);
    }
}
