//! The numbers in a run's report, as metrics.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::error::Code;
use crate::job::backup::{BackupReport, IncrementReport};
use crate::job::verify::{ChainProof, Verified, VerifyReport};
use crate::outside::metrics::{
    Backup, CheckTally, End, History, Increment, IncrementEnd, LastGood, Made, MadeIncrement, Observation, Run,
    SlotSpace, VerificationMetrics,
};
use crate::repository::backup_id::BackupKind;
use crate::repository::verification::VerificationStatus;

/// One observation; another if the run was to make an increment and made a full backup instead, and another if it proved
/// a chain.
pub(super) fn of_backup(report: &BackupReport, history: &History, at: Timestamp) -> Vec<Observation> {
    let mut observed = of_made(report, history, at);
    observed.extend(report.chain.as_ref().map(|proof| of_proof(&report.database, proof, at)));
    observed
}

pub(super) fn of_proof(database: &str, proof: &ChainProof, at: Timestamp) -> Observation {
    let mut chain = CheckTally::default();
    chain.count(!proof.is_failed());
    let metrics = VerificationMetrics {
        chain: Some(chain),
        seconds: proof.duration_seconds,
        code: proof.is_failed().then_some(Code::Integrity),
        ..VerificationMetrics::default()
    };
    Observation::new(at, Some(database.to_owned()), Run::Verification(metrics))
}

fn of_made(report: &BackupReport, history: &History, at: Timestamp) -> Vec<Observation> {
    match report.kind {
        BackupKind::Incremental => vec![of_increment(report, made_increment(report), at)],
        BackupKind::Full => {
            let instead = report.renewed.as_ref();
            let renewed = instead.map(|_| of_increment(report, IncrementEnd::Renewed, at));
            std::iter::once(of_full(report, history, at)).chain(renewed).collect()
        }
    }
}

fn made_increment(report: &BackupReport) -> IncrementEnd {
    match &report.increment {
        Some(increment) if !report.repeated && !increment.is_idle => IncrementEnd::Made(MadeIncrement {
            id: report.id.to_string(),
            seconds: report.duration_seconds,
            bytes: report.bytes_stored,
            transactions: increment.transactions,
            baselines: increment.baselines,
            seen_to: increment.seen_to,
            degraded: report.is_degraded(),
        }),
        increment => IncrementEnd::Idle {
            seen_to: increment.as_ref().map(|increment| increment.seen_to),
        },
    }
}

fn of_increment(report: &BackupReport, end: IncrementEnd, at: Timestamp) -> Observation {
    let unsent = report.notification.as_ref().is_some_and(|told| !told.sent);
    // A full backup that was made instead counts its message itself.
    let counts = unsent && report.kind == BackupKind::Incremental;
    Observation {
        at,
        database: Some(report.database.clone()),
        notifications_failed: u64::from(counts),
        run: Run::Increment(Increment {
            end,
            slot: report.increment.as_ref().and_then(space),
        }),
    }
}

/// What the server keeps for the slot, if the run has asked it.
fn space(increment: &IncrementReport) -> Option<SlotSpace> {
    let slot = increment.slot.as_ref()?;
    Some(SlotSpace {
        retained: slot.retained_bytes,
        safe: slot.safe_bytes,
    })
}

fn of_full(report: &BackupReport, history: &History, at: Timestamp) -> Observation {
    let rate = match report.duration_seconds {
        seconds if seconds > 0.0 => report.bytes_read as f64 / seconds,
        _ => 0.0,
    };
    let end = match report.repeated {
        true => End::Repeated,
        false => End::Made(Made {
            id: report.id.to_string(),
            seconds: report.duration_seconds,
            bytes: report.bytes_stored,
            tables: report.tables,
            rows: report.rows,
            rate,
            deviation: history.deviation(report.kind, report.bytes_stored),
            degraded: report.is_degraded(),
        }),
    };
    let unsent = report.notification.as_ref().is_some_and(|told| !told.sent);
    Observation {
        at,
        database: Some(report.database.clone()),
        notifications_failed: u64::from(unsent),
        run: Run::Backup(Backup {
            end,
            last_good: LastGood::Began(report.started_at),
        }),
    }
}

/// One for each database whose backups were checked. If a drill was asked for and the backup's bytes were too damaged
/// for it, the drill has failed.
pub(super) fn of_verification(report: &VerifyReport, drill: bool, at: Timestamp) -> Vec<Observation> {
    let mut databases: BTreeMap<&str, VerificationMetrics> = BTreeMap::new();
    for one in report.backups() {
        let sum = databases
            .entry(one.id.database())
            .or_insert_with(|| VerificationMetrics::asked(drill));
        add(sum, one);
    }
    let observation = |(database, sum): (&str, VerificationMetrics)| {
        Observation::new(at, Some(database.to_owned()), Run::Verification(sum))
    };
    databases.into_iter().map(observation).collect()
}

fn add(sum: &mut VerificationMetrics, one: &Verified) {
    sum.verify.count(one.problems.is_empty());
    sum.seconds += one.duration_seconds;
    if let Some(tally) = sum.drill.as_mut().filter(|_| !one.is_copy) {
        let drilled = one.drill.as_ref();
        tally.count(drilled.is_some_and(|drill| drill.status == VerificationStatus::Ok));
        sum.seconds += drilled.map_or(0.0, |drill| drill.duration_seconds);
    }
    if let Some(proof) = &one.chain {
        sum.chain.get_or_insert_default().count(!proof.is_failed());
        sum.seconds += proof.duration_seconds;
    }
    if one.status != VerificationStatus::Ok {
        sum.code = Some(one.code);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::verify::{ChainFinding, Finding};

    #[test]
    fn each_database_of_a_verification_is_observed_with_failed_proofs_and_a_drill_that_was_not_tried_has_failed() {
        let verified = |id: &str, good: bool| Verified {
            status: if good {
                VerificationStatus::Ok
            } else {
                VerificationStatus::Failed
            },
            id: id.parse().unwrap(),
            store: "file:///srv".into(),
            files: 5,
            tables: 1,
            rows: 3,
            large_objects: 0,
            transactions: None,
            changes: None,
            bytes: 8,
            duration_seconds: 1.5,
            manifest_sha256: None,
            signed_by: None,
            code: Code::Integrity,
            is_copy: false,
            problems: (!good)
                .then(|| Finding::of_file("shop.dump", "differs"))
                .into_iter()
                .collect(),
            not_verified: None,
            drill: None,
            moment: None,
            chain: None,
            not_chained: None,
            not_drilled: None,
            warnings: Vec::new(),
        };
        let mut forged = verified("news/20250130T040500Z-full", true);
        forged.chain = Some(ChainProof {
            from: "news/20250129T040500Z-full".parse().unwrap(),
            to: forged.id.clone(),
            increments: 3,
            changes: 9,
            equal: 1,
            different: vec![ChainFinding {
                table: "public.orders".into(),
                what: "a row is missing".into(),
            }],
            broken: None,
            not_compared: Vec::new(),
            duration_seconds: 0.5,
        });
        let report = VerifyReport::many(vec![
            verified("shop/20250131T040500Z-full", true),
            verified("shop/20250130T040500Z-full", false),
            forged,
        ]);
        let end = "2025-01-31T05:00:00Z".parse().unwrap();
        let observed = of_verification(&report, true, end);
        assert_eq!(observed.len(), 2);
        assert_eq!(observed[0].database.as_deref(), Some("news"));
        let Run::Verification(news) = &observed[0].run else {
            panic!("{observed:?}")
        };
        assert_eq!(news.chain, Some(CheckTally { passed: 0, failed: 1 }));
        let Run::Verification(shop) = &observed[1].run else {
            panic!("{observed:?}")
        };
        assert_eq!(shop.verify, CheckTally { passed: 1, failed: 1 });
        assert_eq!(shop.drill, Some(CheckTally { passed: 0, failed: 2 }));
        assert_eq!(shop.chain, None);
        assert_eq!((shop.code, shop.seconds), (Some(Code::Integrity), 3.0));
    }
}
