use super::*;
use crate::repository::manifest::{IndexRecord, SnapshotEnd};

fn name() -> SlotName {
    SlotName::of("/backups", "shop")
}

fn slot(confirmed: u64) -> Slot {
    Slot {
        name: name().slot().to_owned(),
        reader: None,
        confirmed: Some(Lsn(confirmed)),
        restart: Some(Lsn(1)),
        wal_status: Some("reserved".into()),
        retained_bytes: Some(0),
        safe_bytes: None,
        catalog_age: None,
        inactive_since: None,
        invalidation: None,
        fails_over: None,
    }
}

fn last(to: u64) -> Last {
    Last {
        id: "shop/20250101T000000Z-incr".parse().unwrap(),
        stream: Stream {
            id: "one".into(),
            slot: name().slot().to_owned(),
            system_identifier: "7".into(),
            timeline: 1,
            database_oid: 5,
            from: Lsn(10),
            to: Lsn(to),
            predecessor: None,
            first_commit: None,
            last_commit: None,
            seen_to: Timestamp::UNIX_EPOCH,
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
        },
        catalog: None,
    }
}

fn full(begun: u64, timeline: u32) -> Full {
    Full {
        database_oid: Some(5),
        system_identifier: Some("7".into()),
        snapshot: SnapshotRecord {
            lsn: Some(Lsn(begun).to_string()),
            xmin: 1,
            xmax: 1,
            xip: Vec::new(),
            end: Some(SnapshotEnd {
                lsn: Lsn(begun),
                at: None,
                timeline: Some(timeline),
            }),
        },
        catalog: None,
    }
}

fn source(timeline: u32) -> StreamSource {
    StreamSource {
        system_identifier: "7".into(),
        timeline,
        flushed: Lsn(1_000),
        database: Some("shop".into()),
    }
}

fn stands(last: Option<Last>, full: Option<Full>, slot: Option<&Slot>, timeline: u32) -> Result<Standing> {
    let now = Now {
        source: &source(timeline),
        database_oid: 5,
        slot,
        publications: 2,
    };
    standing(Held { last, full }, &name(), &now)
}

#[test]
fn a_slot_at_or_before_the_end_of_the_last_increment_goes_on_there() {
    for confirmed in [50, 100] {
        let found = stands(Some(last(100)), Some(full(20, 1)), Some(&slot(confirmed)), 1).unwrap();
        assert!(
            matches!(&found, Standing::GoesOn(last) if last.stream.to == Lsn(100)),
            "{found:?}"
        );
    }
}

#[test]
fn a_slot_past_the_last_increment_begins_a_new_stream_behind_a_full_or_needs_one() {
    let begins = stands(Some(last(100)), Some(full(300, 1)), Some(&slot(200)), 1).unwrap();
    assert!(matches!(begins, Standing::Begins { from: Lsn(200), .. }), "{begins:?}");
    let gap = stands(Some(last(100)), Some(full(150, 1)), Some(&slot(200)), 1).unwrap();
    assert!(
        matches!(&gap, Standing::Broken { why, needs_slot: false } if why.contains("0/C8")),
        "{gap:?}"
    );
    let fresh = stands(None, None, Some(&slot(200)), 1).unwrap();
    assert!(matches!(fresh, Standing::Broken { needs_slot: false, .. }), "{fresh:?}");
}

#[test]
fn another_timeline_needs_a_new_slot_and_a_full_of_that_timeline() {
    let promoted = stands(Some(last(100)), Some(full(300, 1)), Some(&slot(100)), 2).unwrap();
    assert!(
        matches!(&promoted, Standing::Broken { why, needs_slot: true } if why.contains("timeline")),
        "{promoted:?}"
    );
    let renewed = stands(Some(last(100)), Some(full(300, 2)), Some(&slot(200)), 2).unwrap();
    assert!(matches!(renewed, Standing::Begins { .. }), "{renewed:?}");
}

#[test]
fn without_a_slot_a_chain_is_broken_and_nothing_else_was_started() {
    let gone = stands(Some(last(100)), None, None, 1).unwrap();
    assert!(matches!(gone, Standing::Broken { needs_slot: true, .. }), "{gone:?}");
    let error = stands(None, Some(full(300, 1)), None, 1).unwrap_err();
    assert_eq!(error.code(), Code::Config);
    assert!(error.hint_text().contains("pgstow incremental start"));
    let now = Now {
        source: &source(1),
        database_oid: 5,
        slot: None,
        publications: 0,
    };
    let held = Held {
        last: Some(last(100)),
        full: None,
    };
    let stopped = standing(held, &name(), &now).unwrap_err();
    assert_eq!(stopped.code(), Code::Config);
    assert!(stopped.message().contains("were stopped"));
    let mut lost = slot(100);
    lost.wal_status = Some("lost".into());
    let lost = stands(Some(last(100)), None, Some(&lost), 1).unwrap();
    assert!(
        matches!(&lost, Standing::Broken { why, needs_slot: true } if why.contains("lost")),
        "{lost:?}"
    );
}
