//! Chooses the tier of a new backup. The choice depends on the good backups in the store, not on the date: a run that
//! failed on the first of the month does not lose the monthly.

use std::collections::HashMap;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::{Policy, Tier};
use crate::repository::backup_id::BackupId;

/// The choice, as questions and answers, because each answer is in a manifest that costs a request: the caller reads
/// only what [`TierChoice::step`] asks for.
///
/// It goes from the longest-kept tier of the policy down to the second-shortest. The backup gets that tier if its
/// calendar period (UTC: the year, the month, the ISO week) has no good backup of that tier or a longer one.
/// Otherwise it gets the shortest-kept tier of the policy: `daily`, if the policy has it.
///
/// In each period the oldest backup is asked first, since the first good one of a period has its tier: a day without
/// changes of policy takes one question per tier.
#[derive(Debug)]
pub struct TierChoice {
    periods: Vec<Period>,
    shortest: Tier,
    /// `None`: not a good backup.
    known: HashMap<BackupId, Option<Tier>>,
}

#[derive(Debug)]
struct Period {
    tier: Tier,
    /// The backups in the period, oldest first.
    ids: Vec<BackupId>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// The caller must pass the tier in this backup's manifest to [`TierChoice::answer`].
    Ask(&'a BackupId),
    Decided(Tier),
}

impl TierChoice {
    /// For a backup whose id has the time `now`, of a database with these finished backups.
    pub fn new<'a>(policy: &Policy, now: Timestamp, finished: impl IntoIterator<Item = &'a BackupId>) -> Self {
        let mut tiers: Vec<Tier> = match policy {
            Policy::Days(_) => vec![Tier::Daily],
            Policy::Tiers(tiers) => tiers.iter().map(|&(tier, _)| tier).collect(),
        };
        tiers.sort_unstable();
        let shortest = tiers.first().copied().unwrap_or(Tier::Daily);
        let mut ids: Vec<&BackupId> = finished.into_iter().collect();
        ids.sort_unstable();
        let periods = tiers
            .into_iter()
            .skip(1)
            .rev()
            .map(|tier| Period {
                tier,
                ids: ids
                    .iter()
                    .filter(|id| period(tier, id.timestamp()) == period(tier, now))
                    .map(|&id| id.clone())
                    .collect(),
            })
            .collect();
        Self {
            periods,
            shortest,
            known: HashMap::new(),
        }
    }

    pub fn step(&self) -> Step<'_> {
        for Period { tier, ids } in &self.periods {
            let mut satisfied = false;
            for id in ids {
                match self.known.get(id) {
                    None => return Step::Ask(id),
                    Some(Some(found)) if found >= tier => {
                        satisfied = true;
                        break;
                    }
                    Some(_) => {}
                }
            }
            if !satisfied {
                return Step::Decided(*tier);
            }
        }
        Step::Decided(self.shortest)
    }

    /// `None`: it is not a good backup, and does not count.
    pub fn answer(&mut self, id: BackupId, tier: Option<Tier>) {
        self.known.insert(id, tier);
    }
}

/// A value that is equal for two backups of the same year, month or week.
fn period(tier: Tier, time: Timestamp) -> (i16, i8) {
    let date: Date = TimeZone::UTC.to_datetime(time).date();
    match tier {
        Tier::Yearly => (date.year(), 0),
        Tier::Monthly => (date.year(), date.month()),
        Tier::Weekly => {
            // The ISO year: the last days of December may belong to week 1 of the next.
            let week = date.iso_week_date();
            (week.year(), week.week())
        }
        // Never needed: if a policy has daily, it is the shortest tier.
        Tier::Daily | Tier::Increment => (date.year(), 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::backup_id::BackupKind;
    use proptest::prelude::*;

    fn id(day: &str) -> BackupId {
        BackupId::next(
            "shop",
            BackupKind::Full,
            format!("{day}T04:00:00Z").parse().unwrap(),
            None,
        )
    }

    /// Runs the dialogue; returns the tier and how many manifests it took.
    fn choose(policy: &Policy, day: &str, store: &[(BackupId, Option<Tier>)]) -> (Tier, usize) {
        let mut choice = TierChoice::new(policy, id(day).timestamp(), store.iter().map(|(id, _)| id));
        let mut asked = 0;
        loop {
            let id = match choice.step() {
                Step::Decided(tier) => return (tier, asked),
                Step::Ask(id) => id.clone(),
            };
            asked += 1;
            let (_, tier) = store.iter().find(|(have, _)| *have == id).unwrap();
            choice.answer(id, *tier);
        }
    }

    fn all_tiers() -> Policy {
        Policy::Tiers(Tier::ALL.map(|tier| (tier, 3)).to_vec())
    }

    /// One backup a day; the days in `failed` have none.
    fn daily_runs(from: &str, days: i64, policy: &Policy, failed: &[&str]) -> Vec<(String, Tier, usize)> {
        let mut store = Vec::new();
        let mut told = Vec::new();
        let mut date: Date = from.parse().unwrap();
        for _ in 0..days {
            let day = date.to_string();
            if !failed.contains(&day.as_str()) {
                let (tier, asked) = choose(policy, &day, &store);
                store.push((id(&day), Some(tier)));
                told.push((day, tier, asked));
            }
            date = date.tomorrow().unwrap();
        }
        told
    }

    #[test]
    fn the_first_backup_of_all_bears_the_longest_tier() {
        assert_eq!(choose(&all_tiers(), "2025-05-14", &[]), (Tier::Yearly, 0));
        assert_eq!(choose(&Policy::Days(30), "2025-05-14", &[]), (Tier::Daily, 0));
    }

    #[test]
    fn each_period_gets_its_tier_once_and_cheaply() {
        // 2025-01-01 is a Wednesday; Mondays are 6, 13, 20, 27; 2025-02-01 is a Saturday.
        let told = daily_runs("2025-01-01", 40, &all_tiers(), &[]);
        let of = |wanted| -> Vec<&str> {
            told.iter()
                .filter(|(_, tier, _)| *tier == wanted)
                .map(|(day, _, _)| day.as_str())
                .collect()
        };
        assert_eq!(of(Tier::Yearly), ["2025-01-01"]);
        assert_eq!(of(Tier::Monthly), ["2025-02-01"]);
        assert_eq!(
            of(Tier::Weekly),
            ["2025-01-06", "2025-01-13", "2025-01-20", "2025-01-27", "2025-02-03"]
        );
        assert!(told.iter().all(|(_, _, asked)| *asked <= 3 + 4), "{told:?}");
        let questions: usize = told.iter().map(|(_, _, asked)| asked).sum();
        assert!(questions <= told.len() * 3, "{questions}");
    }

    #[test]
    fn a_failed_first_of_the_month_does_not_lose_the_monthly() {
        let failed = ["2025-02-01", "2025-02-02", "2025-02-03"];
        let told = daily_runs("2025-01-01", 40, &all_tiers(), &failed);
        let february: Vec<_> = told.iter().filter(|(day, _, _)| day.starts_with("2025-02")).collect();
        assert_eq!((february[0].0.as_str(), february[0].1), ("2025-02-04", Tier::Monthly));
        // It is the first good one of its week as well, and counts as that.
        assert_eq!(february[1].1, Tier::Daily);
    }

    #[test]
    fn a_week_may_span_two_years() {
        let policy = Policy::Tiers(vec![(Tier::Daily, 7), (Tier::Weekly, 4)]);
        // 2024-12-30 (Monday) to 2025-01-05 is week 1 of 2025.
        let store = [(id("2024-12-30"), Some(Tier::Weekly))];
        assert_eq!(choose(&policy, "2025-01-05", &store), (Tier::Daily, 1));
        assert_eq!(choose(&policy, "2025-01-06", &store), (Tier::Weekly, 0));
        assert_eq!(choose(&policy, "2024-12-29", &store), (Tier::Weekly, 0));
        // The same week number a year before is another week.
        let store = [(id("2024-01-03"), Some(Tier::Weekly))];
        assert_eq!(choose(&policy, "2024-12-31", &store), (Tier::Weekly, 0));
    }

    #[test]
    fn broken_backups_count_for_nothing() {
        let store = [(id("2025-01-01"), None), (id("2025-01-02"), Some(Tier::Daily))];
        assert_eq!(choose(&all_tiers(), "2025-01-03", &store), (Tier::Yearly, 2));
    }

    #[test]
    fn a_policy_without_daily_falls_back_to_its_shortest_tier() {
        let policy = Policy::Tiers(vec![(Tier::Weekly, 4), (Tier::Monthly, 12)]);
        let store = [(id("2025-01-01"), Some(Tier::Monthly))];
        assert_eq!(choose(&policy, "2025-01-02", &store).0, Tier::Weekly);
        let only = Policy::Tiers(vec![(Tier::Yearly, 3)]);
        assert_eq!(choose(&only, "2025-01-02", &store), (Tier::Yearly, 0));
    }

    #[test]
    fn a_tier_that_a_new_policy_brings_is_given_at_once() {
        let before = Policy::Days(30);
        let store: Vec<_> = daily_runs("2025-03-01", 5, &before, &[])
            .into_iter()
            .map(|(day, tier, _)| (id(&day), Some(tier)))
            .collect();
        assert_eq!(choose(&all_tiers(), "2025-03-06", &store).0, Tier::Yearly);
    }

    /// The rule itself, with every manifest at hand.
    fn by_definition(policy: &[Tier], now: Timestamp, store: &[(BackupId, Option<Tier>)]) -> Tier {
        for tier in [Tier::Yearly, Tier::Monthly, Tier::Weekly] {
            let there = store.iter().any(|(id, found)| {
                found.is_some_and(|found| found >= tier) && period(tier, id.timestamp()) == period(tier, now)
            });
            if policy.contains(&tier) && !there {
                return tier;
            }
        }
        *policy.iter().min().unwrap()
    }

    proptest! {
        #[test]
        fn the_lazy_choice_equals_the_rule_read_in_full(
            policy in proptest::sample::subsequence(Tier::ALL.to_vec(), 1..=4),
            runs in proptest::collection::btree_map(1_600_000_000_i64..1_700_000_000, proptest::option::of(0_usize..4), 0..30),
            now in 1_600_000_000_i64..1_700_000_000,
        ) {
            let at = |second| Timestamp::from_second(second).unwrap();
            let store: Vec<_> = runs
                .into_iter()
                .map(|(second, tier)| {
                    let id = BackupId::next("shop", BackupKind::Full, at(second), None);
                    (id, tier.map(|tier| Tier::ALL[tier]))
                })
                .collect();
            let expected = by_definition(&policy, at(now), &store);
            let settings = Policy::Tiers(policy.into_iter().map(|tier| (tier, 1)).collect());
            let mut choice = TierChoice::new(&settings, at(now), store.iter().map(|(id, _)| id));
            let mut asked = std::collections::HashSet::new();
            let tier = loop {
                let id = match choice.step() {
                    Step::Decided(tier) => break tier,
                    Step::Ask(id) => id.clone(),
                };
                prop_assert!(asked.insert(id.clone()), "asked twice");
                let tier = store.iter().find(|(have, _)| *have == id).unwrap().1;
                choice.answer(id, tier);
            };
            prop_assert_eq!(tier, expected);
        }
    }
}
