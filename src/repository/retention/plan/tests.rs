use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::repository::backup_id::BackupKind;
use crate::repository::retention::Policy;

const NOW: &str = "2025-06-30T12:00:00Z";
const GOOD: BackupState = backup(Tier::Daily, true, Verdict::Unproved);
const PROVED: BackupState = backup(Tier::Daily, true, Verdict::Proved);
const DAMAGED: BackupState = backup(Tier::Daily, true, Verdict::Damaged);
const PARTIAL: BackupState = backup(Tier::Daily, false, Verdict::Proved);
const LEFT_OVER: BackupState = BackupState::LeftOver { run_at_work: false };

const fn backup(tier: Tier, whole: bool, verdict: Verdict) -> BackupState {
    BackupState::Backup { tier, whole, verdict }
}

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn id(database: &str, hours_old: i64) -> BackupId {
    let at = now() - SignedDuration::from_hours(hours_old);
    BackupId::next(database, BackupKind::Full, at, None)
}

/// The decisions for backups of these ages in days.
fn decide(keep_last: usize, verified_only: bool, ages: &[(i64, BackupState)]) -> Vec<Decision> {
    let candidates: Vec<Candidate> = ages
        .iter()
        .map(|&(days, state)| Candidate {
            id: id("shop", days * 24),
            state,
        })
        .collect();
    let retention = Retention {
        keep_last,
        ..Retention::of(Policy::Tiers(vec![(Tier::Daily, 7), (Tier::Monthly, 2)]))
    };
    let terms = Terms {
        retention: &retention,
        verified_only,
        now: now(),
    };
    plan(&candidates, &terms)
}

fn removed(decisions: &[Decision]) -> Vec<bool> {
    decisions
        .iter()
        .map(|decision| matches!(decision, Decision::Remove(_)))
        .collect()
}

#[test]
fn a_backup_goes_when_its_age_passes_its_tiers_days() {
    let monthly = backup(Tier::Monthly, true, Verdict::Unproved);
    let weekly = backup(Tier::Weekly, true, Verdict::Unproved);
    let decisions = decide(
        1,
        false,
        &[
            (1, GOOD),
            (7, GOOD),
            (8, GOOD),
            (62, monthly),
            (63, monthly),
            (62, weekly),
            (63, weekly),
        ],
    );
    let days = |tier, days| Stays::Young { tier, days };
    assert_eq!(
        decisions,
        [
            Decision::Keep(Stays::Newest),
            Decision::Keep(days(Tier::Daily, 7)),
            Decision::Remove(Goes::Expired {
                tier: Tier::Daily,
                days: 7
            }),
            Decision::Keep(days(Tier::Monthly, 62)),
            Decision::Remove(Goes::Expired {
                tier: Tier::Monthly,
                days: 62
            }),
            // A tier that the policy does not have is kept as long as anything in it.
            Decision::Keep(days(Tier::Weekly, 62)),
            Decision::Remove(Goes::Expired {
                tier: Tier::Weekly,
                days: 62
            }),
        ]
    );
}

#[test]
fn the_newest_good_ones_stay_whatever_their_age_and_nothing_else_counts_for_them() {
    let ages = [
        (89, GOOD),
        (90, PARTIAL),
        (91, PARTIAL),
        (92, GOOD),
        (93, GOOD),
        (94, GOOD),
    ];
    assert_eq!(
        removed(&decide(2, false, &ages)),
        [false, true, true, false, true, true]
    );
    assert_eq!(removed(&decide(0, false, &ages)), [false, true, true, true, true, true]);
}

#[test]
fn a_failed_check_of_a_newer_backup_lets_no_older_one_go() {
    // The newest was found damaged, and the one before has expired.
    let decisions = decide(1, false, &[(1, DAMAGED), (90, GOOD), (91, GOOD)]);
    assert_eq!(removed(&decisions), [false, false, true]);
    // It keeps its own place too, since the check may have been wrong.
    let decisions = decide(1, false, &[(90, DAMAGED), (91, GOOD), (92, GOOD)]);
    assert_eq!(decisions[0], Decision::Keep(Stays::Doubted));
    assert_eq!(removed(&decisions), [false, false, true]);
    // A damaged one that stays for its tier's time: the good one before it has its content.
    let decisions = decide(
        1,
        false,
        &[(1, GOOD), (2, DAMAGED), (90, DAMAGED), (91, GOOD), (92, GOOD)],
    );
    assert_eq!(removed(&decisions), [false, false, false, false, true]);
    assert_eq!(decisions[3], Decision::Keep(Stays::StandIn));
}

#[test]
fn the_newest_backup_of_a_database_never_goes_whatever_it_is() {
    let decisions = decide(1, false, &[(90, PARTIAL), (91, GOOD), (92, GOOD)]);
    assert_eq!(decisions[0], Decision::Keep(Stays::NewestOfAll));
    assert_eq!(removed(&decisions), [false, false, true]);
}

#[test]
fn where_only_verified_ones_count_the_newest_of_them_stay_and_so_do_the_newest() {
    let ages = [(90, GOOD), (91, GOOD), (92, PROVED), (93, PROVED)];
    let decisions = decide(1, true, &ages);
    assert_eq!(removed(&decisions), [false, true, false, true]);
    assert_eq!(decisions[2], Decision::Keep(Stays::NewestVerified));
    // Too few were verified: the floor still keeps the newest good ones.
    let ages = [(90, GOOD), (91, GOOD), (92, GOOD)];
    assert_eq!(removed(&decide(2, true, &ages)), [false, false, true]);
}

#[test]
fn of_a_database_whose_backups_were_all_found_damaged_none_goes() {
    let decisions = decide(1, false, &[(90, PARTIAL), (91, DAMAGED), (92, DAMAGED)]);
    assert_eq!(
        decisions,
        [
            Decision::Keep(Stays::NewestOfAll),
            Decision::Keep(Stays::Doubted),
            Decision::Keep(Stays::Doubted)
        ]
    );
}

#[test]
fn what_cannot_be_read_stays_and_left_overs_go_when_no_run_can_want_them() {
    let decisions = decide(
        1,
        false,
        &[
            (9000, BackupState::Unreadable),
            (2, LEFT_OVER),
            (3, LEFT_OVER),
            (3, BackupState::LeftOver { run_at_work: true }),
        ],
    );
    assert_eq!(
        decisions,
        [
            Decision::Keep(Stays::Unreadable),
            Decision::Keep(Stays::YoungLeftOver),
            Decision::Remove(Goes::LeftOver),
            Decision::Keep(Stays::RunAtWork),
        ]
    );
}

#[test]
fn databases_do_not_concern_each_other() {
    let policy = Policy::Days(7);
    let candidates: Vec<Candidate> = ["app", "app_prod"]
        .into_iter()
        .flat_map(|database| {
            [900, 901].map(|hours| Candidate {
                id: id(database, hours),
                state: GOOD,
            })
        })
        .collect();
    let retention = Retention::of(policy);
    let terms = Terms {
        retention: &retention,
        verified_only: false,
        now: now(),
    };
    assert_eq!(removed(&plan(&candidates, &terms)), [false, true, false, true]);
}

/// The same decisions in another way: for one backup at a time, count the better ones.
fn reference(one: &Candidate, all: &[Candidate], terms: &Terms<'_>) -> bool {
    let hours = (terms.now.as_second() - one.id.timestamp().as_second()) as f64 / 3600.0;
    let BackupState::Backup { tier, whole, verdict } = one.state else {
        return match one.state {
            BackupState::LeftOver { run_at_work } => run_at_work || hours <= 48.0,
            _ => true,
        };
    };
    if one.id.is_ahead(terms.now) {
        return true;
    }
    let days = match (&terms.retention.policy, tier) {
        (Policy::Days(days), Tier::Daily | Tier::Weekly) => *days.max(&if tier == Tier::Daily { 1 } else { 7 }),
        (Policy::Days(days), Tier::Monthly) => *days.max(&31),
        (Policy::Days(days), Tier::Yearly) => *days.max(&366),
        (Policy::Days(_), Tier::Increment) => unreachable!("the model knows full backups alone"),
        (Policy::Tiers(_), _) => unreachable!("the model knows days alone"),
    };
    if hours <= f64::from(days) * 24.0 {
        return true;
    }
    let newer: Vec<&Candidate> = all
        .iter()
        .filter(|other| other.id.database() == one.id.database() && other.id > one.id)
        .filter(|other| !other.id.is_ahead(terms.now) && matches!(other.state, BackupState::Backup { .. }))
        .collect();
    let count = |wanted: fn(Verdict) -> bool| {
        let good = |other: &&&Candidate| matches!(other.state, BackupState::Backup { whole: true, verdict, .. } if wanted(verdict));
        newer.iter().filter(good).count()
    };
    let keep = terms.retention.keep_last.max(1);
    let sound = |verdict| verdict != Verdict::Damaged;
    let proved = |verdict| verdict == Verdict::Proved;
    // A damaged one that stays, with no good one between.
    let nearest_good = newer
        .iter()
        .filter(|other| matches!(other.state, BackupState::Backup { whole: true, verdict, .. } if sound(verdict)))
        .map(|other| &other.id)
        .min();
    let doubted = newer
        .iter()
        .filter(|other| {
            matches!(
                other.state,
                BackupState::Backup {
                    whole: true,
                    verdict: Verdict::Damaged,
                    ..
                }
            )
        })
        .filter(|other| nearest_good.is_none_or(|good| other.id < *good))
        .any(|other| reference(other, all, terms));
    newer.is_empty()
        || whole
            && (count(sound) < keep
                || terms.verified_only && verdict != Verdict::Unproved && count(proved) < keep
                || doubted)
}

fn any_state() -> impl Strategy<Value = BackupState> {
    let verdict = prop_oneof![Just(Verdict::Unproved), Just(Verdict::Proved), Just(Verdict::Damaged)];
    prop_oneof![
        1 => Just(BackupState::Unreadable),
        2 => any::<bool>().prop_map(|run_at_work| BackupState::LeftOver { run_at_work }),
        8 => (0_usize..4, any::<bool>(), verdict).prop_map(|(tier, whole, verdict)| backup(Tier::ALL[tier], whole, verdict)),
    ]
}

proptest! {
    #[test]
    fn the_plan_is_the_reference_models_and_never_takes_the_last_good_backup(
        // Ages may be negative: clocks step. Half of them are near now, where that decides.
        folders in proptest::collection::btree_map(
            (0_usize..3, prop_oneof![-50_i64..60, -50_i64..12_000]),
            any_state(),
            0..24,
        ),
        days in 1_u32..400,
        keep_last in 0_usize..5,
        verified_only: bool,
        rotation in 0_usize..24,
    ) {
        let databases = ["app", "app_prod", "shop"];
        let mut candidates: Vec<Candidate> = folders
            .into_iter()
            .map(|((database, hours), state)| Candidate { id: id(databases[database], hours), state })
            .collect();
        let middle = rotation % candidates.len().max(1);
        candidates.rotate_left(middle);
        let retention = Retention { keep_last, ..Retention::of(Policy::Days(days)) };
        let terms = Terms { retention: &retention, verified_only, now: now() };
        let decisions = plan(&candidates, &terms);
        prop_assert_eq!(decisions.len(), candidates.len());

        let mut last: BTreeMap<(&str, u8), &BackupId> = BTreeMap::new();
        for (one, decision) in candidates.iter().zip(&decisions) {
            let stays = matches!(decision, Decision::Keep(_));
            prop_assert_eq!(stays, reference(one, &candidates, &terms), "{:?}", one);
            let BackupState::Backup { whole, verdict, .. } = one.state else { continue };
            if one.id.is_ahead(now()) {
                continue;
            }
            let kinds = [
                Some(0),
                whole.then_some(1),
                (whole && verdict != Verdict::Damaged).then_some(2),
                (whole && verified_only && verdict == Verdict::Proved).then_some(3),
            ];
            for kind in kinds.into_iter().flatten() {
                let newest = last.entry((one.id.database(), kind)).or_insert(&one.id);
                *newest = (*newest).max(&one.id);
            }
        }
        for newest in last.values() {
            let at = candidates.iter().position(|one| one.id == **newest).unwrap();
            prop_assert!(matches!(decisions[at], Decision::Keep(_)), "{}", newest);
        }
    }

    #[test]
    fn counting_verified_ones_alone_never_removes_more(
        folders in proptest::collection::btree_map(0_i64..12_000, any_state(), 0..16),
        keep_last in 1_usize..4,
    ) {
        let candidates: Vec<Candidate> = folders
            .into_iter()
            .map(|(hours, state)| Candidate { id: id("shop", hours), state })
            .collect();
        let retention = Retention { keep_last, ..Retention::of(Policy::Days(30)) };
        let terms = Terms { retention: &retention, verified_only: false, now: now() };
        let plain = removed(&plan(&candidates, &terms));
        let strict = removed(&plan(&candidates, &Terms { verified_only: true, ..terms }));
        prop_assert!(plain.iter().zip(strict).all(|(plain, strict)| *plain || !strict));
    }

    #[test]
    fn that_backups_are_found_damaged_removes_nothing(
        folders in proptest::collection::btree_map((0_usize..2, 0_i64..12_000), (any_state(), any::<bool>()), 0..20),
        days in 1_u32..400,
        keep_last in 1_usize..4,
        verified_only: bool,
    ) {
        let databases = ["app", "app_prod"];
        let with = |found: bool| -> Vec<Candidate> {
            folders
                .iter()
                .map(|((database, hours), (state, blamed))| {
                    let state = match *state {
                        BackupState::Backup { tier, whole, .. } if found && *blamed => {
                            backup(tier, whole, Verdict::Damaged)
                        }
                        state => state,
                    };
                    Candidate { id: id(databases[*database], *hours), state }
                })
                .collect()
        };
        let retention = Retention { keep_last, ..Retention::of(Policy::Days(days)) };
        let terms = Terms { retention: &retention, verified_only, now: now() };
        let (before, after) = (removed(&plan(&with(false), &terms)), removed(&plan(&with(true), &terms)));
        for ((candidate, before), after) in with(true).iter().zip(before).zip(after) {
            prop_assert!(before || !after, "{:?} goes since checks have failed", candidate);
        }
    }
}
