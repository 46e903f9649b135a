use std::collections::BTreeMap;

use jiff::civil::Date;
use proptest::prelude::*;

use super::*;

fn line(text: &str, zone: &str) -> Line {
    Line::parse("FULL_BACKUP_SCHEDULE", text, TimeZone::get(zone).unwrap()).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Every moment from `from` up to `until`.
fn moments(line: &Line, from: &str, until: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut now = at(from);
    while let Some(next) = line.next(now).filter(|next| *next <= at(until)) {
        found.push(next.to_string());
        now = next;
    }
    found
}

#[test]
fn a_daily_line_is_due_once_a_day_also_when_the_clocks_change() {
    // Half past two is skipped in spring and comes twice in autumn; so is or does two o'clock in Lord Howe, by half an hour.
    let zones = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"];
    for zone in zones {
        for text in [
            "30 2 * * *",
            "0 2 * * *",
            "15 1 * * *",
            "45 1 * * *",
            "0 0 * * *",
            "59 23 * * *",
        ] {
            let line = line(text, zone);
            let mut per_day: BTreeMap<Date, u32> = BTreeMap::new();
            let mut now = at("2026-01-01T00:00:00Z");
            while let Some(next) = line.next(now).filter(|next| *next < at("2027-01-01T00:00:00Z")) {
                *per_day
                    .entry(next.to_zoned_datetime(line.zone().clone()).date())
                    .or_default() += 1;
                now = next;
            }
            assert!(per_day.len() >= 364, "{text} in {zone}: {}", per_day.len());
            let wrong: Vec<_> = per_day.iter().filter(|(_, count)| **count != 1).collect();
            assert!(wrong.is_empty(), "{text} in {zone}: {wrong:?}");
        }
    }
}

#[test]
fn a_line_of_every_ten_minutes_goes_on_through_both_changes() {
    let line = line("*/10 * * * *", "Europe/Berlin");
    for (from, until) in [
        ("2026-03-28T23:00:00Z", "2026-03-29T05:00:00Z"),
        ("2026-10-24T22:00:00Z", "2026-10-25T04:00:00Z"),
    ] {
        assert_eq!(moments(&line, from, until).len(), 36);
    }
}

#[test]
fn what_was_missed_is_asked_for_once_and_a_clock_that_steps_back_asks_for_nothing() {
    let line = line("0 * * * *", "UTC");
    let done = at("2026-01-31T04:00:00Z");
    assert_eq!(
        line.due(done, at("2026-01-31T04:30:00Z")),
        Due::Later(Some(at("2026-01-31T05:00:00Z")))
    );
    assert_eq!(
        line.due(done, at("2026-01-31T05:00:00Z")),
        Due::Now(at("2026-01-31T05:00:00Z"))
    );
    assert_eq!(
        line.due(done, at("2026-01-31T05:01:00Z")),
        Due::Now(at("2026-01-31T05:00:00Z"))
    );
    assert_eq!(
        line.due(done, at("2026-01-31T09:30:00Z")),
        Due::Missed(at("2026-01-31T09:00:00Z"))
    );
    let answered = at("2026-01-31T09:00:00Z");
    assert_eq!(
        line.due(answered, at("2026-01-31T09:31:00Z")),
        Due::Later(Some(at("2026-01-31T10:00:00Z")))
    );
    // An hour back.
    assert_eq!(
        line.due(answered, at("2026-01-31T08:31:00Z")),
        Due::Later(Some(at("2026-01-31T10:00:00Z")))
    );
}

#[test]
fn what_is_no_line_of_cron_is_refused_with_the_settings_name() {
    for text in ["", "every day", "61 * * * *", "* * *", "0 0 31 2 * * * *"] {
        let error = Line::parse("CLEANUP_SCHEDULE", text, TimeZone::UTC).unwrap_err();
        assert!(error.message().contains("CLEANUP_SCHEDULE"), "{error}");
    }
    // The older systems' lines have five fields or six.
    for text in ["0 2 * * *", "0 0 2 * * *", "*/15 * * * 1-5", "0 3 * * SUN", "@daily"] {
        Line::parse("FULL_BACKUP_SCHEDULE", text, TimeZone::UTC).unwrap();
    }
    // A day that never comes is never due.
    let never = line("0 0 31 2 *", "UTC");
    assert_eq!(never.next(at("2026-01-31T04:00:00Z")), None);
}

proptest! {
    /// Whatever the clock does within a year, each moment is answered at most once, and a run is asked for whenever one was due.
    #[test]
    fn no_moment_is_answered_twice(steps in prop::collection::vec(-3_600_i64..50_000, 1..200)) {
        let line = line("30 2 * * *", "Europe/Berlin");
        let mut now = at("2026-01-01T00:00:00Z");
        let mut done = now;
        let mut answered = Vec::new();
        for step in steps {
            now += SignedDuration::from_secs(step);
            match line.due(done, now) {
                Due::Now(due) | Due::Missed(due) => {
                    prop_assert!(due <= now && due > done);
                    answered.push(due);
                    done = due;
                }
                Due::Later(next) => prop_assert!(next.is_some_and(|next| next > now)),
            }
        }
        prop_assert!(answered.is_sorted_by(|left, right| left < right));
    }
}
