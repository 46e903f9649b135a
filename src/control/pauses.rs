//! The schedules that rest: since when, why, and until when.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::scheduler::Kind;
use crate::error::{Error, Result};

/// No pause is longer. Who needs a longer one takes the line out of the settings.
const LONGEST: SignedDuration = SignedDuration::from_hours(7 * 24);
/// The longest reason, in characters.
const LONGEST_REASON: usize = 500;

/// A schedule that begins nothing until then. What it misses is made up for once, afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Pause {
    pub schedule: Kind,
    pub by: String,
    pub reason: String,
    pub until: Timestamp,
}

impl Pause {
    /// # Errors
    /// `CONFIG` without a reason, or with an end that is past or too far away.
    pub fn new(schedule: Kind, by: &str, reason: &str, until: Timestamp, now: Timestamp) -> Result<Pause> {
        let reason: String = reason
            .chars()
            .filter(|c| !c.is_control())
            .take(LONGEST_REASON)
            .collect();
        let reason = reason.trim().to_owned();
        if reason.is_empty() {
            return Err(
                Error::config("a pause needs a reason").hint("send `reason`: those who look at the status read it")
            );
        }
        if until <= now || until.duration_since(now) > LONGEST {
            return Err(Error::config(format!("a pause until {until} is not possible"))
                .hint("send `until` as a moment (RFC 3339) in the next 7 days"));
        }
        Ok(Pause {
            schedule,
            by: by.to_owned(),
            reason,
            until,
        })
    }
}

/// At most one per schedule.
#[derive(Debug, Default)]
pub(super) struct Pauses(BTreeMap<Kind, Pause>);

impl Pauses {
    pub fn add(&mut self, pause: Pause) {
        self.0.insert(pause.schedule, pause);
    }

    pub fn end(&mut self, schedule: Kind) {
        self.0.remove(&schedule);
    }

    /// The pauses that are not over.
    pub fn at(&self, now: Timestamp) -> Vec<Pause> {
        self.0.values().filter(|pause| pause.until > now).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_has_a_reason_and_an_end_within_a_week() {
        let now: Timestamp = "2026-01-31T04:05:00Z".parse().unwrap();
        let pause =
            |reason: &str, hours| Pause::new(Kind::Full, "ann", reason, now + SignedDuration::from_hours(hours), now);
        assert!(pause("", 1).is_err() && pause(" \n", 1).is_err());
        assert!(pause("the store moves", 0).is_err() && pause("the store moves", 169).is_err());
        let mut pauses = Pauses::default();
        pauses.add(pause("the store\u{1b} moves", 2).unwrap());
        assert_eq!(pauses.at(now)[0].reason, "the store moves");
        assert!(pauses.at(now + SignedDuration::from_hours(2)).is_empty());
        pauses.end(Kind::Full);
        assert!(pauses.at(now).is_empty());
    }
}
