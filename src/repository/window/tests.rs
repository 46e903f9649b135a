//! The promise of the window, while a bucket's rules remove what has expired.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;
use crate::repository::backup_id::BackupId;
use crate::repository::chain::Run;
use crate::repository::chain::tests::{full, history, link, minute};
use crate::repository::retention::{Policy, Retention, Tag, increments_needed_since, tag_of_increment};

/// In minutes.
const DAY: i64 = 24 * 60;
const HOURS: i64 = 6 * 60;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    /// A full backup each day, an increment every six hours, of which some days have none. The rules act on each object
    /// alone, on the day on which it expires or the next, in any order.
    #[test]
    fn the_rules_never_take_a_moment_of_the_span(
        lags in proptest::collection::vec(any::<bool>(), 200),
        open in proptest::collection::vec(0_u64..40, 40),
        stops in 8_i64..25,
        quiet in proptest::collection::vec(proptest::bool::weighted(0.15), 40),
    ) {
        let retention = Retention::of(Policy::Days(9));
        let days = i64::from(retention.increment_days());
        let mut gone: BTreeSet<BackupId> = BTreeSet::new();
        let mut demoted: BTreeSet<BackupId> = BTreeSet::new();
        for today in 0..35_i64 {
            // Backups stop after some days; the rules do not.
            let last = today.min(stops);
            let fulls = (0..=last).zip(&open).map(|(day, open)| {
                let mut one = full(day * DAY + 20);
                // A transaction that had been running for some minutes.
                one.snapshot.xmin -= (open * 10).min(one.snapshot.xmin);
                one
            });
            let fulls: Vec<_> = fulls.collect();
            // No increment is made on a quiet day; the next one holds its changes. The very last one is made.
            let is_quiet = |day: i64| {
                let on = |day: i64| usize::try_from(day).is_ok_and(|day| quiet[day]);
                on(day) && !on(day - 1)
            };
            let is_made = |at: &i64| *at == 1 || *at == (stops + 1) * 4 || !is_quiet((at - 1) / 4);
            let ends = (1..=(last + 1) * 4).filter(is_made);
            let ends: Vec<i64> = std::iter::once(0).chain(ends.map(|at| at * HOURS)).collect();
            let links: Vec<_> = ends.windows(2).map(|span| link(span[0], span[1])).collect();
            let newest = fulls.last().map(|full| full.id.timestamp());
            let since = increments_needed_since(newest, links.iter().map(|link| link.id.timestamp()));
            demoted.extend(
                links
                    .iter()
                    .filter(|link| tag_of_increment(link.id.timestamp(), since) != Tag::Latest)
                    .map(|link| link.id.clone()),
            );
            let now = minute((today + 1) * DAY);
            let age = |id: &BackupId| now.duration_since(id.timestamp());
            let limit = SignedDuration::from_hours(24 * days);
            for (link, lags) in links.iter().zip(lags.iter().cycle()) {
                let grace = SignedDuration::from_hours(if *lags { 24 } else { 0 });
                if demoted.contains(&link.id) && age(&link.id) > limit + grace {
                    gone.insert(link.id.clone());
                }
            }
            let kept = fulls.into_iter().filter(|full| Some(full.id.timestamp()) == newest || age(&full.id) <= limit);
            let left = links.into_iter().filter(|link| !gone.contains(&link.id));
            let latest = minute(ends[ends.len() - 1]) - SignedDuration::from_micros(1);
            let history = history(left, kept.collect::<Vec<_>>());
            let window = current(&history);
            prop_assert!(window.is_some(), "day {today}: {:?}", history.newest().map(Run::refused));
            let Some(window) = window else { continue };
            prop_assert_eq!(window.latest.time, latest);
            let promised = retention.begins(now).max(minute(21));
            prop_assert!(window.earliest.time <= promised.min(window.latest.time), "day {today}: {window:?}");
        }
        prop_assert!(!demoted.is_empty());
    }
}
